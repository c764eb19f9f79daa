"""Before a run measures anything: does this harness still judge known evidence as it must?

A tiny run folder with known answers is written, sealed, judged and verified by the code that judges real runs. Every
expected figure is a literal that was worked out by other means (exact binomial sums), not by this code. One wrong
answer, and the run is refused: a scorecard of a harness that cannot judge is worth less than none. Costs well below
a second.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from readiness.checking.outcomes import outcome_of
from readiness.errors import BadInput, HarnessFailure
from readiness.evidence import EvidenceWriter
from readiness.evidence.sealing import seal
from readiness.evidence.verify import judge_run, verify_run
from readiness.judge import bounds
from readiness.judge.codec import to_json
from readiness.judge.figures import CASES, NOUNS, SAMPLES
from readiness.judge.model import Group, RunContext, RunFacts, Scorecard, Text
from readiness.judge.profile_model import Claim, Estimator, EstimatorKind, Knobs, Profile, Section

Entry = tuple[str, Mapping[str, object]]

# Samples without an order that could be taken for a trend: 37 walks through all the remainders of 101.
_SAMPLES: Final = [round(0.05 + 0.9 * (37 * k % 101), 2) for k in range(1, 101)]

_PASSED: Final[Entry] = ("outcome", {"outcome": "passed", "reason": "", "duration_seconds": 0.1})
_SKIPPED: Final[Entry] = ("outcome", {"outcome": "skipped", "reason": "not here", "duration_seconds": 0.0})
_FAILED: Final[Entry] = ("outcome", {"outcome": "failed", "reason": "first attempt", "duration_seconds": 0.1})
_ERROR: Final[Entry] = ("outcome", {"outcome": "error", "reason": "broke", "duration_seconds": 0.1})


@dataclass(frozen=True, slots=True)
class Answer:
    """What the judge must say of a claim."""

    verdict: str
    n: int = 0
    failures: int = 0
    value: float | None = None
    bound: float | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """One piece of evidence with its known answer."""

    what: str
    kind: EstimatorKind
    entries: tuple[Entry, ...]
    answer: Answer
    weight: int = 1


def _cases(n: int, failures: int = 0) -> Entry:
    return "cases", {"n": n, "failures": failures, "examples": ["x"] * bool(failures)}


def _trials(n: int, failures: int = 0) -> Entry:
    return "trials", {"n": n, "failures": failures, "unit": "jobs", "examples": ["x"] * bool(failures)}


_CHECKS, _ZERO, _PERCENTILE = EstimatorKind.CHECKS, EstimatorKind.ZERO_VIOLATIONS, EstimatorKind.PERCENTILE

KNOWN: Final[Mapping[str, Known]] = {
    "S1.proven": Known("all cases hold", _CHECKS, (_cases(8), _PASSED), Answer("PROVEN", 8, 0, 8.0), weight=3),
    "S1.skipped": Known("a skipped check beside one that passed", _CHECKS, (_cases(8), _PASSED, _SKIPPED),
                        Answer("NOT_RUN", 8, 0, 8.0)),
    "S1.skipped_only": Known("nothing but a skipped check", _CHECKS, (_SKIPPED,), Answer("NOT_RUN")),
    "S1.nothing": Known("no evidence at all", _CHECKS, (), Answer("NOT_RUN")),
    "S1.silent": Known("a pass without a measurement", _CHECKS, (_PASSED,), Answer("NOT_RUN")),
    "S1.broke": Known("a check that broke beside one that passed", _CHECKS, (_cases(8), _PASSED, _ERROR),
                      Answer("NOT_RUN", 8, 0, 8.0)),
    "S1.rerun": Known("a failed attempt before one that passed", _CHECKS, (_cases(8), _FAILED, _PASSED),
                      Answer("FAILED", 8, 0, 8.0)),
    "S1.case_lost": Known("one case of eight fails", _CHECKS, (_cases(8, 1), _PASSED), Answer("FAILED", 8, 1, 7.0)),
    "S1.nonsense": Known("more failures than cases", _CHECKS, (_cases(8, 9), _PASSED), Answer("INVALID")),
    "S2.few": Known("too few trials", _ZERO, (_trials(40), _PASSED), Answer("INCONCLUSIVE", 40, 0, 0.0, 0.0721570)),
    "S2.enough": Known("enough trials", _ZERO, (_trials(40), _trials(19), _PASSED),
                       Answer("PROVEN", 59, 0, 0.0, 0.0495076), weight=3),
    "S2.violated": Known("one violation in a hundred", _ZERO, (_trials(100, 1), _PASSED),
                         Answer("FAILED", 100, 1, 0.01, 0.0465598)),
    "S3.percentile": Known("percentile of the raw samples", _PERCENTILE,
                           (("samples", {"values": _SAMPLES, "unit": "s"}), _PASSED),
                           Answer("INCONCLUSIVE", 100, 5, 85.55, 89.15)),
}  # fmt: skip

# floor(100 x 6 / 17): only PROVEN earns points, and everything else stays in the denominator.
SCORE: Final = 35

#: name, the function's answer, what it must be (exact binomial sums; 24 h are 24 x 2.9957 and 24 x 4.7439 at 95 %).
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
_TOLERANCE: Final = 1e-6


def require_sound_harness() -> int:
    """Return how many known answers were right. Raises HarnessFailure that names the wrong ones."""
    wrong: list[str] = []
    total = 0
    for what, problem in _answers():
        total += 1
        if problem:
            wrong.append(f"{what}: {problem}")
    if wrong:
        raise HarnessFailure(
            f"self-test: {len(wrong)} of {total} known answers are wrong, so no run of this harness can be believed"
            f" and none was begun: {'; '.join(wrong[:3])}. Install an unchanged readiness."
        )
    return total


def _answers() -> Iterator[tuple[str, str]]:
    for what, ask, expected in FIGURES:
        got = ask()
        yield what, "" if _same(got, expected) else f"expected {expected}, got {got}"
    yield from _reports()
    with tempfile.TemporaryDirectory(prefix="readiness-self-test-") as folder:
        run = Path(folder) / "20260101T000000Z-self-test-0000"
        card = _write_run(run)
        yield from _verdicts(card)
        yield from _edits(run)


def _same(got: float | None, expected: float | None) -> bool:
    if got is None or expected is None:
        return got is expected
    return abs(got - expected) <= _TOLERANCE * max(1.0, abs(expected))


def _reports() -> Iterator[tuple[str, str]]:
    """What pytest says of a phase, as an outcome."""
    table = (("call", "passed", "passed"), ("call", "failed", "failed"), ("setup", "skipped", "skipped"),
             ("call", "skipped", "skipped"), ("setup", "failed", "error"))  # fmt: skip
    for when, said, expected in table:
        report = pytest.TestReport("self_test.py::t", ("self_test.py", 1, "t"), {}, said, None, when)  # type: ignore[arg-type]  # literals
        got = str(outcome_of(report))
        yield f"{when} {said}", "" if got == expected else f"expected the outcome {expected}, got {got}"


def _write_run(run: Path) -> Scorecard:
    run.mkdir()
    writer = EvidenceWriter(run, command="self-test")
    for claim, known in KNOWN.items():
        for kind, data in known.entries:
            writer.record(claim, kind, data, check="self/test_known.py::test_known")
    log = run / "attached.log"
    log.write_text("a line of a log\n", encoding="utf-8")
    writer.attach("S1.proven", log)
    profile = _profile()
    for name, value in (
        ("plan.json", {"seed": 1, "profile_hash": profile.content_hash}),
        ("profile.json", profile),
        ("context.json", _context(profile)),
    ):
        _write(run / name, value)
    seal(run)
    card = judge_run(run)
    _write(run / "scorecard.json", card)
    return card


def _verdicts(card: Scorecard) -> Iterator[tuple[str, str]]:
    found = {claim.id: claim for claim in card.claims}
    for name, known in KNOWN.items():
        claim = found[name]
        got = Answer(str(claim.verdict), claim.n, claim.failures, claim.value, claim.bound)
        wanted = known.answer
        alike = (got.verdict, got.n, got.failures) == (wanted.verdict, wanted.n, wanted.failures)
        figures = _same(got.value, wanted.value) and _same(got.bound, wanted.bound)
        yield known.what, "" if alike and figures else f"expected {_words(wanted)}, got {_words(got)}"
    attempts = next(claim.reason for claim in card.claims if claim.id == "S1.rerun")
    seen = (attempts.params.get("count"), attempts.params.get("total")) if attempts else ()
    yield "both attempts are seen", "" if seen == (1, 2) else f"expected 1 failed of 2 attempts, got {seen}"
    yield (
        "points",
        "" if card.score.overall == SCORE else f"expected {SCORE} points, got {card.score.overall}",
    )
    yield "status", "" if card.status == 1 else f"expected status 1, got {card.status}"


def _edits(run: Path) -> Iterator[tuple[str, str]]:
    """An untouched folder verifies; one changed character anywhere is named, whatever its place."""
    findings = verify_run(run)
    yield "an untouched run", "" if not findings else f"expected no finding, got {findings[0]}"
    for name, old, new in (
        ("evidence/S2.violated.jsonl", b'"failures":1', b'"failures":0'),
        ("evidence/raw/attached.log", b"a line", b"b line"),
        ("plan.json", b"1", b"2"),
        ("context.json", b'"cpu_count": 1', b'"cpu_count": 8'),
        ("scorecard.json", b'"failures": 1', b'"failures": 0'),
    ):
        path = run / name
        content = path.read_bytes()
        if old not in content:
            yield f"evidence edited after the run ({name})", f"expected {old!r} in the file, got it nowhere"
            continue
        path.write_bytes(content.replace(old, new, 1))
        named = [finding.where for finding in verify_run(run)]
        noticed = any(where.startswith(name) for where in named)
        yield (
            f"evidence edited after the run ({name})",
            "" if noticed else f"expected verify to name it, got {named[:2]}",
        )
        if name == "evidence/S2.violated.jsonl":
            yield "a verdict on edited evidence", _verdict_on_edited(run)
        path.write_bytes(content)


def _verdict_on_edited(run: Path) -> str:
    try:
        verdicts = {claim.id: str(claim.verdict) for claim in judge_run(run).claims}
    except BadInput:
        return ""
    got = verdicts["S2.violated"]
    return "" if got == "INVALID" else f"expected INVALID, got {got}"


def _words(answer: Answer) -> str:
    figures = f"{answer.failures} of {answer.n}, value {answer.value}, bound {answer.bound}"
    return f"{answer.verdict} ({figures})"


def _profile() -> Profile:
    title = Text("self-test", "자체 점검")
    nouns = {_CHECKS: CASES, _ZERO: NOUNS["jobs"], _PERCENTILE: SAMPLES}
    minimum = {_CHECKS: 5, _ZERO: 59, _PERCENTILE: 1}
    claims = tuple(
        Claim(
            id=name,
            section="known",
            spec=(),
            statement=Text(known.what, known.what),
            estimator=Estimator(
                kind=known.kind,
                unit="s" if known.kind is _PERCENTILE else "fraction",
                noun=nouns[known.kind],
                limit=86.0 if known.kind is _PERCENTILE else 0.0,
                minimum_n=minimum[known.kind],
                quantile=0.95 if known.kind is _PERCENTILE else None,
            ),
            weight=known.weight,
        )
        for name, known in KNOWN.items()
    )
    section = Section("known", Group.RELIABILITY, title, 1)
    return Profile("self-test", title, "self-test", (section,), (), claims, Knobs())


def _context(profile: Profile) -> RunContext:
    at = "2026-01-01T00:00:00.000Z"
    run = RunFacts(
        id="20260101T000000Z-self-test-0000", started_at=at, finished_at=at, duration_seconds=0.0, argv=(),
        commit="", dirty=False, seed=1, profile=profile.name, profile_hash=profile.content_hash, target="",
        target_version="", harness_version="", python="", platform="", cpu_count=1, memory_bytes=1,
    )  # fmt: skip
    return RunContext(run=run, parts=())


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(to_json(value), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
