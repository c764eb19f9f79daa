"""What a run of a profile can prove, before it runs: how much it will observe, and the chance that this is enough.

Sizes come from the knobs where the load step makes them, from the last run of the same profile where there was one, and
otherwise from what the claim asks for at least. The chances are judge/power.py's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from readiness.errors import BadInput
from readiness.judge.bounds import trials_needed, zero_bound
from readiness.judge.figures import SECONDS, count, plain
from readiness.judge.model import ClaimResult, Scorecard, Text
from readiness.judge.power import HALF, chance_of_proof
from readiness.judge.profile_model import Claim, EstimatorKind, Profile
from readiness.judge.targets import target_text
from readiness.run import LOAD_WORKERS

LOOK_BACK = 50
DETERMINISTIC = (EstimatorKind.CHECKS, EstimatorKind.WORST)
RECOVERY_SECONDS = 5.0
# A truth so far below the target that only the number of samples can be the obstacle.
NOTHING = 1e-12
KNOBS, LAST_RUN, LEAST = "profile", "last run", "at least"


@dataclass(frozen=True, slots=True)
class Outlook:
    """One claim: how much the run observes of it (`n`, worth `n_eff`), where that is known from, and the chances.

    `flawless` says that a system without any failure is proven, `proven` is the chance of a proof when the truth is
    half of what the target allows, None where none is drawn; `notices` is the smallest rate of violations that it
    notices with 95 %, None where none is sampled.
    """

    claim: str
    target: Text
    n: int
    n_unit: Text
    n_eff: int
    source: str
    flawless: bool
    proven: float | None
    notices: float | None


def outlooks(profile: Profile, runs: Path) -> tuple[Outlook, ...]:
    """Return the outlook of every claim of the profile; `runs` is where the last run is looked for."""
    last = _last_run(profile, runs)
    return tuple(_outlook(claim, profile, last.get(claim.id)) for claim in profile.claims)


def _outlook(claim: Claim, profile: Profile, before: ClaimResult | None) -> Outlook:
    n, source = _planned(claim, profile, before)
    alike = before.n_eff / before.n if before and before.n_eff and before.n else 1.0
    n_eff = max(1, int(n * alike))
    estimator = claim.estimator
    proven: float | None = None
    flawless = n >= estimator.minimum_n
    if estimator.kind not in (*DETERMINISTIC, EstimatorKind.ZERO_VIOLATIONS):
        proven, best = (
            chance_of_proof(
                estimator,
                n_eff,
                share=share,
                recoveries=profile.knobs.kills,
                recovery_seconds=RECOVERY_SECONDS,
            )
            for share in (HALF, NOTHING)
        )
        flawless = best is not None and best > HALF
    notices = zero_bound(n) if estimator.kind == EstimatorKind.ZERO_VIOLATIONS else None
    return Outlook(
        claim.id, target_text(estimator), n, estimator.noun, n_eff, source, flawless, proven, notices
    )


def _planned(claim: Claim, profile: Profile, before: ClaimResult | None) -> tuple[int, str]:
    known = _by_knobs(claim, profile)
    if known:
        return known, KNOBS
    if before is not None and before.n:
        return max(1, before.n // max(1, before.runs)), LAST_RUN
    estimator = claim.estimator
    if "load" in claim.checks:
        return max(1, profile.knobs.sse_streams), LEAST  # each job is at least one request
    if estimator.kind in (EstimatorKind.PERCENTILE, EstimatorKind.RATE):
        rate = (
            1 - (estimator.quantile or 0.0) if estimator.kind == EstimatorKind.PERCENTILE else estimator.limit
        )
        return trials_needed(0, rate), LEAST
    return max(1, estimator.minimum_n), LEAST


def _by_knobs(claim: Claim, profile: Profile) -> int:
    """Return how much the profile's own knobs make of what the claim counts; 0 when they do not say."""
    knobs, noun = profile.knobs, claim.estimator.noun
    if noun.en == "recoveries":
        return knobs.kills
    if "load" not in claim.checks:
        return 0
    if noun == SECONDS:
        return max(1, int(knobs.load_seconds * LOAD_WORKERS))
    return knobs.sse_streams if noun.en in ("jobs", "streams") else 0


def _last_run(profile: Profile, runs: Path) -> Mapping[str, ClaimResult]:
    newest = sorted(runs.glob("*/scorecard.json"), key=lambda path: path.parent.name, reverse=True)
    for path in newest[:LOOK_BACK]:
        try:
            card = Scorecard.from_json(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, BadInput):
            continue
        if card.run.profile_hash == profile.content_hash and "--only" not in card.run.argv:
            return {claim.id: claim for claim in card.claims}
    return {}


def in_words(outlook: Outlook) -> tuple[str, ...]:
    """Return the cells of a claim's row: claim, target, size, whether a flawless system is proven, and the chance."""
    size = count(outlook.n, outlook.n_unit).en
    if outlook.n_eff < outlook.n:
        size += f", worth {outlook.n_eff:,}"
    chance = "–" if outlook.proven is None else f"{plain(100 * outlook.proven, away=-1)} %"
    if outlook.notices is not None:
        chance = f"notices {plain(100 * outlook.notices, away=1)} % or more"
    flawless = "yes" if outlook.flawless else "no"
    return outlook.claim, outlook.target.en, f"{size} ({outlook.source})", flawless, chance
