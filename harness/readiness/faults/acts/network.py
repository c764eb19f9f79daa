"""Faults of the network between the target and Redis: by the proxy, without root; by packets, in a namespace.

What a victim feels is asked over the same way that the victim takes: a PING through the proxy or over the cable.
"""

from __future__ import annotations

import socket
import statistics
import time
from collections.abc import Mapping
from typing import ClassVar, cast

import redis

from readiness.errors import HarnessFailure
from readiness.faults.act import BaseAct, Capabilities, NotActive, Parameter, Scene
from readiness.faults.namespaces import Namespace
from readiness.faults.proxy import Conditions, FaultProxy
from readiness.stack.binaries import embedded_redis_program, find_program
from readiness.stack.processes import ManagedProcess, Probe, clean_environment, spawn

NO_ANSWER_SECONDS = 0.8
"""A PING on this machine takes well under 50 ms."""

FELT_SECONDS = 10.0
ANSWER_SECONDS = 10.0
PINGS = 5
REDIS_PORT = 6379


def ping(address: tuple[str, int], *, seconds: float, payload: int = 0) -> float | None:
    """Seconds until a new connection got its answer to PING (with a payload of so many bytes); None when it did not."""
    word = b"x" * payload
    command = b"*2\r\n$4\r\nECHO\r\n$%d\r\n%s\r\n" % (len(word), word) if payload else b"PING\r\n"
    expected = len(word) + len(str(len(word))) + 5 if payload else 7
    began = time.monotonic()
    try:
        with socket.create_connection(address, timeout=seconds) as connection:
            connection.sendall(command)
            got = 0
            while got < expected:
                data = connection.recv(65_536)
                if not data:
                    return None
                got += len(data)
    except OSError:
        return None
    return time.monotonic() - began


def redis_proxy(scene: Scene) -> FaultProxy:
    """The proxy before Redis, with its switches."""
    return cast("FaultProxy", scene.proxy("redis"))


def _through(scene: Scene) -> tuple[str, int]:
    return ("127.0.0.1", redis_proxy(scene).port)


def _answers(scene: Scene, address: tuple[str, int]) -> str:

    def look() -> float:
        return ping(address, seconds=1.0) or 0.0

    took = scene.wait(look, seconds=ANSWER_SECONDS, what="an answer of Redis to PING")
    return f"PING is answered in {1000 * took:.1f} ms"


class ByProxy(BaseAct):
    """What all faults of the proxy share: a calm network heals them, and a PING through it shows that."""

    def heal(self, scene: Scene) -> None:
        """A good network."""
        if "redis" in scene.proxies:
            redis_proxy(scene).calm()

    def prove_healed(self, scene: Scene) -> str:
        """PING through the proxy."""
        return _answers(scene, _through(scene))


class SlowNetwork(ByProxy):
    """Latency and jitter on every packet between the target and Redis, each way."""

    parameters: ClassVar[Mapping[str, Parameter]] = {
        "latency_ms": Parameter(100, 1, 5000, "ms"),
        "jitter_ms": Parameter(50, 0, 5000, "ms"),
    }

    def inject(self, scene: Scene) -> None:
        """For open connections, too."""
        how = Conditions(
            latency_ms=self.params.number("latency_ms"), jitter_ms=self.params.number("jitter_ms")
        )
        redis_proxy(scene).set(up=how, down=how)

    def prove_active(self, scene: Scene) -> str:
        """The median PING takes at least twice the latency, less the jitter."""
        least = 2 * (self.params.number("latency_ms") - self.params.number("jitter_ms")) / 1000
        took = [ping(_through(scene), seconds=30.0) or 0.0 for _ in range(PINGS)]
        median = statistics.median(took)
        if median < least:
            raise NotActive(
                f"expected PING to take at least {1000 * least:.0f} ms, it took {1000 * median:.1f} ms"
            )
        return f"PING takes {1000 * median:.0f} ms (median of {PINGS})"


