"""A target that does not say which percentile, of what, in which window is refused, in a sentence that teaches."""

from __future__ import annotations

import pytest
from harness.sample_scorecard import ROOT

from readiness.errors import BadInput
from readiness.judge.profile_parse import parse_profile

FILE = "reports/scorecard.yaml"
LINES = (ROOT / FILE).read_text(encoding="utf-8").splitlines(keepends=True)


def estimator_line(claim: str) -> int:
    """The index of the estimator of a claim in the file."""
    start = LINES.index(f"  {claim}:\n")
    return next(n for n in range(start, len(LINES)) if LINES[n].startswith("    estimator: "))


@pytest.mark.parametrize(
    ("claim", "estimator", "words"),
    [
        ("H6.api_p95", '"< 500 ms"', "expected a mapping (kind: ..., ...), got '< 500 ms' (str). A bare target does"),
        ("H6.api_p95", "{kind: percentile, target: < 500 ms}", "instead of a target in words, got '< 500 ms'"),
        ("H6.api_p95", "{kind: percentile, max: 500, unit: ms}", "key 'q', got none. Say which percentile the limit"),
        ("H6.api_p95", "{kind: percentile, q: 0.95, max: 500}", "key 'unit', got none. Say what the limit is measured"),
        ("H6.api_p95", "{kind: percentile, q: 0.95, max: < 500 ms, unit: ms}", "expected a number from 0 to"),
        ("H6.api_p95", "{kind: percentile, q: 95, max: 500, unit: ms}", "expected a fraction between 0 and 1 (3 % is"),
        ("H2.dlq", "{kind: count, max: 10, unit: jobs}", "key 'window', got none. Say in how many of `unit` so few"),
        ("H2.dlq", "{kind: count, max: 10, window: 10 min, unit: jobs}", "expected a whole number from 1 to"),
        ("H2.dlq", "{kind: count, max: 10, window: 500}", "key 'unit', got none. Say what the window counts"),
        ("H2.dlq", '"< 10"', "{kind: count, max: 10, window: 500, unit: jobs} is < 10 per 500 jobs"),
        ("H5.token_use", "{kind: worst, max: 35, min_samples: 10}", "key 'unit', got none. Say what the limit is"),
        ("H5.token_use", "{kind: worst, max: 35, unit: s}", "key 'min_samples', got none. Say how many samples the"),
        ("A1.flag", "{kind: checks}", "key 'min_cases', got none. Say how many cases there must be: all of none is no"),
        ("A5.kill", "{kind: zero_violations, unit: jobs}", "key 'min_trials', got none. Say after how many trials"),
        ("A5.kill", "{kind: zero_violations, min_trials: 9}", "key 'unit', got none. Say what a trial is: unit: jobs."),
        ("H3.failure_rate", "{kind: rate, max: 0.03}", "key 'unit', got none. Say what the rate is a share of"),
    ],
)  # fmt: skip
def test_a_target_that_leaves_something_open_is_refused(claim: str, estimator: str, words: str) -> None:
    """The line is named, and what is missing is asked for in one line that a person can act on."""
    at = estimator_line(claim)
    said = complaint([*LINES[:at], f"    estimator: {estimator}\n", *LINES[at + 1 :]])
    assert said.startswith(f"{FILE}:{at + 1}: claims.{claim}.estimator"), said
    assert words in said


def test_a_target_beside_the_estimator_is_refused_at_its_line() -> None:
    """`target: "< 500 ms"` in the block is answered with three ways to write a target, not with "unknown key"."""
    at = estimator_line("H6.api_p95")
    said = complaint([*LINES[:at], '    target: "< 500 ms"\n', *LINES[at + 1 :]])
    assert said.startswith(f"{FILE}:{at + 1}: claims.H6.api_p95.target: expected an `estimator` instead"), (
        said
    )
    assert "{kind: percentile, q: 0.95, max: 500, unit: ms, of: requests} is P95 < 500 ms" in said


def complaint(lines: list[str]) -> str:
    with pytest.raises(BadInput) as caught:
        parse_profile("".join(lines).encode(), name="quick", file=FILE)
    assert "\n" not in str(caught.value)
    return str(caught.value)
