"""ragworker's queue as it lies in Redis, and its operator's terminal: what a check sees past the API.

The keys are those that `system/ragworker/lua/job.lua` names. Reads; three exceptions make time pass or spoil
something on purpose: `hasten`, `tamper` and `operate`. `fresh_api` is an API beside the lane's own.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import httpx
import redis
from redis.sentinel import Sentinel

from readiness.stack.processes import clean_environment
from readiness.targets.base import TargetError

if TYPE_CHECKING:
    from readiness.targets.base import Lane

ANSWER_SECONDS: Final = 5.0
OPERATOR_SECONDS: Final = 40.0

#: Where a job of each state must be, and nowhere else.
PLACES: Final[Mapping[str, frozenset[str]]] = {
    "queued": frozenset({"ready:high", "ready:normal"}),
    "retrying": frozenset({"delayed", "ready:high", "ready:normal"}),
    "running": frozenset({"claimed"}),
    "dead": frozenset({"dlq"}),
    "done": frozenset({"finished"}),
    "cancelled": frozenset({"finished"}),
}
_LISTS: Final = ("ready:high", "ready:normal")
_SETS: Final = ("delayed", "dlq", "finished")
_OURS: Final = ("job", "payload", "upload", "claimed", "inbox")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Every record of a queue with the places that hold its id, and how many bytes of its document are kept."""

    states: Mapping[str, str]
    places: Mapping[str, tuple[str, ...]]
    document_bytes: Mapping[str, int]
    leftovers: tuple[str, ...] = field(default=())

    def misplaced(self) -> list[str]:
        """Jobs that are in no place, in two, or in one that does not fit their state; documents that stayed behind."""
        wrong: list[str] = []
        for job, state in self.states.items():
            held = self.places.get(job, ())
            if len(held) != 1 or held[0] not in PLACES.get(state, frozenset()):
                allowed = " or ".join(sorted(PLACES.get(state, {"a known state"})))
                wrong.append(
                    f"{job} is {state}: expected it in one of {allowed}, got {list(held) or 'no place'}"
                )
            if state in ("done", "cancelled") and self.document_bytes.get(job, 0):
                wrong.append(
                    f"{job} is {state}: expected no document in Redis, got {self.document_bytes[job]} bytes"
                )
        strangers = [job for job in self.places if job not in self.states]
        wrong += [f"{job}: expected a record, got only its id in {self.places[job]}" for job in strangers]
        return wrong + [f"{key}: expected nothing left of an upload or an inbox" for key in self.leftovers]


def _open(url: str) -> Any:
    """A client that answers text; of the present master when the URL names Sentinels."""
    options = {"decode_responses": True, "encoding_errors": "replace", "socket_timeout": ANSWER_SECONDS}
    parts = urlsplit(url)
    if parts.scheme != "sentinel":
        return redis.Redis.from_url(url, **options)
    hosts = [host.rpartition(":") for host in parts.netloc.rpartition("@")[2].split(",")]
    sentinel: Any = Sentinel([(name, int(port)) for name, _, port in hosts], socket_timeout=ANSWER_SECONDS)  # type: ignore[no-untyped-call]  # redis-py does not annotate it
    return sentinel.master_for(parts.path.strip("/").partition("/")[0], **options)


