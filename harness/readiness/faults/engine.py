"""Play one fault scenario from an empty stand to a judged history. Every exit heals and ends everything.

    missing? -> prepare -> stand -> steady state -> submissions -> inject -> prove active -> hold -> heal
    -> prove healed -> liveness: all acknowledged jobs end, a new one is done -> witnesses -> checkers

A fault that was not proven active, or not proven healed, shows nothing: `unproven`, never `survived`. What the acts do
is theirs (`acts/`), what is built `stand.py`'s, what is judged `checkers.py`'s.
"""

from __future__ import annotations

import contextlib
import random
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from readiness.errors import HarnessFailure
from readiness.faults.act import Act, Broken, Capabilities, NotActive, Params, Scene
from readiness.faults.acts import make_act
from readiness.faults.checkers import Timing, conservation, judge, lost_jobs, repeated_jobs
from readiness.faults.history import Harm, History, Look, Story, now_ms
from readiness.faults.result import Played
from readiness.faults.scenario import Scenario
from readiness.faults.stand import begin_stand, build_stand
from readiness.faults.stream import SubmissionStream
from readiness.faults.witness import gather, gather_quiet
from readiness.stack.base import StackInfo
from readiness.targets.base import DeadlineExceeded, Lane, Target, TargetError

Tell = Callable[[str], None]
FOLDER = "faults"
"""Below the run folder: one folder a scenario, with its history and its result."""

FIRST_ACKNOWLEDGED = 3
"""So many submissions of the stream are in before anything is broken: the fault must meet work."""

STREAM_SECONDS = 20.0
AFTER_HEAL_SECONDS = 0.5
"""The stream goes on for so long after the end of the fault: recovery is also about new work."""

LEASES_SETTLE_SECONDS = 12.0
"""After a fault that cut everybody off: the longest lease of a scenario (3 s by default), takeovers every 0.5 s, and
a machine with busy cores."""

EXAMPLES = 5


def play(
    scenario: Scenario,
    *,
    target: Target,
    stack: StackInfo,
    run_dir: Path,
    seed: int,
    machine: Capabilities,
    tell: Tell = lambda _: None,
    only: Sequence[str] = (),
) -> Played:
    """Play it once. `only` names the acts to take of those that the seed chose. Does not raise for what the target
    does; raises what interrupts the person's run.
    """
    began = time.monotonic()
    moves = _chosen(scenario, seed, only)
    acts = [make_act(name, params) for name, params in moves]
    blank = Played(
        name=scenario.name,
        title_en=scenario.title.en,
        title_ko=scenario.title.ko,
        row=scenario.row,
        seed=seed,
        outcome="not_run",
        acts=tuple({"act": name, **params.values} for name, params in moves),
        recovery_limit_seconds=scenario.expected.recovery_seconds,
        recovery_from=scenario.recovery_from,
        unjudged=dict(scenario.unjudged),
    )
    missing = [why for act in acts if (why := act.missing(machine))]
    folder = run_dir / FOLDER / scenario.name
    folder.mkdir(parents=True, exist_ok=True)
    if missing:
        refused = replace(blank, reason=missing[0])
        refused.write(folder)
        return refused
    history = History(folder / ("-".join(["history", *only]) + ".jsonl"))
    show = _Show(blank, scenario, [name for name, _ in moves], acts, history, tell)
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(history.close)
        scene = Scene(
            name=scenario.name,
            target=target,
            stack=stack,
            run_dir=run_dir,
            folder=folder,
            rng=random.Random(seed),  # noqa: S311  a repeatable draw, no secret
            cleanup=cleanup,
            history=history,
        )
        played = show.run(scene, seed)
    done = replace(
        played, seconds=round(time.monotonic() - began, 3), history=str(history.path.relative_to(run_dir))
    )
    done.write(folder)
    return done


def play_and_shrink(
    scenario: Scenario,
    *,
    target: Target,
    stack: StackInfo,
    run_dir: Path,
    seed: int,
    machine: Capabilities,
    tell: Tell = lambda _: None,
) -> Played:
    """Play it; when several acts at once broke a promise, play each alone and name the smallest set that still does."""

    def once(*only: str) -> Played:
        return play(
            scenario,
            target=target,
            stack=stack,
            run_dir=run_dir,
            seed=seed,
            machine=machine,
            tell=tell,
            only=only,
        )

    whole = once()
    names = [str(act["act"]) for act in whole.acts]
    if whole.outcome != "failed" or len(names) < 2:
        return whole
    smallest = tuple(names)
    for name in names:
        tell(f"failed with {' and '.join(names)}: playing {name} alone")
        if once(name).outcome == "failed":
            smallest = (name,)
            break
    found = replace(whole, shrunk_to=smallest)
    found.write(run_dir / FOLDER / scenario.name)
    return found


