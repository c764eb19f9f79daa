"""Retry table, error codes, chunking, settings and states: values and arithmetic."""

from __future__ import annotations

import math
import os
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragworker.chunking import ChunkPlan, batches
from ragworker.errors import (
    POLICIES,
    ErrorCode,
    Policy,
)
from ragworker.job import TRANSITIONS, JobState, job_id_for
from ragworker.retry import calculate_retry_delay, decide, retry_table
from ragworker.settings import FlagSource, Settings, SettingsError, parse_flag, read_env_file


def test_retry_delays_are_the_specified_ones() -> None:
    """1, 5, 25, 125 s exactly, and never more (spec C1)."""
    assert retry_table(max_retries=6) == (1.0, 5.0, 25.0, 125.0, 125.0, 125.0)
    assert retry_table(max_retries=4, base_seconds=0.1) == (0.1, 0.5, 2.5, 12.5)


@given(st.integers(1, 10_000), st.floats(min_value=5e-324, max_value=1e308) | st.integers(1, 10**400))
def test_retry_delay_is_the_formula_rounded_once(retry: int, base: float) -> None:
    """min(base x 5^(retry-1), 125) in exact arithmetic, for every retry and base."""
    exact = min(Fraction(base) * 5 ** min(retry - 1, 2000), Fraction(125))
    assert calculate_retry_delay(retry, base=base) == float(exact)


@given(st.integers(5, 10**30), st.floats(1, 125))
def test_retry_delay_is_capped_beyond_the_fourth(retry: int, base: float) -> None:
    """Whatever comes after retry 4 waits 125 s; a larger base never waits less, and 125 s is the most."""
    assert calculate_retry_delay(retry) == calculate_retry_delay(retry, base=base) == 125.0
    delays = [calculate_retry_delay(number, base=base) for number in range(1, 6)]
    assert delays == sorted(delays)
    assert all(calculate_retry_delay(number) <= delay <= 125 for number, delay in enumerate(delays, 1))


nonsense = (
    st.integers(max_value=0)
    | st.sampled_from([True, False, None, "1", b"1", math.nan, math.inf, -math.inf])
    | st.text(max_size=5)
    | st.floats(max_value=0)
    | st.lists(st.integers(), max_size=2)
)


@given(nonsense | st.floats())
def test_retry_number_must_be_a_positive_integer(retry: object) -> None:
    """Anything else is a ValueError that names what was expected and what came."""
    with pytest.raises(ValueError, match="retry: expected an integer from 1 up, got: ") as caught:
        calculate_retry_delay(retry)
    assert str(caught.value).endswith(repr(retry))


@given(nonsense)
def test_retry_base_must_be_a_positive_number(base: object) -> None:
    """Anything else is a ValueError that names what was expected and what came."""
    with pytest.raises(ValueError, match="base: expected a positive number of seconds, got: ") as caught:
        calculate_retry_delay(1, base=base)
    assert str(caught.value).endswith(repr(base))


def test_there_are_nineteen_codes_with_one_policy_each() -> None:
    """Every code has a policy; the three given ones are as given (spec C4)."""
    assert len(ErrorCode) == 19
    assert set(POLICIES) == set(ErrorCode)
    assert POLICIES[ErrorCode.TEMPORARY_FAILURE] is Policy.EXPONENTIAL_BACKOFF
    assert POLICIES[ErrorCode.RATE_LIMITED] is Policy.DELAYED_RETRY
    assert POLICIES[ErrorCode.VALIDATION_ERROR] is Policy.NO_RETRY


@pytest.mark.parametrize("code", list(ErrorCode))
def test_no_code_is_retried_more_often_than_allowed(code: ErrorCode) -> None:
    """At most four retries whatever the code (spec C2); NO_RETRY none."""
    retries = [attempt for attempt in range(1, 50) if decide(code, attempt=attempt, max_retries=4).retry]
    assert retries == ([] if POLICIES[code] is Policy.NO_RETRY else [1, 2, 3, 4])