class ThinNetwork(ByProxy):
    """Little bandwidth, and what passes is cut into small pieces."""

    parameters: ClassVar[Mapping[str, Parameter]] = {
        "bytes_per_second": Parameter(60_000, 1000, 1e9, "bytes/s"),
        "slice_bytes": Parameter(100, 1, 65_536, "bytes"),
    }
    PAYLOAD = 6000

    def inject(self, scene: Scene) -> None:
        """Both ways."""
        how = Conditions(
            bytes_per_second=self.params.number("bytes_per_second"),
            slice_bytes=int(self.params.number("slice_bytes")),
        )
        redis_proxy(scene).set(up=how, down=how)

    def prove_active(self, scene: Scene) -> str:
        """Some kB there and back take as long as the bandwidth says, and were cut."""
        before = redis_proxy(scene).counts().slices
        took = ping(_through(scene), seconds=30.0, payload=self.PAYLOAD)
        least = self.PAYLOAD / self.params.number("bytes_per_second")
        cut = redis_proxy(scene).counts().slices - before
        if took is None or took < least or not cut:
            raise NotActive(
                f"expected {self.PAYLOAD} bytes to take {least:.2f} s and be cut: {took} s, {cut} pieces"
            )
        return f"{self.PAYLOAD} bytes there and back take {took:.2f} s, cut into {cut} pieces"


class ResetInCommand(ByProxy):
    """Every connection to Redis ends with RST after so many bytes: in the middle of a command or of its answer."""

    parameters: ClassVar[Mapping[str, Parameter]] = {
        "direction": Parameter("up", words=("up", "down")),
        "after_bytes": Parameter(3000, 0, 1e6, "bytes"),
    }
    WANTED = 3

    def inject(self, scene: Scene) -> None:
        """Counted for each connection from now on."""
        how = Conditions(reset_after_bytes=int(self.params.number("after_bytes")))
        upward = self.params.word("direction") == "up"
        self._before = redis_proxy(scene).counts().resets
        redis_proxy(scene).set(up=how if upward else None, down=None if upward else how)

    def prove_active(self, scene: Scene) -> str:
        """Connections of the target were reset."""

        def resets() -> int:
            found = redis_proxy(scene).counts().resets - self._before
            return found if found >= self.WANTED else 0

        found = scene.wait(
            resets, seconds=FELT_SECONDS, what=f"{self.WANTED} connections of the target reset"
        )
        size = int(self.params.number("after_bytes"))
        return f"{found} connections reset after {size} bytes {self.params.word('direction')}"


class Silence(ByProxy):
    """A black hole in the way, one way or both: connections stay open, nothing arrives."""

    parameters: ClassVar[Mapping[str, Parameter]] = {"ways": Parameter("both", words=("both", "up", "down"))}

    def inject(self, scene: Scene) -> None:
        """Hold back what the named direction carries."""
        ways, silent = self.params.word("ways"), Conditions(silent=True)
        redis_proxy(scene).set(
            up=silent if ways in ("both", "up") else None, down=silent if ways in ("both", "down") else None
        )

    def prove_active(self, scene: Scene) -> str:
        """No answer through the proxy, while Redis itself answers; the target's connections are open."""
        if ping(_through(scene), seconds=NO_ANSWER_SECONDS) is not None:
            raise NotActive("PING through the black hole was answered")
        server = _address(scene.own_redis.url)
        if ping(server, seconds=5.0) is None:
            raise NotActive("Redis itself does not answer, so the silence shows nothing")
        open_now = redis_proxy(scene).counts().open
        return f"no answer to PING for {NO_ANSWER_SECONDS:g} s, Redis itself answers, {open_now} connections stay open"


class HalfOpen(ByProxy):
    """Redis closes every connection and the target never hears of it: idle sockets that lead nowhere."""

    def inject(self, scene: Scene) -> None:
        """CLIENT KILL at the server; the proxy keeps the news to itself."""
        redis_proxy(scene).half_open()
        with redis.Redis.from_url(scene.own_redis.url) as admin:
            self._killed = sum(
                int(cast("int", admin.client_kill_filter(_type=kind, skipme=True)))
                for kind in ("normal", "pubsub")
            )

    def prove_active(self, scene: Scene) -> str:
        """The server counts the ends, the proxy the sides that still believe."""
        if not self._killed:
            raise NotActive("expected connections of the target at Redis, found none")

        def believing() -> int:
            return redis_proxy(scene).counts().half_open

        found = scene.wait(
            believing, seconds=FELT_SECONDS, what="connections that only the target believes in"
        )
        return f"Redis ended {self._killed} connections, {found} of them are still open for the target"


