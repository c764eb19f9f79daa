"""An interrupt is answered wherever it strikes, also where Python swallows exceptions."""

from __future__ import annotations

import os
import signal
import time

import pytest

from readiness.cli import interrupts
from readiness.errors import Interrupted


class Swallower:
    """Raises a signal inside its destructor, where Python ignores exceptions."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)  # the handler runs in here


def test_a_swallowed_interrupt_is_asked_again_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    """An interrupt that was lost in a destructor comes again within a moment, and no traceback is shown of it."""
    with interrupts.answered("run"):
        interrupts.in_order()
        held = [Swallower()]
        began = time.monotonic()
        with pytest.raises(Interrupted):
            drop_and_wait(held)
        interrupts.heard()
    assert time.monotonic() - began < interrupts.HEARD_WITHIN_SECONDS / 2
    assert "Traceback" not in capsys.readouterr().err


def drop_and_wait(held: list[Swallower]) -> None:
    """Let the destructor run, then wait for what it lost."""
    held.clear()
    time.sleep(10)


def test_what_was_heard_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """An orderly end is not broken by the same interrupt once more, nor by an impatient second one."""
    monkeypatch.setattr(interrupts, "HEARD_WITHIN_SECONDS", 0.1)
    with interrupts.answered("run"):
        interrupts.in_order()
        with pytest.raises(Interrupted):
            ask_to_end()
        interrupts.heard()
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.3)  # the time in which it would be asked again


def ask_to_end() -> None:
    """SIGTERM to this process, and time for its handler."""
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)


def test_handlers_of_before_come_back() -> None:
    """Outside of the block signals are answered as before, and no timer is left."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)]
    with interrupts.answered("report"):
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)] == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
