"""The arithmetic behind the checks sees a broken system: each witness' log that must be refused is refused."""

from __future__ import annotations

import json
import math
from hashlib import sha256
from pathlib import Path

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from readiness.checking import tokens
from readiness.checking.exposition import parse
from readiness.checking.history import (
    attempts_on,
    batch_sizes,
    gaps_between,
    held_tokens,
    repeated,
    requests_of,
    window_counts,
)
from readiness.checking.recorder import ClaimEvidence
from readiness.checking.session import RunSession, claim_ids
from readiness.checking.waiting import WaitedTooLong, wait_until
from readiness.errors import HarnessFailure

SECRET = "s" * 40
NOW = 1_800_000_000
CLAIMS = {"sub": "alice", "aud": "ragworker", "iss": "readiness", "iat": NOW - 10, "exp": NOW + 600}


class Pages:
    """A writer that keeps what it is given."""

    def __init__(self) -> None:
        self.records: list[tuple[str, str, dict[str, object]]] = []

    def record(
        self,
        claim: str,
        kind: str,
        data: dict[str, object],
        *,
        fault: str | None = None,
        check: str | None = None,
    ) -> None:
        self.records.append((claim, kind, data))

    def attach(self, claim: str, path: object, *, name: str | None = None) -> None:
        self.records.append((claim, "attachment", {"path": path}))


def arrival(at: float, *, ended: float | None = None, text: str = "x", words: int = 1) -> dict[str, object]:
    """One line of the simulator's log."""
    return {
        "at": at,
        "ended": at if ended is None else ended,
        "inputs": 1,
        "words": words,
        "sha256": [sha256(text.encode()).hexdigest()],
        "status": 200,
        "in_flight": 1,
    }


def test_a_fixed_window_is_caught_at_its_edge() -> None:
    """A limiter that counts per fixed window lets twice its limit through around the edge, and that shows."""
    before_edge = [1.9 + number / 1000 for number in range(20)]
    after_edge = [2.0 + number / 1000 for number in range(20)]
    assert max(window_counts(before_edge, seconds=2.0)) == 20
    assert max(window_counts([*before_edge, *after_edge], seconds=2.0)) == 40


@given(st.lists(st.floats(0, 100), max_size=40), st.floats(0.1, 20))
def test_no_window_is_fuller_than_those_that_begin_with_a_request(times: list[float], seconds: float) -> None:
    """Counting windows from each request finds the fullest one, as trying every pair of requests does."""
    slow = [sum(1 for other in times if start <= other < start + seconds) for start in times]
    assert max(window_counts(times, seconds=seconds), default=0) == max(slow, default=0)


@given(st.integers(0, 500), st.integers(1, 64))
def test_batches_are_full_except_the_last(chunks: int, limit: int) -> None:
    """The expected batches hold every chunk, none is larger than the limit, and only the last may be smaller."""
    sizes = batch_sizes(chunks, limit=limit)
    assert sum(sizes) == chunks
    assert all(size == limit for size in sizes[:-1])
    assert all(0 < size <= limit for size in sizes)


def test_gaps_are_from_the_end_of_an_attempt_to_the_next_arrival() -> None:
    """Only the document's own requests count, in the order of their arrival."""
    log = [
        arrival(2.0, ended=2.1, text="mine"),
        arrival(1.5, text="other"),
        arrival(1.0, ended=1.25, text="mine"),
    ]
    assert gaps_between(attempts_on(requests_of(log), "mine")) == [0.75]


def test_held_tokens_add_up_requests_that_overlap() -> None:
    """Two requests at a time hold the tokens of both, one after the other those of one."""
    log = [arrival(0, ended=2, words=10), arrival(1, ended=3, words=100), arrival(5, words=10)]
    assert held_tokens(requests_of(log)) == [13, 143, 13]


def test_repeated_effects_are_named() -> None:
    """A job with two effects is named with its count; the others are not."""
    assert repeated(["a", "b", "a", "c"]) == {"a": 2}


