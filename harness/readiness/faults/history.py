"""The record of one fault scenario: every submit, claim, effect, settle, look, as seen from outside; append-only.

One JSON line a record, `{"kind", "at_ms", ...}`, in the order of writing; `at_ms` is when the thing happened, in
milliseconds since the epoch on the clock of whoever saw it. What was seen while it went on (submissions, looks, the
fault's steps) is written at once; what lies in the target's own records (commits, logs, the embedding API's log) is
copied in at the end. Judging is left to `checkers.py`, which takes the records as a `Story`.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from readiness.errors import HarnessFailure

ANSWERS = ("acknowledged", "refused", "unknown")
"""What a submission came to. "unknown" is no answer at all: the job may exist or not, and nobody may assume either."""


@dataclass(frozen=True, slots=True)
class Submit:
    """One submission. `key` is its idempotency key: two submissions with one key are one job. `digest` of its text."""

    at_ms: int
    key: str
    answer: str
    job: str = ""
    mode: str = ""
    duplicate: bool = False
    digest: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """A worker said that it took a job."""

    at_ms: int
    job: str
    worker: str
    fence: int
    attempt: int = 1
    delivery: int = 1


@dataclass(frozen=True, slots=True)
class Effect:
    """A committed effect, in the order of commit."""

    at_ms: int
    job: str
    worker: str
    fence: int


@dataclass(frozen=True, slots=True)
class Undo:
    """A committed effect that was undone on request: the commit with this fence counts no longer."""

    at_ms: int
    job: str
    fence: int


@dataclass(frozen=True, slots=True)
class Settle:
    """What a worker reported of a delivery; `accepted` is whether the queue took the report."""

    at_ms: int
    job: str
    outcome: str
    accepted: bool = True


@dataclass(frozen=True, slots=True)
class TakeOver:
    """A job was taken from `worker`, whose lease had run out."""

    at_ms: int
    job: str
    worker: str


@dataclass(frozen=True, slots=True)
class Embed:
    """A request at the embedding API that carried the text of a job, from arrival to end."""

    at_ms: float
    ended_ms: float
    job: str
    status: int


@dataclass(frozen=True, slots=True)
class Look:
    """The state in which a job was seen at a moment, while everything went on."""

    at_ms: int
    job: str
    state: str


@dataclass(frozen=True, slots=True)
class End:
    """A job when everything was over. `events` is its own history: (ms, event, worker) in order."""

    at_ms: int
    job: str
    state: str
    attempt: int = 1
    deliveries: int = 1
    finished_ms: int | None = None
    error: str = ""
    events: tuple[tuple[int, str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class WorkerSeen:
    """A worker of the target, by the name it gives itself and its process."""

    at_ms: int
    worker: str
    pid: int


@dataclass(frozen=True, slots=True)
class Harm:
    """From here to `until_ms` a worker may rightly lose its lease: it was stopped, killed or cut off. pid 0: any."""

    at_ms: int
    until_ms: int
    pid: int = 0


@dataclass(frozen=True, slots=True)
class Gauge:
    """A figure of the target when everything was over, and what it has to be."""

    at_ms: int
    name: str
    value: float
    expected: float = 0.0


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something that the target still keeps for work that is over: a file, a key."""

    at_ms: int
    what: str


@dataclass(frozen=True, slots=True)
class Report:
    """A log event by which the target tells that something was lost or wrong; only those that a scenario asks for."""

    at_ms: int
    event: str
    count: int


@dataclass(frozen=True, slots=True)
class Note:
    """A step of the scenario, or what an act saw."""

    at_ms: int
    what: str
    facts: dict[str, Any] = field(default_factory=dict)


Entry = (
    Submit
    | Claim
    | Effect
    | Undo
    | Settle
    | TakeOver
    | Embed
    | Look
    | End
    | WorkerSeen
    | Harm
    | Gauge
    | Leftover
    | Report
    | Note
)

KINDS: dict[str, type[Any]] = {
    "submit": Submit,
    "claim": Claim,
    "effect": Effect,
    "undo": Undo,
    "settle": Settle,
    "take_over": TakeOver,
    "embed": Embed,
    "look": Look,
    "end": End,
    "worker": WorkerSeen,
    "harm": Harm,
    "gauge": Gauge,
    "leftover": Leftover,
    "report": Report,
    "note": Note,
}
_NAMES = {kind: name for name, kind in KINDS.items()}


@dataclass(frozen=True, slots=True)
class Story:
    """All records of one kind together, each in the order of the record."""

    submits: tuple[Submit, ...] = ()
    claims: tuple[Claim, ...] = ()
    effects: tuple[Effect, ...] = ()
    undos: tuple[Undo, ...] = ()
    settles: tuple[Settle, ...] = ()
    take_overs: tuple[TakeOver, ...] = ()
    embeds: tuple[Embed, ...] = ()
    looks: tuple[Look, ...] = ()
    ends: tuple[End, ...] = ()
    workers: tuple[WorkerSeen, ...] = ()
    harms: tuple[Harm, ...] = ()
    gauges: tuple[Gauge, ...] = ()
    leftovers: tuple[Leftover, ...] = ()
    reports: tuple[Report, ...] = ()
    notes: tuple[Note, ...] = ()

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Story:
        """Sort the records by kind."""
        shelves: dict[type[Any], list[Any]] = {kind: [] for kind in KINDS.values()}
        for entry in entries:
            shelves[type(entry)].append(entry)
        named = zip((one.name for one in fields(cls)), KINDS.values(), strict=True)
        return cls(**{name: tuple(shelves[kind]) for name, kind in named})

    @property
    def acknowledged(self) -> dict[str, Submit]:
        """The jobs that the target took responsibility for, by id, with the first answer that said so."""
        found: dict[str, Submit] = {}
        for submit in self.submits:
            if submit.answer == "acknowledged":
                found.setdefault(submit.job, submit)
        return found


class History:
    """Writes the record of one scenario; any number of threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._entries: list[Entry] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")

    def add(self, entry: Entry) -> None:
        """Write one record down."""
        line = json.dumps({"kind": _NAMES[type(entry)], **asdict(entry)}, ensure_ascii=False, default=str)
        with self._lock:
            self._entries.append(entry)
            self._file.write(line + "\n")
            self._file.flush()

    def note(self, kind: str, **facts: object) -> None:
        """Write down something that an act or the engine saw just now."""
        self.add(Note(now_ms(), kind, dict(facts)))

    def harm(self, *, pid: int, seconds: float) -> None:
        """From now on, for `seconds`, this worker may rightly lose its lease; pid 0 means any worker."""
        at = now_ms()
        self.add(Harm(at, at + int(1000 * seconds), pid))

    def story(self) -> Story:
        """What was written so far."""
        with self._lock:
            return Story.of(self._entries)

    def close(self) -> None:
        """Let the file go. Doing it twice is harmless."""
        self._file.close()


def read_story(path: Path) -> Story:
    """A written history again. HarnessFailure names the line that is no record."""
    return Story.of(_entries(path))


def now_ms() -> int:
    """Milliseconds since the epoch on this machine."""
    return time.time_ns() // 1_000_000


def _entries(path: Path) -> Iterable[Entry]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                raw = json.loads(line)
                kind = KINDS[raw.pop("kind")]
                if kind is End:
                    raw["events"] = tuple((at, event, worker) for at, event, worker in raw["events"])
                yield kind(**raw)
            except (ValueError, KeyError, TypeError) as error:
                raise HarnessFailure(
                    f"{path}:{number}: expected a record of a history, got: {error!r}"
                ) from None
