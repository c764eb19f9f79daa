"""Read reports/detection.json for a run, and see which claims' check files have changed since it was measured.

Writing that file is `readiness sabotage`'s; what it does to points is judge/detection.py's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from readiness.errors import BadInput
from readiness.judge.detection import DetectionFacts, Noticed, Sabotage
from readiness.judge.profile_model import Profile
from readiness.sabotage.digests import claim_digests

SCHEMA = 1


def detection_facts(root: Path, profile: Profile) -> DetectionFacts | None:
    """Return what the file that the profile names says; None when the profile names none, or it is not there.

    BadInput for a file that is there and cannot be read: it must not silently count as none.
    """
    if profile.detection is None:
        return None
    name = profile.detection.file
    try:
        body = json.loads((root / name).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(
            f"{name}: expected the JSON of `readiness sabotage`, got: {type(error).__name__}."
        ) from None
    try:
        return _facts(body, claim_digests(root, profile.claims))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(
            f"{name}: expected schema {SCHEMA} of `readiness sabotage`, got something else ({error})."
            " Run `readiness sabotage` again."
        ) from None


def _facts(body: Mapping[str, object], now: Mapping[str, str]) -> DetectionFacts:
    if body["schema"] != SCHEMA:
        raise ValueError(f"schema {body['schema']!r}")
    measured, clean, entries = body["checks"], body["clean_runs"], body["sabotages"]
    if not isinstance(measured, dict) or not isinstance(clean, dict) or not isinstance(entries, list):
        raise TypeError("checks, clean_runs or sabotages of another kind")
    sabotages = tuple(
        Sabotage(
            id=str(entry["id"]),
            title=str(entry["title"]),
            expected=str(entry["expected"]),
            outcome=Noticed(entry["outcome"]),
            noticed_by=tuple(str(claim) for claim in entry.get("noticed_by", [])),
            reason=str(entry.get("reason", "")),
        )
        for entry in entries
    )
    return DetectionFacts(
        commit=str(body["commit"]),
        measured_at=str(body["measured_at"]),
        sabotages=sabotages,
        clean_runs=int(clean["runs"]),
        false_alarms=int(clean["false_alarms"]),
        changed=tuple(
            claim
            for claim in dict.fromkeys(one.expected for one in sabotages)
            if claim in now and measured.get(claim) != now[claim]
        ),
    )
