"""Death in the window between the commit of an effect and its report to the queue."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

from readiness.faults.act import BaseAct, Capabilities, NotActive, Parameter, Scene
from readiness.faults.acts.process import ANSWER_SECONDS, LEASE_SETTLES_SECONDS, refill, state_of
from readiness.targets.base import Lane

WINDOW_SECONDS = 15.0
"""For hitting the window between a commit and its report; the submissions must last so long."""


class KillBeforeReport(BaseAct):
    """SIGKILL a worker after it committed an effect and before the queue knows: the window of a repeated effect.

    The database is watched from outside. Whenever it changes, all workers are frozen for the moment of a look: is an
    effect committed whose job is not done in the queue? Then its worker dies; else all go on, up to `tries` times.
    """

    parameters: ClassVar[Mapping[str, Parameter]] = {"tries": Parameter(600, 1, 5000, "tries")}
    harms_any_worker = False

    def missing(self, machine: Capabilities) -> str:
        """Signals."""
        return machine.missing("signals")

    def inject(self, scene: Scene) -> None:
        """Try until the window was hit."""
        self._hit: tuple[str, int] | None = None
        self._tried = 0
        self._wanted = len(scene.live_workers)
        deadline = time.monotonic() + WINDOW_SECONDS
        stamp = _commit_stamp(scene.lane)
        while self._hit is None and self._tried < self.params.number("tries"):
            known = len(scene.lane.effects())
            before = stamp()
            while stamp() == before:
                if time.monotonic() > deadline:
                    return
            self._tried += 1
            self._hit = self._look(scene, known)

    def prove_active(self, scene: Scene) -> str:
        """The job whose effect was committed while the queue still had it in the dead worker's hands."""
        if self._hit is None:
            raise NotActive(f"in {self._tried} looks no effect was committed whose job was not reported yet")
        job, pid = self._hit
        return (
            f"worker {pid} died between commit and report of {job}: committed in SQL, not done in the queue"
            f" (look {self._tried})"
        )

    def heal(self, scene: Scene) -> None:
        """As many workers as before."""
        for worker in scene.live_workers:
            worker.resume()
        refill(scene, getattr(self, "_wanted", 0))

    def prove_healed(self, scene: Scene) -> str:
        """The job is done, with the effect that it had."""
        assert self._hit is not None, "prove_active held"
        job = self._hit[0]

        def done() -> bool:
            return scene.lane.status(job).state == "done"

        scene.expect(done, seconds=ANSWER_SECONDS, what=f"{job} done by another worker")
        effects = sum(effect.job_id == job for effect in scene.lane.effects())
        return f"{job} is done, with {effects} effect{'s' if effects != 1 else ''}"

    def _look(self, scene: Scene, known: int) -> tuple[str, int] | None:
        """Freeze everybody, look, kill the one that has committed and not reported; the others go on."""
        lane = scene.lane
        workers = scene.live_workers
        for worker in workers:
            worker.pause()
        try:
            fresh = lane.effects()[known:]
            unreported = [row for row in fresh if state_of(lane, row.job_id) == "running"]
            if not unreported:
                return None
            pids = {seen.worker: seen.pid for seen in lane.sightings() if seen.kind == "ready"}
            row = unreported[-1]
            victim = next((one for one in workers if one.pid == pids.get(row.worker)), None)
            if victim is None:
                return None
            victim.kill()
            scene.history.harm(pid=victim.pid, seconds=LEASE_SETTLES_SECONDS)
            scene.history.note("killed", pid=victim.pid, not_reported=[one.job_id for one in unreported])
            return row.job_id, victim.pid
        finally:
            for worker in workers:
                if worker.alive:
                    worker.resume()


def _commit_stamp(lane: Lane) -> Callable[[], object]:
    """What changes with every commit: SQLite's write-ahead log, which is quick to look at; else the rows themselves."""
    kind, _, path = lane.database_url.partition(":///")
    if kind == "sqlite":
        return lambda: _stamp(Path(f"{path}-wal"))
    return lambda: len(lane.effects())


def _stamp(path: Path) -> tuple[int, int]:
    """What changes when a file is written."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return 0, 0
    return found.st_mtime_ns, found.st_size
