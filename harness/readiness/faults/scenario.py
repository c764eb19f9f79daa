"""Read a scenario file into a `Scenario`. Every complaint is one line with file, line, key, expectation and value.

What the keys mean stands at the top of `act.py`. Knows which acts and parameters there are, plays none of them.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from readiness.errors import BadInput
from readiness.faults.act import Parameter, Params
from readiness.faults.acts import ACTS, act_class
from readiness.judge.model import Text
from readiness.judge.profile_yaml import Cursor, compose, nearest

FOLDER = Path("checks") / "faults"
"""Where a content root has its scenarios."""

ROWS = 29
"""Rows of the fault catalogue; 0 stands for a fault beyond it."""

REDIS = ("shared", "own", "act")
PROXIES = ("redis", "api", "embedding")
RECOVERY_FROM = ("inject", "heal")
CHECKERS = (
    "conservation",
    "repeated",
    "fencing",
    "overlap",
    "order",
    "attempts",
    "recovery",
    "orphans",
    "gauges",
)
"""What is judged of every scenario, unless its `unjudged` says why not."""

_REQUIRED = ("title", "row", "method", "expected")
_OPTIONAL = ("stand", "steady_state", "stream", "choose", "hold_seconds", "rollback", "recovery_from")
_KEYS = (*_REQUIRED, *_OPTIONAL, "liveness_seconds", "unjudged")
_STAND = ("workers", "settings", "redis", "redis_options", "proxy", "embedding_ms")
_EXPECTED = ("lost", "repeated", "dead", "recovery_seconds", "max_attempts", "max_deliveries", "loss_window")

Value = float | str | tuple[float, float]
"""A parameter as written: a number, a word, or the range that one is drawn from."""


@dataclass(frozen=True, slots=True)
class Move:
    """One act with its parameters, complete but not drawn."""

    act: str
    values: Mapping[str, Value]

    def drawn(self, rng: random.Random) -> Params:
        """The parameters with every range replaced by a number of it, in the order of their names."""
        drawn: dict[str, float | str] = {}
        for name in sorted(self.values):
            value = self.values[name]
            drawn[name] = round(rng.uniform(*value), 3) if isinstance(value, tuple) else value
        return Params(drawn)


@dataclass(frozen=True, slots=True)
class Stand:
    """What is built for a scenario."""

    workers: int = 2
    settings: Mapping[str, str] = field(default_factory=dict)
    redis: str = "shared"
    redis_options: Mapping[str, str] = field(default_factory=dict)
    proxies: tuple[str, ...] = ()
    embedding_ms: int = 30


@dataclass(frozen=True, slots=True)
class SteadyState:
    """So many jobs are done within so many seconds before anything is broken."""

    jobs: int = 3
    within_seconds: float = 20.0


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """The submissions around the fault: at most `jobs`, at least `every_ms` apart, of `words` words each."""

    jobs: int = 60
    every_ms: int = 80
    words: int = 60


@dataclass(frozen=True, slots=True)
class LossWindow:
    """A loss that is declared: of what was acknowledged in the last `seconds` before the fault, and only when the
    target says so by the log event `reported_by`.
    """

    seconds: float
    reported_by: str


@dataclass(frozen=True, slots=True)
class Expected:
    """What surviving means."""

    lost: int = 0
    repeated: int = 0
    dead: int = 0
    recovery_seconds: float = 15.0
    max_attempts: int = 1
    max_deliveries: int = 3
    loss_window: LossWindow | None = None


@dataclass(frozen=True, slots=True)
class Scenario:
    """One fault, complete: what to build, to break, to expect. `choose` acts of `method` are drawn; 0 takes all."""

    name: str
    file: str
    title: Text
    row: int
    method: tuple[Move, ...]
    stand: Stand = field(default_factory=Stand)
    steady_state: SteadyState = field(default_factory=SteadyState)
    stream: StreamPlan = field(default_factory=StreamPlan)
    choose: int = 0
    hold_seconds: float = 0.0
    expected: Expected = field(default_factory=Expected)
    rollback: tuple[str, ...] = ()
    recovery_from: str = "heal"
    liveness_seconds: float = 30.0
    unjudged: Mapping[str, str] = field(default_factory=dict)


def scenario_files(root: Path) -> list[Path]:
    """The scenario files of a content root, by name."""
    return sorted((root / FOLDER).glob("*.yaml"))


def load_scenarios(root: Path) -> list[Scenario]:
    """Every scenario of a content root, in the order of the catalogue. BadInput for the first mistake."""
    found = [load_scenario(path) for path in scenario_files(root)]
    return sorted(found, key=lambda one: (one.row or ROWS + 1, one.name))


def find_scenario(root: Path, name: str) -> Scenario:
    """The scenario of that name. BadInput names the nearest one."""
    known = [path.stem for path in scenario_files(root)]
    if name not in known:
        raise BadInput(f"fault {name!r}: expected a scenario of {FOLDER.as_posix()}. {nearest(name, known)}")
    return load_scenario(root / FOLDER / f"{name}.yaml")


def load_scenario(path: Path) -> Scenario:
    """Read one file. BadInput with file and line for whatever is wrong in it."""
    shown = (FOLDER / path.name).as_posix()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{shown}: expected a readable file, got: {error.strerror or error}") from None
    return parse_scenario(content, name=path.stem, file=shown)


def parse_scenario(content: bytes, *, name: str, file: str) -> Scenario:
    """Parse the content of one file."""
    root = compose(content, file=file)
    keys = root.fields(_KEYS, required=_REQUIRED)
    method = keys["method"].each(_move, at_least=1)
    scenario = Scenario(
        name=name,
        file=file,
        title=keys["title"].bilingual(),
        row=keys["row"].integer(0, ROWS),
        method=method,
        stand=_stand(keys["stand"]) if "stand" in keys else Stand(),
        steady_state=_steady_state(keys.get("steady_state")),
        stream=_stream(keys.get("stream")),
        choose=keys["choose"].integer(1, len(method)) if "choose" in keys else 0,
        hold_seconds=_number(keys.get("hold_seconds"), 0, 60, 0.0),
        expected=_expected(keys["expected"]),
        rollback=_rollback(keys.get("rollback"), [move.act for move in method]),
        recovery_from=_word(keys.get("recovery_from"), RECOVERY_FROM, "heal"),
        liveness_seconds=_number(keys.get("liveness_seconds"), 1, 300, 30.0),
        unjudged=_unjudged(keys.get("unjudged")),
    )
    if scenario.stand.redis_options and scenario.stand.redis != "own":
        keys["stand"].fail("redis: own beside redis_options", hint="Options are for a server of its own.")
    return scenario


def _move(cursor: Cursor) -> Move:
    entries = cursor.mapping()
    if "act" not in entries:
        cursor.fields(("act",), required=("act",))
    act = entries["act"].word(tuple(ACTS), what="the name of an act")
    declared = act_class(act).parameters
    cursor.fields(("act", *declared))
    values: dict[str, Value] = {name: parameter.default for name, parameter in declared.items()}
    for name, parameter in declared.items():
        if name in entries:
            values[name] = _value(entries[name], parameter)
    return Move(act, values)


def _value(cursor: Cursor, parameter: Parameter) -> Value:
    if parameter.words:
        return cursor.word(parameter.words, what=f"one of {', '.join(parameter.words)}")
    what = f"{parameter.low:g} to {parameter.high:g} {parameter.unit}".rstrip()
    if isinstance(cursor.node, yaml.MappingNode):
        ends = cursor.fields(("from", "to"), required=("from", "to"))
        low = ends["from"].number(parameter.low, parameter.high, what=what)
        return low, ends["to"].number(
            low, parameter.high, what=f"{low:g} to {parameter.high:g} {parameter.unit}"
        )
    return cursor.number(parameter.low, parameter.high, what=what)


def _stand(cursor: Cursor) -> Stand:
    keys = cursor.fields(_STAND)
    proxies = keys["proxy"].each(lambda one: one.word(PROXIES, what="a part")) if "proxy" in keys else ()
    return Stand(
        workers=_integer(keys.get("workers"), 0, 8, 2),
        settings=_scalars(keys.get("settings")),
        redis=_word(keys.get("redis"), REDIS, "shared"),
        redis_options=_scalars(keys.get("redis_options")),
        proxies=proxies,
        embedding_ms=_integer(keys.get("embedding_ms"), 0, 60_000, 30),
    )


def _steady_state(cursor: Cursor | None) -> SteadyState:
    if cursor is None:
        return SteadyState()
    keys = cursor.fields(("jobs", "within_seconds"))
    return SteadyState(
        jobs=_integer(keys.get("jobs"), 1, 100, 3),
        within_seconds=_number(keys.get("within_seconds"), 1, 120, 20.0),
    )


def _stream(cursor: Cursor | None) -> StreamPlan:
    if cursor is None:
        return StreamPlan()
    keys = cursor.fields(("jobs", "every_ms", "words"))
    return StreamPlan(
        jobs=_integer(keys.get("jobs"), 1, 5000, 60),
        every_ms=_integer(keys.get("every_ms"), 0, 10_000, 80),
        words=_integer(keys.get("words"), 1, 200_000, 60),
    )


def _expected(cursor: Cursor) -> Expected:
    keys = cursor.fields(_EXPECTED, required=("lost", "repeated", "recovery_seconds"))
    return Expected(
        lost=keys["lost"].integer(0, 0),
        repeated=keys["repeated"].integer(0, 0),
        dead=_integer(keys.get("dead"), 0, 1000, 0),
        recovery_seconds=keys["recovery_seconds"].number(0.1, 300),
        max_attempts=_integer(keys.get("max_attempts"), 1, 100, 1),
        max_deliveries=_integer(keys.get("max_deliveries"), 1, 100, 3),
        loss_window=_loss_window(keys.get("loss_window")),
    )


def _loss_window(cursor: Cursor | None) -> LossWindow | None:
    if cursor is None:
        return None
    keys = cursor.fields(("seconds", "reported_by"), required=("seconds", "reported_by"))
    return LossWindow(keys["seconds"].number(0.001, 3600), keys["reported_by"].text(longest=100))


def _rollback(cursor: Cursor | None, acts: Sequence[str]) -> tuple[str, ...]:
    """In which order acts are healed: as given, else last first."""
    if cursor is None:
        return tuple(reversed(acts))
    order = cursor.each(lambda one: one.word(tuple(acts), what="an act of `method`"))
    if sorted(order) != sorted(acts):
        cursor.fail(f"each act of `method` once ({', '.join(acts)})")
    return order


def _unjudged(cursor: Cursor | None) -> dict[str, str]:
    if cursor is None:
        return {}
    return {name: reason.text(longest=300) for name, reason in cursor.fields(CHECKERS).items()}


def _scalars(cursor: Cursor | None) -> dict[str, str]:
    return {} if cursor is None else {name: value.scalar() for name, value in cursor.mapping().items()}


def _integer(cursor: Cursor | None, low: int, high: int, default: int) -> int:
    return default if cursor is None else cursor.integer(low, high)


def _number(cursor: Cursor | None, low: float, high: float, default: float) -> float:
    return default if cursor is None else cursor.number(low, high)


def _word(cursor: Cursor | None, known: Sequence[str], default: str) -> str:
    return default if cursor is None else cursor.word(known, what=f"one of {', '.join(known)}")
