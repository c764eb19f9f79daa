"""What a fault is to the engine: an act on a scene. Knows no particular fault and starts nothing by itself.

How to add an act
-----------------
1. One class in `acts/<family>.py`, below `BaseAct`. Its docstring says what is done to whom. Declare what the YAML may
   set in `parameters`; read it as `self.params.number("seconds")` or `self.params.word("signal")`.
2. One line in the literal table `ACTS` of `acts/__init__.py`: name in YAML -> (module, class).
3. One scenario `checks/faults/<name>.yaml`; the conformance tests in tests/harness/faults take both up.

The engine calls one object of an act once in this order, so it may keep what it did on `self`:

    missing(machine)     Before anything is started. Words: the ledger says NOT_RUN with them. "": go on.
    prepare(scene)       Nothing runs yet. May add to scene.settings, redis_options, worker_prefix ..., or start
                         something of its own (Sentinels, a namespace) and set scene.redis_url. What it starts it
                         hands to scene.cleanup at once, before anything can fail.
                         --- Own Redis, proxies, API and workers start; steady state holds; the submissions begin.
    inject(scene)        Break it. Returns when the fault is in place.
    prove_active(scene)  Words with figures from outside ("12 of 12 connections got no answer for 1.5 s"), or NotActive.
                         Never believe the injector: look at what the victim feels. May wait (scene.wait).
                         --- The fault is held for `hold_seconds`.
    heal(scene)          Idempotent; also called when anything went wrong, on Ctrl-C, and when inject never ran.
    prove_healed(scene)  Words with figures, or NotActive. What the target owes by then (scene.expect) is Broken
                         instead: a target that does not come back must fail, not leave the fault unproven.
                         --- Liveness: every acknowledged job ends, a new job is done. Then the checkers judge.

How to add a scenario
---------------------
    title: {en: A frozen worker wakes after its lease ran out, ko: ...}
    row: 4                          # of the fault catalogue, 1 to 29; 0: beyond it
    stand:
      workers: 2
      settings: {RAG_LEASE_SECONDS: 2}      # environment of API and workers
      redis: own                    # shared (default) | own: scene.own_redis | act: a `prepare` sets scene.redis_url
      redis_options: {maxmemory: 8mb}       # only with own
      proxy: [redis]                # any of redis, api, embedding: scene.proxy("redis")
      embedding_ms: 30              # how slow the embedding API is when it is well
    steady_state: {jobs: 4, within_seconds: 15}
    stream: {jobs: 40, every_ms: 50}        # bounded: at most so many, at least so far apart
    method:
      - act: freeze_worker
        seconds: 3                  # a parameter of the act; {from: 2, to: 4} draws one from the seed
    hold_seconds: 1
    expected: {lost: 0, repeated: 0, recovery_seconds: 10, max_attempts: 2}
    rollback: [freeze_worker]       # in which order acts are healed; default: last first
    recovery_from: inject           # inject (kills) or heal (default)
    liveness_seconds: 30

Only processes and keys that the scenario started are touched, by their pid. Every wait has a deadline.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol, TypeVar

from readiness.errors import HarnessFailure
from readiness.stack.base import StackInfo
from readiness.stack.redis import RedisServer
from readiness.targets.base import Lane, Target, Worker

T = TypeVar("T")

POLL_SECONDS = 0.02
"""Between two looks: far below every fault's length, and no load on a busy core."""


class NotActive(Exception):
    """The fault, or its end, could not be proven from outside. The scenario shows nothing, and never passes.

    Raised in `prepare` it says that this machine or target cannot: not run, as with `missing`.
    """


class Broken(Exception):
    """The target broke a promise that only the act can see (it did not stop in time, say). The scenario fails."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One setting of an act in YAML: a number from `low` to `high` in `unit`, or one of `words`."""

    default: float | str
    low: float = 0.0
    high: float = 0.0
    unit: str = ""
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Params:
    """The settings of one act, complete: what YAML left out has its default, ranges have been drawn."""

    values: Mapping[str, float | str]

    def number(self, name: str) -> float:
        """A number, in the unit that the act declared."""
        value = self.values[name]
        assert not isinstance(value, str), f"{name} was declared as words"
        return value

    def word(self, name: str) -> str:
        """One of the declared words."""
        value = self.values[name]
        assert isinstance(value, str), f"{name} was declared as a number"
        return value


class Capabilities(Protocol):
    """What this machine can do, probed once a run. `capabilities.py` has the real one."""

    def missing(self, need: str) -> str:
        """Why this machine lacks `need` ("redis-server", "namespaces", "libfaketime", ...); "" when it has it."""


class FaultProxy(Protocol):
    """A TCP proxy in user space between the target and one of its parts.

    `proxy.py` has the real one: `start_proxy((host, port), *, seed) -> FaultProxy`, called by `stand.py`; an act casts
    to the real class for its switches.
    """

    @property
    def port(self) -> int:
        """Where it listens on the loopback."""

    def close(self) -> None:
        """End it and every connection. Doing it twice is harmless."""


class Stream(Protocol):
    """The bounded stream of submissions that runs from before the fault until after it."""

    @property
    def submitted(self) -> int:
        """Submissions sent, answered or not."""

    @property
    def acknowledged(self) -> list[str]:
        """Ids of the jobs that the target took responsibility for, so far, in order."""


