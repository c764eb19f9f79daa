"""What the self-test of each run knows: tiny pieces of evidence, and what must be said of them.

Every figure is a literal that was worked out by other means than this code: sums of exact binomial and Poisson
probabilities, and 1 - 0.05^(1/n) by hand. Nothing is computed or judged here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from readiness.judge import bounds
from readiness.judge.figures import CASES, NOUNS, SAMPLES
from readiness.judge.model import Part, PartState, Text
from readiness.judge.profile_model import Estimator, EstimatorKind

Entry = tuple[str, Mapping[str, object]]

#: Under which name the evidence is written; a claim that names another check has one that left nothing.
CHECK: Final = "known.py"

#: Samples without an order that could be taken for a trend: 37 walks through all the remainders of 101.
SAMPLES_S: Final = [round(0.05 + 0.9 * (37 * k % 101), 2) for k in range(1, 101)]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the judge must say of a claim. A figure that is UNSAID may be any."""

    verdict: str
    n: int = 0
    failures: int = 0
    value: float | str | None = None
    bound: float | str | None = None


UNSAID: Final = "any"


@dataclass(frozen=True, slots=True)
class Known:
    """One piece of evidence with its known answer."""

    what: str
    estimator: Estimator
    entries: tuple[Entry, ...]
    answer: Answer
    weight: int = 1
    needs: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()


def _outcome(outcome: str) -> Entry:
    return "outcome", {"outcome": outcome, "reason": "known", "duration_seconds": 0.1}


def _counted(kind: str) -> Callable[..., Entry]:
    def made(n: int, failures: int = 0) -> Entry:
        return kind, {"n": n, "failures": failures, "unit": "jobs", "examples": ["x"] * bool(failures)}

    return made


def _samples(values: list[float], unit: str) -> Entry:
    return "samples", {"values": values, "unit": unit}


def _exposure(hours: float, failures: int = 0) -> Entry:
    return "exposure", {"seconds": 3600.0 * hours, "failures": failures, "replicas": 1}


_cases, _trials = _counted("cases"), _counted("trials")
_PASSED, _SKIPPED, _FAILED = _outcome("passed"), _outcome("skipped"), _outcome("failed")
_JOBS: Final = NOUNS["jobs"]
_CHECKS: Final = Estimator(EstimatorKind.CHECKS, "fraction", CASES, minimum_n=5)
_ZERO: Final = Estimator(EstimatorKind.ZERO_VIOLATIONS, "fraction", _JOBS, minimum_n=59)
_RATE: Final = Estimator(EstimatorKind.RATE, "fraction", _JOBS, limit=0.03)
_COUNT: Final = Estimator(EstimatorKind.COUNT, "", _JOBS, limit=10.0, window=500)
_P95: Final = Estimator(EstimatorKind.PERCENTILE, "s", SAMPLES, limit=86.0, quantile=0.95)
_WORST: Final = Estimator(EstimatorKind.WORST, "s", SAMPLES, limit=5.0, minimum_n=3)
_MTBF: Final = Estimator(EstimatorKind.MTBF, "h", Text("s", "초"), limit=24.0)

