"""Faults of one Redis server: killed, frozen, read-only, out of memory, its append-only file damaged.

All need a server of the scenario's own (stand: {redis: own}).
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, cast

import redis

from readiness.errors import HarnessFailure
from readiness.faults.act import BaseAct, Capabilities, NotActive, Parameter, Scene
from readiness.faults.sentinels import folder_of
from readiness.stack.processes import StackError
from readiness.stack.redis import start_private_redis

ASK_SECONDS = 1.0
BACK_SECONDS = 20.0


def admin(scene: Scene, *, seconds: float = ASK_SECONDS) -> redis.Redis:
    """A client past every proxy, with a short patience."""
    return redis.Redis.from_url(scene.own_redis.url, socket_timeout=seconds, socket_connect_timeout=seconds)


def refusal(scene: Scene) -> str:
    """What Redis answers to a write of 20 kB: "" when it takes it (and forgets it again)."""
    with admin(scene, seconds=5.0) as client:
        try:
            client.set("readiness:write", "x" * 20_000)
            client.delete("readiness:write")
        except redis.RedisError as error:
            return str(error) or type(error).__name__
    return ""


def pong(scene: Scene) -> bool:
    """Redis answers."""
    with contextlib.suppress(redis.RedisError), admin(scene) as client:
        return bool(client.ping())
    return False


class OwnRedis(BaseAct):
    """What all of them share: a real server, and a write that is taken when all is well again."""

    def missing(self, machine: Capabilities) -> str:
        """A real server that takes signals."""
        return machine.missing("redis-server") or machine.missing("signals")

    def prove_healed(self, scene: Scene) -> str:
        """A write is taken."""
        scene.wait(
            lambda: pong(scene) and not refusal(scene), seconds=BACK_SECONDS, what="Redis takes writes"
        )
        return "Redis takes writes"


class KillRedis(OwnRedis):
    """SIGKILL, and a start on its own files. `file` is what a power cut may leave of the append-only file.

    `whole`: as the kernel had it. `torn`: half a command at its end, which Redis cuts off (aof-load-truncated).
    """

    parameters: ClassVar[Mapping[str, Parameter]] = {"file": Parameter("whole", words=("whole", "torn"))}
    HALF_A_COMMAND = b"*3\r\n$3\r\nSET\r\n$9\r\nreadiness\r\n$1000\r\nhalf"

    def inject(self, scene: Scene) -> None:
        """Kill it; tear the file."""
        scene.own_redis.kill()
        if self.params.word("file") == "torn":
            with _append_only_file(scene).open("ab") as file:
                file.write(self.HALF_A_COMMAND)

    def prove_active(self, scene: Scene) -> str:
        """Nobody listens."""
        if pong(scene) or scene.own_redis.alive:
            raise NotActive("Redis still answers")
        size = _append_only_file(scene).stat().st_size
        return f"Redis is gone, PING is refused; its append-only file has {size} bytes, {self.params.word('file')}"

    def heal(self, scene: Scene) -> None:
        """Start it on its files."""
        if scene.redis is not None and not scene.redis.alive:
            scene.redis.start()


class FlipRedisFile(OwnRedis):
    """SIGKILL, a flipped bit in the append-only file, a start that must be refused, then the file of before.

    Redis serving garbage instead of refusing would be seen here; an operator would restore a copy, as is done here.
    """

    def inject(self, scene: Scene) -> None:
        """Kill, keep a copy, flip one bit of a length in the middle."""
        scene.own_redis.kill()
        file = _append_only_file(scene)
        self._file, self._copy = file, scene.folder / "append-only.copy"
        scene.folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, self._copy)
        content = bytearray(file.read_bytes())
        place = content.index(b"*", len(content) // 2)
        content[place] ^= 0x01
        file.write_bytes(content)
        self._refused = ""
        try:
            scene.own_redis.start()
        except StackError as error:
            self._refused = str(error)

    def prove_active(self, scene: Scene) -> str:
        """It did not start."""
        if not self._refused or scene.own_redis.alive:
            raise NotActive("Redis started on a damaged file")
        return "one bit of the append-only file was flipped, and Redis refuses to start on it"

    def heal(self, scene: Scene) -> None:
        """The copy, and a start."""
        if not hasattr(self, "_copy"):
            return
        if self._copy.exists() and not scene.own_redis.alive:
            shutil.copyfile(self._copy, self._file)
            scene.own_redis.start()


class StallRedis(OwnRedis):
    """Redis answers nobody for `seconds`, and goes on. `by`: SIGSTOP, or CLIENT PAUSE of everybody."""

    parameters: ClassVar[Mapping[str, Parameter]] = {
        "seconds": Parameter(2, 0.5, 20, "seconds"),
        "by": Parameter("signal", words=("signal", "pause")),
    }

    def inject(self, scene: Scene) -> None:
        """From now."""
        self._until = time.monotonic() + self.params.number("seconds")
        if self.params.word("by") == "signal":
            scene.own_redis.pause()
            return
        with admin(scene) as client:
            client.client_pause(int(1000 * self.params.number("seconds")), all=True)

    def prove_active(self, scene: Scene) -> str:
        """A PING that waits until the end of the stall, or as long as it takes to be sure."""
        patience = min(1.0, self.params.number("seconds") / 2)
        with admin(scene, seconds=patience) as client:
            try:
                client.ping()
            except redis.TimeoutError:
                pass
            else:
                raise NotActive("Redis still answers")
        scene.wait(
            lambda: time.monotonic() >= self._until,
            seconds=self.params.number("seconds") + 1,
            what="the stall's end",
        )
        return f"no answer to PING for {patience:g} s of {self.params.number('seconds'):g} s of stall"

    def heal(self, scene: Scene) -> None:
        """SIGCONT; a pause ends by itself or is ended."""
        if scene.redis is None:
            return
        scene.redis.resume()
        if hasattr(self, "_until") and self.params.word("by") == "pause":
            with contextlib.suppress(redis.RedisError), admin(scene) as client:
                client.client_unpause()


class ReadOnlyRedis(OwnRedis):
    """The server becomes a read-only replica of a twin that has all of its data, and master again at the end."""

    def prepare(self, scene: Scene) -> None:
        """Nothing: the twin starts when there is data."""

    def inject(self, scene: Scene) -> None:
        """A replica first, then the roles are changed."""
        provider = scene.stack.redis_provider
        twin = start_private_redis(
            scene.run_dir, f"redis-{scene.name}-twin", wanted="auto" if provider == "external" else provider
        )
        scene.cleanup.callback(twin.stop)
        with redis.Redis.from_url(twin.url) as other, admin(scene, seconds=5.0) as own:
            other.execute_command("REPLICAOF", *scene.own_redis.peer)
            scene.wait(
                lambda: (
                    cast("dict[str, object]", other.info("replication")).get("master_link_status") == "up"
                ),
                seconds=BACK_SECONDS,
                what="the twin in step",
            )
            own.wait(1, 2000)
            other.execute_command("REPLICAOF", "NO", "ONE")
            own.execute_command("REPLICAOF", *twin.peer)

    def prove_active(self, scene: Scene) -> str:
        """A write is refused."""
        said = scene.wait(
            lambda: _with(refusal(scene), "read only"),
            seconds=5.0,
            what="a write refused",
        )
        return f"a write is refused: {said}"

    def heal(self, scene: Scene) -> None:
        """Master again."""
        if scene.redis is not None:
            with contextlib.suppress(redis.RedisError), admin(scene, seconds=5.0) as client:
                client.execute_command("REPLICAOF", "NO", "ONE")


class MemoryFull(OwnRedis):
    """`maxmemory` is as much as is used, and nothing may be evicted: every write that needs memory is refused."""

    def inject(self, scene: Scene) -> None:
        """One byte would be too much."""
        with admin(scene, seconds=5.0) as client:
            client.config_set("maxmemory-policy", "noeviction")
            used = int(cast("dict[str, int]", client.info("memory"))["used_memory"])
            client.config_set("maxmemory", max(1, used - 100_000))

    def prove_active(self, scene: Scene) -> str:
        """OOM is the answer."""
        said = scene.wait(
            lambda: _with(refusal(scene), "maxmemory"), seconds=5.0, what="a write refused with OOM"
        )
        return f"a write is refused: {said}"

    def heal(self, scene: Scene) -> None:
        """No limit."""
        if scene.redis is not None:
            with contextlib.suppress(redis.RedisError), admin(scene, seconds=5.0) as client:
                client.config_set("maxmemory", 0)


def _with(said: str, word: str) -> str:
    return said if word in said else ""


def _append_only_file(scene: Scene) -> Path:
    """The file that commands are appended to."""
    folder = folder_of(scene.own_redis.data_dir)
    found = sorted(folder.glob("*.aof"), key=lambda path: (".incr." in path.name, path.name))
    if not found:
        raise HarnessFailure(f"fault scenario {scene.name}: expected an append-only file, found none")
    return found[-1]
