"""Decide what to do with a failed job. Knows no Redis and no clock; error codes come from `errors.py`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from ragworker.errors import ErrorCode, Policy

#: No delay of the table is longer (spec C1): 1, 5, 25, 125 s.
LONGEST_DELAY_SECONDS: Final = 125.0

#: Each delay is five times the one before (spec C1).
GROWTH: Final = 5

#: Beyond this an API's Retry-After is taken for a mistake: a job must not sleep for days on one header.
LONGEST_RETRY_AFTER_SECONDS: Final = 3600.0

#: 5 to this power times the smallest positive float is more than the longest delay: powers stay small.
_EXPONENT_LIMIT: Final = 500


@dataclass(frozen=True, slots=True)
class Decision:
    """Retry after `delay_seconds`, or, when `retry` is false, give the job to the dead-letter queue."""

    retry: bool
    delay_seconds: float = 0.0

    @property
    def delay_ms(self) -> int:
        """The delay in whole ms, as Redis keeps it."""
        return round(self.delay_seconds * 1000)


def calculate_retry_delay(retry: int, *, base: float = 1.0) -> float:
    """Seconds before retry number `retry` (1 for the first): min(base x 5^(retry-1), 125), rounded once.

    ValueError when `retry` is not a positive integer or `base` not a positive finite number.
    """
    if isinstance(retry, bool) or not isinstance(retry, int) or retry < 1:
        raise ValueError(f"retry: expected an integer from 1 up, got: {retry!r}")
    if isinstance(base, bool) or not isinstance(base, int | float) or not 0 < base < math.inf:
        raise ValueError(f"base: expected a positive number of seconds, got: {base!r}")
    # Fractions, because 0.1 * 5 * 5 * 5 rounds three times and a float power overflows.
    exact = Fraction(base) * GROWTH ** min(retry - 1, _EXPONENT_LIMIT)
    return float(min(exact, Fraction(LONGEST_DELAY_SECONDS)))


def decide(
    code: ErrorCode,
    *,
    attempt: int,
    max_retries: int,
    base_seconds: float = 1.0,
    retry_after_seconds: float | None = None,
) -> Decision:
    """What follows the failure of attempt number `attempt` (1 for the first) with `code`.

    An attempt is followed by retry number `attempt`, so `max_retries` retries allow max_retries + 1 attempts.
    """
    if code.policy is Policy.NO_RETRY or attempt > max_retries:
        return Decision(retry=False)
    wish = retry_after_seconds
    if code.policy is Policy.DELAYED_RETRY and wish is not None and 0 <= wish < math.inf:
        return Decision(retry=True, delay_seconds=min(wish, LONGEST_RETRY_AFTER_SECONDS))
    return Decision(retry=True, delay_seconds=calculate_retry_delay(attempt, base=base_seconds))


def retry_table(*, max_retries: int, base_seconds: float = 1.0) -> tuple[float, ...]:
    """The delays in seconds before each retry, first to last."""
    return tuple(calculate_retry_delay(retry, base=base_seconds) for retry in range(1, max_retries + 1))
