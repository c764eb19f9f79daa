"""The verdict of one claim: the ladder from damaged evidence to PROVEN.

A rung that holds ends the climb, so the worst and most certain things are said first:

0. left out by the person (--only) and nothing recorded -> NOT_RUN
1. excluded by the target's guarantees, or by a person until a day -> NOT_APPLICABLE; after that day -> NOT_RUN
2. the evidence file is damaged -> INVALID
3. a part that it needs is missing or simulated -> NOT_RUN (a failure on a stand-in may be the stand-in's)
4. a check failed -> FAILED
5. a record cannot be a measurement, or the harness disturbed what it measured (validity.py) -> INVALID
6. the figures miss the target -> FAILED
7. no evidence, no data, no check that passed, one that was skipped or broke, or one that the claim names and
   that left no outcome, or evidence that is too old -> NOT_RUN
8. the bound does not meet the target yet, the last record was torn, or an earlier attempt failed -> INCONCLUSIVE
9. PROVEN
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from readiness.evidence.records import ClaimFile, standing
from readiness.judge.bounds import CONFIDENCE
from readiness.judge.estimate import NOT_MEASURED, Estimate
from readiness.judge.estimators import estimate
from readiness.judge.figures import SECONDS, count
from readiness.judge.model import ClaimResult, Part, PartState, Reason, Text, Verdict
from readiness.judge.observations import Observations, Outcome, observe
from readiness.judge.parts import part_title
from readiness.judge.pooling import Attempt, failed_before, pool
from readiness.judge.power import chance_of_proof
from readiness.judge.profile_model import Claim, EstimatorKind, Profile
from readiness.judge.targets import target_text
from readiness.judge.validity import broken_rule

# What stands in a report stays short; the whole text is in the evidence.
LONGEST_DETAIL = 400
# The reason of a claim that a person excluded: NOT_APPLICABLE, but still in the denominator of the score.
WAIVED = "waived"


@dataclass(frozen=True, slots=True)
class Rung:
    """Where the climb ended."""

    verdict: Verdict
    reason: Reason | None


def judge_claim(
    claim: Claim,
    evidence: ClaimFile,
    *,
    profile: Profile,
    parts: Mapping[str, Part],
    excluded: Mapping[str, str],
    only: Collection[str],
    at: str,
    fallback_command: str,
    attempts: Sequence[Attempt] = (),
) -> ClaimResult:
    """Return the claim's result as of `at`, the end of the run (UTC, ISO 8601).

    `fallback_command` stands in where its evidence names none. What `attempts` recorded before is pooled with it.
    """
    seen = pool(observe(evidence.records, claim=claim.id, unit=sample_unit(claim)), claim.id, attempts)
    found = estimate(claim.estimator, seen)
    if only and claim.id not in only and not evidence.records:
        rung = Rung(Verdict.NOT_RUN, Reason("left_out"))
    else:
        rung = _expired(claim, profile, at) or _climb(
            claim, evidence, seen, found, parts=parts, excluded=excluded, oldest=_oldest(profile, at)
        )
    if rung.verdict == Verdict.PROVEN and (run := failed_before(claim.id, attempts)):
        rung = Rung(Verdict.INCONCLUSIVE, Reason("failed_before", {"run": run}))
    needed = found.n_needed if rung.verdict == Verdict.INCONCLUSIVE else None
    trusted = rung.verdict not in (Verdict.INVALID, Verdict.NOT_APPLICABLE)
    commands = [record.command for record in evidence.records if record.command]
    noun = claim.estimator.noun
    return ClaimResult(
        id=claim.id,
        section=claim.section,
        spec=claim.spec,
        statement=claim.statement,
        estimator=str(claim.estimator.kind),
        unit=claim.estimator.unit,
        target=target_text(claim.estimator),
        measured=_pooled(found.measured, seen.runs) if trusted else NOT_MEASURED,
        value=found.value if trusted else None,
        bound=found.bound if trusted else None,
        n=found.n if trusted else 0,
        n_unit=noun,
        n_needed=needed,
        needed=None if needed is None else needed_text(needed, noun),
        failures=found.failures if trusted else 0,
        confidence=CONFIDENCE,
        verdict=rung.verdict,
        reason=rung.reason,
        weight=claim.weight,
        gate=profile.gate_of(claim.id),
        fault=claim.fault,
        sla=claim.sla,
        founding=claim.founding,
        evidence=_files(evidence),
        digest=evidence.digest,
        repeat=commands[-1] if commands else fallback_command,
        checks=tuple(dict.fromkeys(outcome.check for outcome in seen.outcomes if outcome.check)),
        n_eff=found.n_eff if trusted else None,
        runs=seen.runs,
        chance=_chance(claim, found, seen) if trusted else None,
    )


def _chance(claim: Claim, found: Estimate, seen: Observations) -> float | None:
    """Return how likely a run of this size proves the claim when the truth is half of what the target allows."""
    if found.n == 0:
        return None
    back = seen.values if claim.estimator.kind == EstimatorKind.AVAILABILITY else ()
    mean = sum(back) / len(back) if back else 0.0
    size = found.n if found.n_eff is None else found.n_eff
    chance = chance_of_proof(claim.estimator, size, recoveries=len(back), recovery_seconds=mean)
    return None if chance is None else round(chance, 4)


def needed_text(needed: int, noun: Text) -> Text:
    """Return "18 more jobs settle it"."""
    more = count(needed, noun)
    if noun == SECONDS:
        return Text(f"{more.en} more of observation settles it", f"{more.ko} 더 관측하면 판정할 수 있습니다")
    number, _, word = more.en.partition(" ")
    verb = "settles" if needed == 1 else "settle"
    return Text(f"{number} more {word} {verb} it", f"{more.ko}을 더 관측하면 판정할 수 있습니다")


def _pooled(measured: Text, runs: int) -> Text:
    """Say inside the brackets of a figure over how many runs it is."""
    if runs == 1:
        return measured
    return Text(
        f"{measured.en.removesuffix(')')}, {runs} runs)", f"{measured.ko.removesuffix(')')}, 실행 {runs}회)"
    )


def _climb(
    claim: Claim,
    evidence: ClaimFile,
    seen: Observations,
    found: Estimate,
    *,
    parts: Mapping[str, Part],
    excluded: Mapping[str, str],
    oldest: str,
) -> Rung:
    early = _before_data(claim, evidence, parts=parts, excluded=excluded)
    if early:
        return early
    if failed := _with(seen.outcomes, "failed"):
        return Rung(Verdict.FAILED, _outcomes_reason("check_failed", failed, seen))
    if seen.problem:
        return Rung(Verdict.INVALID, Reason("bad_data", {"problem": _short(seen.problem)}))
    if broken := broken_rule(claim, standing(evidence.records)):
        return Rung(Verdict.INVALID, broken)
    if found.verdict == Verdict.FAILED:
        return Rung(Verdict.FAILED, found.reason)
    return _not_run(claim, evidence, seen) or _too_old(evidence, oldest) or _figures(evidence, found)


def _expired(claim: Claim, profile: Profile, at: str) -> Rung | None:
    """Return what a person's exclusion makes of the claim: nothing is measured against it until its day is over."""
    for exclusion in profile.exclusions:
        if exclusion.claim != claim.id:
            continue
        words = {"owner": _short(exclusion.owner), "until": exclusion.until}
        if at[: len(exclusion.until)] > exclusion.until:
            return Rung(Verdict.NOT_RUN, Reason("exclusion_expired", words))
        why = {"why_en": _short(exclusion.reason.en), "why_ko": _short(exclusion.reason.ko)}
        return Rung(Verdict.NOT_APPLICABLE, Reason(WAIVED, {**words, **why}))
    return None


