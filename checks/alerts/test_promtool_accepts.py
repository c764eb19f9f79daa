"""promtool takes every rule file, and every alert has unit tests that pass: it fires, and it keeps silent."""

from __future__ import annotations

import pytest

from readiness.checking.recorder import ClaimEvidence
from readiness.root import Root
from readiness.rules import (
    alert_coverage,
    amtool_check,
    find_tool,
    load_rules,
    promtool_check,
    promtool_test,
    unit_test_files,
)


@pytest.mark.claim("F1.promtool")
def test_promtool_accepts(root: Root, evidence: ClaimEvidence) -> None:
    """Each alert is in a file that promtool checks, and has passing unit tests in which it fires and keeps
    silent.
    """
    if find_tool("promtool") is None:
        pytest.skip(
            "needs promtool on this machine: it checks rules and runs their tests; `make services` installs it"
        )
    rules = load_rules(root.path / "rules")
    tests = unit_test_files(root.path / "rules" / "tests")
    results = [*promtool_check(rules.files), *promtool_test(tests)]
    config = root.path / "rules" / "alertmanager" / "alertmanager.yml"
    if find_tool("amtool") is not None:
        results.append(amtool_check(config))
    refused = [f"{result.file.name}: {result.detail}" for result in results if not result.passed]

    passed = {result.file for result in results if result.passed}
    tested = alert_coverage(file for file in tests if file in passed)
    untested = [
        f"{alert.name}: expected passing unit tests in which it fires and keeps silent"
        for alert in rules.alerts
        if (found := tested.get(alert.name)) is None or not (found.firing and found.silent)
    ]
    n = len(rules.alerts) + len(results)
    evidence.cases(
        n, len(refused) + len(untested), [*refused, *untested], "alerts with passing tests, and files"
    )
    cases = sum(one.firing + one.silent for one in tested.values())
    evidence.facts(alerts=len(rules.alerts), test_cases=cases, files=[result.file.name for result in results])
    assert not refused + untested, (refused + untested)[0]
