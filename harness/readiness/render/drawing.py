"""How the report's charts are drawn: panels over one time axis, a distribution, a strip of dots.

Knows pixels, axes and ink; `charts` decides what is drawn. No legend boxes: every line carries its own name.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from readiness.judge.charts import FaultBand
from readiness.judge.figures import plain
from readiness.judge.model import Text
from readiness.render.svg import BLUE, FAULT, INK, LINE, MUTED, PAPER, Labels, figure_svg
from readiness.render.words import phrase

#: matplotlib's SVG backend draws at 72 units an inch, so one unit is one CSS pixel here.
_UNITS_PER_INCH: Final = 72
_TEXT: Final = 12.0
_PANEL_HEIGHT: Final = 86.0
_PANEL_GAP: Final = 40.0
_AXIS_ROOM: Final = 46.0
_SMALLEST_LABEL_STEP: Final = 14.0
#: A longer name does not fit beside the plot.
_SHORT_LABEL: Final = 16
#: What stands under a name that lies on the plot.
_PLATE: Final = {"facecolor": PAPER, "edgecolor": "none", "pad": 1.0}
#: More numbered fault bands than this would print over each other.
_NUMBERED_FAULTS_MAX: Final = 12


@dataclass(frozen=True, slots=True)
class Canvas:
    """A width to draw for, in CSS pixels, and the class by which the style sheet shows it."""

    css_class: str
    width: float
    left: float
    right: float
    time_ticks: int
    names_beside: bool


WIDE: Final = Canvas("wide", width=736, left=52, right=104, time_ticks=9, names_beside=True)
NARROW: Final = Canvas("narrow", width=328, left=44, right=10, time_ticks=5, names_beside=False)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a panel; its name is printed beside it when the panel has several and it is `named`."""

    label: Text
    colour: str
    dashed: bool
    points: tuple[tuple[float, float], ...]
    named: bool = True


@dataclass(frozen=True, slots=True)
class Guide:
    """A named straight line: a threshold, a percentile."""

    label: Text
    at: float
    colour: str


@dataclass(frozen=True, slots=True)
class Panel:
    """Lines that share a value axis; `note` is said under the chart, `quiet` ones are not drawn."""

    title: Text
    unit: Text
    lines: tuple[Line, ...]
    guide: Guide | None = None
    note: Text | None = None
    quiet: bool = False


def draw_panels(
    panels: Sequence[Panel], faults: Sequence[FaultBand], canvas: Canvas, *, prefix: str
) -> Markup:
    """Draw panels below each other over one time axis, fault windows shaded behind all of them."""
    height = len(panels) * (_PANEL_HEIGHT + _PANEL_GAP) + _AXIS_ROOM
    labels = Labels()
    with _style():
        figure = _figure(canvas, height)
        moments = [t for panel in panels for line in panel.lines for t, _ in line.points]
        begin, end = min(moments), max([*moments, *(band.end for band in faults)])
        for index, panel in enumerate(panels):
            top = index * (_PANEL_HEIGHT + _PANEL_GAP) + _PANEL_GAP
            axes = _axes(figure, canvas, top, _PANEL_HEIGHT, height)
            axes.set_xlim(min(begin, 0), end or 1)
            _shade(axes, faults, canvas, numbered=index == 0)
            _draw_panel(axes, panel, canvas, labels)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=canvas.time_ticks, integer=True))
            if index < len(panels) - 1:
                axes.tick_params(axis="x", labelbottom=False)
        axes.set_xlabel(labels.add(phrase("chart.time.axis")), labelpad=5)
        return figure_svg(figure, labels, prefix=prefix, css_class=canvas.css_class)


def draw_shares(
    values: Sequence[float], guides: Sequence[Guide], axis: Text, canvas: Canvas, *, prefix: str
) -> Markup:
    """Draw the share of samples that do not exceed a value: all samples, no bins, logarithmic axis."""
    height, labels = 210.0, Labels()
    with _style():
        figure = _figure(canvas, height)
        axes = _axes(figure, canvas, _PANEL_GAP, height - _PANEL_GAP - _AXIS_ROOM, height)
        axes.set_xscale("log")
        shares = [100 * (index + 1) / len(values) for index in range(len(values))]
        axes.plot([values[0], *values], [0, *shares], drawstyle="steps-post", color=BLUE, linewidth=1.6)
        axes.set_ylim(0, 104)
        marks = [*values, *(guide.at for guide in guides)]
        axes.set_xlim(min(marks) / 1.25, max(marks) * 1.25)
        axes.set_yticks([0, 25, 50, 75, 95])
        axes.xaxis.set_major_locator(
            LogLocator(base=10, subs=(1.0, 2.0, 5.0), numticks=6 if canvas.names_beside else 4)
        )
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_formatter(FuncFormatter(_tick))
        for guide in guides:
            _upright_guide(axes, guide, labels)
        _title(axes, labels, canvas, phrase("chart.share.axis"), Text("%", "%"))
        axes.set_xlabel(labels.add(axis), labelpad=5)
        return figure_svg(figure, labels, prefix=prefix, css_class=canvas.css_class)