KNOWN: Final[Mapping[str, Known]] = {
    # Outcomes
    "S1.proven": Known("all cases hold", _CHECKS, (_cases(8), _PASSED), Answer("PROVEN", 8, 0, 8.0), weight=3),
    "S1.skipped": Known("a skipped check beside one that passed", _CHECKS, (_cases(8), _PASSED, _SKIPPED),
                        Answer("NOT_RUN", 8, 0, 8.0)),
    "S1.skipped_only": Known("nothing but a skipped check", _CHECKS, (_SKIPPED,), Answer("NOT_RUN")),
    "S1.xfailed": Known("a check that was expected to fail", _CHECKS, (_cases(8), _PASSED, _outcome("xfailed")),
                        Answer("NOT_RUN", 8, 0, 8.0)),
    "S1.nothing": Known("no evidence at all", _CHECKS, (), Answer("NOT_RUN")),
    "S1.silent": Known("a pass without a measurement", _CHECKS, (_PASSED,), Answer("NOT_RUN")),
    "S1.unfinished": Known("a measurement whose check never ended", _CHECKS, (_cases(8),),
                           Answer("NOT_RUN", 8, 0, 8.0)),
    "S1.broke": Known("a check that broke beside one that passed", _CHECKS,
                      (_cases(8), _PASSED, _outcome("error")), Answer("NOT_RUN", 8, 0, 8.0)),
    "S1.rerun": Known("a failed attempt before one that passed", _CHECKS, (_cases(8), _FAILED, _PASSED),
                      Answer("FAILED", 8, 0, 8.0)),
    "S1.absent": Known("a named check that left nothing", _CHECKS, (_cases(8), _PASSED),
                       Answer("NOT_RUN", 8, 0, 8.0), checks=(CHECK, "gone.py")),
    "S1.part_missing": Known("a part that is not there", _CHECKS, (_cases(8), _PASSED),
                             Answer("NOT_RUN", 8, 0, 8.0), needs=("grafana",)),
    "S1.part_simulated": Known("a part that is a stand-in", _CHECKS, (_cases(8), _PASSED),
                               Answer("NOT_RUN", 8, 0, 8.0), needs=("redis",)),
    # Figures
    "S1.few": Known("too few cases", _CHECKS, (_cases(4), _PASSED), Answer("INCONCLUSIVE", 4, 0, 4.0)),
    "S1.case_lost": Known("one case of eight fails", _CHECKS, (_cases(8, 1), _PASSED), Answer("FAILED", 8, 1, 7.0)),
    "S1.nonsense": Known("more failures than cases", _CHECKS, (_cases(8, 9), _PASSED), Answer("INVALID")),
    "S2.few": Known("too few trials", _ZERO, (_trials(40), _PASSED), Answer("INCONCLUSIVE", 40, 0, 0.0, 0.0721570)),
    "S2.enough": Known("enough trials", _ZERO, (_trials(40), _trials(19), _PASSED),
                       Answer("PROVEN", 59, 0, 0.0, 0.0495076), weight=3),
    "S2.violated": Known("one violation in a hundred", _ZERO, (_trials(100, 1), _PASSED),
                         Answer("FAILED", 100, 1, 0.01, 0.0465598)),
    "S2.side": Known("a side condition that fails", _ZERO, (_trials(59), _cases(3, 1), _PASSED),
                     Answer("FAILED", 59, 0, 0.0, 0.0495076)),
    "S3.percentile": Known("percentile of the raw samples", _P95, (_samples(SAMPLES_S, "s"), _PASSED),
                           Answer("INCONCLUSIVE", 100, 5, 85.55, 89.15)),
    "S3.unit": Known("samples in another unit", _P95, (_samples([1000.0 * v for v in SAMPLES_S], "ms"), _PASSED),
                     Answer("INCONCLUSIVE", 100, 5, 85.55, 89.15)),
    "S3.foreign": Known("samples in a unit that is none of time", _P95, (_samples([1.0], "jobs"), _PASSED),
                        Answer("INVALID")),
    "S4.rate": Known("a rate that is low enough", _RATE, (_trials(99), _PASSED),
                     Answer("PROVEN", 99, 0, 0.0, 0.0298067)),
    "S4.open": Known("a rate that seems low enough", _RATE, (_trials(99, 1), _PASSED),
                     Answer("INCONCLUSIVE", 99, 1, 0.0101010, 0.0470212)),
    "S4.count": Known("a count in its window", _COUNT, (_trials(612, 2), _PASSED),
                      Answer("PROVEN", 612, 2, 1.6339869, 5.1436222)),
    "S4.count_open": Known("a count that may be more", _COUNT, (_trials(500, 8), _PASSED),
                           Answer("INCONCLUSIVE", 500, 8, 8.0, 14.4346497)),
    "S5.worst": Known("the worst of all", _WORST, (_samples([1.0, 4.9, 2.0], "s"), _PASSED),
                      Answer("PROVEN", 3, 0, 4.9)),
    "S5.above": Known("one above the maximum", _WORST, (_samples([1.0, 5.0, 2.0], "s"), _PASSED),
                      Answer("FAILED", 3, 1, 5.0)),
    "S6.mtbf": Known("72 h without a failure", _MTBF, (_exposure(72), _PASSED),
                     Answer("PROVEN", 259_200, 0, UNSAID, 24.0341905)),
    "S6.short": Known("71 h without a failure", _MTBF, (_exposure(71), _PASSED),
                      Answer("INCONCLUSIVE", 255_600, 0, UNSAID, 23.7003822)),
}  # fmt: skip

#: Parts of the run that the known evidence comes from; "grafana" is in none.
PARTS: Final = (Part("redis", PartState.SIMULATED, "stand-in", "", Text("", "")),)

#: floor(100 x 10 / 34): only PROVEN earns points (3 + 3 + four of 1), and all else stays in the denominator.
SCORE: Final = 29

#: name, the function's answer, what it must be (24 h are 24 x 2.9957 and 24 x 4.7439 at 95 %).
FIGURES: Final[tuple[tuple[str, Callable[[], float | None], float | None], ...]] = (
    ("samples that a P95 needs", lambda: bounds.trials_needed(0, 0.05), 59),
    ("samples that a P95 needs with one above it", lambda: bounds.trials_needed(1, 0.05), 93),
    ("trials that bound a rate by 3 %", lambda: bounds.trials_needed(0, 0.03), 99),
    ("trials that bound a rate by 3 % with one failure", lambda: bounds.trials_needed(1, 0.03), 157),
    ("trials that bound a rate by 1 %", lambda: bounds.trials_needed(0, 0.01), 299),
    ("trials that bound a rate by 0.1 %", lambda: bounds.trials_needed(0, 0.001), 2995),
    ("rank of the bound of a P95 of 58", lambda: bounds.percentile_upper_rank(58, 0.95), None),
    ("rank of the bound of a P95 of 59", lambda: bounds.percentile_upper_rank(59, 0.95), 59),
    ("rank of the bound of a P95 of 120", lambda: bounds.percentile_upper_rank(120, 0.95), 119),
    ("bound after 0 of 59", lambda: bounds.zero_bound(59), 0.049507609888),
    ("bound after 1 of 100", lambda: bounds.rate_upper(1, 100), 0.046559811454),
    ("mean time between failures after 71.9 h", lambda: bounds.mtbf_lower(71.897574565, 0), 24.0),
    ("mean time between failures after 113.9 h and one", lambda: bounds.mtbf_lower(113.852748441, 1), 24.0),
)
