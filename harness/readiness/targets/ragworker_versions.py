"""The version of ragworker before the present one, taken from the checkout's git, for a rolling upgrade.

Nothing of the checkout is touched: the older tree is written into a folder of the run, and processes find it by
PYTHONPATH. Without git or without history there is none, and the reason is said.
"""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from importlib.util import find_spec
from pathlib import Path

from readiness.targets.base import OlderVersion, TargetError

PACKAGE = "ragworker"
GIT_SECONDS = 20.0


def older_version(folder: Path) -> OlderVersion:
    """The last version whose files differ from the present ones, unpacked into `folder`. TargetError: there is none."""
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise TargetError(f"older version: expected the package {PACKAGE} on the path, found none")
    package = Path(next(iter(spec.submodule_search_locations))).resolve()
    top = Path(_git(package, "rev-parse", "--show-toplevel").decode().strip())
    inside = package.relative_to(top)
    commits = _git(top, "log", "-20", "--format=%H", "--", str(inside)).decode().split()
    present = {path.relative_to(package): path.read_bytes() for path in _sources(package)}
    for commit in commits:
        home = folder / commit[:12]
        _unpack(_git(top, "archive", commit, "--", str(inside)), home)
        old = home / inside
        files = {path.relative_to(old): path.read_bytes() for path in _sources(old)}
        if files != present:
            differing = sum(files.get(name) != content for name, content in present.items())
            search = os.pathsep.join([str(old.parent), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
            return OlderVersion(commit[:12], differing, {"PYTHONPATH": search})
    raise TargetError("older version: expected a commit with other files in the last 20, found none")


def _sources(package: Path) -> list[Path]:
    return sorted(path for path in package.rglob("*") if path.suffix in (".py", ".lua") and path.is_file())


def _unpack(archive: bytes, folder: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")


def _git(folder: Path, *words: str) -> bytes:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, timeout=GIT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TargetError(f"older version: expected git, got: {error}") from None
    if done.returncode:
        told = " ".join(done.stderr.decode(errors="replace").split())[:160]
        raise TargetError(f"older version: expected a git checkout with history, git {words[0]} says: {told}")
    return done.stdout
