"""Dashboards become panels that know their lines; what is no dashboard is refused in one line that names the place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from readiness.dashboards import load_dashboard, parse_panel_query, substitute
from readiness.errors import BadInput
from readiness.rules import PromqlError

BOARD = """{
  "title": "T", "refresh": "30s",
  "panels": [
    {"id": 1, "title": "A", "gridPos": {"x": 0, "y": 0, "w": 12, "h": 8}, "targets": [{"refId": "A", "expr": "up"}]},

    {"id": 2, "type": "row", "panels": [
      {"id": 3, "title": "B", "datasource": "Old", "targets": [{"expr": "down"}]}
    ]}
  ],
  "time": {"from": "now-1h", "to": "now"}
}
"""


def test_panels_know_their_lines(tmp_path: Path) -> None:
    """Lines are those of the file; panels of a collapsed row are found and carry its line."""
    file = tmp_path / "b.json"
    file.write_text(BOARD, encoding="utf-8")
    board = load_dashboard(file)
    assert [(panel.title, panel.line, panel.row) for panel in board.panels] == [("A", 4, None), ("B", 6, 1)]
    assert (board.lines["refresh"], board.lines["time"]) == (2, 10)
    assert (board.time_from, board.time_to, board.refresh) == ("now-1h", "now", "30s")
    assert board.panels[1].datasource == "Old"


def test_a_minified_dashboard_is_read_too(tmp_path: Path) -> None:
    """All on one line, with a byte order mark: the same panels, all on line 1."""
    file = tmp_path / "b.json"
    file.write_text("\ufeff" + json.dumps(json.loads(BOARD), separators=(",", ":")), encoding="utf-8")
    assert [(panel.title, panel.line) for panel in load_dashboard(file).panels] == [("A", 1), ("B", 1)]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, "expected JSON"),
        ('{\n"panels": [\n', 3, "expected JSON"),
        ("[]", 1, "Grafana dashboard"),
        ('{"panels": {}}', 1, "list `panels`"),
        ('{"title": "rows of Grafana 4", "rows": []}', 1, "list `panels`"),
        ('{"apiVersion": "dashboard.grafana.app/v2", "spec": {}}', 1, "classic model"),
        ("[" * 100_000, 1, "nested too deeply"),
    ],
)
def test_bad_input_is_one_line_with_its_place(tmp_path: Path, text: str, line: int, words: str) -> None:
    """No JSON, another kind of JSON, an older or newer model, endless nesting: one line each, with file and line."""
    file = tmp_path / "b.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match=words) as caught:
        load_dashboard(file)
    assert str(caught.value).startswith(f"{file}:{line}: ")
    assert "\n" not in str(caught.value)


def test_odd_values_do_not_break_the_reader(tmp_path: Path) -> None:
    """A panel whose fields are of other kinds, and a key that stands twice, are read as far as they make sense."""
    file = tmp_path / "b.json"
    odd = '{"panels": 5, "refresh": false, "time": [], "panels": [null, {"id": true, "gridPos": "x", "targets": {}}]}'
    file.write_text(odd, encoding="utf-8")
    board = load_dashboard(file)
    assert (board.refresh, board.time_from, len(board.panels)) == ("", "", 2)
    assert [(panel.id, panel.grid, panel.queries) for panel in board.panels] == [(None, None, ())] * 2


@pytest.mark.parametrize(
    "expr",
    [
        'rate(x{job="$job"}[$__rate_interval])',
        "rate(x[${__rate_interval}])",
        "sum(x) by ([[group]])",
        "topk($limit, x)",
        "rate(x[$window])",
        "sum(x{$matchers})",
        'x{a=~"${a:regex}"}',
    ],
)
def test_variables_may_be_words_numbers_durations_or_matchers(expr: str) -> None:
    """A query parses when some meaning of its variables makes it PromQL."""
    assert parse_panel_query(expr).metrics == {"x"}


@pytest.mark.parametrize("expr", ["av_over_time(x[5m])", "x{%(matchers)s}", "sum(x", "topk($limit x)", ""])
def test_what_no_variable_can_mend_is_refused(expr: str) -> None:
    """Mistyped functions, unrendered templates and open brackets are no PromQL, whatever the variables stand for."""
    with pytest.raises(PromqlError):
        parse_panel_query(expr)


def test_known_variables_get_their_values() -> None:
    """Values that are given win over the guesses."""
    assert substitute("rate(x[$__rate_interval])", values={"__rate_interval": "10s"}) == "rate(x[10s])"
    assert substitute("a $job b", values={"job": "j"}) == "a j b"
