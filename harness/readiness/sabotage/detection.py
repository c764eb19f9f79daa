"""reports/detection.json: what is known of the checks' power to notice defects, and the sentence that sums it up.

A subset that was run again replaces its own entries and keeps the others. Entries go when the catalogue has them no
more, and when their claim was tried with other check files meanwhile: what these notice is not known. Clean runs add
up as long as the checks are the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from readiness.errors import BadInput
from readiness.judge.bounds import rate_upper
from readiness.sabotage.campaign import Campaign
from readiness.sabotage.judging import Judged, Outcome

DETECTION_FILE: Final = Path("reports") / "detection.json"
SCHEMA: Final = 1

Document = dict[str, Any]


def read_detection(path: Path | None) -> Document:
    """Return the document at ``path``; an empty one when there is none. Raises BadInput for another schema."""
    empty: Document = {
        "schema": SCHEMA,
        "sabotages": [],
        "clean_runs": {"runs": 0, "false_alarms": 0},
        "checks": {},
    }
    if path is None:
        return empty
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return empty
    except (OSError, ValueError) as error:
        raise BadInput(
            f"{path}: expected the JSON of an earlier `readiness sabotage`, got: {error}."
        ) from None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise BadInput(
            f"{path}: expected schema {SCHEMA} of detection.json. Move the file away to start anew."
        )
    return {**empty, **document}


def merged(
    before: Document,
    campaign: Campaign,
    *,
    commit: str,
    known: Collection[str],
    checks: Mapping[str, str],
    all_checks: str,
) -> Document:
    """Return ``before`` with what ``campaign`` found. ``known`` are the catalogue's ids in its order."""
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    # Of what could not be judged nothing new is known.
    judged = [one for one in campaign.judged if one.outcome is not Outcome.NOT_JUDGED]
    ran = {one.sabotage.claim for one in judged}
    other = {claim for claim in ran if before["checks"].get(claim, "") != checks.get(claim, "")}
    entries = {
        str(entry["id"]): entry
        for entry in before["sabotages"]
        if entry.get("id") in known and entry.get("expected") not in other
    }
    entries |= {one.sabotage.id: _entry(one, commit, now) for one in judged}
    order = list(known)
    clean = before["clean_runs"]
    same = clean.get("checks") == all_checks
    return {
        "schema": SCHEMA,
        "commit": commit,
        "measured_at": now,
        "sabotages": sorted(entries.values(), key=lambda entry: order.index(entry["id"])),
        "clean_runs": {
            "runs": campaign.clean_runs + (int(clean["runs"]) if same else 0),
            "false_alarms": len(campaign.false_alarms) + (int(clean["false_alarms"]) if same else 0),
            "alarms": [*(clean.get("alarms", []) if same else []), *campaign.false_alarms],
            "checks": all_checks,
        },
        # Which checks noticed; those of a claim that was not tried now stay as they were then.
        "checks": {
            **{claim: digest for claim, digest in before["checks"].items() if claim in checks},
            **{
                one.sabotage.claim: checks[one.sabotage.claim]
                for one in judged
                if one.sabotage.claim in checks
            },
        },
    }


def write_detection(path: Path, document: Document) -> None:
    """Write the document whole or not at all."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise BadInput(
            f"{path}: expected a place that can be written, got: {error.strerror or error}."
        ) from None


def sentence(campaign: Campaign) -> str:
    """Return the verdict line of one call."""
    parts: list[str] = []
    judged = [one for one in campaign.judged if one.outcome is not Outcome.NOT_JUDGED]
    if judged:
        killed = len(_with(judged, Outcome.KILLED))
        lower = 1 - rate_upper(len(judged) - killed, len(judged))
        bound = f" (≥ {_floored(100 * lower):.1f} % at 95 %)"
        parts.append(f"{killed} of {len(judged)} killed by their expected check{bound}")
    for outcome, word in (
        (Outcome.WRONG_CHECK, "wrong check"),
        (Outcome.MISSED, "missed"),
        (Outcome.CRASHED, "crashed"),
        (Outcome.NOT_JUDGED, "not judged"),
    ):
        if found := _with(campaign.judged, outcome):
            parts.append(f"{len(found)} {word}: {', '.join(one.sabotage.id for one in found)}")
    runs = f"{campaign.clean_runs} clean run{'' if campaign.clean_runs == 1 else 's'}"
    alarms = len(campaign.false_alarms)
    parts.append(f"{alarms} false alarm{'' if alarms == 1 else 's'} in {runs}")
    return f"sabotage: {', '.join(parts)}"


def status_of(campaign: Campaign) -> int:
    """0 all killed and no alarm, 1 something was missed or raised wrongly, 2 something could not be judged."""
    bad = (Outcome.MISSED, Outcome.WRONG_CHECK, Outcome.CRASHED)
    if campaign.false_alarms or any(one.outcome in bad for one in campaign.judged):
        return 1
    return 2 if _with(campaign.judged, Outcome.NOT_JUDGED) else 0


def tree_digest(folder: Path) -> str:
    """SHA-256 over every source file below ``folder``: which checks the clean runs were about."""
    total = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts:
            total.update(f"{file.relative_to(folder).as_posix()}\0".encode())
            total.update(hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()


def _entry(one: Judged, commit: str, now: str) -> Document:
    return {
        "id": one.sabotage.id,
        "title": one.sabotage.title,
        "expected": one.sabotage.claim,
        "outcome": one.outcome.value,
        "noticed_by": list(one.noticed_by),
        "reason": one.reason,
        "seconds": one.seconds,
        "profile": one.sabotage.profile,
        "commit": commit,
        "measured_at": now,
    }


def _with(judged: Sequence[Judged], outcome: Outcome) -> list[Judged]:
    return [one for one in judged if one.outcome is outcome]


def _floored(percent: float) -> float:
    """One decimal, never rounded up: a bound must not promise more than it holds."""
    return int(percent * 10) / 10
