"""Faults of a Redis with replicas: the master killed, asked to step down, or asleep and awake again as a second one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from readiness.faults.act import BaseAct, Capabilities, NotActive, Parameter, Scene
from readiness.faults.sentinels import Sentinels

FAILOVER_SECONDS = 20.0
JOINED_SECONDS = 20.0


class Failover(BaseAct):
    """The master goes away and the Sentinels make a replica the master (stand: {redis: act}).

    `killed`: SIGKILL. `asked`: SENTINEL FAILOVER. `frozen`: SIGSTOP until after the failover, then SIGCONT: for a
    moment there are two masters, and whoever still talks to the old one must not be told that its write is kept.
    """

    parameters: ClassVar[Mapping[str, Parameter]] = {
        "how": Parameter("killed", words=("killed", "asked", "frozen"))
    }

    def missing(self, machine: Capabilities) -> str:
        """Sentinels."""
        return (
            machine.missing("redis-server") or machine.missing("redis-sentinel") or machine.missing("signals")
        )

    def prepare(self, scene: Scene) -> None:
        """Six processes, in step."""
        self._cluster = Sentinels(scene)
        self._cluster.start()
        scene.redis_url = self._cluster.url

    def inject(self, scene: Scene) -> None:
        """To the first master."""
        self._old, how = self._cluster.first_master, self.params.word("how")
        if how == "asked":
            self._cluster.ask_for_failover()
        elif how == "killed":
            self._cluster.server(self._old).kill()
        else:
            self._cluster.server(self._old).pause()

    def prove_active(self, scene: Scene) -> str:
        """A majority of the Sentinels names another master, which says so itself."""

        def another() -> int:
            found = self._cluster.master()
            return found if found != self._old and self._cluster.role(found) == "master" else 0

        self._new = scene.wait(another, seconds=FAILOVER_SECONDS, what="another master")
        words = f"the Sentinels moved the master from port {self._old} to {self._new}"
        if self.params.word("how") != "frozen":
            return words
        self._cluster.server(self._old).resume()
        role = scene.wait(lambda: self._cluster.role(self._old), seconds=5.0, what="the old master awake")
        if role != "master":
            raise NotActive("the old master woke up as a replica: there never were two")
        return f"{words}; the old one woke up and takes itself for the master, too"

    def heal(self, scene: Scene) -> None:
        """The old master is there again, on its data."""
        if not hasattr(self, "_old"):
            return
        server = self._cluster.server(self._old)
        if server.alive:
            server.resume()
        else:
            self._cluster.start_server(self._old, replica_of=None)

    def prove_healed(self, scene: Scene) -> str:
        """One master, and both others in step with it."""

        def joined() -> bool:
            return self._cluster.role(self._old) == "slave" and self._cluster.replicas(self._new) == 2

        scene.wait(joined, seconds=JOINED_SECONDS, what="the old master as a replica, in step")
        return f"port {self._new} is the one master, two replicas are in step"