def test_a_good_token_is_good_and_every_forgery_is_not() -> None:
    """What `good` makes passes a strict verifier, and not one forgery does: no forgery is a token in disguise."""

    def verify(header: str) -> str:
        scheme, _, token = header.partition(" ")
        assert scheme == "Bearer"
        options = {"require": ["exp", "sub", "aud", "iss"], "verify_exp": False, "verify_iat": False}
        claims = jwt.decode(
            token, SECRET, algorithms=["HS256"], audience="ragworker", issuer="readiness", options=options
        )
        # The clock of this test is fixed, so the times are compared here.
        assert isinstance(claims["exp"], int)
        assert claims.get("nbf", 0) <= NOW < claims["exp"]
        assert claims["iat"] <= NOW
        assert claims["sub"].isprintable()
        assert claims["sub"]
        return str(claims["sub"])

    assert verify(f"Bearer {tokens.good(CLAIMS, secret=SECRET)}") == "alice"
    forged = tokens.forgeries(CLAIMS, secret=SECRET, now=NOW)
    assert len(forged) >= 30
    for what, header in forged.items():
        with pytest.raises((AssertionError, jwt.PyJWTError)):
            pytest.fail(f"{what} was accepted as {verify(header)}")


def test_exposition_is_read_as_it_is_written() -> None:
    """Names stay as they are, labels and escapes are read, and a line that is no series is refused by number."""
    scrape = parse(
        "# HELP a_total Sum.\n# TYPE a_total counter\n"
        'a_total{kind="x",why="a \\"b\\""} 3\na_total{kind="y"} 4 1700000000\n'
    )
    assert scrape.types == {"a_total": "counter"}
    assert scrape.total("a_total") == 7
    assert scrape.values("a_total", kind="y") == [4.0]
    with pytest.raises(ValueError, match="metrics line 2"):
        parse("a 1\nno series at all\n")


@pytest.mark.parametrize("counts", [{"n": -1}, {"n": 3, "failures": 4}, {"n": 3, "failures": -1}])
def test_impossible_counts_are_refused(counts: dict[str, int]) -> None:
    """More failures than trials, or fewer than none, never reach the evidence."""
    pages = Pages()
    evidence = ClaimEvidence(pages, claims=["A"], check="t")
    with pytest.raises(ValueError, match="0 <= failures <= n"):
        evidence.trials(**counts)
    assert pages.records == []
    assert evidence.measured == set()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_samples_that_are_no_numbers_are_refused(value: float) -> None:
    """A NaN among the samples would pass every comparison; it is refused instead."""
    with pytest.raises(ValueError, match="finite samples"):
        ClaimEvidence(Pages(), claims=["A"], check="t").samples([1.0, value], "s", "times")


def test_with_several_claims_each_record_names_one() -> None:
    """A check of two claims has to say which one it measured; facts without a name go to both."""
    pages = Pages()
    evidence = ClaimEvidence(pages, claims=["A", "B"], check="t")
    with pytest.raises(ValueError, match="expected claim="):
        evidence.cases(1)
    with pytest.raises(ValueError, match="'C'"):
        evidence.cases(1, claim="C")
    evidence.cases(1, claim="B")
    evidence.facts(seen=1)
    assert [(claim, kind) for claim, kind, _ in pages.records] == [
        ("B", "cases"),
        ("A", "facts"),
        ("B", "facts"),
    ]
    assert evidence.measured == {"B"}


def test_a_wait_ends_at_its_deadline_and_says_what_was_seen() -> None:
    """A fact that never comes fails after the deadline with the last look; one that is there costs no wait."""
    with pytest.raises(WaitedTooLong, match=r"within 0\.05 s: the impossible, last seen: 0"):
        wait_until(lambda: 0, seconds=0.05, what="the impossible")
    assert wait_until(lambda: 7, seconds=0, what="seven") == 7


def test_a_plan_that_cannot_be_read_is_a_harness_failure(tmp_path: Path) -> None:
    """A missing or broken plan.json is told in one sentence that names the file."""
    folder = tmp_path
    with pytest.raises(HarnessFailure, match=r"plan\.json"):
        RunSession.load(folder)
    (folder / "plan.json").write_text(json.dumps({"seed": 7, "knobs": {"kills": 3}}), encoding="utf-8")
    session = RunSession.load(folder)
    assert (session.seed, session.knobs["kills"], session.claims) == (7, 3, None)


def test_claims_are_read_from_both_forms_of_a_profile() -> None:
    """The YAML's mapping and the snapshot's list give the same ids."""
    assert claim_ids({"claims": {"A": {}, "B": {}}}) == claim_ids({"claims": [{"id": "A"}, {"id": "B"}]})
