"""Faults of processes: workers killed, asked to stop, frozen, crashed in a loop; the API killed.

Only processes of the scene's own lane are touched, by the handles that the lane gave out.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import ClassVar

from readiness.faults.act import BaseAct, Broken, Capabilities, NotActive, Parameter, Scene
from readiness.targets.base import TERMINAL_STATES, Lane, TargetError, Worker

BUSY_SECONDS = 20.0
"""Until a worker that is up holds a job of the running stream, on a machine with busy cores."""

LEASE_SETTLES_SECONDS = 12.0
"""After a worker died or was frozen: its lease of some seconds, takeovers every 0.5 s, a busy machine."""

ANSWER_SECONDS = 20.0
STUCK_SECONDS = 1.0
"""A job that is held for so long waits for the slow embedding API: the others take a tenth of it."""

HANDED_BACK = "released"
"""The outcome by which a stopping worker gives a job back unblamed."""


def jobs_in_hand(lane: Lane) -> dict[int, set[str]]:
    """Process -> jobs that it said it claimed and of which no report, hand-back or takeover is known; by the logs."""
    pids: dict[str, int] = {}
    owner: dict[str, int] = {}
    for seen in lane.sightings():
        if seen.kind == "ready":
            pids[seen.worker] = seen.pid
        elif seen.kind == "claimed":
            owner[seen.job_id] = pids.get(seen.worker, 0)
        elif seen.kind in ("settled", "taken_over"):
            owner.pop(seen.job_id, None)
    held: dict[int, set[str]] = {}
    for job, pid in owner.items():
        held.setdefault(pid, set()).add(job)
    return held


def busy_worker(scene: Scene) -> tuple[Worker, set[str]]:
    """A live worker that holds jobs, chosen by the seed, and these jobs. NotActive when none does."""

    def look() -> list[tuple[Worker, set[str]]]:
        held = jobs_in_hand(scene.lane)
        return [(worker, held[worker.pid]) for worker in scene.live_workers if held.get(worker.pid)]

    return scene.rng.choice(scene.wait(look, seconds=BUSY_SECONDS, what="a worker that holds a job"))


def taken_over(scene: Scene, held: set[str]) -> set[str]:
    """Wait until a job that a dead or frozen worker held is taken over, and return those that are.

    NotActive when all of them had just ended: the worker held nothing. Broken when nobody takes them.
    """

    def look() -> set[str]:
        return {one.job_id for one in scene.lane.sightings() if one.kind == "taken_over"} & held

    def ended() -> bool:
        return all(state_of(scene.lane, job) in TERMINAL_STATES for job in held)

    found = scene.expect(
        lambda: look() or ended(), seconds=LEASE_SETTLES_SECONDS, what="a job of the lost worker taken over"
    )
    if isinstance(found, bool):
        raise NotActive("the worker had just ended all its jobs: it held nothing")
    return found


def refill(scene: Scene, wanted: int) -> None:
    """Start workers until `wanted` of them live."""
    for _ in range(wanted - len(scene.live_workers)):
        scene.lane.start_worker(prefix=scene.worker_prefix)


class KillWorker(BaseAct):
    """SIGKILL a worker in the middle of its jobs, `times` times; a replacement is started for each."""

    parameters: ClassVar[Mapping[str, Parameter]] = {"times": Parameter(1, 1, 20, "kills")}
    harms_any_worker = False

    def missing(self, machine: Capabilities) -> str:
        """Signals."""
        return machine.missing("signals")

    def inject(self, scene: Scene) -> None:
        """Kill busy workers; the last one is replaced when the fault is healed."""
        self._victims: list[tuple[Worker, set[str]]] = []
        self._wanted = len(scene.live_workers)
        for kill in range(int(self.params.number("times"))):
            if kill:
                scene.lane.start_worker(prefix=scene.worker_prefix)
            worker, held = busy_worker(scene)
            worker.kill()
            scene.history.harm(pid=worker.pid, seconds=LEASE_SETTLES_SECONDS)
            scene.history.note("killed", pid=worker.pid, jobs=sorted(held))
            self._victims.append((worker, held))

    def prove_active(self, scene: Scene) -> str:
        """The processes are gone, and what they held was given to others."""
        alive = [worker.pid for worker, _ in self._victims if worker.alive]
        if alive:
            raise NotActive(f"{len(alive)} killed workers are still there")
        jobs = {job for _, held in self._victims for job in held}

        taken = taken_over(scene, jobs)
        return f"{len(self._victims)} workers killed with {len(jobs)} jobs in hand, {len(taken)} taken over so far"

    def heal(self, scene: Scene) -> None:
        """As many workers as before."""
        refill(scene, getattr(self, "_wanted", 0))

    def prove_healed(self, scene: Scene) -> str:
        """Counted by processes."""
        return f"{len(scene.live_workers)} workers are up"


class StopWorkers(BaseAct):
    """SIGTERM all workers while they hold jobs: they finish or hand back, and are gone within `within` seconds."""

    parameters: ClassVar[Mapping[str, Parameter]] = {
        "within": Parameter(14, 1, 60, "seconds"),
        # From then on until healed the embedding API takes so long, 0: as long as ever. The jobs in hand cannot finish.
        "slow_ms": Parameter(0, 0, 60_000, "ms"),
    }
    harms_any_worker = False

    def missing(self, machine: Capabilities) -> str:
        """Signals."""
        return machine.missing("signals")

    def inject(self, scene: Scene) -> None:
        """Stop one after the other, each while it holds jobs; replacements start afterwards."""
        if self.params.number("slow_ms"):
            self._slow_down(scene)
        self._stopped: list[tuple[int, set[str], float]] = []
        self._wanted = len(scene.live_workers)
        limit = self.params.number("within")
        while scene.live_workers:
            worker, held = busy_worker(scene)
            began = time.monotonic()
            worker.stop(grace_seconds=limit + 1)
            took = time.monotonic() - began
            self._stopped.append((worker.pid, held, took))
            scene.history.note("stopped", pid=worker.pid, jobs=sorted(held), seconds=round(took, 3))
            if took > limit:
                raise Broken(f"worker {worker.pid} was asked to stop and needed SIGKILL after {limit:g} s")

    def prove_active(self, scene: Scene) -> str:
        """All are gone, had jobs in hand, and left none behind in a dead worker's claims."""
        alive = scene.live_workers
        if alive:
            raise NotActive(f"{len(alive)} workers are still there")
        held = {job for _, jobs, _ in self._stopped for job in jobs}
        left = set().union(*jobs_in_hand(scene.lane).values()) & held
        if left:
            raise Broken(
                f"{len(left)} jobs were neither finished nor handed back by a worker that stopped in order"
            )
        slowest = max(took for _, _, took in self._stopped)
        back = held & {one.job_id for one in scene.lane.sightings() if one.outcome == HANDED_BACK}
        if self.params.number("slow_ms") and not back:
            raise Broken(f"{len(held)} jobs that could not finish in time, and none was handed back")
        stopped = f"{len(self._stopped)} of {self._wanted} workers stopped, the slowest in {slowest:.1f} s"
        return f"{stopped}, with {len(held)} jobs in hand, {len(back)} of them handed back"

    def heal(self, scene: Scene) -> None:
        """As many workers as before."""
        if self.params.number("slow_ms"):
            scene.lane.script_embedding([])
        refill(scene, getattr(self, "_wanted", 0))

    def prove_healed(self, scene: Scene) -> str:
        """Counted by processes."""
        return f"{len(scene.live_workers)} workers are up"

    def _slow_down(self, scene: Scene) -> None:
        """Make the embedding API slow, and wait until a worker has held the same job for longer than it took before."""
        scene.lane.script_embedding([], latency_ms=int(self.params.number("slow_ms")))

        def held() -> set[str]:
            return {job for jobs in jobs_in_hand(scene.lane).values() for job in jobs}

        def stuck() -> set[str]:
            before = held()
            time.sleep(STUCK_SECONDS)
            return before & held()

        scene.wait(stuck, seconds=BUSY_SECONDS, what="a job that takes long")


