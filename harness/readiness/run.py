"""The main job, forward only: the one module that knows the order of steps.

    self-test -> run folder -> stack -> checks -> load -> faults -> seal -> judge -> render

Steps share nothing but the run folder. Evidence is written before it is judged, so an interrupted run keeps what it
measured and `readiness report` can still judge it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import httpx

from readiness import __version__
from readiness.attempts import earlier_attempts
from readiness.checking.step import Settled, run_checks
from readiness.conclude import conclude, point_latest, seal_run, write_context
from readiness.deployment import deployment_settings
from readiness.detection_facts import detection_facts
from readiness.errors import HarnessFailure, Interrupted
from readiness.evidence import EvidenceWriter
from readiness.faults.result import Played
from readiness.faults.step import CHECK as FAULTS_CHECK
from readiness.faults.step import FAULT_CLAIMS, FaultPlan, run_faults, summary
from readiness.judge.model import Part, RunContext, RunFacts, Scorecard, Status, Step
from readiness.load.plan import LoadPlan
from readiness.load.step import CHECK as LOAD_CHECK
from readiness.load.step import LANE_SETTINGS, LOAD_CLAIMS, run_load
from readiness.plan import Plan, create_run_dir
from readiness.previous import previous_run
from readiness.progress import Progress
from readiness.resume import NOTHING_EARLIER, Earlier, read_earlier, reopen
from readiness.selftest import require_sound_harness
from readiness.stack import Stack, sweep_containers, sweep_stray
from readiness.targets import open_target
from readiness.targets.base import Lane, TargetError
from readiness.timeline import gather_timeline

LOAD_WORKERS = 2


def execute(plan: Plan, progress: Progress) -> tuple[Scorecard, Path]:
    """Run everything that ``plan`` says; return the scorecard and the path of its page.

    Raises BadInput or HarnessFailure; Interrupted says where the evidence gathered so far is. Whatever was started
    has been ended by then.
    """
    answers = require_sound_harness()
    ended, removed = sweep_stray(plan.root.runs), sweep_containers(plan.root.runs)
    earlier = _open(plan)
    run_dir = plan.run_dir
    _introduce(plan, progress)
    progress.note(f"self-test: {answers} known answers judged right")
    if plan.resumes:
        progress.note(f"resumed: {len(earlier.finished)} checks and steps are finished already")
    if ended:
        progress.note(f"ended {ended} processes that a crashed earlier run had left")
    if removed:
        progress.note(f"removed {removed} containers that a crashed earlier run had left")
    notebook = _Notebook(plan, run_dir, progress, earlier)
    notebook.write()
    try:
        _measure(plan, run_dir, progress, notebook, earlier)
    except (Interrupted, KeyboardInterrupt):
        raise Interrupted(_keep(run_dir, notebook, "interrupted")) from None
    except (HarnessFailure, TargetError) as failure:
        raise HarnessFailure(f"{failure} {_keep(run_dir, notebook, 'ended')}") from failure
    with progress.step("judge and render"):
        notebook.write()
        seal_run(run_dir)
        card, page = conclude(run_dir, lang=plan.choices.lang)
        point_latest(plan.root.reports, run_dir)
    return card, page


def _open(plan: Plan) -> Earlier:
    """Make the run folder, or open that of the run that is resumed; what is finished in it."""
    if not plan.resumes:
        create_run_dir(plan)
        return NOTHING_EARLIER
    steps = {LOAD_CHECK: _asked(plan, LOAD_CLAIMS), FAULTS_CHECK: _asked(plan, FAULT_CLAIMS)}
    earlier = read_earlier(plan.run_dir, steps)
    reopen(plan.run_dir, earlier, command=f"readiness run --resume {plan.run_id}")
    return earlier


def _asked(plan: Plan, claims: Sequence[str]) -> tuple[str, ...]:
    """Those of a step's claims that the profile has and --only does not leave out."""
    wanted = {claim.id for claim in plan.profile.claims}
    if plan.choices.only:
        wanted &= set(plan.choices.only)
    return tuple(claim for claim in claims if claim in wanted)


