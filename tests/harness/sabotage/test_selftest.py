"""The self-test of each run: it passes here, is quick, and names what a broken harness gets wrong."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from readiness import selftest
from readiness.errors import HarnessFailure
from readiness.evidence import verify
from readiness.judge import bounds, estimators, verdicts
from readiness.judge.model import Verdict
from readiness.judge.profile_model import EstimatorKind

SECONDS_MAX = 1.0


def test_this_harness_is_sound_and_says_so_quickly() -> None:
    """All known answers are right, within a second (of CPU: the machine may be busy)."""
    began = time.process_time()
    assert selftest.require_sound_harness() > 50
    assert time.process_time() - began < SECONDS_MAX


def _skips_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    with_name = verdicts._with
    monkeypatch.setattr(
        verdicts, "_with", lambda outcomes, name: [] if name == "skipped" else with_name(outcomes, name)
    )


def _last_attempt_only(monkeypatch: pytest.MonkeyPatch) -> None:
    observe = verdicts.observe
    monkeypatch.setattr(
        verdicts,
        "observe",
        lambda *a, **k: replace(seen := observe(*a, **k), outcomes=seen.outcomes[-1:]),
    )


def _slowest_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    percentile = estimators._percentile
    table: Mapping[object, Callable[..., object]] = {
        **estimators._TABLE,
        EstimatorKind.PERCENTILE: lambda estimator, seen: percentile(
            estimator, replace(seen, values=tuple(sorted(seen.values)[:-1]))
        ),
    }
    monkeypatch.setattr(estimators, "_TABLE", table)


def _digests_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "_problem", lambda *_: "")


def _confidence_of_90(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "ALPHA", 0.1)


def _everything_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdicts, "_climb", lambda *_, **__: verdicts.Rung(Verdict.PROVEN, None))


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        (_skips_pass, "a skipped check beside one that passed: expected NOT_RUN"),
        (_last_attempt_only, "a failed attempt before one that passed: expected FAILED"),
        (_slowest_dropped, "percentile of the raw samples: expected INCONCLUSIVE"),
        (_digests_ignored, "evidence edited after the run"),
        (_confidence_of_90, "samples that a P95 needs: expected 59, got 45"),
        (_everything_proven, "expected"),
    ],
)
def test_a_harness_that_judges_wrongly_is_refused(
    broken: Callable[[pytest.MonkeyPatch], None], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The failure names the known answer that came out wrong."""
    broken(monkeypatch)
    with pytest.raises(HarnessFailure, match=r"self-test: .* known answers are wrong") as refused:
        selftest.require_sound_harness()
    assert named in str(refused.value)