class Notebook(Protocol):
    """The history of the scenario. `history.py` has the real one."""

    def note(self, kind: str, **fields: object) -> None:
        """Write down one thing that was seen, with the time of now."""

    def harm(self, *, pid: int, seconds: float) -> None:
        """From now on, for `seconds`, this worker may rightly lose its lease; pid 0 means any worker."""


@dataclass(slots=True)
class Scene:
    """Everything that one scenario has. The acts of a scenario share it; what is None or empty does not exist yet."""

    name: str
    """Of the scenario; lanes, folders and own servers take it up, so that two scenarios never meet."""
    target: Target
    stack: StackInfo
    run_dir: Path
    folder: Path
    """The scenario's own folder below `run_dir`: scratch, own configuration files, the history."""
    rng: random.Random
    """Of the scenario's seed. Draw from nothing else."""
    cleanup: contextlib.ExitStack
    """What must end on every exit, last entered first."""
    history: Notebook
    settings: MutableMapping[str, str] = field(default_factory=dict)
    """Environment of all processes of the lane (also LD_PRELOAD, FAKETIME ...)."""
    redis_options: MutableMapping[str, str] = field(default_factory=dict)
    """Options of the own redis-server (`stand.redis: own`), beside and above those of stack/redis.py."""
    redis_prefix: list[str] = field(default_factory=list)
    worker_prefix: list[str] = field(default_factory=list)
    api_prefix: list[str] = field(default_factory=list)
    """Words before a command line; the program they name must exec the rest (ip netns exec, prlimit, faketime)."""
    redis_url: str | None = None
    """Where the target finds Redis, when it is not the shared one. Set by the engine (own, proxy) or by `prepare`."""
    redis: RedisServer | None = None
    """The scenario's own server (`stand.redis: own`)."""
    proxies: MutableMapping[str, FaultProxy] = field(default_factory=dict)
    """By what they stand before: "redis", "api", "embedding"."""
    lane_or_none: Lane | None = None
    stream_or_none: Stream | None = None

    @property
    def lane(self) -> Lane:
        """The lane; HarnessFailure before it was started."""
        return self._there(self.lane_or_none, "lane")

    @property
    def stream(self) -> Stream:
        """The stream of submissions; HarnessFailure before it began."""
        return self._there(self.stream_or_none, "stream of submissions")

    @property
    def own_redis(self) -> RedisServer:
        """The scenario's own Redis; HarnessFailure when its stand has none."""
        return self._there(self.redis, "Redis of its own (stand.redis: own)")

    @property
    def live_workers(self) -> list[Worker]:
        """The lane's workers whose process exists, frozen or not."""
        return [worker for worker in self.lane.workers if worker.alive]

    def proxy(self, part: str) -> FaultProxy:
        """The proxy before `part`; HarnessFailure when the stand has none."""
        return self._there(self.proxies.get(part), f"proxy before {part} (stand.proxy)")

    def wait(self, look: Callable[[], T], *, seconds: float, what: str) -> T:
        """Call `look` until it answers something true and return that; NotActive with `what` after `seconds`."""
        deadline = time.monotonic() + seconds
        while True:
            seen = look()
            if seen:
                return seen
            if time.monotonic() >= deadline:
                raise NotActive(f"expected within {seconds:g} s: {what}; last seen: {seen!r}")
            time.sleep(POLL_SECONDS)

    def expect(self, look: Callable[[], T], *, seconds: float, what: str) -> T:
        """As `wait` for what the target owes, not the fault: Broken when it does not come, and the scenario fails."""
        try:
            return self.wait(look, seconds=seconds, what=what)
        except NotActive as late:
            raise Broken(str(late)) from None

    def _there(self, thing: T | None, what: str) -> T:
        if thing is None:
            raise HarnessFailure(f"fault scenario {self.name}: expected a {what}, found none")
        return thing


class Act(Protocol):
    """One way to break something. See the top of this file for the order of the calls."""

    parameters: ClassVar[Mapping[str, Parameter]]
    harms_any_worker: ClassVar[bool]

    def missing(self, machine: Capabilities) -> str: ...
    def prepare(self, scene: Scene) -> None: ...
    def inject(self, scene: Scene) -> None: ...
    def prove_active(self, scene: Scene) -> str: ...
    def heal(self, scene: Scene) -> None: ...
    def prove_healed(self, scene: Scene) -> str: ...


class BaseAct:
    """An act that needs nothing and prepares nothing. Subclasses write inject, prove_active, heal, prove_healed.

    `harms_any_worker`: while it is active, and until leases have settled after it, any worker may rightly lose its
    lease. An act that stops or cuts off certain workers says False, and calls `scene.history.harm(pid=...,
    seconds=...)` for each of them; then a job taken from any other worker is a violation.
    """

    parameters: ClassVar[Mapping[str, Parameter]] = {}
    harms_any_worker: ClassVar[bool] = True

    def __init__(self, params: Params) -> None:
        self.params = params

    def missing(self, machine: Capabilities) -> str:
        """Nothing is missing."""
        return ""

    def prepare(self, scene: Scene) -> None:
        """Nothing to prepare."""
