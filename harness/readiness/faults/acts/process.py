"""Faults of processes: workers killed, asked to stop, frozen, crashed in a loop; the API killed.

Only processes of the scene's own lane are touched, by the handles that the lane gave out.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import ClassVar

from readiness.faults.act import BaseAct, Broken, Capabilities, NotActive, Parameter, Scene
from readiness.targets.base import Lane, TargetError, Worker

BUSY_SECONDS = 20.0
"""Until a worker that is up holds a job of the running stream, on a machine with busy cores."""

LEASE_SETTLES_SECONDS = 12.0
"""After a worker died or was frozen: its lease of some seconds, takeovers every 0.5 s, a busy machine."""

GONE_SECONDS = 5.0
ANSWER_SECONDS = 20.0


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

        def again() -> set[str]:
            return {one.job_id for one in scene.lane.sightings() if one.kind == "taken_over"} & jobs

        taken = scene.wait(again, seconds=LEASE_SETTLES_SECONDS, what="a job of a killed worker taken over")
        return f"{len(self._victims)} workers killed with {len(jobs)} jobs in hand, {len(taken)} taken over so far"

    def heal(self, scene: Scene) -> None:
        """As many workers as before."""
        refill(scene, getattr(self, "_wanted", 0))

    def prove_healed(self, scene: Scene) -> str:
        """Counted by processes."""
        return f"{len(scene.live_workers)} workers are up"


class KillBeforeReport(BaseAct):
    """SIGKILL a worker after it committed an effect and before the queue knows: the window of a repeated effect.

    A new row of the commit log is awaited from outside, then Redis is frozen: no report can arrive any more. The worker
    dies, Redis goes on. The window was hit when the job is not done in the queue while its effect is committed; else
    it is tried again, up to `tries` times.
    """

    parameters: ClassVar[Mapping[str, Parameter]] = {"tries": Parameter(10, 1, 40, "tries")}
    harms_any_worker = True  # Redis is frozen for a moment: nobody can renew a lease

    def missing(self, machine: Capabilities) -> str:
        """A Redis that can be frozen."""
        return machine.missing("signals") or machine.missing("redis-server")

    def inject(self, scene: Scene) -> None:
        """Try until the window was hit."""
        self._hit: tuple[str, int] | None = None
        self._tried = 0
        self._wanted = len(scene.live_workers)
        for _ in range(int(self.params.number("tries"))):
            self._tried += 1
            self._hit = self._try(scene)
            if self._hit is not None:
                return
            scene.lane.start_worker(prefix=scene.worker_prefix)

    def prove_active(self, scene: Scene) -> str:
        """The job whose effect was committed while the queue still had it in the dead worker's hands."""
        if self._hit is None:
            raise NotActive(f"in {self._tried} tries every report arrived before the worker died")
        job, pid = self._hit
        return (
            f"worker {pid} died between commit and report of {job}: committed in SQL, not done in the queue"
            f" (try {self._tried})"
        )

    def heal(self, scene: Scene) -> None:
        """Redis goes on; as many workers as before."""
        if scene.redis is not None:
            scene.redis.resume()
        refill(scene, getattr(self, "_wanted", 0))

    def prove_healed(self, scene: Scene) -> str:
        """The job is done, with the effect that it had."""
        assert self._hit is not None, "prove_active held"
        job = self._hit[0]

        def done() -> bool:
            return scene.lane.status(job).state == "done"

        scene.wait(done, seconds=ANSWER_SECONDS, what=f"{job} done by another worker")
        effects = sum(effect.job_id == job for effect in scene.lane.effects())
        return f"{job} is done, with {effects} effect"

    def _try(self, scene: Scene) -> tuple[str, int] | None:
        lane, server = scene.lane, scene.own_redis
        known = len(lane.effects())
        rows = scene.wait(
            lambda: lane.effects()[known:], seconds=BUSY_SECONDS, what="a new row of the commit log"
        )
        server.pause()
        try:
            rows = lane.effects()[known:] or rows
            names = {seen.worker: seen.pid for seen in lane.sightings() if seen.kind == "ready"}
            victim = next(one for one in scene.live_workers if one.pid == names.get(rows[-1].worker))
            victim.kill()
            scene.history.harm(pid=victim.pid, seconds=LEASE_SETTLES_SECONDS)
        finally:
            server.resume()
        mine = [row.job_id for row in rows if row.worker == rows[-1].worker]
        # Whoever takes the job over finds the effect and reports it: within its lease nobody does.
        open_jobs = [job for job in mine if _state(lane, job) not in ("done", "")]
        scene.history.note("killed", pid=victim.pid, committed=mine, not_reported=open_jobs)
        return (open_jobs[0], victim.pid) if open_jobs else None


class StopWorkers(BaseAct):
    """SIGTERM all workers while they hold jobs: they finish or hand back, and are gone within `within` seconds."""

    parameters: ClassVar[Mapping[str, Parameter]] = {"within": Parameter(14, 1, 60, "seconds")}
    harms_any_worker = False

    def missing(self, machine: Capabilities) -> str:
        """Signals."""
        return machine.missing("signals")

    def inject(self, scene: Scene) -> None:
        """Stop one after the other, each while it holds jobs; replacements start afterwards."""
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
        return f"{len(self._stopped)} workers stopped with {len(held)} jobs in hand, the slowest in {slowest:.1f} s"

    def heal(self, scene: Scene) -> None:
        """As many workers as before."""
        refill(scene, getattr(self, "_wanted", 0))

    def prove_healed(self, scene: Scene) -> str:
        """Counted by processes."""
        return f"{len(scene.live_workers)} workers are up"


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

        def taken() -> set[str]:
            return {one.job_id for one in scene.lane.sightings() if one.kind == "taken_over"} & self._held

        seen = scene.wait(taken, seconds=LEASE_SETTLES_SECONDS, what="a job of the frozen worker taken over")
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
        scene.wait(
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
            job for job in sorted(self._held) if _state(scene.lane, job) not in ("done", "cancelled")
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
        scene.wait(lambda: _answers(scene.lane), seconds=ANSWER_SECONDS, what="an answer of the API")
        return "the API answers again"


def _answers(lane: Lane) -> bool:
    try:
        lane.depth()
    except TargetError:
        return False
    return True


def _state(lane: Lane, job: str) -> str:
    """The job's state; "" when the API does not answer."""
    try:
        return lane.status(job).state
    except TargetError:
        return ""