def _measure(plan: Plan, run_dir: Path, progress: Progress, notebook: _Notebook, earlier: Earlier) -> None:
    with progress.step("stack"):
        stack = Stack.start(plan.choices.stack(plan.root.path), run_dir, notify=progress.waiting)
    with stack:
        notebook.parts = stack.info.parts
        _require_same_parts(earlier, stack.info.parts)
        notebook.write()
        progress.note(f"parts: {_parts_line(stack.info.parts)}")
        if earlier.checks_left:
            with progress.step("checks"):
                run_checks(
                    run_dir,
                    checks=plan.root.path / "checks",
                    documents=plan.choices.documents,
                    only=plan.choices.only,
                    deadline_seconds=plan.profile.knobs.checks.timeout_seconds,
                    tell=lambda settled: _tell(progress, settled),
                )
                gather_timeline(run_dir)
            notebook.write()
        asked = not plan.choices.only or bool(set(LOAD_CLAIMS) & set(plan.choices.only))
        if asked and not earlier.step_is_done(LOAD_CHECK):
            with progress.step("load"):
                notebook.used = _load(plan, run_dir, stack, progress)
            notebook.write()
        if _asked(plan, FAULT_CLAIMS) and not earlier.step_is_done(FAULTS_CHECK):
            with progress.step("faults"):
                _faults(plan, run_dir, progress)
            notebook.write()


def _jobs_known(lane: Lane) -> int | None:
    """Count the jobs that the target holds or has brought to an end; None when it does not answer any more."""
    try:
        done = {effect.job_id for effect in lane.effects()}
        return len(done) + len(lane.dead_letters()) + lane.depth() + lane.in_flight()
    except (TargetError, httpx.HTTPError):
        return None


def _require_same_parts(earlier: Earlier, parts: tuple[Part, ...]) -> None:
    before = earlier.context.parts if earlier.context is not None else ()
    differing = sorted({one.name for one in set(before) ^ set(parts)}) if before else []
    if differing:
        raise HarnessFailure(
            f"--resume: expected the parts of the earlier part of the run, but {', '.join(differing)} differ."
            " Start a new run: evidence of two machines is not one run."
        )


def _load(plan: Plan, run_dir: Path, stack: Stack, progress: Progress) -> Mapping[str, str]:
    """Put the load on a lane of its own; return the settings that its processes had."""
    knobs = plan.profile.knobs
    load = LoadPlan(
        seconds=knobs.load_seconds, users=knobs.load_users, streams=knobs.sse_streams, seed=plan.seed
    )
    target = open_target(plan.profile.target, stack.info)
    settings: dict[str, str] = {**LANE_SETTINGS, **knobs.system_settings}
    if plan.choices.api_port:
        settings["RAG_API_PORT"] = str(plan.choices.api_port)
    writer = EvidenceWriter(
        run_dir, command=f"readiness run --profile {plan.profile.name} --seed {plan.seed}"
    )
    with target.lane("load", settings=settings) as lane:
        progress.waiting("starting the API and the workers")
        lane.start_api()
        for _ in range(LOAD_WORKERS):
            lane.start_worker()
        run_load(
            load,
            lane=lane,
            run_dir=run_dir,
            writer=writer,
            notify=progress.waiting,
            locustfile=plan.root.path / "loadtests" / "locustfile.py",
            server_jobs=lambda: _jobs_known(lane),
        )
        return dict(lane.effective_settings)


def _faults(plan: Plan, run_dir: Path, progress: Progress) -> None:
    """Play every scenario of the content root; the evidence is written by the step."""
    faults = FaultPlan(
        root=plan.root.path,
        target=plan.profile.target,
        seed=plan.seed,
        command=f"readiness run --profile {plan.profile.name} --seed {plan.seed}",
    )

    def tell(played: Played) -> None:
        kind = {"survived": "passed", "failed": "failed", "error": "error"}.get(played.outcome, "open")
        progress.mark(kind, played.name, detail=played.verdict.partition(": ")[2][:160])

    progress.note(summary(run_faults(faults, run_dir, tell=tell, notify=progress.waiting)))


