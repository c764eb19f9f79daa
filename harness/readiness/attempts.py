"""Find the attempts that a new run repeats: earlier runs of the same commit, target and profile.

Rerunning until green must not help, so none is left out: partial runs, runs that were ended, runs that failed. Passed
over are only runs with uncommitted changes (nobody can say what they examined), runs whose evidence has expired, and
joined runs whose parts are here themselves. What the attempts count for is judge/pooling.py's.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from readiness.errors import BadInput
from readiness.evidence import read_all
from readiness.evidence.records import ClaimFile
from readiness.evidence.sealing import read_manifest
from readiness.evidence.writer import EVIDENCE, file_digest
from readiness.judge.codec import from_json
from readiness.judge.estimators import estimate
from readiness.judge.model import RunContext, Verdict
from readiness.judge.observations import observe
from readiness.judge.pooling import Attempt, Counts, counts_of
from readiness.judge.profile_model import Claim, Profile
from readiness.judge.verdicts import sample_unit

NO_COMMIT = "unknown"
# Runs are looked at newest first; whoever repeats one more often than this gets no better answer by it.
LOOK_BACK = 200


def earlier_attempts(
    runs: Path,
    profile: Profile,
    *,
    commit: str,
    dirty: bool,
    started_at: str,
    leave_out: Collection[str] = (),
) -> tuple[Attempt, ...]:
    """Return the attempts before ``started_at`` (UTC, ISO 8601), oldest first; none where no commit says what ran.

    Folders that cannot be read as a run are passed over.
    """
    if dirty or commit in ("", NO_COMMIT):
        return ()
    now = _moment(started_at)
    oldest = now - timedelta(days=profile.evidence_days)
    found: list[tuple[datetime, Attempt]] = []
    digests: set[str] = set()
    folders = sorted((path.parent for path in runs.glob("*/context.json")), key=lambda path: path.name)
    for folder in folders[-LOOK_BACK:]:
        context = _context(folder)
        if context is None or folder.name in leave_out or _joined(folder, runs):
            continue
        run = context.run
        same = (run.commit, run.profile_hash, run.target) == (commit, profile.content_hash, profile.target)
        began = _moment(run.started_at)
        if same and not run.dirty and oldest <= began < now:
            found.append((began, _attempt(folder, context, profile, digests)))
    return tuple(attempt for _, attempt in sorted(found, key=lambda pair: (pair[0], pair[1].run)))


def _attempt(folder: Path, context: RunContext, profile: Profile, digests: set[str]) -> Attempt:
    status, verdict = _ended(folder)
    claims = {}
    intact = {file.claim: file for file in _intact(folder)}
    for claim in profile.claims:
        file = intact.get(claim.id)
        # The same bytes twice are one measurement: a folder that was copied counts once.
        if file is None or not file.records or file.digest in digests:
            continue
        digests.add(file.digest)
        claims[claim.id] = _counts(claim, file)
    return Attempt(context.run.id, context.run.started_at, status, verdict, context.only, claims)


def _counts(claim: Claim, file: ClaimFile) -> Counts:
    seen = observe(file.records, claim=claim.id, unit=sample_unit(claim))
    if seen.problem:
        return Counts()
    refused = any(outcome.outcome == "failed" for outcome in seen.outcomes)
    return counts_of(seen, failed=refused or estimate(claim.estimator, seen).verdict == Verdict.FAILED)


def _intact(folder: Path) -> Iterator[ClaimFile]:
    """Claim files whose chain holds and, once sealed, whose bytes are those under seal."""
    try:
        manifest = read_manifest(folder)[0]
    except BadInput:
        manifest = None  # ended before it was sealed: the chain alone vouches for it
    for file in read_all(folder).values():
        entry = manifest.file(f"{file.claim}.jsonl") if manifest else None
        digest, _ = file_digest(folder / EVIDENCE / f"{file.claim}.jsonl")
        if not file.broken and (manifest is None or (entry is not None and entry.sha256 == digest)):
            yield file


def _ended(folder: Path) -> tuple[int | None, str]:
    try:
        card = json.loads((folder / "scorecard.json").read_bytes())
        return int(card["status"]), str(card["verdict_word"]["en"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None, ""


def _joined(folder: Path, runs: Path) -> bool:
    """True for a joined run whose parts are here."""
    try:
        parts = json.loads((folder / "plan.json").read_bytes()).get("merged_from") or []
        return bool(parts) and all((runs / str(part["run"])).is_dir() for part in parts)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def _context(folder: Path) -> RunContext | None:
    try:
        return from_json(RunContext, json.loads((folder / "context.json").read_bytes()), where="context.json")
    except (OSError, ValueError, RecursionError, BadInput):
        return None


def _moment(iso: str) -> datetime:
    try:
        return datetime.fromisoformat(iso).astimezone(UTC)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
