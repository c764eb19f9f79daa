"""The arithmetic behind the bench's verdict: ratios within a round, rates, percentiles, what counts as reached."""

from __future__ import annotations

import pytest
from bench.figures import (
    PROMISES,
    SAFE,
    Figure,
    Line,
    Sample,
    Spread,
    Target,
    drain_rate,
    exit_status,
    judge,
    percentile,
    round_ratios,
    spread,
    verdict,
)
from bench.variants import OURS, OURS_LEAN

DRAIN = Figure.DRAIN_1
SECOND = 1_000_000_000


def samples(figure: str, **values: list[float]) -> list[Sample]:
    """Samples of one figure: a list of rounds for each variant."""
    return [
        Sample(number, variant.replace("_", "-"), figure, value)
        for variant, rounds in values.items()
        for number, value in enumerate(rounds, start=1)
    ]


def line_of(lines: list[Line], text: str) -> Line:
    """The one line whose text starts so."""
    (found,) = [line for line in lines if line.text.startswith(text)]
    return found


def test_a_ratio_is_taken_within_its_round() -> None:
    """A machine that is twice as fast in the second round changes no ratio."""
    line = line_of(
        judge(samples(DRAIN, ours=[700, 1400, 700], saq=[100, 200, 100])), "drain, 1 process, by the best"
    )
    assert line.ratio == Spread(7.0, 7.0, 7.0)
    assert line.reached is True


def test_the_median_of_the_rounds_is_judged_not_their_best() -> None:
    """One lucky round reaches nothing; the spread is shown."""
    lines = judge(samples(DRAIN, ours=[500, 550, 900], saq=[100, 100, 100]))
    line = line_of(lines, "drain, 1 process, by the best")
    assert line.ratio == Spread(5.5, 5.0, 9.0)
    assert line.reached is False


def test_the_best_rival_may_be_another_in_each_round() -> None:
    """Ours is measured against whoever was best in that round; the one named has the best median."""
    lines = judge(samples(DRAIN, ours=[600, 600, 600], saq=[100, 60, 60], taskiq=[50, 75, 100]))
    line = line_of(lines, "drain, 1 process, by the best")
    assert line.ratio == Spread(6.0, 6.0, 8.0)
    assert (line.rival, line.rivals) == ("taskiq", 75)


def test_a_round_without_a_rival_has_no_ratio() -> None:
    """A peer that failed in one round is absent in that round only."""
    rivals = [{1: 100.0}, {1: 50.0, 3: 50.0}]
    assert round_ratios({1: 200.0, 2: 200.0, 3: 200.0}, rivals, lower_is_better=False) == [2.0, 4.0]


def test_where_less_is_better_the_best_rival_is_the_smallest() -> None:
    """A latency is at most that of the quickest peer."""
    figure = Figure.START_P99
    slow = line_of(judge(samples(figure, ours=[2.0], saq=[2.5], taskiq=[1.6])), "start at 100 jobs/s, p99")
    quick = line_of(judge(samples(figure, ours=[1.5], saq=[2.5], taskiq=[1.6])), "start at 100 jobs/s, p99")
    assert slow.ratio == Spread(1.25, 1.25, 1.25)
    assert (slow.reached, slow.rival) == (False, "taskiq")
    assert quick.reached is True


def test_a_peer_that_loses_jobs_is_no_rival_of_a_drain() -> None:
    """Huey takes a job off its list before it runs it; it is shown, not raced."""
    assert "huey" not in SAFE
    assert "dramatiq" in SAFE
    line = line_of(
        judge(samples(DRAIN, ours=[600], huey=[10_000], saq=[100])), "drain, 1 process, by the best"
    )
    assert line.ratio == Spread(6.0, 6.0, 6.0)


def test_the_drain_is_also_compared_with_the_raw_limit() -> None:
    """A share of the batched consume rate of the client alone, in the same round."""
    measured = samples(DRAIN, ours=[20_000]) + samples(Figure.RAW_CONSUME, raw=[100_000])
    line = line_of(judge(measured), "drain, 1 process, by redis.asyncio")
    assert line.ratio == Spread(0.2, 0.2, 0.2)
    assert line.reached is True


def test_a_bound_holds_in_every_round() -> None:
    """Of memory and of a crash the worst round is judged."""
    lines = judge(samples(Figure.IDLE_RSS, ours_real=[50, 61, 50]))
    line = line_of(lines, "idle memory of `ragworker worker`")
    assert (line.ours, line.reached) == (61, False)
    assert line_of(lines, "idle memory of the no-op worker").reached is None


