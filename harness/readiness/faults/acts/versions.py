"""Two versions of the target at work on one queue, as in a rolling upgrade."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from readiness.faults.act import BaseAct, Capabilities, NotActive, Parameter, Scene
from readiness.targets.base import HasOlderVersion, OlderVersion, TargetError, Worker

WORK_SECONDS = 25.0


class MixedVersions(BaseAct):
    """Half-way through an upgrade: workers of the version before join those of the present one, on one queue.

    Jobs submitted to the present API are read by old workers. Then the API itself goes back to the older version and
    its jobs are read by the present workers. Healed: everything is the present version again.
    """

    parameters: ClassVar[Mapping[str, Parameter]] = {"each": Parameter(5, 1, 50, "jobs by each version")}
    harms_any_worker = False

    def missing(self, machine: Capabilities) -> str:
        """Two versions need git and its history; that is asked of the target, in `prepare`."""
        return machine.missing("signals")

    def prepare(self, scene: Scene) -> None:
        """Unpack the older version. NotActive where there is none: the scenario is not run, by that name."""
        if not isinstance(scene.target, HasOlderVersion):
            raise NotActive(f"the target {scene.target.name} has no older version at hand")
        try:
            self._older: OlderVersion = scene.target.older_version(scene.folder / "older")
        except TargetError as error:
            raise NotActive(str(error)) from None

    def inject(self, scene: Scene) -> None:
        """Replace one worker by an old one; once it works, put the old API in place of the present one."""
        leaving, *staying = scene.live_workers
        self._new = {worker.pid for worker in staying}
        leaving.stop()
        self._old: Worker = scene.lane.start_worker(settings=self._older.settings, prefix=scene.worker_prefix)
        each = int(self.params.number("each"))
        scene.expect(
            lambda: self._done_by({self._old.pid}, scene) >= each,
            seconds=WORK_SECONDS,
            what=f"{each} jobs of the present API done by the older worker",
        )
        scene.lane.stop_api()
        scene.lane.start_api(settings=self._older.settings, prefix=scene.api_prefix)
        self._before = self._done_by(self._new, scene)

    def prove_active(self, scene: Scene) -> str:
        """Both versions do jobs of both versions' APIs."""
        each = int(self.params.number("each"))
        scene.expect(
            lambda: self._done_by(self._new, scene) - self._before >= each,
            seconds=WORK_SECONDS,
            what=f"{each} jobs of the older API done by present workers",
        )
        old, new = self._done_by({self._old.pid}, scene), self._done_by(self._new, scene)
        return (
            f"version {self._older.name} ({self._older.differing} files differ): {old} jobs done by its worker,"
            f" {new} by the present one, under both versions' APIs"
        )

    def heal(self, scene: Scene) -> None:
        """The present version everywhere."""
        if not hasattr(self, "_old") or not self._old.alive:
            return
        self._old.stop()
        scene.lane.start_worker(prefix=scene.worker_prefix)
        scene.lane.stop_api()
        scene.lane.start_api(prefix=scene.api_prefix)

    def prove_healed(self, scene: Scene) -> str:
        """No process of the older version is left."""
        if self._old.alive:
            raise NotActive("the older worker is still there")
        return f"{len(scene.live_workers)} workers and the API are of the present version"

    def _done_by(self, pids: set[int], scene: Scene) -> int:
        names = {one.worker for one in scene.lane.sightings() if one.kind == "ready" and one.pid in pids}
        return sum(effect.worker in names for effect in scene.lane.effects())
