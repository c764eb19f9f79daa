"""Before a run measures anything: does this harness still judge known evidence as it must?

A tiny run folder with the known answers of `selftest_answers.py` is written, sealed, judged and verified by the code
that judges real runs. One wrong answer, and the run is refused: a scorecard of a harness that cannot judge is worth
less than none. Costs well below a second.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from readiness.checking.outcomes import outcome_of
from readiness.errors import BadInput, HarnessFailure
from readiness.evidence import EvidenceWriter
from readiness.evidence.sealing import seal
from readiness.evidence.verify import judge_run, verify_run
from readiness.judge.codec import to_json
from readiness.judge.model import GateState, Group, RunContext, RunFacts, Scorecard, Text
from readiness.judge.profile_model import Claim, Gate, Knobs, Profile, Section
from readiness.selftest_answers import CHECK, FIGURES, KNOWN, PARTS, SCORE, UNSAID, Answer

GATES: Final = {
    GateState.HELD: ("S1.proven", "S2.enough"),
    GateState.FAILED: ("S1.proven", "S2.violated"),
    GateState.UNKNOWN: ("S1.proven", "S1.skipped"),
}
"""A gate's state with the claims that make it so."""

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


def _same(got: float | str | None, expected: float | str | None) -> bool:
    if expected == UNSAID:
        return True
    if not isinstance(got, int | float) or not isinstance(expected, int | float):
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
            writer.record(claim, kind, data, check=f"{CHECK}::test_known")
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
    for gate in card.gates:
        yield (
            f"a gate that is {gate.id}",
            "" if gate.state == gate.id else f"expected {gate.id}, got {gate.state}",
        )
    yield "a failed gate strikes the score", "" if card.score.struck else "expected it struck, it is not"
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
    claims = tuple(
        Claim(
            id=name,
            section="known",
            spec=(),
            statement=Text(known.what, known.what),
            estimator=known.estimator,
            weight=known.weight,
            needs=known.needs,
            checks=known.checks,
        )
        for name, known in KNOWN.items()
    )
    section = Section("known", Group.RELIABILITY, title, 1)
    gates = tuple(Gate(state.value, title, claims) for state, claims in GATES.items())
    return Profile("self-test", title, "self-test", (section,), gates, claims, Knobs())


def _context(profile: Profile) -> RunContext:
    at = "2026-01-01T00:00:00.000Z"
    run = RunFacts(
        id="20260101T000000Z-self-test-0000", started_at=at, finished_at=at, duration_seconds=0.0, argv=(),
        commit="", dirty=False, seed=1, profile=profile.name, profile_hash=profile.content_hash, target="",
        target_version="", harness_version="", python="", platform="", cpu_count=1, memory_bytes=1,
    )  # fmt: skip
    return RunContext(run=run, parts=PARTS)


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(to_json(value), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