def test_retry_after_is_honoured_where_the_policy_says_so() -> None:
    """RATE_LIMITED waits as told, within bounds; other codes keep to the table; nonsense is ignored."""

    def delay(code: ErrorCode, wish: float | None) -> float:
        return decide(code, attempt=2, max_retries=4, retry_after_seconds=wish).delay_seconds

    assert delay(ErrorCode.RATE_LIMITED, 7.5) == 7.5
    assert delay(ErrorCode.RATE_LIMITED, None) == 5.0
    assert delay(ErrorCode.RATE_LIMITED, 1e9) == 3600.0
    assert delay(ErrorCode.RATE_LIMITED, -1.0) == delay(ErrorCode.RATE_LIMITED, math.nan) == 5.0
    assert delay(ErrorCode.EMBEDDING_TIMEOUT, 7.5) == 5.0


@given(st.integers(0, 3000), st.integers(1, 200), st.data())
def test_chunks_follow_the_public_rule(words: int, size: int, data: st.DataObject) -> None:
    """Chunk k covers [k*step, k*step+size), the last one reaches the last word; counts and tokens agree."""
    overlap = data.draw(st.integers(0, size - 1))
    plan = ChunkPlan(words=size, overlap=overlap)
    text = [str(number) for number in range(words)]
    chunks = list(plan.cut(iter(text)))
    step = size - overlap
    assert [chunk.text.split() for chunk in chunks] == [
        text[k * step : k * step + size] for k in range(len(chunks))
    ]
    assert [chunk.ordinal for chunk in chunks] == list(range(len(chunks))) == list(range(plan.count(words)))
    if words:
        assert chunks[-1].text.split()[-1] == text[-1]
        assert all(chunk.text.split()[-1] != text[-1] for chunk in chunks[:-1])
    assert [chunk.tokens for chunk in chunks] == [
        math.ceil(Fraction(13, 10) * len(c.text.split())) for c in chunks
    ]
    assert plan.document_tokens(words) == sum(chunk.tokens for chunk in chunks)


def test_default_chunk_counts_are_the_published_ones() -> None:
    """1 up to 180 words, then ceil((n-30)/150)."""
    counts = {n: ChunkPlan().count(n) for n in (0, 1, 180, 181, 330, 331, 480, 481)}
    assert counts == {0: 0, 1: 1, 180: 1, 181: 2, 330: 2, 331: 3, 480: 3, 481: 4}
    assert (batches(64, size=32), batches(65, size=32), batches(1, size=32)) == (2, 3, 1)


def test_job_ids_name_the_work() -> None:
    """The same user and key give the same id; another user, key or queue another one."""
    ids = {job_id_for(queue=q, user_id=u, key=k) for q in "ab" for u in "ab" for k in "ab"}
    assert len(ids) == 8
    assert job_id_for(queue="a", user_id="b", key="c") == job_id_for(queue="a", user_id="b", key="c")


def test_terminal_states_are_left_only_by_requeue_and_rollback() -> None:
    """Cancelled is final; dead may be queued again, and done undone within its window."""
    assert {state for state in JobState if state.terminal} == {
        JobState.DONE,
        JobState.DEAD,
        JobState.CANCELLED,
    }
    assert TRANSITIONS[JobState.DONE] == {JobState.CANCELLED}
    assert TRANSITIONS[JobState.CANCELLED] == frozenset()
    assert TRANSITIONS[JobState.DEAD] == {JobState.QUEUED}


@pytest.mark.parametrize(
    ("text", "durable", "warns"),
    [
        *((word, True, False) for word in ("true", "TRUE", " Yes ", "1", "oN")),
        *((word, False, False) for word in ("false", "0", "Off", "NO", "")),
        *((word, False, True) for word in ("maybe", "2", "truee")),
    ],
)
def test_flag_is_read_in_any_case(text: str, durable: bool, warns: bool) -> None:
    """The listed words in any case; anything else is false with a warning (spec A1)."""
    reading = parse_flag(text)
    assert (reading.durable, reading.warning is not None) == (durable, warns)


