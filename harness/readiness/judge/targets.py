"""The target of a claim as every face prints it: "P95 < 60 s", "0 violations in at least 100 jobs"."""

from __future__ import annotations

from readiness.judge.figures import count, figure, plain
from readiness.judge.model import Text
from readiness.judge.profile_model import Estimator, EstimatorKind


def target_text(estimator: Estimator) -> Text:
    """Return the target of an estimator in both languages."""
    least, limit = count(estimator.minimum_n, estimator.noun), figure(estimator.limit, estimator.unit)
    window = count(estimator.window or 1, estimator.noun)
    same = {
        EstimatorKind.PERCENTILE: f"{percentile_name(estimator)} < {limit}",
        EstimatorKind.RATE: f"< {limit}",
        EstimatorKind.MTBF: f"> {limit}",
        EstimatorKind.AVAILABILITY: f"≥ {limit}",
    }
    if estimator.kind in same:
        return Text(same[estimator.kind], same[estimator.kind])
    return {
        EstimatorKind.CHECKS: Text(f"all of at least {least.en}", f"{least.ko} 이상 모두 충족"),
        EstimatorKind.ZERO_VIOLATIONS: Text(
            f"0 violations in at least {least.en}", f"{least.ko} 이상에서 위반 0건"
        ),
        EstimatorKind.COUNT: Text(
            f"< {plain(estimator.limit)} per {window.en}", f"{window.ko}당 {plain(estimator.limit)}건 미만"
        ),
        EstimatorKind.WORST: Text(f"worst < {limit}", f"최악값 < {limit}"),
    }[estimator.kind]


def percentile_name(estimator: Estimator) -> str:
    """Return "P95" of q = 0.95."""
    return f"P{plain((estimator.quantile or 0) * 100)}"
