"""Tell the person what a run is doing: a live line a step on a terminal, a plain log line elsewhere.

Everything goes to stderr; stdout is kept for the result. Knows nothing of what the steps do.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

# The clock on a terminal is redrawn this often; more would only cost CPU that the measurement wants.
REFRESH_PER_SECOND = 4

_MARKS = {
    "passed": ("✓", "ok", "green"),
    "failed": ("✗", "FAILED", "red"),
    "error": ("!", "ERROR", "red"),
    "open": ("○", "open", "yellow"),
}


@dataclass(frozen=True, slots=True)
class StepTime:
    """A finished step: its name, how long it took in seconds, and how it ended."""

    name: str
    seconds: float
    status: str


class Progress:
    """Step clocks and notes on stderr. Use as a context manager; safe to call from reader threads."""

    def __init__(self, *, console: Console | None = None, quiet: bool = False) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._quiet = quiet
        self._live: Live | None = None
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._step: str | None = None
        self._step_began = 0.0
        self._waiting = ""
        self.steps: list[StepTime] = []

    def __enter__(self) -> Self:
        if self._console.is_terminal and not self._quiet:
            self._live = Live(
                get_renderable=self._line,
                console=self._console,
                refresh_per_second=REFRESH_PER_SECOND,
                transient=True,
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    @property
    def elapsed_seconds(self) -> float:
        """Seconds since this object was made."""
        return time.monotonic() - self._began

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time one step; an exception that leaves it marks it as failed and goes on."""
        self._step, self._step_began, self._waiting = name, time.monotonic(), ""
        if self._live is None:
            self._print(Text.assemble((f"{self._clock()}  ", "dim"), (name, "bold"), " ..."))
        status = "failed"
        try:
            yield
            status = "passed"
        finally:
            seconds = time.monotonic() - self._step_began
            self.steps.append(StepTime(name=name, seconds=round(seconds, 3), status=status))
            self._step = None
            self.mark(status, f"{name} ", detail=f"{seconds:.1f} s")

    def waiting(self, what: str) -> None:
        """Say what the running step is waiting for. Plain logs get a line only when it changes."""
        if what != self._waiting:
            self._waiting = what
            if self._live is None:
                self.note(what)

    def note(self, text: str) -> None:
        """One line of plain information under the running step."""
        self._print(Text.assemble((f"{self._clock()}    ", "dim"), text))

    def mark(self, kind: str, text: str, *, detail: str = "") -> None:
        """One line with an icon and a word for ``kind`` (passed, failed, error, open)."""
        icon, word, colour = _MARKS.get(kind, _MARKS["open"])
        shown = icon if _prints(icon, self._console.encoding) else word
        self._print(
            Text.assemble((f"{self._clock()}  ", "dim"), (f"{shown} ", colour), text, (f"  {detail}", "dim"))
        )

    def _print(self, text: Text) -> None:
        if self._quiet:
            return
        with self._lock:
            self._console.print(text, soft_wrap=True)

    def _clock(self) -> str:
        seconds = int(self.elapsed_seconds)
        return f"{seconds // 60:02d}:{seconds % 60:02d}"

    def _line(self) -> Text:
        if self._step is None:
            return Text("")
        seconds = time.monotonic() - self._step_began
        return Text.assemble(
            (f"{self._clock()}  ", "dim"),
            (f"{self._step} ", "bold cyan"),
            (f"{seconds:4.0f} s  ", "dim"),
            (self._waiting, ""),
            no_wrap=True,
            overflow="ellipsis",
        )


def _prints(text: str, encoding: str | None) -> bool:
    try:
        text.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
