"""The report's charts: which series belong together, how each chart is drawn, and the table behind it.

Every chart is drawn twice, for wide and for narrow windows, so that its text stays readable on a phone.
Colours and words are placeholders that `svg` replaces. What is not in the run's series is not drawn; nothing
is made up.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from readiness.judge.charts import FaultBand, Series
from readiness.judge.figures import plain
from readiness.judge.model import ClaimResult, Scorecard, Text
from readiness.render.catalogue import PHRASES
from readiness.render.claims import fault_name
from readiness.render.drawing import NARROW, WIDE, Guide, Line, Panel, draw_panels, draw_shares, draw_strip
from readiness.render.escape import clip, one_line
from readiness.render.svg import BLUE, GREEN, MUTED, ORANGE, PURPLE, SKY, VERMILLION
from readiness.render.words import phrase

#: Rows of the table behind a chart; the rest is in the evidence. Keeps the page below 2 MB.
TABLE_ROWS_MAX: Final = 120
#: Longest name of others in a drawing: what fits above a narrow panel.
DRAWN_NAME_MAX: Final = 24
DRAWN_UNIT_MAX: Final = 8
#: Panels of series that the table below does not know; more would be noise.
OTHER_PANELS_MAX: Final = 6

#: Name of a series -> (panel, label, colour, dashed). The same thing has the same colour everywhere.
KNOWN_SERIES: Final[dict[str, tuple[str, str, str, bool]]] = {
    "arrivals planned": ("arrivals", "planned", MUTED, True),
    "arrivals achieved": ("arrivals", "arrivals", BLUE, False),
    "arrivals": ("arrivals", "arrivals", BLUE, False),
    "jobs ended": ("arrivals", "ended", GREEN, False),
    "API response P50": ("latency", "p50", MUTED, False),
    "API response P95": ("latency", "p95", BLUE, False),
    "API response P99": ("latency", "p99", PURPLE, False),
    "job duration P50": ("durations", "p50", MUTED, False),
    "job duration P95": ("durations", "p95", BLUE, False),
    "queue length": ("queue", "queue_killed", ORANGE, False),
    "queue depth": ("queue", "queue", ORANGE, False),
    "active jobs": ("active", "active", GREEN, False),
    "open event streams": ("streams", "streams", SKY, False),
    "memory token use": ("tokens", "tokens", ORANGE, False),
    "machine CPU": ("cpu", "cpu", MUTED, False),
    "failed requests": ("failures", "failed_requests", VERMILLION, False),
    "broken streams": ("failures", "broken_streams", PURPLE, True),
    "dead letters": ("dead", "dead", VERMILLION, False),
}
#: One series a worker process; workers come and go, so their lines carry no names.
_WORKER_MEMORY: Final = re.compile(r"worker (\d+) memory")
#: Order of the panels from top to bottom.
PANEL_ORDER: Final = (
    "arrivals", "latency", "durations", "failures", "queue", "active", "dead", "streams", "memory", "tokens", "cpu"
)  # fmt: skip
#: The SLA row whose threshold belongs into a panel.
PANEL_OBJECTIVES: Final[dict[str, str]] = {"latency": "H6", "durations": "H1", "tokens": "H5"}
#: A threshold further away than this would flatten the line that it judges; it is named under the chart
#: instead.
FARTHEST_GUIDE: Final = 3.0
#: Series whose points are single measurements: (moment, length).
JOB_DURATION: Final = "job duration"
RECOVERY_TIME: Final = "time to recover"

_TARGET: Final = re.compile(r"[<≤] *([\d.,]+) ?(ms|s|min|h|%)")
_SIZES: Final = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart of the page: two drawings and the data behind them."""

    id: str
    title: Text
    note: Text | None
    wide: Markup
    narrow: Markup
    columns: tuple[Text, ...]
    rows: tuple[tuple[str, ...], ...]
    left_out: int


def charts_of(card: Scorecard) -> tuple[Chart, ...]:
    """Draw every chart that the run's series allow, in the order of the page."""
    series = {item.name: item for item in card.charts.series if item.points}
    drawn = [
        _over_time(card, list(series.values())),
        _durations(series.get(JOB_DURATION), _objective(card, "H1")),
        _recoveries(series.get(RECOVERY_TIME), _objective(card, "H7")),
    ]
    return tuple(chart for chart in drawn if chart is not None)


