"""The engine on a target of glass: in which order it calls an act, what its ends become, and that it always heals.

No process is started: the target is an object that does every job at once, or fails in one chosen way.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest

from readiness.errors import HarnessFailure
from readiness.faults import engine as engine_module
from readiness.faults.act import Act, BaseAct, Broken, Capabilities, NotActive, Params, Scene
from readiness.faults.engine import play, play_and_shrink
from readiness.faults.history import read_story
from readiness.faults.result import Played
from readiness.faults.scenario import Expected, Move, Scenario, StreamPlan
from readiness.judge.model import Text
from readiness.stack.base import StackInfo
from readiness.targets.base import (
    DeadlineExceeded,
    Effect,
    JobEvent,
    JobStatus,
    Sighting,
    Submission,
    Target,
    TargetError,
)

SCENARIO = Scenario(
    name="glass",
    file="checks/faults/glass.yaml",
    title=Text("Glass", "유리"),
    row=1,
    method=(Move("first", {}), Move("second", {})),
    stream=StreamPlan(jobs=30, every_ms=5, words=8),
    expected=Expected(recovery_seconds=20),
    rollback=("second", "first"),
    liveness_seconds=2,
)


class GlassLane:
    """Does every job at once. `defects` name what it does wrong."""

    workers: ClassVar[list[object]] = []
    effective_settings: ClassVar[dict[str, str]] = {}
    api_url = "http://127.0.0.1:1"
    database_url = "sqlite:///nowhere"

    def __init__(self, defects: frozenset[str]) -> None:
        self.defects = defects
        self.jobs: dict[str, str] = {}
        self.done: list[Effect] = []
        self.broken = False
        self._lock = threading.Lock()

    def enqueue(self, document: object, *, key: str | None = None, headers: object = None) -> Submission:
        assert key is not None
        if "no answer" in self.defects and self.broken:
            raise TargetError("nobody answers")
        with self._lock:
            duplicate = key in self.jobs
            job = self.jobs.setdefault(key, f"job-{key}")
            if not duplicate and not ("swallow" in self.defects and self.broken):
                for _ in range(2 if "repeat" in self.defects and self.broken else 1):
                    self.done.append(Effect(job, len(self.done) + 1, "w", time.time_ns() // 10**6))
        return Submission(job, 202, duplicate, "durable", "queued", "", "", {}, {})

    def status(self, job_id: str) -> JobStatus:
        state = "done" if any(effect.job_id == job_id for effect in self.done) else "missing"
        history = (JobEvent(1, "claimed", 1, worker="w"), JobEvent(2, "done", 1, worker="w"))
        return JobStatus(job_id, state, "durable", 1, 1, 1, 2, 1, 1, 1, 0.0, "", "", history, "", "", "", "")

    def wait_all(self, job_ids: Sequence[str], *, seconds: float) -> dict[str, JobStatus]:
        if "late" in self.defects and self.broken:
            raise DeadlineExceeded("late", unfinished={})
        return {job: self.status(job) for job in job_ids}

    def effects(self) -> list[Effect]:
        return list(self.done)

    def undone(self) -> list[Effect]:
        return []

    def sightings(self) -> list[Sighting]:
        return []

    def leftovers(self) -> list[str]:
        return ["file left"] if "leave" in self.defects else []

    def embedding_log(self) -> list[dict[str, object]]:
        return []

    def log_lines(self) -> list[dict[str, object]]:
        return []

    def depth(self) -> int:
        return 0

    def in_flight(self) -> int:
        return 1 if "ghost" in self.defects else 0

    def start_api(self, **_: object) -> None:
        if "no start" in self.defects:
            raise TargetError("the API did not start")

    def start_worker(self, **_: object) -> object:
        return SimpleNamespace(alive=True)

    def script_embedding(self, *_: object, **__: object) -> None:
        """Well behaved anyway."""


class GlassTarget:
    """Lanes of glass."""

    name = "glass"

    def __init__(self, *defects: str) -> None:
        self.lane_of_now = GlassLane(frozenset(defects))
        self.closed = False

    @contextlib.contextmanager
    def lane(self, name: str, **_: object) -> Iterator[GlassLane]:
        try:
            yield self.lane_of_now
        finally:
            self.closed = True


class GlassAct(BaseAct):
    """Writes down when it is called; `ends` make a step of it go wrong."""

    calls: ClassVar[list[str]] = []
    ends: ClassVar[Mapping[str, BaseException]] = {}
    name = "act"

    def __init__(self, params: Params, name: str) -> None:
        super().__init__(params)
        self.name = name

    def _called(self, step: str) -> None:
        GlassAct.calls.append(f"{self.name}.{step}")
        if f"{self.name}.{step}" in GlassAct.ends:
            raise GlassAct.ends[f"{self.name}.{step}"]

    def missing(self, machine: Capabilities) -> str:
        return machine.missing(self.name)

    def prepare(self, scene: Scene) -> None:
        self._called("prepare")

    def inject(self, scene: Scene) -> None:
        self._called("inject")
        cast("Any", scene.lane).broken = True

    def prove_active(self, scene: Scene) -> str:
        self._called("prove_active")
        return f"{self.name} is active"

    def heal(self, scene: Scene) -> None:
        self._called("heal")

    def prove_healed(self, scene: Scene) -> str:
        self._called("prove_healed")
        return f"{self.name} is healed"


class Machine:
    """Lacks what it is told to lack."""

    def __init__(self, *lacks: str) -> None:
        self._lacks = lacks

    def missing(self, need: str) -> str:
        return f"needs {need}" if need in self._lacks else ""


@pytest.fixture(autouse=True)
def glass_acts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Acts by any name, and no patience for what never comes."""
    GlassAct.calls, GlassAct.ends = [], {}
    monkeypatch.setattr(engine_module, "make_act", lambda name, params: cast("Act", GlassAct(params, name)))
    monkeypatch.setattr(engine_module, "AFTER_HEAL_SECONDS", 0.0)
    monkeypatch.setattr("readiness.faults.witness.QUIET_SECONDS", 0.0)
    monkeypatch.setattr("readiness.faults.stream.AGAIN_SECONDS", 0.0)