def test_flag_file_is_read_anew_and_wins(tmp_path: Path) -> None:
    """A changed file is seen by the next reading; empty or gone, what it last said holds."""
    path = tmp_path / "env"
    path.write_text("# comment\nexport USE_DURABLE_WORKER='true'\n")
    source = FlagSource({"RAG_ENV_FILE": str(path), "USE_DURABLE_WORKER": "false"})
    assert source.read().durable is True
    path.write_text("USE_DURABLE_WORKER=no")
    assert source.read().durable is False
    path.write_text("USE_DURABLE_WORKER=on")
    assert source.read().durable is True
    path.write_text("")
    assert source.read().durable is True
    path.unlink()
    reading = source.read()
    assert reading.durable is True
    assert "RAG_ENV_FILE" in str(reading.warning)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("RAG_MAX_RETRIES", "four", "whole number 0..100"),
        ("RAG_MAX_RETRIES", "-1", "whole number 0..100"),
        ("RAG_EMBEDDING_BATCH_SIZE", "0", "whole number 1.."),
        ("RAG_LEASE_SECONDS", "nan", "seconds 0.5..3600"),
        ("RAG_QUEUE", "a b", "letters, digits"),
        ("REDIS_URL", "http://x", "a URL"),
        ("LOG_FORMAT", "xml", "json/text"),
        ("PROMETHEUS_ENABLED", "perhaps", "true or false"),
        ("RAG_CHUNK_OVERLAP_WORDS", "180", "fewer than RAG_CHUNK_WORDS"),
        ("RAG_EMBEDDING_TOKEN_LIMIT", "10", "at least one chunk's tokens"),
    ],
)
def test_wrong_setting_is_one_line_that_names_it(name: str, value: str, expected: str) -> None:
    """The message has the variable, the wish and the value, on one line."""
    with pytest.raises(SettingsError) as caught:
        Settings.load({name: value})
    message = str(caught.value)
    assert message.startswith(name)
    assert expected in message
    assert "\n" not in message


def test_defaults_are_the_specified_ones() -> None:
    """An empty environment gives the report's defaults (spec B, C, I)."""
    settings = Settings.load({})
    embedding = settings.embedding
    assert (embedding.batch_size, embedding.rate_limit, embedding.concurrency) == (32, 1000, 3)
    assert (settings.max_retries, settings.retry_base_seconds, settings.use_durable_worker) == (4, 1.0, False)
    assert (settings.queue.lease_seconds, settings.queue.max_deliveries) == (3.0, 20)


def test_secrets_stay_out_of_repr() -> None:
    """A printed settings value shows no key, secret or password."""
    environ = {
        "RAG_JWT_SECRET": "jwt-hush",
        "RAG_EMBEDDING_API_KEY": "key-hush",
        "REDIS_URL": "redis://:pw-hush@127.0.0.1/0",
        "DATABASE_URL": "postgresql://u:db-hush@127.0.0.1/x",
    }
    settings = Settings.load(environ)
    assert "hush" not in repr(settings)
    assert set(settings.secrets) == {"jwt-hush", "key-hush", "pw-hush", "db-hush"}


def test_env_file_errors_name_file_and_line(tmp_path: Path) -> None:
    """A line that is not KEY=VALUE is refused with its place."""
    path = tmp_path / "env"
    path.write_text("A=1\n\nnonsense\n")
    with pytest.raises(SettingsError, match=r"env:3: expected KEY=VALUE"):
        read_env_file(str(path))


def test_only_settings_reads_the_environment() -> None:
    """No other module of the core touches os.environ or os.getenv."""
    package = Path(next(iter(__import__("ragworker").__path__)))
    readers = {
        path.name
        for path in package.glob("*.py")
        if "os.environ" in (text := path.read_text("utf-8")) or "getenv" in text
    }
    assert readers <= {"cli.py", "__main__.py"}
    assert os.environ is not None
