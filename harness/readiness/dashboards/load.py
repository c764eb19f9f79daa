"""Read a Grafana dashboard's JSON into panels and queries that know their line. Judges nothing.

Source of the format: https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/
(the classic model, schemaVersion up to 42; the v2 resource model is refused by name).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from readiness.errors import BadInput

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

MAX_FILE_BYTES = 50_000_000
"""Above any dashboard seen in public; a larger file is refused before it is parsed."""

_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class Grid:
    """Where a panel stands, in columns (24 wide) and rows."""

    x: int
    y: int
    width: int
    height: int

    def overlaps(self, other: Grid) -> bool:
        """True when some cell belongs to both."""
        beside = self.x + self.width <= other.x or other.x + other.width <= self.x
        above = self.y + self.height <= other.y or other.y + other.height <= self.y
        return not (beside or above)


@dataclass(frozen=True, slots=True)
class PanelQuery:
    """One target of a panel. `datasource` is the uid as written, often a variable."""

    ref: str
    expr: str
    datasource: str


@dataclass(frozen=True, slots=True)
class ThresholdStep:
    """A colour and the value from which it holds; None is minus infinity."""

    color: str
    value: float | None


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel. `row` is the place of the collapsed row that holds it, whose line it carries; None at the top."""

    id: int | None
    type: str
    title: str
    description: str
    unit: str
    line: int
    row: int | None
    grid: Grid | None
    datasource: str
    thresholds: tuple[ThresholdStep, ...]
    queries: tuple[PanelQuery, ...]

    @property
    def label(self) -> str:
        """How messages name it."""
        return f"panel {self.title!r}" if self.title else f"panel {self.id}"


@dataclass(frozen=True, slots=True)
class Variable:
    """A template variable; `query` is the plugin for one of type datasource."""

    name: str
    type: str
    query: str


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A dashboard. `lines` gives the line of each key at its top."""

    file: Path
    uid: str
    title: str
    schema_version: int
    refresh: str
    time_from: str
    time_to: str
    variables: tuple[Variable, ...]
    panels: tuple[Panel, ...]
    lines: Mapping[str, int]


def load_dashboard(file: Path) -> Dashboard:
    """Read one dashboard. BadInput, with file and line, when it is no JSON or no dashboard of the classic model."""
    text = _read(file)
    try:
        raw = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadInput(
            f"{file}:{error.lineno}: expected JSON, got: {error.msg}. Correct that line."
        ) from None
    except RecursionError:
        raise BadInput(f"{file}:1: expected a dashboard, got JSON that is nested too deeply.") from None
    if not isinstance(raw, dict) or not isinstance(raw.get("panels"), list):
        words = "with a list `panels` at its top (the classic model, as Grafana 9 to 12 export it)"
        raise BadInput(f"{file}:1: expected a Grafana dashboard {words}, got something else.")
    lines, panel_lines = _lines(text)
    time = _object(raw.get("time"))
    return Dashboard(
        file=file,
        uid=_string(raw.get("uid")),
        title=_string(raw.get("title")),
        schema_version=_integer(raw.get("schemaVersion")) or 0,
        refresh=_string(raw.get("refresh")),
        time_from=_string(time.get("from")),
        time_to=_string(time.get("to")),
        variables=tuple(_variables(raw)),
        panels=tuple(
            panel
            for place, (entry, line) in enumerate(zip(_array(raw.get("panels")), panel_lines, strict=True))
            for panel in _panels(_object(entry), line, place)
        ),
        lines=lines,
    )


def _read(file: Path) -> str:
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise BadInput(f"{file}:1: expected at most {MAX_FILE_BYTES} bytes, got: {file.stat().st_size}.")
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BadInput(f"{file}: expected a readable dashboard, got: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{file}:1: expected UTF-8, got a byte that is none at {error.start}.") from None


def _panels(entry: Mapping[str, Json], line: int, place: int) -> Iterator[Panel]:
    if entry.get("type") == "row":
        for inner in _array(entry.get("panels")):
            yield _panel(_object(inner), line, place)
    else:
        yield _panel(entry, line, None)


def _panel(entry: Mapping[str, Json], line: int, row: int | None) -> Panel:
    defaults = _object(_object(entry.get("fieldConfig")).get("defaults"))
    return Panel(
        id=_integer(entry.get("id")),
        type=_string(entry.get("type")),
        title=_string(entry.get("title")),
        description=_string(entry.get("description")),
        unit=_string(defaults.get("unit")),
        line=line,
        row=row,
        grid=_grid(_object(entry.get("gridPos"))),
        datasource=_datasource(entry.get("datasource")),
        thresholds=tuple(
            ThresholdStep(color=_string(step.get("color")), value=_number(step.get("value")))
            for step in map(_object, _array(_object(defaults.get("thresholds")).get("steps")))
        ),
        queries=tuple(
            PanelQuery(
                ref=_string(target.get("refId")),
                expr=_string(target.get("expr")),
                datasource=_datasource(target.get("datasource")),
            )
            for target in map(_object, _array(entry.get("targets")))
        ),
    )


def _variables(raw: Mapping[str, Json]) -> Iterator[Variable]:
    for entry in map(_object, _array(_object(raw.get("templating")).get("list"))):
        yield Variable(_string(entry.get("name")), _string(entry.get("type")), _string(entry.get("query")))


def _grid(raw: Mapping[str, Json]) -> Grid | None:
    x, y, width, height = (_integer(raw.get(key)) for key in ("x", "y", "w", "h"))
    if x is None or y is None or width is None or height is None:
        return None
    return Grid(x=x, y=y, width=width, height=height)


def _datasource(raw: Json) -> str:
    """The uid of a reference (Grafana 8 and newer), or the name that stood there before."""
    return _string(raw.get("uid")) if isinstance(raw, dict) else _string(raw)


def _lines(text: str) -> tuple[dict[str, int], list[int]]:
    """The line of each key at the top, and of each entry of `panels`. `text` is known to be a JSON object."""
    lines: dict[str, int] = {}
    panels: list[int] = []
    at = _after_space(text, text.index("{") + 1)
    while text[at] != "}":
        key, end = _DECODER.raw_decode(text, at)
        lines[str(key)] = _line_at(text, at)
        at = _after_space(text, text.index(":", end) + 1)
        if key == "panels" and text[at] == "[":
            panels = list(_entry_lines(text, at))
        at = _after_comma(text, _DECODER.raw_decode(text, at)[1])
    return lines, panels


def _entry_lines(text: str, at: int) -> Iterator[int]:
    at = _after_space(text, at + 1)
    while text[at] != "]":
        yield _line_at(text, at)
        at = _after_comma(text, _DECODER.raw_decode(text, at)[1])


def _after_comma(text: str, at: int) -> int:
    at = _after_space(text, at)
    return _after_space(text, at + 1) if text[at] == "," else at


def _after_space(text: str, at: int) -> int:
    while text[at] in " \t\r\n":
        at += 1
    return at


def _line_at(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _object(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, dict) else {}


def _array(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def _string(value: Json) -> str:
    return value if isinstance(value, str) else ""


def _integer(value: Json) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: Json) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
