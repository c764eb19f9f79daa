"""Wait for a fact with a deadline. Leaves to the caller what the fact is and how it is observed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_SECONDS = 0.05  # short against every delay that a check measures, long against the cost of one look


class WaitedTooLong(AssertionError):
    """The awaited fact did not come true in time. The message names it, the deadline and what was last
    seen.
    """


def wait_until(look: Callable[[], T], *, seconds: float, what: str, every_seconds: float = POLL_SECONDS) -> T:
    """Call ``look`` until it answers something true, and return that answer; raise WaitedTooLong after
    ``seconds``.
    """
    deadline = time.monotonic() + seconds
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() >= deadline:
            raise WaitedTooLong(f"expected within {seconds:g} s: {what}, last seen: {seen!r}")
        time.sleep(min(every_seconds, max(deadline - time.monotonic(), 0)))