def _over_time(card: Scorecard, series: Sequence[Series]) -> Chart | None:
    faults = card.charts.faults
    panels = _panels(card, [item for item in series if item.name not in (JOB_DURATION, RECOVERY_TIME)])
    if not panels:
        return None
    drawn = [panel for panel in panels if not panel.quiet] or panels
    notes = [_fault_note(faults)] if faults else []
    notes += [panel.note for panel in panels if panel.note]
    notes += _quiet_note([panel for panel in panels if panel.quiet])
    rows, left_out = _table([line for panel in panels for line in panel.lines])
    return Chart(
        id="time",
        title=phrase("chart.time"),
        note=Text(" ".join(n.en for n in notes), " ".join(n.ko for n in notes)) if notes else None,
        wide=draw_panels(drawn, faults, WIDE, prefix="tw"),
        narrow=draw_panels(drawn, faults, NARROW, prefix="tn"),
        columns=(phrase("col.time"), *(_column(panel, line) for panel in panels for line in panel.lines)),
        rows=rows,
        left_out=left_out,
    )


def _panels(card: Scorecard, series: Sequence[Series]) -> list[Panel]:
    """Group the series into panels in the order of the page; series of unknown names come last."""
    grouped: dict[str, list[Line]] = {}
    units: dict[str, str] = {}
    others: list[Panel] = []
    for item in series:
        place = _place(item)
        if place is None:
            name = _short(item.name, DRAWN_NAME_MAX)
            others.append(Panel(name, _unit(item.unit), (Line(name, BLUE, False, _finite(item)),)))
            continue
        panel, line = place
        grouped.setdefault(panel, []).append(line)
        units.setdefault(panel, item.unit)
    panels = []
    for panel in (panel for panel in PANEL_ORDER if panel in grouped):
        lines = tuple(grouped[panel])
        guide, note = _panel_guide(card, panel, units[panel], lines)
        quiet = not any(y for line in lines for _, y in line.points)
        panels.append(Panel(phrase(f"chart.{panel}"), _unit(units[panel]), lines, guide, note, quiet))
    return panels + others[:OTHER_PANELS_MAX]


def _place(series: Series) -> tuple[str, Line] | None:
    worker = _WORKER_MEMORY.fullmatch(series.name)
    if worker:
        label = phrase("series.worker", number=worker.group(1))
        return "memory", Line(label, PURPLE, False, _finite(series), named=False)
    if series.name not in KNOWN_SERIES:
        return None
    panel, label_key, colour, dashed = KNOWN_SERIES[series.name]
    return panel, Line(phrase(f"series.{label_key}"), colour, dashed, _finite(series))


def _quiet_note(panels: Sequence[Panel]) -> list[Text]:
    labels = [line.label for panel in panels for line in panel.lines]
    if not labels:
        return []
    listed = Text(", ".join(label.en for label in labels), ", ".join(label.ko for label in labels))
    return [phrase("chart.quiet", names=listed)]


def _panel_guide(
    card: Scorecard, panel: str, unit: str, lines: Sequence[Line]
) -> tuple[Guide | None, Text | None]:
    objective = _objective(card, PANEL_OBJECTIVES.get(panel, ""))
    limit = _limit(objective, unit)
    if objective is None or limit is None:
        return None, None
    if limit <= FARTHEST_GUIDE * max((y for line in lines for _, y in line.points), default=0):
        return Guide(phrase("chart.target", target=objective.target), limit, VERMILLION), None
    return None, phrase("chart.panel.above", panel=phrase(f"chart.{panel}"), target=objective.target)


def _durations(series: Series | None, objective: ClaimResult | None) -> Chart | None:
    if series is None:
        return None
    values = sorted(value for _, value in _finite(series) if value > 0)
    if not values:
        return None
    guides = [
        Guide(
            phrase("chart.p95", value=plain(_rank(values, 0.95)), unit=_unit(series.unit)),
            _rank(values, 0.95),
            BLUE,
        )
    ]
    limit = _limit(objective, series.unit)
    if limit is not None and objective is not None:
        guides.append(Guide(phrase("chart.target", target=objective.target), limit, VERMILLION))
    axis = phrase("chart.durations.axis", unit=_unit(series.unit))
    rows = tuple(
        (f"{share} %", plain(_rank(values, share / 100))) for share in (5, 25, 50, 75, 90, 95, 99, 100)
    )
    return Chart(
        id="durations",
        title=phrase("chart.distribution"),
        note=phrase("chart.durations.note", count=len(values)),
        wide=draw_shares(values, guides, axis, WIDE, prefix="dw"),
        narrow=draw_shares(values, guides, axis, NARROW, prefix="dn"),
        columns=(phrase("chart.share"), axis),
        rows=rows,
        left_out=0,
    )


