"""promtool and amtool: the shipped files pass, a broken one fails with the tool's words, a missing tool is said so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from readiness.rules import (
    ToolMissing,
    amtool_check,
    load_rules,
    promtool_check,
    promtool_test,
    unit_test_files,
)

RULES = "rules/ragworker.yml"


def test_promtool_takes_the_shipped_rules_and_their_tests(
    repository: Path, require_part: Callable[[str], Path]
) -> None:
    """Every rule file passes `check rules`, every test file passes `test rules`."""
    require_part("promtool")
    tests = unit_test_files(repository / "rules" / "tests")
    results = [*promtool_check(load_rules(repository / "rules").files), *promtool_test(tests)]
    assert len(results) >= 4
    assert [result for result in results if not result.passed] == []


# Each entry moves one rule across a boundary; the unit tests of that alert must notice.
MUTANTS = [
    ("RAGQueueLengthHigh", "> 50", "> 51"),
    ("RAGQueueLengthHigh", "> 50", ">= 50"),
    ("RAGQueueLengthHigh", "max(", "sum("),
    ("HighMemoryTokenUsage", "> 35", "> 35.2"),
    ("HighMemoryTokenUsage", "> 35", ">= 35"),
    ("HighMemoryTokenUsage", "max(", "sum("),
    ("SlowRAGProcessing", "for: 10m", "for: 9m45s"),
    ("SlowRAGProcessing", "for: 10m", "for: 10m15s"),
    ("SlowRAGProcessing", "> 60000", "> 59000"),
    ("HighRAGFailureRate", "for: 5m", "for: 4m45s"),
    ("HighRAGFailureRate", "for: 5m", "for: 5m15s"),
    ("HighRAGFailureRate", "> 0.03", "> 0.025"),
    ("HighRAGFailureRate", "done|dead", "done|dead|cancelled"),
    ("DLQEntriesIncreasing", "> 5", "> 4"),
    ("DLQEntriesIncreasing", "> 5", "> 6"),
    ("DLQEntriesIncreasing", "for: 2m", "for: 2m15s"),
    ("DLQEntriesIncreasing", ") == 0", ") == 9"),
    ("DLQEntriesIncreasing", ") == 0", ") >= 0"),
    ("DLQEntriesIncreasing", "offset 10m", "offset 9m"),
    ("RateLimitingSpike", "> 20", "> 19"),
    ("RateLimitingSpike", "> 20", "> 21"),
    ("RateLimitingSpike", ") == 0", ") >= 0"),
    ("RateLimitingSpike", "for: 1m", "for: 45s"),
    ("SSEReconnectionSpike", "> 100", "> 99"),
    ("SSEReconnectionSpike", "> 100", "> 101"),
    ("SSEReconnectionSpike", "sum(", "max("),
    ("RedisUnreachable", "min(", "max("),
    ("RAGMetricsAbsent", "for: 1m", "for: 45s"),
    ("RAGWorkersGone", " and max(rag_workers) == 0", ""),
    ("RAGWorkersGone", "max(rag_queue_length) > 0 and ", ""),
    ("RAGProcessingStalled", " unless max(increase(commit_positive_total[5m])) > 0", ""),
    ("RAGProcessingStalled", "for: 5m", "for: 4m45s"),
    ("APIErrorRateHigh", "/metrics|/healthz|/readyz", "/metrics|/healthz"),
    ("APIErrorRateHigh", "> 0.05", "> 0.045"),
    ("APIErrorRateHigh", "for: 5m", "for: 4m45s"),
]


def slice_of(repository: Path, alert: str, folder: Path) -> tuple[Path, Path]:
    """One rule and its unit tests alone: promtool evaluates every rule for every test, which costs 20 times as much."""
    groups = yaml.safe_load((repository / RULES).read_text(encoding="utf-8"))["groups"]
    (rule,) = [rule for group in groups for rule in group["rules"] if rule["alert"] == alert]
    rules = folder / "rules.yml"
    rules.write_text(
        yaml.safe_dump({"groups": [{"name": "one", "rules": [rule]}]}, width=10_000), encoding="utf-8"
    )
    files = unit_test_files(repository / "rules" / "tests")
    tests = [
        test
        for file in files
        for test in yaml.safe_load(file.read_text(encoding="utf-8"))["tests"]
        if alert in test["name"]
    ]
    assert len(tests) >= 1, f"no unit test is named after {alert}"
    whole = {"rule_files": [rules.name], "evaluation_interval": "15s", "tests": tests}
    sliced = folder / "tests.yml"
    sliced.write_text(yaml.safe_dump(whole), encoding="utf-8")
    return rules, sliced


@pytest.mark.parametrize(("alert", "old", "new"), MUTANTS)
def test_the_unit_tests_notice_a_changed_rule(
    alert: str, old: str, new: str, *, repository: Path, tmp_path: Path, require_part: Callable[[str], Path]
) -> None:
    """A threshold, comparator, duration, aggregation or condition that moves makes some unit test fail."""
    require_part("promtool")
    rules, tests = slice_of(repository, alert, tmp_path)
    assert promtool_test([tests])[0].passed, "the slice itself must pass"
    before = rules.read_text(encoding="utf-8")
    assert old in before, f"{alert} does not hold {old!r}: this test would break nothing"
    rules.write_text(before.replace(old, new), encoding="utf-8")
    assert promtool_check([rules])[0].passed, "the mutant must be a valid rule"
    assert not promtool_test([tests])[0].passed, f"no unit test of {alert} noticed {old!r} -> {new!r}"


def test_promtool_says_what_it_refuses(
    content: Path, edit: Callable[[str, str, str], None], require_part: Callable[[str], Path]
) -> None:
    """A rule file with a broken template fails with the file and promtool's own words."""
    require_part("promtool")
    edit(RULES, "{{ $value | humanize }} jobs wait and", "{{ $valeu | humanize }} jobs wait and")
    (result,) = promtool_check([content / RULES])
    assert not result.passed
    assert result.file == content / RULES
    assert "valeu" in result.detail


def test_amtool_takes_the_shipped_configuration_and_refuses_a_broken_one(
    content: Path, edit: Callable[[str, str, str], None], require_part: Callable[[str], Path]
) -> None:
    """An undefined receiver is refused; the shipped configuration is not."""
    require_part("amtool")
    config = "rules/alertmanager/alertmanager.yml"
    assert amtool_check(content / config).passed
    edit(config, "receiver: ui-critical", "receiver: ui-crit")
    refused = amtool_check(content / config)
    assert not refused.passed
    assert "ui-crit" in refused.detail


def test_a_missing_tool_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without promtool on PATH the error names it, so that the claim is NOT_RUN and not failed."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissing, match="promtool: expected the program on PATH"):
        promtool_check([tmp_path / "r.yml"])
