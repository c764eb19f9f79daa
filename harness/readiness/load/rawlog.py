"""The raw log of a load run: one JSON object a line, written by the generator, read by the step.

Line kinds: `start` (plan, clocks), `request`, `job`, `stream`, `dropped` (an arrival that the generator did
not start), `tick` (how late the generator itself was, and its CPU time), `stop` (totals; only an orderly
end writes it). Times named `at` are seconds of the generator's monotonic clock, `wall` seconds since the
epoch. What the lines mean is left to figures.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
Line: TypeAlias = dict[str, JsonValue]

MAX_LINES = 500_000
"""About 80 MB. Lines beyond are counted, not written, and the run is not judged."""


class RawLog:
    """Appends lines to a file; without a path it only counts. Not safe for threads: greenlets share one
    thread.
    """

    def __init__(self, path: Path | None, *, max_lines: int = MAX_LINES) -> None:
        self._file = path.open("a", encoding="utf-8") if path else None
        self._max_lines = max_lines
        self.written = 0
        self.cut = 0

    def write(self, kind: str, fields: Mapping[str, object]) -> None:
        """Append one line; beyond the bound only count it."""
        if self.written >= self._max_lines and kind != "stop":
            self.cut += 1
            return
        self.written += 1
        if self._file:
            self._file.write(json.dumps({"kind": kind, **fields}, separators=(",", ":")) + "\n")

    def flush(self) -> None:
        """Hand what is buffered to the file, so that a watcher sees it."""
        if self._file:
            self._file.flush()

    def close(self) -> None:
        """End the file. Doing it twice is harmless."""
        if self._file:
            self._file.close()
            self._file = None


class LogTail:
    """Reads a growing log: each call of `new_lines` gives the whole lines that came in since the last."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def new_lines(self) -> list[Line]:
        """The new lines; empty while there is no file."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                block = file.read()
        except FileNotFoundError:
            return []
        end = block.rfind(b"\n") + 1
        self._offset += end
        return list(parse_lines(block[:end]))


def parse_lines(block: bytes) -> Iterator[Line]:
    """The objects of a block of lines; what is no JSON object is left out (a torn last line of a killed
    process).
    """
    for raw in block.splitlines():
        try:
            line = json.loads(raw)
        except ValueError:
            continue
        if isinstance(line, dict):
            yield line