def _recoveries(series: Series | None, objective: ClaimResult | None) -> Chart | None:
    if series is None:
        return None
    points = _finite(series)
    if not points:
        return None
    values = [value for _, value in points]
    middle = _rank(sorted(values), 0.5)
    guides = [Guide(phrase("chart.median", value=plain(middle), unit=_unit(series.unit)), middle, BLUE)]
    limit = _limit(objective, series.unit)
    note = phrase("chart.recoveries.note", count=len(values))
    if limit is not None and objective is not None:
        if limit <= FARTHEST_GUIDE * max(values):
            guides.append(Guide(phrase("chart.target", target=objective.target), limit, VERMILLION))
        else:
            note = phrase("chart.recoveries.above", count=len(values), target=objective.target)
    axis = phrase("chart.recoveries.axis", unit=_unit(series.unit))
    shown = points[:TABLE_ROWS_MAX]
    return Chart(
        id="recoveries",
        title=phrase("chart.recoveries"),
        note=note,
        wide=draw_strip(values, guides, axis, WIDE, prefix="rw"),
        narrow=draw_strip(values, guides, axis, NARROW, prefix="rn"),
        columns=(phrase("col.number"), phrase("col.time"), axis),
        rows=tuple(
            (str(index), f"{moment:.1f}", plain(value)) for index, (moment, value) in enumerate(shown, 1)
        ),
        left_out=len(points) - len(shown),
    )


def _finite(series: Series) -> tuple[tuple[float, float], ...]:
    return tuple((t, y) for t, y in series.points if math.isfinite(t) and math.isfinite(y))


def _rank(ordered: Sequence[float], share: float) -> float:
    """The smallest sample that at least `share` of all samples do not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _objective(card: Scorecard, row: str) -> ClaimResult | None:
    return next((claim for claim in card.claims if claim.sla == row and row), None)


def _limit(objective: ClaimResult | None, unit: str) -> float | None:
    """Read the limit out of a target such as "P95 < 60 s" in the series' unit; None when they do not fit."""
    match = _TARGET.search(objective.target.en) if objective else None
    if match is None:
        return None
    value = float(match.group(1).replace(",", ""))
    if match.group(2) in _SIZES and unit in _SIZES:
        return value * _SIZES[match.group(2)] / _SIZES[unit]
    return value if match.group(2) == unit else None


def _unit(unit: str) -> Text:
    return PHRASES.get(f"symbol.{unit}", _short(unit, DRAWN_UNIT_MAX))


def _short(name: str, limit: int) -> Text:
    """A name of others as it fits into a drawing."""
    shown, left_out = clip(one_line(name), limit)
    return Text(shown + "…" * bool(left_out), shown + "…" * bool(left_out))


def _table(lines: Sequence[Line]) -> tuple[tuple[tuple[str, ...], ...], int]:
    """One row a moment, one column a line; thinned evenly to TABLE_ROWS_MAX rows."""
    columns = [{round(t, 1): y for t, y in line.points} for line in lines]
    moments = sorted({t for column in columns for t in column})
    step = max(1, math.ceil(len(moments) / TABLE_ROWS_MAX))
    shown = moments[::step]
    rows = tuple(
        (f"{t:.1f}", *(plain(column[t]) if t in column else "" for column in columns)) for t in shown
    )
    return rows, len(moments) - len(shown)


def _column(panel: Panel, line: Line) -> Text:
    name = panel.title if len(panel.lines) == 1 else line.label
    if not panel.unit.en:
        return name
    return Text(f"{name.en}, {panel.unit.en}", f"{name.ko}, {panel.unit.ko}")


def _fault_note(faults: Sequence[FaultBand]) -> Text:
    counts = Counter(fault.name for fault in faults).most_common(6)
    names = [(fault_name(name), f" × {count}" if count > 1 else "") for name, count in counts]
    listed = Text(
        ", ".join(name.en + times for name, times in names),
        ", ".join(name.ko + times for name, times in names),
    )
    return phrase("chart.faults", names=listed)
