"""Ask promtool and amtool, and give their answers per file. Reads no rule itself.

The tools print text for people (promtool 2.42 has no machine format), so one process a file is started: about 40 ms
each, and the exit status then belongs to that file.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from readiness.errors import HarnessFailure

TOOL_SECONDS = 60.0
"""promtool needs 27 s for one test of 10,000 rules (measured); a tool that needs longer hangs."""

MAX_DETAIL_CHARS = 4000
"""As much of a tool's words as a reader takes in; the rest repeats."""


@dataclass(frozen=True, slots=True)
class FileResult:
    """What a tool said about one file; `detail` holds its words, "" when it was content and silent."""

    file: Path
    passed: bool
    detail: str


class ToolMissing(HarnessFailure):
    """The program is not on PATH. What needs it is NOT_RUN."""


def find_tool(name: str) -> Path | None:
    """Where the program is; None when this machine has none."""
    found = shutil.which(name)
    return None if found is None else Path(found)


def promtool_check(paths: Iterable[Path]) -> list[FileResult]:
    """`promtool check rules` on each file. ToolMissing without promtool."""
    return [_ask("promtool", ("check", "rules", "--lint-fatal"), path) for path in paths]


def promtool_test(paths: Iterable[Path]) -> list[FileResult]:
    """`promtool test rules` on each unit test file. ToolMissing without promtool."""
    return [_ask("promtool", ("test", "rules"), path) for path in paths]


def amtool_check(config: Path) -> FileResult:
    """`amtool check-config` on an Alertmanager configuration. ToolMissing without amtool."""
    return _ask("amtool", ("check-config",), config)


def _ask(tool: str, verb: Sequence[str], file: Path) -> FileResult:
    program = find_tool(tool)
    if program is None:
        raise ToolMissing(f"{tool}: expected the program on PATH, found none; see `readiness doctor`")
    try:
        done = subprocess.run(
            [str(program), *verb, str(file)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TOOL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return FileResult(file, False, f"{tool} gave no answer within {TOOL_SECONDS:g} s")
    words = (done.stdout + b"\n" + done.stderr).decode("utf-8", "replace").strip()
    return FileResult(file, done.returncode == 0, "" if done.returncode == 0 else words[:MAX_DETAIL_CHARS])
