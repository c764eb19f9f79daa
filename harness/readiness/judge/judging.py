"""The judge: (profile, evidence, context) -> scorecard. Pure: the same input gives the same scorecard for ever."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from readiness.evidence.records import ClaimFile
from readiness.judge.charts import Charts
from readiness.judge.detection import claim_detection, judge_detection
from readiness.judge.ledger import read_ledger
from readiness.judge.limits import not_shown
from readiness.judge.model import SCHEMA, Change, ClaimResult, EvidenceSummary, RunContext, Scorecard, Verdict
from readiness.judge.profile_model import Profile
from readiness.judge.recommendations import recommend
from readiness.judge.score import judge_gates, judge_score, judge_sections, judge_status
from readiness.judge.sentences import conclusion, verdict_sentence, verdict_word
from readiness.judge.verdicts import judge_claim


def judge(
    profile: Profile,
    evidence: Mapping[str, ClaimFile],
    context: RunContext,
    *,
    sealed: EvidenceSummary,
    charts: Charts | None = None,
) -> Scorecard:
    """Return the scorecard of a run.

    `evidence` maps claim ids to what their files hold; files of unknown claims are ignored and missing ones make
    NOT_RUN. `sealed` is the summary of the manifest, `charts` the run's series.
    """
    claims = judge_claims(profile, evidence, context)
    sections, gates = judge_sections(profile, claims), judge_gates(profile, claims)
    score = judge_score(sections, gates, claims)
    detection = judge_detection(profile.detection, context.detection) if profile.detection else None
    status = judge_status(claims, gates, context.steps)
    return Scorecard(
        schema=SCHEMA,
        run=context.run,
        profile_title=profile.title,
        parts=context.parts,
        status=status,
        verdict_word=verdict_word(status),
        sentence=verdict_sentence(status, claims, gates),
        score=score,
        sections=sections,
        gates=gates,
        claims=claims,
        changes=_changes(context, claims),
        previous_run=context.previous.run if _comparable(context) and context.previous else None,
        not_shown=not_shown(context, claims, evidence, detection=detection),
        recommendations=recommend(claims, sections, context.parts),
        settings=context.settings,
        operations=profile.operations,
        charts=charts or Charts(),
        steps=context.steps,
        evidence=sealed,
        conclusion=conclusion(status, claims, gates, score),
        baseline=context.baseline,
        attempts=context.attempts,
        detection=detection,
        ledger=read_ledger(evidence),
    )


def judge_claims(
    profile: Profile, evidence: Mapping[str, ClaimFile], context: RunContext
) -> tuple[ClaimResult, ...]:
    """Return the results of all claims of the profile, in its order (also used while a run is going on)."""
    parts = {part.name: part for part in context.parts}
    run = context.run
    claims = tuple(
        judge_claim(
            claim,
            evidence.get(claim.id, ClaimFile(claim.id)),
            profile=profile,
            parts=parts,
            excluded=context.excluded,
            only=context.only,
            at=run.finished_at,
            fallback_command=f"readiness run --profile {run.profile} --only {claim.id} --seed {run.seed}",
            attempts=context.attempts,
        )
        for claim in profile.claims
    )
    rule = profile.detection
    if rule is None:
        return claims
    return tuple(
        replace(claim, detection=claim_detection(claim.id, rule, context.detection)) for claim in claims
    )


def _comparable(context: RunContext) -> bool:
    """Scores of different profiles are never compared."""
    return context.previous is not None and context.previous.profile_hash == context.run.profile_hash


def _changes(context: RunContext, claims: tuple[ClaimResult, ...]) -> tuple[Change, ...]:
    if context.previous is None or not _comparable(context):
        return ()
    before: Mapping[str, Verdict] = context.previous.verdicts
    return tuple(
        Change(claim.id, before.get(claim.id), claim.verdict)
        for claim in claims
        if before.get(claim.id) != claim.verdict
    )