class InNamespace(BaseAct):
    """Redis runs in a network namespace of its own (stand: {redis: act}); the target reaches it over a cable."""

    def missing(self, machine: Capabilities) -> str:
        """Root and its tools."""
        return machine.missing("redis-server") or machine.missing("namespaces") or machine.missing("iptables")

    def prepare(self, scene: Scene) -> None:
        """The namespace, and a Redis with an append-only file in it."""
        self._space = Namespace(scene.run_dir, scene.name)
        scene.cleanup.callback(self._space.close)
        self._server = self._start_redis(scene)
        scene.cleanup.callback(self._server.stop)
        scene.redis_url = f"redis://{self._space.there}:{REDIS_PORT}/0"

    def heal(self, scene: Scene) -> None:
        """No packet is lost any more."""
        if hasattr(self, "_space"):
            self._space.calm()

    def prove_healed(self, scene: Scene) -> str:
        """PING over the cable."""
        return _answers(scene, self._address)

    @property
    def _address(self) -> tuple[str, int]:
        return (self._space.there, REDIS_PORT)

    def _start_redis(self, scene: Scene) -> ManagedProcess:
        program = find_program("redis-server", "valkey-server") or embedded_redis_program()
        if program is None:
            raise HarnessFailure(f"fault scenario {scene.name}: expected a redis-server, found none")
        data = scene.folder / "redis"
        data.mkdir(parents=True)
        options = {
            "bind": self._space.there,
            "port": str(REDIS_PORT),
            "protected-mode": "no",
            "dir": str(data),
        }
        options |= {"appendonly": "yes", "appendfsync": "everysec", "save": ""}
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        process = spawn(
            scene.run_dir,
            f"redis-{scene.name}",
            [*self._space.prefix, str(program), *words],
            env=clean_environment(),
        )
        ready = Probe("PONG over the cable", lambda: ping(self._address, seconds=1.0) is not None)
        try:
            process.wait_ready(ready, FELT_SECONDS)
        except BaseException:
            process.kill()
            raise
        return process


class Partition(InNamespace):
    """Packets between the target and Redis are dropped: both ways, only requests, or only answers."""

    parameters: ClassVar[Mapping[str, Parameter]] = {
        "lost": Parameter("both", words=("both", "requests", "answers"))
    }

    def inject(self, scene: Scene) -> None:
        """Rules in the namespace of Redis."""
        lost = self.params.word("lost")
        self._space.drop(incoming=lost in ("both", "requests"), outgoing=lost in ("both", "answers"))

    def prove_active(self, scene: Scene) -> str:
        """No new connection, packets counted as dropped, and the server alive."""
        if ping(self._address, seconds=NO_ANSWER_SECONDS) is not None:
            raise NotActive("PING over the cut cable was answered")
        if not self._server.alive:
            raise NotActive("Redis itself ended, so the cut shows nothing")
        dropped = scene.wait(self._space.dropped, seconds=FELT_SECONDS, what="packets dropped")
        return f"no connection within {NO_ANSWER_SECONDS:g} s, {dropped} packets dropped, Redis lives"


class PacketLoss(InNamespace):
    """A share of all packets is lost at random, each way."""

    parameters: ClassVar[Mapping[str, Parameter]] = {"share": Parameter(0.1, 0.01, 0.5, "of packets")}
    WANTED = 5

    def inject(self, scene: Scene) -> None:
        """Rules in the namespace of Redis."""
        self._space.lose(self.params.number("share"))

    def prove_active(self, scene: Scene) -> str:
        """Packets are lost while others pass."""

        def lost() -> int:
            found = self._space.dropped()
            return found if found >= self.WANTED else 0

        dropped = scene.wait(lost, seconds=FELT_SECONDS, what=f"{self.WANTED} packets dropped")
        return f"{dropped} packets dropped at {100 * self.params.number('share'):g} % each way"


def _address(url: str) -> tuple[str, int]:
    host, _, port = url.partition("://")[2].rpartition("@")[2].partition("/")[0].rpartition(":")
    return host, int(port)