def playing(
    tmp_path: Path, target: GlassTarget, *, scenario: Scenario = SCENARIO, machine: Machine | None = None
) -> Played:
    """One play, and whatever happened: the lane was closed."""
    stack = cast("StackInfo", SimpleNamespace(redis_url="redis://127.0.0.1:1/0"))
    return play(
        scenario,
        target=cast("Target", target),
        stack=stack,
        run_dir=tmp_path,
        seed=3,
        machine=machine or Machine(),
    )


def test_a_fault_that_is_survived_goes_through_all_steps_in_order(tmp_path: Path) -> None:
    """Each act is proven before the next; healed in the rollback's order, proven healed; once more on the way out."""
    target = GlassTarget()
    played = playing(tmp_path, target)
    assert (played.outcome, played.reason, played.violations) == ("survived", "", ())
    assert played.active == ("first is active", "second is active")
    assert played.healed == ("second is healed", "first is healed")
    assert GlassAct.calls == [
        *("first.prepare", "second.prepare"),
        *("first.inject", "first.prove_active", "second.inject", "second.prove_active"),
        *("second.heal", "first.heal", "second.prove_healed", "first.prove_healed"),
        *("second.heal", "first.heal"),
    ]
    assert target.closed
    assert played.acknowledged >= 7
    assert played.recovery_seconds is not None
    assert Played.read(tmp_path / "faults" / "glass") == played
    story = read_story(tmp_path / played.history)
    assert len(story.acknowledged) == played.acknowledged


def test_a_machine_that_cannot_is_said_before_anything_starts(tmp_path: Path) -> None:
    """Not run, by name; and the result is there for the ledger."""
    played = playing(tmp_path, GlassTarget(), machine=Machine("second"))
    assert (played.outcome, played.reason) == ("not_run", "needs second")
    assert GlassAct.calls == []
    assert Played.read(tmp_path / "faults" / "glass") == played