def _oldest(profile: Profile, at: str) -> str:
    """Return the moment before which a record is too old, as records write it."""
    first = datetime.fromisoformat(at) - timedelta(days=profile.evidence_days)
    return first.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _too_old(evidence: ClaimFile, oldest: str) -> Rung | None:
    old = [record.at for record in standing(evidence.records) if record.at < oldest]
    if not old:
        return None
    return Rung(Verdict.NOT_RUN, Reason("evidence_expired", {"count": len(old), "day": min(old)[:10]}))


def _before_data(
    claim: Claim, evidence: ClaimFile, *, parts: Mapping[str, Part], excluded: Mapping[str, str]
) -> Rung | None:
    if claim.id in excluded:
        return Rung(Verdict.NOT_APPLICABLE, Reason("excluded", {}, excluded[claim.id]))
    if evidence.broken:
        return Rung(Verdict.INVALID, Reason("chain_broken", {"problem": _short(evidence.broken)}))
    for name in claim.needs:
        part = parts.get(name)
        if part is None or part.state == PartState.MISSING:
            return Rung(Verdict.NOT_RUN, Reason("part_missing", {"part": name, "title": part_title(name)}))
        if part.state == PartState.SIMULATED:
            return Rung(
                Verdict.NOT_RUN,
                Reason(
                    "part_simulated", {"part": name, "title": part_title(name), "provider": part.provider}
                ),
            )
    return None


