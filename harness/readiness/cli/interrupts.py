"""Ctrl-C and SIGTERM: at once while nothing was started, in order afterwards, and never lost.

An exception that a signal handler raises inside a destructor or a weak reference's callback is swallowed by Python
(seen while modules were imported). So as long as a verb has started nothing, the handler ends the process itself;
once it has, the handler raises Interrupted, and asks again at once when Python says that it swallowed that.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from readiness.errors import Interrupted

STATUS: Final = 3
NOTHING_LEFT: Final = "interrupted; everything that was started has been ended"

HEARD_WITHIN_SECONDS: Final = 8.0
"""An orderly end takes at most about 5 s (3 s of grace, then SIGKILL); after this the interrupt was swallowed."""

AGAIN_SECONDS: Final = 0.05
"""A swallowed interrupt is raised anew this much later: outside of the callback that it met."""

_ASKED: Final = (signal.SIGINT, signal.SIGTERM)


class _Answer:
    """How the next interrupt is answered."""

    verb = ""
    in_order = False


@contextmanager
def answered(verb: str) -> Iterator[None]:
    """Answer interrupts for the time of the block; what was set up before comes back afterwards."""
    _Answer.verb, _Answer.in_order = verb, False
    before = [(number, signal.signal(number, _interrupt)) for number in (*_ASKED, signal.SIGALRM)]
    hook, sys.unraisablehook = sys.unraisablehook, _swallowed
    try:
        yield
    finally:
        heard()
        sys.unraisablehook = hook
        for number, handler in before:
            signal.signal(number, handler)


def in_order() -> None:
    """From here on something may be running: an interrupt is an exception that unwinds and ends it."""
    _Answer.in_order = True


def heard() -> None:
    """The interrupt arrived where it is answered: it need not be asked again."""
    signal.setitimer(signal.ITIMER_REAL, 0)


def _interrupt(number: int, frame: FrameType | None) -> None:
    # A second signal must not break the orderly end that the first one began.
    for asked in _ASKED:
        signal.signal(asked, signal.SIG_IGN)
    if not _Answer.in_order:
        name = f"readiness {_Answer.verb}" if _Answer.verb else "readiness"
        os.write(sys.stderr.fileno(), f"{name}: {NOTHING_LEFT}\n".encode())
        os._exit(STATUS)
    signal.setitimer(signal.ITIMER_REAL, HEARD_WITHIN_SECONDS)
    raise Interrupted


def _swallowed(unraisable: sys.UnraisableHookArgs) -> None:
    """Python could not raise what happened in a callback: an interrupt is asked again, the rest is shown as ever."""
    if issubclass(unraisable.exc_type, Interrupted):
        signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)
    else:
        sys.__unraisablehook__(unraisable)