def why_missing(scenario: Scenario, machine: Capabilities) -> str:
    """Why this machine cannot play it; "" when it can. Of a draw, every act must be possible."""
    acts = [make_act(name, params) for name, params in _all_moves(scenario, seed=0)]
    return next((why for act in acts if (why := act.missing(machine))), "")


class _Show:
    """One scenario while it is played."""

    def __init__(
        self,
        blank: Played,
        scenario: Scenario,
        names: Sequence[str],
        acts: Sequence[Act],
        history: History,
        tell: Tell,
    ) -> None:
        self._played = blank
        self._scenario = scenario
        self._acts = dict(zip(names, acts, strict=True))
        self._order = [name for name in scenario.rollback if name in self._acts]
        self._history = history
        self._tell = tell
        self._injected_ms = self._healed_ms = 0

    def run(self, scene: Scene, seed: int) -> Played:
        """All steps; what goes wrong becomes the outcome."""
        try:
            return self._steps(scene, seed)
        except NotActive as unproven:
            return replace(self._played, outcome="unproven", reason=str(unproven))
        except Broken as broken:
            return replace(self._played, outcome="failed", reason=str(broken), violations=(str(broken),))
        except (HarnessFailure, TargetError) as failure:
            return replace(self._played, outcome="error", reason=str(failure))
        except Exception as defect:  # of an act or of the engine: named in the ledger, never a pass
            traceback.print_exc()
            return replace(self._played, outcome="error", reason=f"{type(defect).__name__}: {defect}")

    def _steps(self, scene: Scene, seed: int) -> Played:
        scenario = self._scenario
        begin_stand(scene, scenario)
        for act in self._acts.values():
            try:
                act.prepare(scene)
            except NotActive as cannot:
                return replace(self._played, outcome="not_run", reason=str(cannot))
        self._say("building the stand")
        build_stand(scene, scenario)
        stream = SubmissionStream(scene.lane, scenario.stream, self._history, label=scenario.name, seed=seed)
        scene.stream_or_none = stream
        self._steady_state(scene.lane, stream)
        with contextlib.ExitStack() as healing:
            for name in reversed(self._order):  # callbacks run last first
                healing.callback(self._acts[name].heal, scene)
            healing.callback(stream.end)
            stream.start()
            scene.wait(
                lambda: len(stream.acknowledged) >= scenario.steady_state.jobs + FIRST_ACKNOWLEDGED,
                seconds=STREAM_SECONDS,
                what=f"{FIRST_ACKNOWLEDGED} acknowledged submissions before the fault",
            )
            self._break(scene)
            self._say(f"held for {scenario.hold_seconds:g} s")
            time.sleep(scenario.hold_seconds)
            self._heal(scene)
            time.sleep(AFTER_HEAL_SECONDS)
            stream.end()
        return self._judged(scene, stream)

    def _steady_state(self, lane: Lane, stream: SubmissionStream) -> None:
        wanted = self._scenario.steady_state
        for number in range(wanted.jobs):
            stream.submit_one(f"{self._scenario.name}-steady-{number}")
        try:
            ends = lane.wait_all(stream.acknowledged, seconds=wanted.within_seconds)
        except DeadlineExceeded as late:
            raise NotActive(f"no steady state before the fault: {late}") from None
        done = sum(status.state == "done" for status in ends.values())
        if done < wanted.jobs:
            raise NotActive(f"no steady state before the fault: {done} of {wanted.jobs} jobs done")
        stream.submitted = 0  # the plan's bound is about the stream
        self._say(f"steady state: {done} of {wanted.jobs} jobs done")

    def _break(self, scene: Scene) -> None:
        self._injected_ms = now_ms()
        words: list[str] = []
        for name, act in self._acts.items():
            # Each is proven before the next one begins: what both do together may leave nothing to look at.
            self._say(f"injecting {name}")
            act.inject(scene)
            try:
                words.append(act.prove_active(scene))
            except NotActive as unproven:
                raise NotActive(f"{name} was not proven active: {unproven}") from None
            self._say(f"proven active: {words[-1]}")
        self._played = replace(self._played, active=tuple(words), injected_ms=self._injected_ms)

    def _heal(self, scene: Scene) -> None:
        for name in self._order:
            self._say(f"healing {name}")
            self._acts[name].heal(scene)
        self._healed_ms = now_ms()
        if any(act.harms_any_worker for act in self._acts.values()):
            until = self._healed_ms + int(1000 * LEASES_SETTLE_SECONDS)
            self._history.add(Harm(self._injected_ms, until))
        words = []
        for name in self._order:
            try:
                words.append(self._acts[name].prove_healed(scene))
            except NotActive as unproven:
                raise NotActive(f"{name} was not proven healed: {unproven}") from None
            self._say(f"proven healed: {words[-1]}")
        self._played = replace(self._played, healed=tuple(words), healed_ms=self._healed_ms)

    def _judged(self, scene: Scene, stream: SubmissionStream) -> Played:
        scenario = self._scenario
        recovered_ms = self._liveness(scene.lane, stream)
        window = scenario.expected.loss_window
        gather(scene.lane, self._history, report_events=[window.reported_by] if window else [])
        gather_quiet(scene.lane, self._history)
        timing = Timing(self._injected_ms, self._healed_ms, recovered_ms, scenario.recovery_from)
        story = self._history.story()
        violations = judge(story, scenario.expected, timing, unjudged=scenario.unjudged)
        played = _counted(self._played, story, timing)
        excused = not conservation(story, scenario.expected, timing) and window is not None
        played = replace(
            played,
            outcome="failed" if violations else "survived",
            reason=str(violations[0]) if violations else "",
            violations=tuple(map(str, violations)),
            declared_lost=played.lost if excused else 0,
            lost=0 if excused else played.lost,
        )
        self._say(played.verdict)
        return played

    def _liveness(self, lane: Lane, stream: SubmissionStream) -> int | None:
        """Until all acknowledged jobs have ended and a new one is done: the moment in ms; None when it never came."""
        deadline = time.monotonic() + self._scenario.liveness_seconds
        unknown = stream.settle_unknown()
        if unknown:
            self._say(f"{unknown} submissions still have no outcome")
        answer = stream.submit_one(f"{self._scenario.name}-after")
        probe = answer.job_id if answer is not None and answer.accepted else ""
        known = _still_known(lane, list(dict.fromkeys(stream.acknowledged)))
        try:
            ends = lane.wait_all(known, seconds=max(1.0, deadline - time.monotonic()))
        except (DeadlineExceeded, TargetError) as late:
            self._say(f"not recovered: {late}")
            return None
        moment = now_ms()
        for job, status in ends.items():
            self._history.add(Look(moment, job, status.state))
        if probe not in ends or ends[probe].state != "done":
            self._say("not recovered: the job submitted after the fault is not done")
            return None
        return moment

    def _say(self, words: str) -> None:
        self._history.note("step", words=words)
        self._tell(words)


