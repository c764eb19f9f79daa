"""The house rules that a machine can hold: who may import whom, how long a module is, what no file may name."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
TARGET_ADAPTER = Path("harness/readiness/targets/ragworker.py")
MODULE_LINES_MAX = 400
# Written in two halves, so that this file does not name what no file may name.
REGISTRY_HOSTS = ("py" + "pi.org", "python" + "hosted.org", "npm" + "js.org", "npm" + "js.com")
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "manager", "common", "misc"}
CODE_ROOMS = ("system", "harness", "checks", "loadtests", "dashboards", "rules", "tests", "bench")


def tracked_files() -> list[Path]:
    """The files of the checkout that git knows or would take, relative to its top."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=REPOSITORY,
        capture_output=True,
        timeout=30,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout: the files of the repository cannot be listed")
    names = [Path(name) for name in listed.stdout.decode().split("\0") if name]
    return [name for name in names if (REPOSITORY / name).is_file()]


def python_files(*rooms: str) -> list[Path]:
    """Tracked Python files below the named rooms."""
    return [
        name for name in tracked_files() if name.suffix == ".py" and name.parts[0] in (rooms or CODE_ROOMS)
    ]


def imported_packages(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and top-level package of every import in a file, also of imports inside functions."""
    for node in ast.walk(ast.parse((REPOSITORY / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name.split(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.lineno, node.module.split(".")[0]


def offenders(files: list[Path], package: str) -> list[str]:
    """The places in ``files`` that import ``package``."""
    return [
        f"{path}:{line}"
        for path in files
        for line, imported in imported_packages(path)
        if imported == package
    ]


def test_the_harness_knows_the_system_only_through_its_target_adapter() -> None:
    """No module of harness/ imports ragworker, except the one target adapter."""
    harness = [path for path in python_files("harness") if path != TARGET_ADAPTER]
    assert harness, "no module of the harness was found: this test would prove nothing"
    assert offenders(harness, "ragworker") == []


def test_the_system_knows_nothing_of_the_harness() -> None:
    """No module of system/ imports readiness."""
    system = python_files("system")
    assert system, "no module of the system was found: this test would prove nothing"
    assert offenders(system, "readiness") == []


def test_checks_and_load_tests_use_the_harness_only() -> None:
    """checks/ and loadtests/ examine any target: they import readiness, never ragworker."""
    content = python_files("checks", "loadtests")
    assert content, "no check was found: this test would prove nothing"
    assert offenders(content, "ragworker") == []


def test_an_import_inside_a_function_is_seen(tmp_path: Path) -> None:
    """The import finder also sees imports that hide in a function."""
    hidden = tmp_path / "hidden.py"
    hidden.write_text(
        "def f():\n    import ragworker.queue\n    from ragworker import job\n", encoding="utf-8"
    )
    assert [package for _, package in imported_packages(hidden)] == ["ragworker", "ragworker"]


def test_modules_stay_readable() -> None:
    """No Python module is above about 400 lines."""
    long = {
        str(path): lines
        for path in python_files()
        if (lines := len((REPOSITORY / path).read_text(encoding="utf-8").splitlines())) > MODULE_LINES_MAX
    }
    assert long == {}


def test_no_module_has_a_vague_name() -> None:
    """No module or folder is called utils, helpers, manager or common."""
    vague = [str(path) for path in python_files() if VAGUE_NAMES & {*path.parts[:-1], path.stem}]
    assert vague == []


def test_no_file_names_a_package_registry() -> None:
    """No tracked text file names a package registry's host: the client's own configuration decides."""
    found = []
    for path in tracked_files():
        content = (REPOSITORY / path).read_bytes()
        if b"\0" not in content:
            found += [f"{path} names {host}" for host in REGISTRY_HOSTS if host.encode() in content]
    assert found == []


def test_the_lock_is_hashed_and_names_no_index() -> None:
    """Every requirement of the lock is pinned with a hash, and no option line points to an index."""
    text = (REPOSITORY / "requirements.txt").read_text(encoding="utf-8")
    entries = re.split(r"\n(?=\S)", text.strip())
    assert len(entries) > 50
    unpinned = [
        entry.splitlines()[0] for entry in entries if "==" not in entry or "--hash=sha256:" not in entry
    ]
    assert unpinned == []


def test_every_lint_ignore_has_its_reason_on_the_line() -> None:
    """Each noqa and each type: ignore says why, on the same line."""
    bare = []
    pattern = re.compile(r"#\s*(noqa(?::\s*[A-Z0-9, ]+)?|type:\s*ignore(?:\[[^\]]*\])?)(?P<rest>.*)$")
    for path in python_files():
        for number, line in enumerate((REPOSITORY / path).read_text(encoding="utf-8").splitlines(), start=1):
            match = pattern.search(line)
            if match and path.name != Path(__file__).name and not re.search(r"[A-Za-z]{3,}", match["rest"]):
                bare.append(f"{path}:{number}: {line.strip()}")
    assert bare == []


def test_the_tour_names_every_module() -> None:
    """ARCHITECTURE.md names each module of both packages, by its path inside the package."""
    tour = (REPOSITORY / "ARCHITECTURE.md").read_text(encoding="utf-8")
    modules = [
        path.relative_to(*path.parts[:1]).relative_to(path.parts[1])
        for path in python_files("harness", "system")
        if path.name != "__init__.py"
    ]
    assert len(modules) > 50
    assert [str(module) for module in modules if f"`{module.as_posix()}`" not in tour] == []