class FreezeWorker(BaseAct):
    """SIGSTOP a worker in the middle of its jobs until its lease has run out and others have them, then SIGCONT."""

    parameters: ClassVar[Mapping[str, Parameter]] = {
        "seconds": Parameter(1, 0, 30, "seconds beyond the takeover")
    }
    harms_any_worker = False

    def missing(self, machine: Capabilities) -> str:
        """Signals."""
        return machine.missing("signals")

    def inject(self, scene: Scene) -> None:
        """Freeze it."""
        self._victim, self._held = busy_worker(scene)
        self._victim.pause()
        self._frozen = time.monotonic()
        scene.history.harm(pid=self._victim.pid, seconds=60.0)
        scene.history.note("frozen", pid=self._victim.pid, jobs=sorted(self._held))

    def prove_active(self, scene: Scene) -> str:
        """Its jobs were taken over while it is still there."""

        seen = taken_over(scene, self._held)
        if not self._victim.alive:
            raise NotActive("the frozen worker is gone")
        time.sleep(self.params.number("seconds"))
        waited = time.monotonic() - self._frozen
        frozen = f"worker {self._victim.pid} frozen for {waited:.1f} s"
        return f"{frozen} with {len(self._held)} jobs in hand, {len(seen)} of them taken over"

    def heal(self, scene: Scene) -> None:
        """Thaw it."""
        if hasattr(self, "_victim") and self._victim.alive:
            self._victim.resume()

    def prove_healed(self, scene: Scene) -> str:
        """The same process works again: it claims a job that it had not before."""
        pid = self._victim.pid
        name = next(
            (one.worker for one in scene.lane.sightings() if one.kind == "ready" and one.pid == pid), ""
        )

        def claims() -> list[str]:
            found = [one for one in scene.lane.sightings() if one.kind == "claimed" and one.worker == name]
            return [one.job_id for one in found if one.job_id not in self._held]

        before = set(claims())
        scene.expect(
            lambda: set(claims()) - before or scene.lane.depth() == 0,
            seconds=ANSWER_SECONDS,
            what="the thawed worker back at work",
        )
        if not self._victim.alive:
            raise Broken(f"worker {pid} died when it was thawed")
        return f"worker {pid} is back, {len(set(claims()) - before)} jobs claimed since"


