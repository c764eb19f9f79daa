"""The peers' environments: bench/.venv-<name>, made from the hashed bench/requirements-<name>.txt.

They are apart from the repository's own because arq needs redis-py below 6 and taskiq-redis a set of its own.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from readiness.errors import BadInput, HarnessFailure

ROOM = Path(__file__).resolve().parent
INSTALL_SECONDS = 600.0


def python_of(environment: str) -> str:
    """The interpreter of an environment; of "" it is this one."""
    return str(_folder(environment) / "bin" / "python") if environment else sys.executable


def require(environments: Iterable[str], *, install: bool) -> None:
    """Make sure that all are there and current. BadInput when not and `install` is off; HarnessFailure if pip fails."""
    missing = [name for name in sorted({*environments} - {""}) if not _current(name)]
    if missing and not install:
        raise BadInput(
            f"expected the peers' environments {', '.join(map(str, map(_shown, missing)))}, found none that is "
            "current. `make bench` makes them; or choose what needs none: --only ours"
        )
    for name in missing:
        _install(name)


def _install(name: str) -> None:
    print(f"installing {_shown(name)} (once) ...", file=sys.stderr, flush=True)
    pip = [
        python_of(name),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-cache-dir",
        "--disable-pip-version-check",
    ]
    steps = (
        [sys.executable, "-m", "venv", "--clear", str(_folder(name))],
        [*pip, "--require-hashes", "-r", str(_lock(name))],
    )
    for step in steps:
        try:
            done = subprocess.run(step, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise HarnessFailure(f"{_shown(name)}: not installed within {INSTALL_SECONDS:g} s") from None
        if done.returncode != 0:
            said = " | ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
            raise HarnessFailure(f"{_shown(name)}: {step[2]} ended with {done.returncode}: {said}")
    _stamp(name).write_text(_digest(name), encoding="utf-8")


def _current(name: str) -> bool:
    return _stamp(name).is_file() and _stamp(name).read_text(encoding="utf-8") == _digest(name)


def _digest(name: str) -> str:
    return hashlib.sha256(_lock(name).read_bytes()).hexdigest()


def _lock(name: str) -> Path:
    return ROOM / f"requirements-{name}.txt"


def _folder(name: str) -> Path:
    return ROOM / f".venv-{name}"


def _stamp(name: str) -> Path:
    return _folder(name) / ".installed"


def _shown(name: str) -> str:
    return f"bench/.venv-{name}"
