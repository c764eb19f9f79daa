"""The rule of the limit, on the script itself with a clock that the test sets: windows, order, refusals."""

from __future__ import annotations

import heapq
import secrets
from dataclasses import dataclass, field
from itertools import count, pairwise
from types import SimpleNamespace
from typing import Any

import fakeredis
import pytest
from fakeredis.commands_mixins import server_mixin
from hypothesis import given, settings
from hypothesis import strategies as st

from ragworker.queue import script_text

PREFIX = "{rag:test}:"
LATE_MS = 250
LONGEST_MS = 600_000


@dataclass
class Script:
    """`limit.lua` on an in-process Redis whose clock the test sets."""

    window_ms: int
    requests: int
    token_limit: int = 0
    now_ms: int = 1_000_000_000
    redis: Any = field(default_factory=fakeredis.FakeRedis)

    def __post_init__(self) -> None:
        self._script = self.redis.register_script(script_text("limit"))

    def run(self, what: str, *args: object) -> list[int]:
        clock = SimpleNamespace(time=lambda: self.now_ms / 1000)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(server_mixin, "time", clock)
            head = (what, self.window_ms, self.requests, LONGEST_MS)
            return list(self._script(keys=[PREFIX], args=[*head, *args]))

    def leave(self, member: str) -> int:
        """Ask for `member`, "<name>:<tokens>": ms to wait, or leave."""
        return int(self.run("leave", member, LATE_MS, self.token_limit)[0])

    def slow(self, *, sent_ms: int = 0, retry_after_ms: int = -1) -> list[int]:
        return self.run("slow", sent_ms, retry_after_ms)

    def state(self, name: str) -> float:
        return float(self.redis.hget(f"{PREFIX}limit:state", name) or 0)

    def flood(self, callers: int, *, until_ms: int) -> list[int]:
        """When each leaves, if `callers` ask at once and each asks again as soon as it has left."""
        names, left = count(), []
        line = [(self.now_ms, next(names)) for _ in range(callers)]
        while line and line[0][0] <= until_ms:
            self.now_ms, name = heapq.heappop(line)
            wait = self.leave(f"{name}:1")
            if wait <= 0:
                left.append(self.now_ms)
                heapq.heappush(line, (self.now_ms + 1, next(names)))
            else:
                heapq.heappush(line, (self.now_ms + wait, name))
        return left


callers = st.lists(
    st.tuples(
        st.integers(0, 400),  # ms after the one before
        st.integers(1, 50),  # tokens
        st.integers(0, 400),  # ms too late at its slot; beyond LATE_MS the slot is lost
        st.sampled_from([None] * 12 + [-1, 0, 700]),  # the API refuses it: Retry-After in ms
    ),
    min_size=1,
    max_size=60,
)


@settings(max_examples=80, deadline=None)
@given(callers, st.integers(1, 8), st.sampled_from([0, 50, 120]))
def test_no_window_holds_more_than_the_limit(
    asking: list[tuple[int, int, int, int | None]], requests: int, token_limit: int
) -> None:
    """For any arrivals, weights, lateness and refusals: all leave, and never too many in a window."""
    script = Script(1000 + LATE_MS, requests, token_limit)
    moments, at = [], script.now_ms
    for number, (step, *_) in enumerate(asking):
        at += step
        moments.append((at, 0, number))
    left: list[tuple[int, int]] = []
    while moments:
        script.now_ms, tries, number = heapq.heappop(moments)
        _, tokens, late, refused = asking[number]
        wait = script.leave(f"{number}:{tokens}")
        assert wait >= -LATE_MS
        if wait > 0:
            # Late at the first slot only: a caller that is always too late never leaves.
            heapq.heappush(moments, (script.now_ms + wait + (0 if tries else late), tries + 1, number))
            continue
        left.append((script.now_ms, tokens))
        if refused is not None:
            script.slow(retry_after_ms=refused)
    assert len(left) == len(asking)
    times = [at for at, _ in left]
    assert all(later - first > 1000 for first, later in zip(times, times[requests:], strict=False))
    for i, (first, _) in enumerate(left if token_limit else []):
        inside = [tokens for at, tokens in left[i:] if at <= first + 1000]
        assert len(inside) == 1 or sum(inside) <= token_limit


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 400), min_size=1, max_size=60), st.integers(1, 8))
def test_a_free_limit_never_delays_and_nobody_is_overtaken(steps: list[int], requests: int) -> None:
    """Who asks when fewer than the limit left in the last window leaves at once; slots are in the order of asking."""
    script, slots = Script(1000, requests), []
    for number, step in enumerate(steps):
        script.now_ms += step
        wait = script.leave(f"{number}:1")
        recent = sum(slot >= script.now_ms - 1000 for slot in slots)
        assert wait == 0 or recent >= requests
        slots.append(script.now_ms + wait)
    assert all(first <= later for first, later in pairwise(slots))


def test_whole_limit_is_used_in_every_window() -> None:
    """Under pressure each window of a minute and its slack lets the whole limit through, spread over ten seconds."""
    script = Script(60_500, 1000)
    start = script.now_ms
    left = script.flood(12, until_ms=start + 3 * 60_500 - 1)
    per_window = [sum(start + k * 60_500 <= at < start + (k + 1) * 60_500 for at in left) for k in range(3)]
    assert per_window == [1000, 1000, 1000]
    assert max(at for at in left if at < start + 60_500) - start < 11_000


