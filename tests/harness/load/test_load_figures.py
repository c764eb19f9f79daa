"""Raw lines become figures in which silence, failure and a starved generator never look good."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from harness.sample_scorecard import claim_file, sample_profile

from readiness.judge.validity import VALIDITY, broken_rule
from readiness.load.figures import NEVER_SECONDS, percentile, read_figures, validity, why_unbelievable
from readiness.load.rawlog import Line, LogTail, RawLog
from readiness.load.series import SERIES_FILE, Series, load_series, merge_series

Spoil = Callable[[list[Line]], list[Line]]


def good_run(jobs: int = 40) -> list[Line]:
    """A log of an orderly run: every job done after half a second, every request answered in 5 ms."""
    lines: list[Line] = [{"kind": "start", "at": 100.0, "wall": 1e9, "pid": 1, "seed": 1, "due": jobs}]
    for n in range(jobs):
        at = 101.0 + n * 0.1
        lines += [
            {
                "kind": "request",
                "name": "POST",
                "at": at,
                "duration_ms": 5.0,
                "status": 202,
                "exception": None,
            },
            {
                "kind": "stream",
                "at": at,
                "duration_ms": 500.0,
                "outcome": "ended",
                "heartbeats": 0,
                "exception": None,
            },
            {"kind": "job", "planned": at, "at": at, "job_id": f"j{n}", "state": "done", "ended": at + 0.5},
        ]
    for n in range(100):
        lines.append({"kind": "tick", "at": 100 + n * 0.1, "late_ms": 1.0, "cpu_seconds": 1 + n * 0.01})
    return [*lines, {"kind": "stop", "at": 112.0, "wall": 1e9 + 12, "jobs": jobs, "cut": 0}]


def without(kind: str, lines: list[Line]) -> list[Line]:
    return [line for line in lines if line["kind"] != kind]


def test_an_orderly_run_is_believed_and_read_exactly() -> None:
    """Counts, samples and shares are those of the lines."""
    figures = read_figures(good_run())
    assert why_unbelievable(figures) == ""
    assert (len(figures.jobs), figures.not_done, figures.unclean_streams, figures.failed_requests) == (
        40,
        0,
        0,
        0,
    )
    assert figures.jobs[0].sample_seconds == pytest.approx(0.5)
    assert figures.requests[0].sample_ms == 5.0
    assert figures.cpu_share == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda lines: without("stop", lines), "died before its end"),
        (lambda lines: without("request", lines), "sent no request"),
        (lambda lines: [], "died before its end"),
        (lambda lines: [*lines[:-1], {**lines[-1], "cut": 5}], "5 lines did not fit"),
    ],
    ids=["died", "no request", "empty log", "cut"],
)
def test_a_broken_generator_leaves_nothing_to_judge(spoil: Spoil, words: str) -> None:
    """Each way in which the generator itself can break is named."""
    assert words in why_unbelievable(read_figures(spoil(good_run())))


def ticks_with(lines: list[Line], **fields: object) -> list[Line]:
    return [{**li, **fields} if li["kind"] == "tick" else li for li in lines]


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda lines: without("job", lines), "harness_arrivals"),
        (lambda lines: [*lines[:100], *lines[121:]], "harness_arrivals"),
        (lambda lines: ticks_with(lines, late_ms=150.0), "harness_schedule"),
        (lambda lines: [{**li, "planned": 99.5} if li["kind"] == "job" else li for li in lines], "harness_schedule"),
        (
            lambda lines: [{**li, "cpu_seconds": float(li["at"])} if li["kind"] == "tick" else li for li in lines],
            "harness_cpu",
        ),
        (lambda lines: [{**li, "ended": 99.0} if li["kind"] == "job" else li for li in lines], "harness_clock"),
        (lambda lines: [*lines, {"kind": "tick", "at": 1.0, "late_ms": 1.0}], "harness_clock"),
    ],
    ids=["no job", "too few", "late ticks", "late arrivals", "cpu", "ended before", "ticks backwards"],
)  # fmt: skip
def test_what_the_generator_shows_of_itself_breaks_a_rule(spoil: Spoil, code: str) -> None:
    """A generator that was late, starved, too light or had a bad clock says so, and the judge believes none of it."""
    claim = sample_profile().claim("H6.api_p95")

    def broken(lines: list[Line]) -> str:
        facts = claim_file(claim.id, [("facts", {VALIDITY: validity(read_figures(lines))})])
        reason = broken_rule(claim, facts.records)
        return reason.code if reason else ""

    assert broken(good_run()) == ""
    assert broken(spoil(good_run())) == code


def test_a_request_without_a_proper_answer_counts_with_its_deadline() -> None:
    """Failing fast does not improve the percentile: a refused connection after 1 ms counts as 10,000 ms."""
    lines = [
        {**li, "exception": "refused", "duration_ms": 1.0} if li["kind"] == "request" else li
        for li in good_run()
    ]
    figures = read_figures(lines)
    assert {request.sample_ms for request in figures.requests} == {10_000.0}
    assert figures.failed_requests == 40


@pytest.mark.parametrize("state", ["dead", "cancelled", "", "running"])
def test_a_job_that_did_not_end_as_done_counts_as_never_and_as_failure(state: str) -> None:
    """Dead at once is not fast, and a job cut off at the end of the run is not short."""
    ended = 101.1 if state in ("dead", "cancelled") else None
    lines = [{**li, "state": state, "ended": ended} if li["kind"] == "job" else li for li in good_run()]
    figures = read_figures(lines)
    assert {job.sample_seconds for job in figures.jobs} == {NEVER_SECONDS}
    assert figures.not_done == 40


@pytest.mark.parametrize("outcome", ["refused", "silent", "broken", "cut", ""])
def test_only_a_stream_with_its_end_event_is_clean(outcome: str) -> None:
    """Every other way to stop is a broken stream."""
    lines = [{**li, "outcome": outcome} if li["kind"] == "stream" else li for li in good_run()]
    assert read_figures(lines).unclean_streams == 40


def test_percentile_is_nearest_rank() -> None:
    """The smallest value that the share does not exceed; nothing of nothing."""
    values = [float(n) for n in range(1, 101)]
    assert [percentile(values, q) for q in (0.5, 0.95, 0.99, 1.0)] == [50, 95, 99, 100]
    assert percentile([7.0], 0.95) == 7.0
    assert percentile([], 0.95) == 0.0


def test_the_raw_log_is_bounded_and_read_whole_lines_only(tmp_path: Path) -> None:
    """Lines beyond the bound are counted, the last line still fits, and half a line waits for its rest."""
    path = tmp_path / "load.jsonl"
    log = RawLog(path, max_lines=2)
    tail = LogTail(path)
    for n in range(5):
        log.write("tick", {"n": n})
    log.write("stop", {"cut": log.cut})
    log.flush()
    assert [line["kind"] for line in tail.new_lines()] == ["tick", "tick", "stop"]
    assert log.cut == 3
    with path.open("a") as file:
        file.write('{"kind":"job"')
        file.flush()
        assert tail.new_lines() == []
        file.write("}\nnot json\n[1]\n")
    assert tail.new_lines() == [{"kind": "job"}]
    assert LogTail(tmp_path / "none").new_lines() == []


def test_curves_add_up_to_the_figures_and_join_an_earlier_file(tmp_path: Path) -> None:
    """The curves hold every job once; a later step's curves keep their place in time beside an earlier one's."""
    series = {one.name: one for one in load_series(read_figures(good_run()))}
    assert sum(value for _, value in series["arrivals"].points) == 40
    assert sum(value for _, value in series["jobs ended"].points) == 40
    assert {value for _, value in series["API response P95"].points} == {5.0}
    zero = datetime(2026, 1, 1, tzinfo=UTC)
    merge_series(tmp_path, [Series("a", "x", ((0.0, 1.0),))], t0=zero)
    merge_series(
        tmp_path, [Series("b", "x", ((0.5, 2.0),)), Series("none", "x", ())], t0=zero.replace(second=10)
    )
    body = json.loads((tmp_path / SERIES_FILE).read_text())
    assert body == {
        "t0": "2026-01-01T00:00:00.000Z",
        "series": [
            {"name": "a", "unit": "x", "points": [[0.0, 1.0]]},
            {"name": "b", "unit": "x", "points": [[10.5, 2.0]]},
        ],
        "faults": [],
    }
