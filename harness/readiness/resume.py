"""Go on with a run that was cut short: what of it is finished, and how its folder is opened again.

A check is finished when it left an outcome in every claim that it is marked with; the others are begun anew. What those
had recorded stays in the file and no longer counts: a `facts` record with `repeats` says from where on it does. Data
and logs of the part that ended are moved aside, the plan stays as it was. Deciding what to run is `run.py`'s.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from readiness.checking.outcomes import CUT_SHORT
from readiness.checking.session import CHECKS_FILE, RESUME_FILE
from readiness.errors import BadInput
from readiness.evidence import EvidenceWriter, Record, read_all
from readiness.evidence.records import REPEATS
from readiness.judge.codec import from_json
from readiness.judge.model import RunContext
from readiness.stack.strays import is_running

MOVED = ("data", "logs")


@dataclass(frozen=True, slots=True)
class Earlier:
    """What the parts before this one left: finished checks, whether any is left to do, and the context."""

    finished: frozenset[str]
    checks_left: bool
    context: RunContext | None

    def step_is_done(self, name: str) -> bool:
        """True when the step (`load step`) left the outcomes that it had to leave."""
        return name in self.finished


NOTHING_EARLIER = Earlier(finished=frozenset(), checks_left=True, context=None)
"""A run that only begins."""


def read_earlier(run_dir: Path, step_claims: Mapping[str, tuple[str, ...]]) -> Earlier:
    """Look at an unfinished run's folder; ``step_claims`` names the claims of each step that is no pytest file."""
    outcomes = _outcomes(run_dir)
    collected = _collected(run_dir)
    wanted = {**(collected or {}), **step_claims}
    finished = {
        check
        for check, claims in wanted.items()
        if claims and all(check in outcomes.get(claim, ()) for claim in claims)
    }
    left = collected is None or not finished.issuperset(collected)
    return Earlier(frozenset(finished), left, _context(run_dir))


def reopen(run_dir: Path, earlier: Earlier, *, command: str) -> None:
    """Make the folder ready for another part: nothing that is finished is touched.

    Raises BadInput when the run is still going on.
    """
    if is_running(run_dir):
        raise BadInput(f"--resume {run_dir.name}: this run is still going on; wait for it or end it first.")
    for name in MOVED:
        if (run_dir / name).exists():
            number = next(n for n in range(1, 10_000) if not (run_dir / f"{name}-{n}").exists())
            (run_dir / name).rename(run_dir / f"{name}-{number}")
    (run_dir / "logs").mkdir()
    writer = EvidenceWriter(run_dir, command=command)
    for claim, file in read_all(run_dir).items():
        for check in sorted({_check(record) for record in file.records} - earlier.finished - {""}):
            writer.record(claim, "facts", {REPEATS: check}, check=check)
    text = json.dumps({"finished": sorted(earlier.finished)}, indent=1, ensure_ascii=False)
    (run_dir / RESUME_FILE).write_text(f"{text}\n", encoding="utf-8")


def _check(record: Record) -> str:
    return record.check or ""


def _outcomes(run_dir: Path) -> dict[str, set[str]]:
    """The checks that left an outcome of their own, by claim."""
    return {
        claim: {
            _check(record)
            for record in file.records
            if record.kind == "outcome" and CUT_SHORT not in str(record.data.get("reason"))
        }
        for claim, file in read_all(run_dir).items()
        if not file.broken
    }


def _collected(run_dir: Path) -> dict[str, tuple[str, ...]] | None:
    """The claims of each check that pytest found; None when it did not get so far."""
    try:
        found = json.loads((run_dir / CHECKS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return {str(check): tuple(claims) for check, claims in found.items()}


def _context(run_dir: Path) -> RunContext | None:
    try:
        return from_json(
            RunContext, json.loads((run_dir / "context.json").read_bytes()), where="context.json"
        )
    except (OSError, ValueError, BadInput):
        return None
