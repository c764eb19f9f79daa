"""Find the run that a new one is compared with: the newest finished one of the same profile hash.

Scores of different profiles are never compared: the hash covers claims, weights, gates and knobs. Partial runs
(--only, --claim) are passed over: what they left out did not move.
"""

from __future__ import annotations

import json
from pathlib import Path

from readiness.errors import BadInput
from readiness.judge.model import Previous, Scorecard
from readiness.judge.profile import Profile

# Runs are looked at newest first; beyond this many, one of the same profile is too old to compare with.
LOOK_BACK = 50


def previous_run(runs: Path, profile: Profile, *, before: str) -> Previous | None:
    """Return the newest earlier run with the same profile hash, or None. Runs that cannot be read are passed over."""
    earlier = sorted(
        (path for path in runs.glob("*/scorecard.json") if path.parent.name < before), reverse=True
    )
    for path in earlier[:LOOK_BACK]:
        try:
            card = Scorecard.from_json(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, BadInput):
            continue
        partial = bool({"--only", "--claim"}.intersection(card.run.argv))
        if card.run.profile_hash == profile.content_hash and not partial:
            verdicts = {claim.id: claim.verdict for claim in card.claims}
            return Previous(run=card.run.id, profile_hash=card.run.profile_hash, verdicts=verdicts)
    return None
