"""Earlier runs of the same commit and profile count: rerunning until green must not help.

Three tries turn a false pass in 20 into one in 7. So every attempt is kept, and what can be added up is: trials and
exposure of all attempts are judged together, a failure in any of them included. What cannot be added up (cases,
percentiles) stays this run's own, but where an earlier attempt failed, passing now leaves the claim open.

Which runs are attempts of the same thing is readiness/attempts.py's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from readiness.judge.dependence import effective_trials
from readiness.judge.observations import Observations


@dataclass(frozen=True, slots=True)
class Counts:
    """What one attempt recorded for a claim. `trials_eff` is what its trials are worth, `failed`: it saw a failure."""

    trials: int = 0
    trial_failures: int = 0
    trials_eff: int = 0
    exposure_seconds: float = 0.0
    exposure_failures: int = 0
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Attempt:
    """An earlier run of the same commit, target and profile.

    `status` is its exit status, None when it was ended before its report. `only` names the claims of a partial run.
    """

    run: str
    started_at: str
    status: int | None
    verdict: str = ""
    only: tuple[str, ...] = ()
    claims: Mapping[str, Counts] = field(default_factory=dict)


def counts_of(seen: Observations, *, failed: bool) -> Counts:
    """Return what an attempt's observations of one claim add to those of later ones."""
    return Counts(
        trials=seen.trials,
        trial_failures=seen.trial_failures,
        trials_eff=seen.trials if seen.failed_at is None else effective_trials(seen.trials, seen.failed_at),
        exposure_seconds=seen.exposure_seconds,
        exposure_failures=seen.exposure_failures,
        failed=failed,
    )


def pool(seen: Observations, claim: str, attempts: Sequence[Attempt]) -> Observations:
    """Return this run's observations with the trials and the exposure of earlier attempts added.

    Only to data that this run has too: what it did not try, earlier runs do not prove for it.
    """
    earlier = [(one.run, one.claims[claim]) for one in attempts if claim in one.claims]
    tried = [(run, counts) for run, counts in earlier if seen.trials and counts.trials]
    watched = [counts for _, counts in earlier if seen.exposure_seconds and counts.exposure_seconds]
    if not tried and not watched:
        return seen
    own = counts_of(seen, failed=False)
    known = [f"earlier run {run}: {counts.trial_failures} of {counts.trials}" for run, counts in tried]
    bad = [words for words, (_, counts) in zip(known, tried, strict=True) if counts.trial_failures]
    ordered = seen.failed_at is not None
    return replace(
        seen,
        trials=seen.trials + sum(counts.trials for _, counts in tried),
        trial_failures=seen.trial_failures + sum(counts.trial_failures for _, counts in tried),
        failed_at=None,
        trials_eff=own.trials_eff + sum(counts.trials_eff for _, counts in tried) if ordered else None,
        exposure_seconds=seen.exposure_seconds + sum(counts.exposure_seconds for counts in watched),
        exposure_failures=seen.exposure_failures + sum(counts.exposure_failures for counts in watched),
        examples=(*seen.examples, *bad),
        runs=1 + max(len(tried), len(watched)),
    )


def failed_before(claim: str, attempts: Sequence[Attempt]) -> str:
    """Return the earliest attempt that saw the claim fail; "" when none did."""
    return next((one.run for one in attempts if claim in one.claims and one.claims[claim].failed), "")
