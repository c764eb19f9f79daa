"""Arithmetic over what outside witnesses saw: the simulator's true log, the commit log, lists of times.

Pure: takes values, returns values. Every figure here is counted from the witness' record, never from the
target's own counters.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from typing import Any


@dataclass(frozen=True, slots=True)
class Request:
    """One embedding request as the simulator saw it. ``at`` and ``ended`` are seconds on its monotonic
    clock.
    """

    at: float
    ended: float
    inputs: int
    words: int
    digests: tuple[str, ...]
    status: int
    in_flight: int

    @property
    def tokens(self) -> int:
        """Estimated tokens (words x 1.3, rounded up over the request)."""
        return (self.words * 13 + 9) // 10


def requests_of(log: Iterable[Mapping[str, Any]]) -> list[Request]:
    """Read the simulator's true log, in order of arrival."""
    found = [
        Request(
            at=float(entry["at"]),
            ended=float(entry.get("ended") or entry["at"]),
            inputs=int(entry["inputs"]),
            words=int(entry["words"]),
            digests=tuple(entry["sha256"]),
            status=int(entry["status"] or 0),
            in_flight=int(entry["in_flight"]),
        )
        for entry in log
    ]
    return sorted(found, key=lambda request: request.at)


def digest_of(text: str) -> str:
    """The digest under which the simulator logs an input."""
    return sha256(text.encode("utf-8")).hexdigest()


def attempts_on(requests: Sequence[Request], text: str) -> list[Request]:
    """The requests that carried ``text`` as an input, in order: the true attempts on a document of one
    chunk.
    """
    digest = digest_of(text)
    return [request for request in requests if digest in request.digests]


def gaps_between(attempts: Sequence[Request]) -> list[float]:
    """Seconds from the end of each attempt to the arrival of the next one."""
    return [later.at - earlier.ended for earlier, later in pairwise(attempts)]


def window_counts(times: Sequence[float], *, seconds: float) -> list[int]:
    """For each time: how many lie in the half-open window of ``seconds`` that begins with it.

    Every fullest sliding window begins with an event, so the maximum of these is the maximum over all
    windows.
    """
    ordered = sorted(times)
    return [bisect_left(ordered, start + seconds) - index for index, start in enumerate(ordered)]


def repeated(job_ids: Iterable[str]) -> dict[str, int]:
    """The ids that occur more than once, with how often."""
    return {job: count for job, count in Counter(job_ids).items() if count > 1}


def batch_sizes(chunks: int, *, limit: int) -> list[int]:
    """The sizes that a document of ``chunks`` chunks must be embedded in: min(limit, remaining) each time."""
    full, rest = divmod(chunks, limit)
    return [limit] * full + ([rest] if rest else [])


def held_tokens(requests: Sequence[Request]) -> list[int]:
    """Tokens of all requests in flight at each arrival, the arriving one included."""
    return [
        sum(other.tokens for other in requests if other.at <= request.at < other.ended)
        or request.tokens  # a request that ended in the same instant still held its own
        for request in requests
    ]
