"""The charts: drawn from the run's series alone, readable at two widths, their data behind them."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from readiness.judge.charts import Charts, FaultBand, Series
from readiness.judge.model import Scorecard
from readiness.render.charts import TABLE_ROWS_MAX, charts_of
from readiness.render.drawing import shaded_spans

CLOCK = [0.5 * step for step in range(120)]


def with_series(card: Scorecard, *series: Series, faults: tuple[FaultBand, ...] = ()) -> Scorecard:
    """The scorecard with other series."""
    return replace(card, charts=Charts("2026-11-23T16:22:36.000Z", series, faults))


def steady(name: str, unit: str, value: float) -> Series:
    """A series that stays at one value."""
    return Series(name, unit, tuple((t, value) for t in CLOCK))


def test_no_series_no_chart(card: Scorecard) -> None:
    """Nothing is drawn when nothing was measured, and a series without points is nothing."""
    assert charts_of(with_series(card)) == ()
    assert charts_of(with_series(card, Series("queue depth", "jobs", ()))) == ()


def test_each_chart_is_drawn_for_wide_and_narrow_windows(card: Scorecard) -> None:
    """Both drawings are SVG of their width; text is text, in both languages, in the page's font and colours."""
    (chart,) = charts_of(with_series(card, steady("queue depth", "jobs", 4.0)))
    for drawing, width in ((chart.wide, 736), (chart.narrow, 328)):
        root = ET.fromstring(drawing)  # noqa: S314 - our own drawing
        assert root.get("viewBox", "").split()[2] == str(width)
        assert [text.text for text in root.iter("text") if text.get("lang") == "ko"] != []
        assert [text.text for text in root.iter("text") if text.get("lang") == "en"] != []
        assert "font-family" not in drawing
        assert not re.search(r"#a000\d\d|<style|<metadata|clip-path: none|xmlns", drawing)
        assert "var(--c-orange)" in drawing


def test_ids_of_two_drawings_never_meet(card: Scorecard) -> None:
    """All drawings of a page share one id space."""
    series = (
        steady("queue depth", "jobs", 4.0),
        steady("job duration", "s", 2.0),
        steady("time to recover", "s", 1.0),
    )
    drawings = [d for chart in charts_of(with_series(card, *series)) for d in (chart.wide, chart.narrow)]
    ids = [found for drawing in drawings for found in re.findall(r' id="([^"]+)"', drawing)]
    assert len(drawings) == 6
    assert len(ids) == len(set(ids)) > 0


def test_faults_are_shaded_and_named(card: Scorecard) -> None:
    """A fault without length is still seen, and the note says what was done and how often."""
    faults = tuple(FaultBand("worker killed with SIGKILL", t, t) for t in (3.0, 9.0))
    plain_chart, *_ = charts_of(with_series(card, steady("queue depth", "jobs", 4.0)))
    (chart,) = charts_of(with_series(card, steady("queue depth", "jobs", 4.0), faults=faults))
    assert chart.wide.count("var(--c-fault)") > plain_chart.wide.count("var(--c-fault)")
    assert chart.note is not None
    assert "worker killed with SIGKILL × 2" in chart.note.en
    assert "워커 SIGKILL 강제 종료 × 2" in chart.note.ko


def test_the_data_stand_behind_the_chart(card: Scorecard) -> None:
    """The table has a row a moment and says how many rows it left out."""
    few = Series("queue depth", "jobs", ((0.0, 1.0), (0.5, 12.3456)))
    (chart,) = charts_of(with_series(card, few))
    assert chart.rows == (("0.0", "1"), ("0.5", "12.3"))
    many = Series("queue depth", "jobs", tuple((t / 2, 1.0) for t in range(1000)))
    (chart,) = charts_of(with_series(card, many))
    assert len(chart.rows) <= TABLE_ROWS_MAX
    assert len(chart.rows) + chart.left_out == 1000


def test_lines_that_are_zero_throughout_are_said_not_drawn(card: Scorecard) -> None:
    """A quiet failure panel costs a sentence instead of a panel; one failure brings it back."""
    queue = steady("queue depth", "jobs", 4.0)
    (quiet,) = charts_of(with_series(card, queue, steady("failed requests", "1/s", 0.0)))
    assert quiet.note is not None
    assert "Zero throughout: failed requests." in quiet.note.en
    assert ">Failures, 1/s<" not in quiet.wide
    (loud,) = charts_of(with_series(card, queue, steady("failed requests", "1/s", 1.0)))
    assert ">Failures, 1/s<" in loud.wide


@pytest.mark.parametrize(("level", "drawn"), [(300.0, True), (12.0, False)])
def test_the_threshold_is_drawn_or_named(card: Scorecard, level: float, drawn: bool) -> None:
    """A target near the line is drawn in its panel; one far above it is named in the note."""
    (chart,) = charts_of(with_series(card, steady("API response P95", "ms", level)))
    assert ("target P95 &lt; 500 ms" in chart.wide) is drawn
    assert (chart.note is not None and "lies above its axis" in chart.note.en) is not drawn


def test_a_series_of_an_unknown_name_is_drawn_under_its_name(card: Scorecard) -> None:
    """What another target measures is shown too, and its name is no markup and no formula."""
    (chart,) = charts_of(with_series(card, steady("<b>$x_1$</b>", "things", 3.0)))
    assert "&lt;b&gt;$x_1$&lt;/b&gt;, things" in chart.wide


def test_durations_and_recoveries_have_their_own_charts(card: Scorecard) -> None:
    """Single measurements become a distribution with its P95 and a strip with its median, in order statistics."""
    durations = Series("job duration", "s", tuple((float(i), float(i)) for i in range(1, 101)))
    recoveries = Series("time to recover", "s", ((1.0, 2.0), (2.0, 4.0), (3.0, 9.0)))
    first, second = charts_of(with_series(card, durations, recoveries))
    assert ("95 %", "95") in first.rows
    assert ">P95 95 s<" in first.wide
    assert ">median 4 s<" in second.wide
    assert second.rows == (("1", "1.0", "2"), ("2", "2.0", "4"), ("3", "3.0", "9"))


def test_overlapping_faults_are_shaded_once() -> None:
    """Twenty kills in a row do not paint over the curves: what overlaps is one span, what does not stays apart."""
    bands = [FaultBand("kill", start, end) for start, end in ((5.0, 9.0), (1.0, 3.0), (2.0, 4.0), (9.0, 9.0))]
    assert shaded_spans(bands, hairline=0.5) == [(1.0, 4.0), (5.0, 9.5)]