def test_one_lost_job_is_too_many() -> None:
    """0 is reached by 0 only."""
    text = "killed, a new worker at once: jobs lost"
    assert line_of(judge(samples(Figure.CRASH_NEW_LOST, ours=[0, 0])), text).reached is True
    assert line_of(judge(samples(Figure.CRASH_NEW_LOST, ours=[0, 1])), text).reached is False


def test_the_other_variant_of_ours_can_be_judged_the_same_way() -> None:
    """The lines of the variant without records use its own figures."""
    measured = samples(DRAIN, ours=[100], ours_lean=[900], saq=[100])
    assert line_of(judge(measured, ours=OURS_LEAN), "drain, 1 process, by the best").ratio == Spread(9, 9, 9)
    assert line_of(judge(measured, ours=OURS), "drain, 1 process, by the best").ratio == Spread(1, 1, 1)


def test_the_rate_is_from_first_to_last_job() -> None:
    """Eleven jobs over one second are ten a second: the first begins the clock."""
    assert drain_rate((0, n, n * SECOND // 10) for n in range(11)) == pytest.approx(10.0)


def test_the_time_before_the_last_worker_came_does_not_count() -> None:
    """One worker alone for a second, then two: only the time of two counts."""
    alone = [(0, n, n * SECOND // 10) for n in range(10)]
    both = [(n % 2, 10 + n, SECOND + n * SECOND // 20) for n in range(21)]
    assert drain_rate(alone + both) == pytest.approx(19 / 0.95)


def test_a_worker_that_came_too_late_is_an_error() -> None:
    """With one job left there is nothing to measure, and no number is better than a wrong one."""
    lines = [(0, n, n * SECOND // 10) for n in range(20)] + [(1, 20, 20 * SECOND), (1, 21, 21 * SECOND)]
    with pytest.raises(ValueError, match="raise --jobs"):
        drain_rate(lines)
    with pytest.raises(ValueError, match="got none"):
        drain_rate([])


def test_a_job_that_ran_twice_counts_once() -> None:
    """Repeating work is not speed."""
    once = [(0, n, n * SECOND // 10) for n in range(11)]
    assert drain_rate([*once, (0, 3, SECOND), (0, 4, SECOND)]) == pytest.approx(10.0)


def test_percentiles_are_values_that_were_measured() -> None:
    """Nearest rank: of 1,000 waits the p99 is the 990th."""
    assert percentile(range(1, 1001), 99) == 990
    assert percentile(range(1, 1001), 50) == 500
    assert percentile([1.0, 2.0, 3.0], 50) == 2.0
    assert percentile([7.0], 99) == 7.0


def test_the_spread_is_median_and_extremes() -> None:
    """Nothing measured has no spread."""
    assert spread([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
    assert spread([]) is None


def test_the_verdict_names_what_was_missed_with_its_figure() -> None:
    """The last line alone tells a reader what to look at."""
    lines = judge(samples(DRAIN, ours=[500], saq=[100]) + samples(Figure.SUBMIT_ONE, ours=[200], saq=[100]))
    assert verdict(lines).startswith(
        "NOT REACHED: 1 of 2 measured lines reached, 14 in all: drain, 1 process"
    )
    assert "5.00 (at least 6)" in verdict(lines)
    assert "submit" not in verdict(lines)
    assert exit_status(lines) == 1


def test_a_verdict_over_what_was_reached_shows_all_figures() -> None:
    """Lines that were not measured are counted, never passed."""
    lines = judge(samples(DRAIN, ours=[800], saq=[100]))
    assert verdict(lines).startswith("REACHED: 1 of 1 measured lines reached, 14 in all: drain, 1 process")
    assert "8.00 (at least 6)" in verdict(lines)
    assert exit_status(lines) == 0
    assert verdict(judge([])).startswith("NOTHING TO JUDGE")


def test_the_promises_are_those_of_the_issue() -> None:
    """The numbers that the bench is there to show; whoever changes one changes this line too."""
    needed = {promise.text: promise.needed for promise in PROMISES if isinstance(promise, Target)}
    assert list(needed.values()) == [6.0, 5.0, 0.15, 1.0, 3.0, 3.0, 1.0, 1.0]