class QueueKeys:
    """The keys of one lane's queue. Close it, or use it as a context."""

    def __init__(self, lane: Lane) -> None:
        self.prefix = f"{{rag:{lane.queue}}}:"
        #: Any: the client's types do not know that answers are decoded.
        self.client: Any = _open(lane.redis_url)

    def __enter__(self) -> QueueKeys:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def snapshot(self) -> Snapshot:
        """Everything, when nothing moves: the keys are read one after the other."""
        found: dict[str, list[str]] = {kind: [] for kind in _OURS}
        for key in self.client.scan_iter(match=f"{self.prefix}*", count=1000):
            kind, _, rest = str(key).removeprefix(self.prefix).partition(":")
            if kind in found and rest:
                found[kind].append(rest)
        places: dict[str, list[str]] = {}
        for name in _LISTS:
            for job in self._ask("LRANGE", name, 0, -1):
                places.setdefault(job, []).append(name)
        for name in _SETS:
            for job in self._ask("ZRANGE", name, 0, -1):
                places.setdefault(job, []).append(name)
        for worker in found["claimed"]:
            for job in self._ask("HKEYS", f"claimed:{worker}"):
                places.setdefault(job, []).append("claimed")
        size = {
            job: self._ask("HSTRLEN", f"job:{job}", "payload") + self._ask("STRLEN", f"payload:{job}")
            for job in {*found["job"], *found["payload"]}
        }
        return Snapshot(
            states={job: str(self._ask("HGET", f"job:{job}", "state")) for job in found["job"]},
            places={job: tuple(held) for job, held in places.items()},
            document_bytes=size,
            leftovers=tuple(f"{kind}:{rest}" for kind in ("upload", "inbox") for rest in found[kind]),
        )

    def counters(self) -> dict[str, float]:
        """The queue's own counters since its birth."""
        return {str(name): float(value) for name, value in self.client.hgetall(self.prefix + "stats").items()}

    def due_ms(self) -> dict[str, int]:
        """Jobs that wait for their retry -> when it is due, in ms of Redis' clock."""
        return {
            job: int(at) for job, at in self.client.zrange(self.prefix + "delayed", 0, -1, withscores=True)
        }

    def hasten(self, job: str) -> None:
        """Let the delay of a waiting job be over now: what a clock would do, only sooner."""
        self.client.zadd(self.prefix + "delayed", {job: 0}, xx=True)

    def claims(self) -> dict[str, str]:
        """Jobs in workers' hands -> id of the worker."""
        held: dict[str, str] = {}
        for key in self.client.scan_iter(match=f"{self.prefix}claimed:*", count=1000):
            worker = str(key).rpartition("claimed:")[2]
            held |= dict.fromkeys(self.client.hkeys(key), worker)
        return held

    def fence(self, job: str) -> int:
        """The number of the job's newest delivery; 0 before the first."""
        return int(self._ask("HGET", f"job:{job}", "fence") or 0)

    def pid_of(self, worker: str) -> int:
        """The process behind a worker's id; 0 when it left no facts."""
        return int(self._ask("HGET", f"workers:{worker}", "pid") or 0)

    def tamper(self, job: str, **fields: str) -> None:
        """Overwrite fields of a record, as a defect or a half-lost Redis would."""
        self.client.hset(f"{self.prefix}job:{job}", mapping=fields)

    def _ask(self, command: str, key: str, *args: Any) -> Any:
        return self.client.execute_command(command, self.prefix + key, *args)


def fresh_api(lane: Lane, *, without: Collection[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Start one more API of the lane with some variables unset: its ready event and what /readyz says; then end it."""
    settings = {name: value for name, value in lane.settings.items() if name not in without}
    process = subprocess.Popen(
        [sys.executable, "-m", "ragworker", "api"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=clean_environment({**settings, "RAG_API_PORT": "0"}),
    )
    watchdog = threading.Timer(OPERATOR_SECONDS, process.kill)  # ends the reading below
    watchdog.start()
    try:
        lines = process.stdout or ()
        ready = next((event for event in map(_event, lines) if event.get("message") == "api.ready"), {})
        if "port" not in ready:
            raise TargetError("a fresh API: expected the event api.ready with a port, got none")
        url = f"http://127.0.0.1:{ready['port']}/readyz"
        return ready, dict(httpx.get(url, timeout=ANSWER_SECONDS, trust_env=False).json())
    finally:
        watchdog.cancel()
        process.kill()
        process.communicate()


def _event(line: str) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        value = json.loads(line)
        if isinstance(value, dict):
            return value
    return {}


def operate(lane: Lane, *words: str, **settings: object) -> tuple[int, Any]:
    """Run the operator's command with the lane's settings: exit status, and the JSON that it printed (or the text)."""
    environment = {**lane.settings, **{name: str(value) for name, value in settings.items()}}
    done = subprocess.run(
        [sys.executable, "-m", "ragworker", *words, "--json"],
        capture_output=True,
        text=True,
        timeout=OPERATOR_SECONDS,
        env=clean_environment(environment),
        check=False,
    )
    try:
        return done.returncode, json.loads(done.stdout)
    except ValueError:
        return done.returncode, done.stdout + done.stderr