def _not_run(claim: Claim, evidence: ClaimFile, seen: Observations) -> Rung | None:
    if not evidence.records and not claim.checks:
        return Rung(Verdict.NOT_RUN, Reason("no_evidence"))
    for name, code in (("error", "check_error"), ("skipped", "check_not_run"), ("xfailed", "check_not_run")):
        if outcomes := _with(seen.outcomes, name):
            return Rung(Verdict.NOT_RUN, _outcomes_reason(code, outcomes, seen))
    if absent := _absent(claim, seen):
        return Rung(Verdict.NOT_RUN, Reason("check_absent", {"checks": ", ".join(absent)}))
    if not _with(seen.outcomes, "passed"):
        return Rung(Verdict.NOT_RUN, Reason("no_outcome"))
    return None


def _figures(evidence: ClaimFile, found: Estimate) -> Rung:
    if found.verdict == Verdict.PROVEN and evidence.torn:
        return Rung(Verdict.INCONCLUSIVE, Reason("torn_line", {"problem": _short(evidence.torn)}))
    return Rung(found.verdict, found.reason)


def _absent(claim: Claim, seen: Observations) -> list[str]:
    """Return the checks that the claim names and that left no outcome of any kind."""
    there: set[str] = set()
    for outcome in seen.outcomes:
        # A test is named by its node id, durable_worker/test_kill.py::test_..., a step as "load step".
        source = outcome.check.partition("::")[0].removesuffix(" step")
        there |= {source, source.partition("/")[0]} if source.endswith(".yaml") else {source}
    return [check for check in claim.checks if check not in there]


def _with(outcomes: Sequence[Outcome], name: str) -> list[Outcome]:
    return [outcome for outcome in outcomes if outcome.outcome == name]


def _outcomes_reason(code: str, outcomes: Sequence[Outcome], seen: Observations) -> Reason:
    words = next((outcome.reason for outcome in outcomes if outcome.reason), outcomes[0].check)
    return Reason(code, {"count": len(outcomes), "total": len(seen.outcomes)}, _short(words))


def _short(words: str) -> str:
    # Control and direction characters of a hostile message must not reach a terminal or a page.
    visible = "".join(character if character.isprintable() else " " for character in words)
    flat = " ".join(visible.split())
    return flat if len(flat) <= LONGEST_DETAIL else flat[: LONGEST_DETAIL - 1] + "…"


def _files(evidence: ClaimFile) -> tuple[str, ...]:
    if not evidence.digest:
        return ()
    attached = [str(record.data.get("path")) for record in evidence.records if record.kind == "attachment"]
    return (f"evidence/{evidence.claim}.jsonl", *dict.fromkeys(attached))


def sample_unit(claim: Claim) -> str:
    """Return the unit in which a claim's samples are wanted."""
    # Availability samples are recoveries; its limit has another unit.
    return "s" if claim.estimator.kind == EstimatorKind.AVAILABILITY else claim.estimator.unit