def _chosen(scenario: Scenario, seed: int, only: Sequence[str]) -> list[tuple[str, Params]]:
    """The acts of this play with their parameters, in the file's order, drawn from the seed."""
    drawn = _all_moves(scenario, seed=seed)
    if scenario.choose:
        rng = random.Random(~seed)  # noqa: S311  as below, apart from the parameters
        places = sorted(rng.sample(range(len(drawn)), scenario.choose))
        drawn = [drawn[place] for place in places]
    return [one for one in drawn if not only or one[0] in only]


def _all_moves(scenario: Scenario, *, seed: int) -> list[tuple[str, Params]]:
    rng = random.Random(seed)  # noqa: S311  a repeatable draw, no secret
    return [(move.act, move.drawn(rng)) for move in scenario.method]


def _still_known(lane: Lane, jobs: Sequence[str]) -> list[str]:
    """Jobs that the target still knows: those that it forgot are lost, not late."""
    known = []
    for job in jobs:
        try:
            if lane.status(job).state != "missing":
                known.append(job)
        except TargetError:
            known.append(job)
    return known


def _counted(played: Played, story: Story, timing: Timing) -> Played:
    """The figures of the ledger."""
    answers = [submit.answer for submit in story.submits]
    told = {submit.key for submit in story.submits if submit.answer != "unknown"}
    lost, twice = lost_jobs(story), repeated_jobs(story)
    return replace(
        played,
        submitted=len({submit.key for submit in story.submits}),
        acknowledged=len(story.acknowledged),
        refused=answers.count("refused"),
        unknown=len({submit.key for submit in story.submits} - told),
        redelivered=sum(end.deliveries > 1 for end in story.ends),
        lost=len(lost),
        lost_jobs=tuple(f"{job}: {what}" for job, what in list(lost.items())[:EXAMPLES]),
        repeated=len(twice),
        repeated_jobs=tuple(f"{job}: {count} effects" for job, count in list(twice.items())[:EXAMPLES]),
        recovery_seconds=timing.recovery_seconds,
        recovered_ms=timing.recovered_ms,
    )