def draw_strip(
    values: Sequence[float], guides: Sequence[Guide], axis: Text, canvas: Canvas, *, prefix: str
) -> Markup:
    """Draw one dot a measurement, in the order in which they were made."""
    height, labels = 190.0, Labels()
    with _style():
        figure = _figure(canvas, height)
        axes = _axes(figure, canvas, _PANEL_GAP, height - _PANEL_GAP - _AXIS_ROOM, height)
        order = range(1, len(values) + 1)
        axes.vlines(order, 0, values, color=LINE, linewidth=1.2)
        axes.plot(order, values, "o", color=BLUE, markersize=5, markeredgewidth=0)
        axes.set_xlim(0.3, len(values) + 0.7)
        axes.set_ylim(0, 1.15 * max([*values, *(guide.at for guide in guides)]) or 1)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=canvas.time_ticks, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
        axes.yaxis.set_major_formatter(FuncFormatter(_tick))
        for guide in guides:
            _guide(axes, guide, labels, canvas)
        _title(axes, labels, canvas, axis)
        axes.set_xlabel(labels.add(phrase("chart.recoveries.order")), labelpad=5)
        return figure_svg(figure, labels, prefix=prefix, css_class=canvas.css_class)


def _style() -> AbstractContextManager[None]:
    return mpl.rc_context(
        {
            "font.size": _TEXT,
            "font.family": "DejaVu Sans",  # ships with matplotlib; the page's own font replaces it
            "text.parse_math": False,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.spines.left": False,
            "axes.edgecolor": MUTED,
            "axes.labelcolor": MUTED,
            "axes.labelsize": _TEXT,
            "axes.axisbelow": True,
            "axes.grid": True,
            "axes.grid.axis": "y",
            "grid.color": LINE,
            "grid.linewidth": 0.8,
            "xtick.color": MUTED,
            "ytick.color": MUTED,
            "ytick.left": False,
            "xtick.major.size": 3,
            "text.color": INK,
            "axes.facecolor": "none",
            "figure.facecolor": "none",
            "savefig.facecolor": "none",
        }
    )


def _figure(canvas: Canvas, height: float) -> Figure:
    return Figure(figsize=(canvas.width / _UNITS_PER_INCH, height / _UNITS_PER_INCH), dpi=_UNITS_PER_INCH)


def _axes(figure: Figure, canvas: Canvas, top: float, tall: float, height: float) -> Axes:
    wide = canvas.width - canvas.left - canvas.right
    return figure.add_axes(
        (canvas.left / canvas.width, 1 - (top + tall) / height, wide / canvas.width, tall / height)
    )


def shaded_spans(faults: Sequence[FaultBand], *, hairline: float) -> list[tuple[float, float]]:
    """The times in which at least one fault was not healed yet: overlapping bands are one and hide no curve."""
    spans: list[tuple[float, float]] = []
    for start, end in sorted((band.start, max(band.end, band.start + hairline)) for band in faults):
        if spans and start <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(spans[-1][1], end))
        else:
            spans.append((start, end))
    return spans


def _shade(axes: Axes, faults: Sequence[FaultBand], canvas: Canvas, *, numbered: bool) -> None:
    begin, end = axes.get_xlim()
    hairline = (end - begin) / canvas.width * 1.5  # a kill lasts no time; it is still seen
    for since, until in shaded_spans(faults, hairline=hairline):
        axes.axvspan(since, until, color=FAULT, alpha=0.3, linewidth=0)
    for index, band in enumerate(faults, 1):
        axes.axvline(
            band.start, ymax=0.06, color=FAULT, linewidth=1
        )  # each injection, where spans have merged
        if numbered and canvas.names_beside and len(faults) <= _NUMBERED_FAULTS_MAX:
            axes.annotate(
                str(index),
                ((band.start + band.end) / 2, 1),
                xycoords=("data", "axes fraction"),
                xytext=(0, 2),
                textcoords="offset points",
                ha="center",
                color=MUTED,
                fontsize=_TEXT - 1.5,
            )