class CrashLoop(BaseAct):
    """All workers die at once, `rounds` times, each time as soon as one of the new ones holds a job."""

    parameters: ClassVar[Mapping[str, Parameter]] = {"rounds": Parameter(3, 1, 15, "rounds")}
    harms_any_worker = False

    def missing(self, machine: Capabilities) -> str:
        """Signals."""
        return machine.missing("signals")

    def inject(self, scene: Scene) -> None:
        """Kill all, start all anew, again and again; the last time they stay dead until healed."""
        self._wanted = len(scene.live_workers)
        self._kills: list[int] = []
        self._held: set[str] = set()
        for turn in range(int(self.params.number("rounds"))):
            if turn:
                refill(scene, self._wanted)
            busy_worker(scene)
            held = jobs_in_hand(scene.lane)
            for worker in scene.live_workers:
                worker.kill()
                scene.history.harm(pid=worker.pid, seconds=60.0)
                self._held |= held.get(worker.pid, set())
                self._kills.append(worker.pid)
        scene.history.note("crashed", pids=self._kills, jobs=sorted(self._held))

    def prove_active(self, scene: Scene) -> str:
        """Nobody is left, and the backlog is still there."""
        if scene.live_workers:
            raise NotActive(f"{len(scene.live_workers)} workers are still there")
        unfinished = [
            job for job in sorted(self._held) if state_of(scene.lane, job) not in ("done", "cancelled")
        ]
        return (
            f"{len(self._kills)} workers killed, {len(self._held)} jobs hit, {len(unfinished)} of them open"
        )

    def heal(self, scene: Scene) -> None:
        """As many workers as before."""
        refill(scene, getattr(self, "_wanted", 0))

    def prove_healed(self, scene: Scene) -> str:
        """Counted by processes."""
        return f"{len(scene.live_workers)} workers are up"


class KillApi(BaseAct):
    """SIGKILL the API while submissions come in: they get no answer, and nobody may guess what became of them."""

    harms_any_worker = False

    def missing(self, machine: Capabilities) -> str:
        """Signals."""
        return machine.missing("signals")

    def inject(self, scene: Scene) -> None:
        """Kill it."""
        scene.lane.kill_api()

    def prove_active(self, scene: Scene) -> str:
        """It does not answer."""
        try:
            scene.lane.depth()
        except TargetError as error:
            return f"no answer from the API: {str(error)[:120]}"
        raise NotActive("the API still answers after SIGKILL")

    def heal(self, scene: Scene) -> None:
        """Start it again; on its old port, as a supervisor would."""
        scene.lane.start_api(prefix=scene.api_prefix)

    def prove_healed(self, scene: Scene) -> str:
        """It answers."""
        scene.expect(lambda: _answers(scene.lane), seconds=ANSWER_SECONDS, what="an answer of the API")
        return "the API answers again"


def _answers(lane: Lane) -> bool:
    try:
        lane.depth()
    except TargetError:
        return False
    return True


def state_of(lane: Lane, job: str) -> str:
    """The job's state; "" when the API does not answer."""
    try:
        return lane.status(job).state
    except TargetError:
        return ""