def test_bursts_are_bounded() -> None:
    """What a crash of Redis can lose of the log, 2.5 s, never holds more than 15 s worth of the limit."""
    script = Script(60_500, 1000)
    left = script.flood(300, until_ms=script.now_ms + 20_000)
    assert max(sum(at <= other < at + 2500 for other in left) for at in left) == 248


def test_missed_slot_is_exchanged() -> None:
    """Who comes back too late waits again; who comes back in time leaves, however often it asks."""
    script = Script(1000, 1)
    assert script.leave("a:1") == 0
    assert script.leave("b:1") == script.leave("b:1") == 1001
    script.now_ms += 1001 + LATE_MS
    assert script.leave("b:1") == -LATE_MS
    script.now_ms += 1
    assert script.leave("b:1") == 0
    assert script.leave("c:1") == 1001


def test_too_long_a_line_is_told_and_not_joined() -> None:
    """Beyond the longest wait nothing is reserved."""
    script = Script(400_000, 1)
    assert [script.leave(f"{name}:1") for name in "abc"] == [0, 400_001, 800_002]
    assert script.redis.zcard(f"{PREFIX}limit:requests") == 2


def test_clock_that_steps_back_closes_for_one_window() -> None:
    """Redis' clock an hour back: no hour of silence, no second helping either."""
    script = Script(1000, 1)
    script.leave("a:1")
    script.now_ms -= 3_600_000
    assert script.leave("b:1") == 1000


# Refusals of the API: additive increase, multiplicative decrease


def test_refusal_closes_and_one_goes_ahead() -> None:
    """Nothing leaves for the pause; then one, and the others a moment later."""
    script = Script(60_500, 1000)
    assert script.leave("before:1") == 0
    assert script.slow(retry_after_ms=7000) == [500, 7000]
    assert [script.leave(f"{name}:1") for name in "abc"] == [7000, 7250, 7250]


def test_pause_doubles_without_retry_after() -> None:
    """1, 2, 4, 8, 16 s while every probe is refused, and not more; the share is halved down to 1/32."""
    script, pauses, admitted = Script(60_500, 1000), [], []
    for _ in range(7):
        most, pause = script.slow()
        pauses.append(pause)
        admitted.append(most)
        script.now_ms += pause
    assert pauses == [1000, 2000, 4000, 8000, 16000, 16000, 16000]
    assert admitted == [500, 250, 125, 63, 32, 32, 32]


def test_refusals_of_one_crowd_are_one_decrease() -> None:
    """Requests that had left before the decrease do not decrease again; they may close for longer."""
    script = Script(60_500, 1000)
    script.slow()
    script.now_ms += 50
    assert script.slow(sent_ms=60) == [0, 1000]
    assert script.state("share") == 0.5
    assert script.slow(sent_ms=60, retry_after_ms=9000) == [0, 9000]
    assert script.leave("a:1") == 9000
    script.now_ms += 10_000
    assert script.slow(sent_ms=20)[0] > 0


def test_slots_given_before_a_refusal_are_exchanged() -> None:
    """Everybody slows down together, also those who had a slot already."""
    script = Script(1000, 2)
    waits = [script.leave(f"{name}:1") for name in "abcd"]
    assert waits == [0, 0, 1001, 1001]
    script.slow(retry_after_ms=5000)
    script.now_ms += 1001
    assert [script.leave(f"{name}:1") for name in "cd"] == [3999, 4999 + 1]


def test_rate_comes_back_an_eighth_of_the_limit_a_window() -> None:
    """From half to all of it in four windows, and never beyond."""
    script = Script(60_500, 200)
    script.slow(retry_after_ms=0)
    start = script.now_ms
    left = script.flood(12, until_ms=start + 8 * 60_500)
    per_window = [sum(start + k * 60_500 <= at < start + (k + 1) * 60_500 for at in left) for k in range(8)]
    assert 98 <= per_window[0] < per_window[1] < per_window[2] < per_window[3] <= 200
    assert per_window[5:] == [200, 200, 200]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 20_000), st.integers(0, 3000), st.sampled_from([-1, 0, 2500])), max_size=30
    )
)
def test_share_keeps_within_its_bounds(refusals: list[tuple[int, int, int]]) -> None:
    """Whatever is refused when: 1/32 to 1, halved at most, regained by time alone; closed as long as was asked."""
    script, before = Script(3500, 50), 1.0
    for step, sent, retry_after in refusals:
        script.now_ms += step
        script.slow(sent_ms=sent, retry_after_ms=retry_after)
        share = script.state("share")
        assert max(1 / 32, before / 2) - 1e-9 <= share <= min(1, before + step / 8 / 3500) + 1e-9
        assert script.leave(secrets.token_hex(4) + ":1") >= max(0, retry_after)
        before = share
    script.now_ms += 120_000
    wanted = script.flood(60, until_ms=script.now_ms + 3499)
    assert len(wanted) == 50