class _Notebook:
    """The facts of the run as they become known, kept in context.json so that judging needs no clock."""

    def __init__(self, plan: Plan, run_dir: Path, progress: Progress, earlier: Earlier) -> None:
        self._plan = plan
        self._earlier = earlier.context
        self._run_dir = run_dir
        self._progress = progress
        self._began = time.monotonic()
        self._began_at = _now()
        self.parts: tuple[Part, ...] = earlier.context.parts if earlier.context is not None else ()
        self.used: Mapping[str, str] = {}
        # A partial run is compared with nothing: what it left out did not move.
        self._previous = (
            None if plan.choices.only else previous_run(plan.root.runs, plan.profile, before=plan.run_id)
        )
        self._attempts = earlier_attempts(
            plan.root.runs,
            plan.profile,
            commit=plan.provenance.commit,
            dirty=plan.provenance.dirty,
            started_at=plan.created_at,
        )
        self._detection = detection_facts(plan.root.path, plan.profile)

    @property
    def seconds(self) -> float:
        """Seconds that the run took so far, in all its parts."""
        before = self._earlier.run.duration_seconds if self._earlier else 0.0
        return round(before + time.monotonic() - self._began, 3)

    @property
    def last_step(self) -> str:
        """The name of the step that ended last."""
        return self._progress.steps[-1].name if self._progress.steps else "the start"

    def write(self) -> None:
        """Write what is known now."""
        steps = tuple(
            Step(
                name=step.name,
                seconds=step.seconds,
                status=Status.DONE if step.status == "passed" else Status.FAILED,
            )
            for step in self._progress.steps
        )
        earlier = self._earlier
        if earlier is not None:
            resumed = Step(name="resumed", seconds=0.0, status=Status.DONE, detail=self._began_at)
            steps = (*map(_earlier_step, earlier.steps), resumed, *steps)
        settings = deployment_settings(self.used, self.parts)
        context = RunContext(
            run=self._facts(),
            parts=self.parts,
            steps=steps,
            settings=earlier.settings if earlier is not None and not self.used else settings,
            previous=self._previous,
            only=self._plan.choices.only,
            baseline=self._plan.baseline,
            attempts=self._attempts,
            detection=self._detection,
        )
        write_context(self._run_dir, context)

    def _facts(self) -> RunFacts:
        plan = self._plan
        return RunFacts(
            id=plan.run_id,
            started_at=plan.created_at,
            finished_at=_now(),
            duration_seconds=self.seconds,
            argv=plan.argv,
            commit=plan.provenance.commit,
            dirty=plan.provenance.dirty,
            seed=plan.seed,
            profile=plan.profile.name,
            profile_hash=plan.profile.content_hash,
            target=plan.profile.target,
            target_version=__version__,
            harness_version=__version__,
            python=plan.provenance.python,
            platform=plan.provenance.platform,
            cpu_count=plan.provenance.cpu_count,
            memory_bytes=plan.provenance.memory_bytes,
        )


def _earlier_step(step: Step) -> Step:
    """A step of an earlier part; one that was cut short is no failure of the whole: it was gone on with."""
    return replace(step, status=Status.SKIPPED) if step.status == Status.FAILED else step


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _introduce(plan: Plan, progress: Progress) -> None:
    documents = plan.corpus.documents
    size = sum(len(document.content) for document in documents)
    dirty = " with uncommitted changes" if plan.provenance.dirty else ""
    progress.note(
        f"run {plan.run_id}: profile {plan.profile.name}, {len(plan.profile.claims)} claims, seed {plan.seed}"
    )
    progress.note(f"target {plan.profile.target} at {plan.provenance.commit[:12]}{dirty}")
    progress.note(f"documents: {len(documents)} with {size / 1000:.0f} kB from {plan.corpus.origin}")
    for path, reason in plan.corpus.skipped:
        progress.note(f"skipped {path}: {reason}")
    progress.note(f"folder: {plan.run_dir}")


def _tell(progress: Progress, settled: Settled) -> None:
    kinds = {"passed": "passed", "failed": "failed", "error": "error"}
    kind = kinds.get(settled.outcome, "open")
    why = "" if settled.outcome == "passed" else f"  {settled.outcome}: {settled.reason[:160]}"
    progress.mark(kind, settled.claim, detail=f"{settled.seconds:.1f} s{why}")


def _parts_line(parts: tuple[Part, ...]) -> str:
    return ", ".join(
        f"{part.name} {part.version or part.provider} ({part.state})".replace("  ", " ") for part in parts
    )


def _keep(run_dir: Path, notebook: _Notebook, how: str) -> str:
    """Seal what was measured so far; return the words that say where it is."""
    notebook.write()
    seal_run(run_dir)
    return (
        f"The run was {how} after {notebook.seconds:.0f} s (last step: {notebook.last_step}); everything that"
        f" it started has been ended. What was measured is kept: readiness report {run_dir}"
    )
