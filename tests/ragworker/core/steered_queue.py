"""The queue under test on a clock that the test turns, and a look at everything that Redis has of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import redis.asyncio

from ragworker.queue import Queue, script_text

Client = redis.asyncio.Redis

CLOCK = "redis.call('TIME')"
STEERED_CLOCK = """(function()
  local ms = tonumber(redis.call('GET', KEYS[1] .. 'clock'))
  return {math.floor(ms / 1000), ms % 1000 * 1000}
end)()"""


def steered(text: str) -> str:
    """A script whose clock is a key of the queue."""
    assert text.count(CLOCK) == 1, "the scripts read the clock in one place"
    return text.replace(CLOCK, STEERED_CLOCK)


class SteeredQueue(Queue):
    """The queue under test, on the clock of the test. `mutate` may break a script, to see that it is noticed."""

    mutate: Callable[[str, str], str] = staticmethod(lambda _, text: text)

    async def _run(self, name: str, *args: str | int | float | bytes, client: Any = None) -> Any:
        if name not in self._scripts:
            text = steered(self.mutate(name, script_text(name)))
            self._scripts[name] = self._redis.register_script(text)
        return await super()._run(name, *args, client=client)


class SteeredPipelines:
    """Makes `pipe.time()` of one client read the queue's clock."""

    def __init__(self, client: Client, prefix: str) -> None:
        self._pipeline, self._prefix = client.pipeline, prefix

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        pipe = self._pipeline(*args, **kwargs)
        pipe.time = lambda: pipe.eval(f"return {STEERED_CLOCK}", 1, self._prefix)
        return pipe


@dataclass
class Snapshot:
    """Everything that Redis has of a queue, but the fields of jobs."""

    ready: dict[str, list[str]] = field(default_factory=lambda: {"high": [], "normal": []})
    delayed: dict[str, int] = field(default_factory=dict)
    dead: dict[str, int] = field(default_factory=dict)
    claims: dict[str, dict[str, int]] = field(default_factory=dict)
    leases: dict[str, int] = field(default_factory=dict)
    idle: dict[str, int] = field(default_factory=dict)
    inbox: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    finished: dict[str, int] = field(default_factory=dict)
    jobs: set[str] = field(default_factory=set)
    payloads: set[str] = field(default_factory=set)
    uploads: int = 0

    @classmethod
    async def take(cls, client: Client, prefix: str) -> Snapshot:
        seen = cls()
        names = sorted(key.decode().removeprefix(prefix) for key in await client.keys(f"{prefix}*"))
        async with client.pipeline(transaction=False) as pipe:
            for name in names:
                kind = name.partition(":")[0]
                if kind in ("ready", "inbox"):
                    pipe.lrange(prefix + name, 0, -1)
                elif kind == "claimed":
                    pipe.hgetall(prefix + name)
                elif kind in ("delayed", "dlq", "leases", "idle", "finished"):
                    pipe.zrange(prefix + name, 0, -1, withscores=True)
                else:
                    pipe.exists(prefix + name)
            for name, value in zip(names, await pipe.execute(), strict=True):
                seen._note(*name.partition(":")[::2], value)
        return seen

    def _note(self, kind: str, rest: str, value: Any) -> None:
        match kind:
            case "ready":
                self.ready[rest] = [job_id.decode() for job_id in value]
            case "inbox":
                claims = (row.split(b"\n") for row in value)
                self.inbox[rest] = [(claim[0].decode(), int(claim[1])) for claim in claims]
            case "claimed":
                self.claims[rest] = {job_id.decode(): int(fence) for job_id, fence in value.items()}
            case "delayed" | "dlq" | "leases" | "idle" | "finished":
                scores = {member.decode(): int(score) for member, score in value}
                setattr(self, {"dlq": "dead"}.get(kind, kind), scores)
            case "job":
                self.jobs.add(rest)
            case "payload":
                self.payloads.add(rest)
            case "upload":
                self.uploads += 1
