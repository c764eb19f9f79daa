"""Rule files become values that know their lines; what is no rule file is refused in one line that names the place."""

from __future__ import annotations

from pathlib import Path

import pytest

from readiness.errors import BadInput
from readiness.rules import alert_coverage, load_rules

RULES = """\
groups:
  - name: g
    rules:
      - record: a:b:sum
        expr: sum(a)
      - alert: One
        for: 1m30s
        labels: {severity: critical}
        expr: |
          max(a)
            > 5
        annotations:
          summary: "Words."
"""


def test_an_alert_knows_its_lines(tmp_path: Path) -> None:
    """Name, group, duration, labels, annotations and the lines of the alert and of its expression are read."""
    file = tmp_path / "r.yml"
    file.write_text(RULES, encoding="utf-8")
    rules = load_rules(file)
    (alert,) = rules.alerts
    assert (alert.name, alert.group, alert.line, alert.expr_line) == ("One", "g", 6, 10)
    assert (alert.for_seconds, alert.labels, alert.annotations["summary"]) == (
        90.0,
        {"severity": "critical"},
        "Words.",
    )
    assert alert.expr == "max(a)\n  > 5"
    assert [record.name for record in rules.records] == ["a:b:sum"]


def test_a_folder_gives_its_rule_files_only(tmp_path: Path) -> None:
    """YAML without groups beside the rules is passed over; a folder without any rule file is refused."""
    (tmp_path / "r.yml").write_text(RULES, encoding="utf-8")
    (tmp_path / "alertmanager.yml").write_text("route: {receiver: a}\n", encoding="utf-8")
    assert [file.name for file in load_rules(tmp_path).files] == ["r.yml"]
    (tmp_path / "r.yml").unlink()
    with pytest.raises(BadInput, match="expected rule files"):
        load_rules(tmp_path)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("groups:\n\t- name: g\n", 2, "expected YAML"),
        ("groups: [\n", 2, "expected YAML"),
        ("", 1, "list `groups`"),
        ("groups: 5\n", 1, "list `groups`"),
        ("groups:\n  - name: g\n", 2, "list `rules`"),
        ("groups:\n  - name: g\n    rules:\n      - alert: A\n", 4, "and expr"),
        (
            "groups:\n  - name: g\n    rules:\n      - alert: A\n        expr: a\n        for: soon\n",
            6,
            "duration",
        ),
        (
            "groups:\n  - name: g\n    rules:\n      - alert: A\n        record: B\n        expr: a\n",
            4,
            "alert or record",
        ),
        ("{{ if .Values.x }}\ngroups: []\n{{ end }}\n", 2, "expected YAML"),
    ],
)
def test_bad_input_is_one_line_with_its_place(tmp_path: Path, text: str, line: int, words: str) -> None:
    """Tabs, open brackets, wrong kinds, missing keys, Helm templates: one line each, with file and line."""
    file = tmp_path / "r.yml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match=words) as caught:
        load_rules(file)
    assert str(caught.value).startswith(f"{file}:{line}: ")
    assert "\n" not in str(caught.value)


def test_binary_and_missing_files_are_bad_input(tmp_path: Path) -> None:
    """Bytes that are no UTF-8, a missing file and an alias bomb end quickly and clearly."""
    file = tmp_path / "r.yml"
    file.write_bytes(b"\xff\xfe\x00groups")
    with pytest.raises(BadInput, match="UTF-8"):
        load_rules(file)
    with pytest.raises(BadInput, match="readable"):
        load_rules(tmp_path / "none.yml")
    layers = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 30))
    file.write_text(f"l0: &l0 x\n{layers}groups: *l29\n", encoding="utf-8")
    with pytest.raises(BadInput, match="list `rules`"):
        load_rules(file)


def test_coverage_counts_firing_and_silent_cases(tmp_path: Path) -> None:
    """A test case with expected alerts is a firing one, one without is a silent one."""
    file = tmp_path / "t.yml"
    file.write_text(
        "tests:\n- alert_rule_test:\n  - {alertname: A, exp_alerts: [{}]}\n  - {alertname: A, exp_alerts: []}\n"
        "  - {alertname: B}\n",
        encoding="utf-8",
    )
    found = alert_coverage([file])
    assert (found["A"].firing, found["A"].silent) == (1, 1)
    assert (found["B"].firing, found["B"].silent) == (0, 1)
    file.write_text("groups: []\n", encoding="utf-8")
    with pytest.raises(BadInput, match="list `tests`"):
        alert_coverage([file])
