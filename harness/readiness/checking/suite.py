"""A project's own pytest session as a run: `pytest --readiness` in any repository.

The session's marked tests are the checks, `reports/scorecard.yaml` beside them the profile; there is no stack and no
load. `open_suite` makes the run folder before anything is collected, `close_suite` seals, judges and renders it when
the last test is over. What a mark and the `evidence` fixture do in between is the plugin's; so is the exit status.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from readiness import __version__
from readiness.conclude import conclude, point_latest, seal_run, write_context
from readiness.errors import BadInput
from readiness.judge.codec import to_json
from readiness.judge.model import RunContext, RunFacts, Scorecard, Status, Step
from readiness.judge.profile import Profile, load_profile
from readiness.previous import previous_run
from readiness.provenance import Provenance, gather
from readiness.root import PROFILE_FILE, Root

SEED_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Suite:
    """An open suite run. `began` is on the monotonic clock, in seconds."""

    run_id: str
    root: Root
    profile: Profile
    provenance: Provenance
    argv: tuple[str, ...]
    only: tuple[str, ...]
    seed: int
    created_at: str
    began: float

    @property
    def run_dir(self) -> Path:
        """The folder of this run."""
        return self.root.runs / self.run_id


def open_suite(
    top: Path, *, profile_name: str, argv: Sequence[str], only: Sequence[str], seed: int | None
) -> Suite:
    """Make the run folder of a session whose scorecard lies in ``top``/reports/scorecard.yaml.

    ``only`` are the claims that --claim names; without ``seed`` one is drawn. Raises BadInput when there is no
    scorecard, when it does not parse, when it lacks a claim of ``only``, or when the folder cannot be written.
    """
    if not (top / PROFILE_FILE).is_file():
        raise BadInput(
            f"{top / PROFILE_FILE}: expected the scorecard that says what has to be proven, found none."
            " `readiness init` writes one to start from."
        )
    profile = load_profile(top, profile_name)
    known = [claim.id for claim in profile.claims]
    if unknown := [claim for claim in only if claim not in known]:
        raise BadInput(
            f"--claim {unknown[0]}: the scorecard has no such claim. It has: {', '.join(sorted(known))}."
        )
    now = datetime.now(UTC)
    suite = Suite(
        run_id=f"{now:%Y%m%dT%H%M%SZ}-{profile.name}-{secrets.token_hex(2)}",
        root=Root(path=top, origin="folder", reports=top / "reports"),
        profile=profile,
        provenance=gather(top),
        argv=("pytest", *argv),
        only=tuple(only),
        seed=secrets.randbelow(SEED_MAX) if seed is None else seed,
        created_at=_stamp(now),
        began=time.monotonic(),
    )
    _write_folder(suite)
    return suite


def close_suite(suite: Suite) -> tuple[Scorecard, Path]:
    """Seal and judge what the session recorded, write every format; the scorecard and the path of its page."""
    _write_context(suite)
    seal_run(suite.run_dir)
    card, page = conclude(suite.run_dir, lang="en")
    point_latest(suite.root.reports, suite.run_dir)
    return card, page


def _write_folder(suite: Suite) -> None:
    plan = {
        "run_id": suite.run_id,
        "suite": True,
        "created_at": suite.created_at,
        "argv": list(suite.argv),
        "seed": suite.seed,
        "target": suite.profile.target,
        "profile": suite.profile.name,
        "profile_hash": suite.profile.content_hash,
        "only": list(suite.only),
        "knobs": to_json(suite.profile.knobs),
        "commit": suite.provenance.commit,
        "dirty": suite.provenance.dirty,
        "harness_version": __version__,
    }
    try:
        (suite.run_dir / "evidence").mkdir(parents=True)
        for name, value in (("plan.json", plan), ("profile.json", to_json(suite.profile))):
            text = json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True)
            (suite.run_dir / name).write_text(f"{text}\n", encoding="utf-8")
        _write_context(suite)
    except OSError as error:
        raise BadInput(
            f"{suite.root.reports}: expected a folder that can be written, got: {error.strerror or error}."
        ) from None


def _write_context(suite: Suite) -> None:
    seconds = round(time.monotonic() - suite.began, 3)
    where = suite.provenance
    facts = RunFacts(
        id=suite.run_id,
        started_at=suite.created_at,
        finished_at=_stamp(datetime.now(UTC)),
        duration_seconds=seconds,
        argv=suite.argv,
        commit=where.commit,
        dirty=where.dirty,
        seed=suite.seed,
        profile=suite.profile.name,
        profile_hash=suite.profile.content_hash,
        target=suite.profile.target,
        target_version="",
        harness_version=__version__,
        python=where.python,
        platform=where.platform,
        cpu_count=where.cpu_count,
        memory_bytes=where.memory_bytes,
    )
    # A partial session is compared with nothing: what it left out did not move.
    earlier = None if suite.only else previous_run(suite.root.runs, suite.profile, before=suite.run_id)
    step = Step(name="pytest", seconds=seconds, status=Status.DONE)
    write_context(
        suite.run_dir, RunContext(run=facts, parts=(), steps=(step,), previous=earlier, only=suite.only)
    )


def _stamp(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