@pytest.mark.parametrize(
    ("step", "end", "outcome"),
    [
        ("first.prepare", NotActive("no older version"), "not_run"),
        ("first.prove_active", NotActive("nothing felt it"), "unproven"),
        ("second.prove_active", NotActive("nothing felt it"), "unproven"),
        ("second.prove_healed", NotActive("still there"), "unproven"),
        ("first.inject", Broken("did not stop in time"), "failed"),
        ("first.inject", HarnessFailure("no such program"), "error"),
        ("second.inject", ZeroDivisionError("a defect of the act"), "error"),
        ("second.heal", TargetError("no API"), "error"),
    ],
)
def test_what_goes_wrong_is_the_outcome_and_never_a_pass(
    tmp_path: Path, step: str, end: Exception, outcome: str
) -> None:
    """An unproven fault shows nothing; once the stand was there, every act is healed and the lane closed."""
    GlassAct.ends = {step: end}
    target = GlassTarget()
    with contextlib.suppress(TargetError):  # heal itself is broken: its end is told, and the rest still ends
        played = playing(tmp_path, target)
        assert played.outcome == outcome
        assert str(end) in played.reason
    if not step.endswith("prepare"):
        assert target.closed
        assert {"first.heal", "second.heal"} <= set(GlassAct.calls)


def test_ctrl_c_heals_and_ends_everything(tmp_path: Path) -> None:
    """And goes on to whoever asked."""
    GlassAct.ends = {"second.inject": KeyboardInterrupt()}
    target = GlassTarget()
    with pytest.raises(KeyboardInterrupt):
        playing(tmp_path, target)
    assert target.closed
    assert GlassAct.calls[-2:] == ["second.heal", "first.heal"]
    assert threading.active_count() < 20
    assert not [thread for thread in threading.enumerate() if thread.name == "submissions-glass"]


@pytest.mark.parametrize(
    ("defect", "checker"),
    [
        ("swallow", "conservation"),
        ("repeat", "repeated"),
        ("leave", "orphans"),
        ("ghost", "gauges"),
        ("late", "recovery"),
    ],
)
def test_a_target_that_breaks_a_promise_fails(tmp_path: Path, defect: str, checker: str) -> None:
    """Seen by the checker that it belongs to, from the history that the engine wrote itself."""
    played = playing(tmp_path, GlassTarget(defect))
    assert played.outcome == "failed"
    assert any(violation.startswith(f"{checker}:") for violation in played.violations), played.violations
    if defect == "swallow":
        assert played.lost > 0
    if defect == "repeat":
        assert played.repeated > 0


def test_a_target_that_does_not_start_is_an_error(tmp_path: Path) -> None:
    """The harness could not play it: nothing was shown."""
    played = playing(tmp_path, GlassTarget("no start"))
    assert (played.outcome, played.reason) == ("error", "the API did not start")


def test_submissions_without_an_answer_are_asked_again_under_the_same_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unknown is written down as unknown; later the target says which job it is."""
    target = GlassTarget("no answer")

    def answer_again(_: GlassAct, scene: Scene) -> None:
        scene.wait(lambda: scene.stream.submitted > 12, seconds=5, what="more submissions")
        target.lane_of_now.broken = False

    monkeypatch.setattr(GlassAct, "heal", answer_again)
    played = playing(tmp_path, target)
    story = read_story(tmp_path / played.history)
    unknown = {submit.key for submit in story.submits if submit.answer == "unknown"}
    assert unknown
    assert unknown <= {submit.key for submit in story.submits if submit.answer == "acknowledged"}
    assert (played.outcome, played.unknown) == ("survived", 0)


def test_a_failing_pair_is_shrunk_to_the_smaller_set(tmp_path: Path) -> None:
    """With one act alone the promise is broken as well: that one is named."""
    stack = cast("StackInfo", SimpleNamespace(redis_url="redis://127.0.0.1:1/0"))

    def shrunk(*defects: str) -> Played:
        return play_and_shrink(
            replace(SCENARIO, choose=2),
            target=cast("Target", GlassTarget(*defects)),
            stack=stack,
            run_dir=tmp_path,
            seed=3,
            machine=Machine(),
        )

    assert shrunk("repeat").shrunk_to == ("first",)
    assert shrunk().shrunk_to == ()


def test_the_draw_of_acts_follows_the_seed() -> None:
    """The same seed draws the same acts, in the file's order; other seeds draw others."""
    moves = tuple(Move(name, {"x": (0.0, 1.0)}) for name in "abcd")
    scenario = replace(SCENARIO, method=moves, choose=2)

    def drawn(seed: int) -> list[tuple[str, object]]:
        chosen = engine_module._chosen(scenario, seed, ())
        return [(name, params.number("x")) for name, params in chosen]

    assert drawn(5) == drawn(5)
    pairs = {tuple(name for name, _ in drawn(seed)) for seed in range(40)}
    assert len(pairs) == 6
    assert all(pair == tuple(sorted(pair)) for pair in pairs)