def _draw_panel(axes: Axes, panel: Panel, canvas: Canvas, labels: Labels) -> None:
    highest = max((y for line in panel.lines for _, y in line.points), default=0)
    highest = max(highest, panel.guide.at * 1.1) if panel.guide else highest
    axes.set_ylim(0, (highest or 1) * 1.12)
    counts = all(y == int(y) for line in panel.lines for _, y in line.points)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=counts, min_n_ticks=1))
    axes.yaxis.set_major_formatter(FuncFormatter(_tick))
    for line in panel.lines:
        times, values = zip(*line.points, strict=True) if line.points else ((), ())
        axes.plot(
            times, values, color=line.colour, linewidth=1.5, linestyle=(0, (4, 3)) if line.dashed else "-"
        )
    if panel.guide:
        _guide(axes, panel.guide, labels, canvas)
    _title(axes, labels, canvas, panel.title, panel.unit)
    named = [line for line in panel.lines if line.named and line.points]
    if len(panel.lines) > 1:
        (_name_beside if canvas.names_beside else _name_above)(axes, named, labels)


def _name_beside(axes: Axes, lines: Sequence[Line], labels: Labels) -> None:
    """Write each line's name at its right end; names that would overlap move apart."""
    low, high = axes.get_ylim()

    def height(line: Line) -> float:
        return line.points[-1][1] / (high - low) * _PANEL_HEIGHT

    previous = -_SMALLEST_LABEL_STEP
    for line in sorted(lines, key=height):
        previous = max(height(line), previous + _SMALLEST_LABEL_STEP)
        axes.annotate(
            labels.add(line.label),
            (1, 0),
            xycoords="axes fraction",
            xytext=(8, previous),
            textcoords="offset points",
            va="center",
            color=line.colour,
        )


def _name_above(axes: Axes, lines: Sequence[Line], labels: Labels) -> None:
    """Write the names in a row above the panel, right-aligned, where there is no room beside it."""
    step = 62.0
    for index, line in enumerate(reversed(lines)):
        axes.annotate(
            labels.add(line.label),
            (1, 1),
            xycoords="axes fraction",
            xytext=(-index * step, 7),
            textcoords="offset points",
            ha="right",
            color=line.colour,
        )


def _title(axes: Axes, labels: Labels, canvas: Canvas, title: Text, unit: Text | None = None) -> None:
    words = Text(f"{title.en}, {unit.en}", f"{title.ko}, {unit.ko}") if unit and unit.en else title
    axes.annotate(
        labels.add(words),
        (0, 1),
        xycoords="axes fraction",
        xytext=(-canvas.left, 7),
        textcoords="offset points",
        fontweight="bold",
        color=INK,
    )


def _guide(axes: Axes, guide: Guide, labels: Labels, canvas: Canvas) -> None:
    """Draw a level. A short name stands beside or above the plot, a long one on the line itself."""
    axes.axhline(guide.at, color=guide.colour, linewidth=1.2, linestyle=(0, (5, 3)))
    short = len(guide.label.en) <= _SHORT_LABEL
    beside = short and canvas.names_beside
    above = short and not canvas.names_beside
    axes.annotate(
        labels.add(guide.label),
        (1, 1) if above else (1, guide.at),
        xycoords="axes fraction" if above else ("axes fraction", "data"),
        xytext=(8, 0) if beside else (0, 7) if above else (0, 4),
        textcoords="offset points",
        ha="left" if beside else "right",
        va="center" if beside else "baseline",
        color=guide.colour,
        zorder=5,
        bbox=None if short else _PLATE,
    )


def _upright_guide(axes: Axes, guide: Guide, labels: Labels) -> None:
    """Draw a value as an upright line, its name at the foot on the side that has more room."""
    axes.axvline(guide.at, color=guide.colour, linewidth=1.2, linestyle=(0, (5, 3)))
    low, high = axes.get_xlim()
    late = guide.at > (low * high) ** 0.5
    axes.annotate(
        labels.add(guide.label),
        (guide.at, 0),
        xytext=(-5 if late else 5, 8),
        textcoords="offset points",
        ha="right" if late else "left",
        color=guide.colour,
        zorder=5,
        bbox=_PLATE,
    )


def _tick(value: float, _position: int) -> str:
    return plain(value)
