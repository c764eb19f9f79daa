"""Targets from OpenSLO v1 files: read, compared with what stands in the scorecard, and refused at their line."""

from __future__ import annotations

import pytest
from harness.sample_scorecard import ROOT

from readiness.errors import BadInput
from readiness.judge.profile import load_profile
from readiness.judge.profile_model import Claim, EstimatorKind, Profile
from readiness.judge.profile_objectives import parse_objectives
from readiness.judge.profile_parse import objective_files, parse_profile

FILE, SLO = "reports/scorecard.yaml", "reports/slo/own.yaml"
SOURCE = (ROOT / FILE).read_text(encoding="utf-8")
LATENCY = """\
apiVersion: openslo/v1
kind: SLO
metadata:
  name: api
  annotations:
    readiness/claim: H6.api_p95
    readiness/unit: ms
    readiness/of: requests
    other.tool/owner: them
spec:
  description: The API answers soon.
  service: ragworker
  budgetingMethod: Occurrences
  timeWindow: [{duration: 28d, isRolling: true}]
  indicator:
    spec:
      thresholdMetric: {metricSource: {type: Prometheus, spec: {query: x}}}
  objectives: [{op: lt, value: 500, target: 0.95}]
"""
OWN = LATENCY.replace("H6.api_p95", "U1.own").replace(
    "    other.tool",
    '    readiness/section: metrics\n    readiness/weight: "3"\n    readiness/spec: E1, E2\n'
    "    readiness/checks: load\n    readiness/statement-ko: 곧 응답합니다.\n    other.tool",
)
RATIO = LATENCY.replace("H6.api_p95", "H3.failure_rate").replace("of: requests", "of: jobs").replace(
    "thresholdMetric: {metricSource: {type: Prometheus, spec: {query: x}}}",
    "ratioMetric: {counter: true, good: {metricSource: {type: a}}, total: {metricSource: {type: a}}}",
).replace("{op: lt, value: 500, target: 0.95}", "{targetPercent: 97}")  # fmt: skip


def parse(slo: str, source: str = SOURCE) -> Profile:
    return parse_profile(source.encode(), name="quick", file=FILE, objectives={SLO: slo.encode()})


def without_target(claim: str) -> str:
    """The scorecard with a claim whose target is left to its SLO."""
    lines = SOURCE.splitlines(keepends=True)
    start = lines.index(f"  {claim}:\n")
    at = next(n for n in range(start, len(lines)) if lines[n].startswith("    estimator: "))
    return "".join([*lines[:at], *lines[at + 1 :]])


def claim_of(profile: Profile, claim: str) -> Claim:
    return profile.claim(claim)


def test_the_shipped_objectives_are_the_targets_of_the_scorecard() -> None:
    """reports/slo names H1, H3, H4 and H6 with the targets that their blocks have: loading compares them."""
    files = objective_files(SOURCE.encode(), file=FILE)
    assert files == ("slo/ragworker.yaml",)
    found = parse_objectives((ROOT / "reports" / files[0]).read_bytes(), file=files[0])
    assert {slo.claim.partition(".")[0] for slo in found} == {"H1", "H3", "H4", "H6"}
    profile = load_profile(ROOT, "quick")
    assert all(profile.claim(slo.claim).estimator == slo.estimator for slo in found)


@pytest.mark.parametrize("slo", [LATENCY, RATIO], ids=["threshold", "ratio"])
def test_a_block_without_a_target_gets_that_of_its_slo(slo: str) -> None:
    """The claim is the same whether its target stands in the scorecard or in the SLO."""
    [found] = parse_objectives(slo.encode(), file=SLO)
    assert parse(slo, without_target(found.claim)).claims == parse(slo).claims
    with pytest.raises(BadInput, match="expected the key 'estimator', got none"):
        parse_profile(without_target(found.claim).encode(), name="quick", file=FILE)


def test_two_targets_that_differ_are_refused() -> None:
    """The place of both and what each says stand in one line."""
    with pytest.raises(BadInput) as caught:
        parse(LATENCY.replace("value: 500", "value: 800"))
    said = str(caught.value)
    assert f"expected the target of {SLO}:4, P95 < 800 ms of requests" in said
    assert "This block says P95 < 500 ms of requests. Make them agree, or leave one out." in said
    assert said.startswith(f"{FILE}:")
    assert "\n" not in said


def test_an_slo_can_be_a_claim_by_itself() -> None:
    """With section and weight as annotations an SLO needs no block; the hash knows it."""
    profile = parse(OWN)
    own = profile.claim("U1.own")
    assert (own.section, own.weight, own.spec, own.checks) == ("metrics", 3, ("E1", "E2"), ("load",))
    assert (own.statement.en, own.statement.ko) == ("The API answers soon.", "곧 응답합니다.")
    assert (own.estimator.kind, own.estimator.quantile) == (EstimatorKind.PERCENTILE, 0.95)
    assert profile.content_hash != parse(LATENCY).content_hash


def test_several_documents_and_other_kinds_of_object() -> None:
    """A file may hold several SLOs and what else OpenSLO has; the other kinds are passed over."""
    service = "apiVersion: openslo/v1\nkind: Service\nmetadata: {name: a}\nspec: {}\n"
    both = "---\n".join([service, LATENCY, RATIO])
    assert [slo.claim for slo in parse_objectives(both.encode(), file=SLO)] == [
        "H6.api_p95",
        "H3.failure_rate",
    ]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("openslo/v1", "openslo/v2alpha", ":1: apiVersion: expected openslo/v1, got 'openslo/v2alpha'"),
        ("kind: SLO", "kind: SLOO", ":2: kind: expected a kind of OpenSLO object, got 'SLOO' (str). Did you"),
        ("    readiness/claim: H6.api_p95\n", "", ":6: metadata.annotations: expected the annotation readiness/claim"),
        ("    readiness/of: requests\n", "", "expected the annotation readiness/of, got a mapping. It names what is"),
        ("    readiness/unit: ms\n", "", ":17: spec.objectives[0]: expected the annotation readiness/unit beside a"),
        ("readiness/unit", "readiness/units", "expected a known annotation (got 'readiness/units')"),
        ("requests", "requessts", ":8: metadata.annotations.readiness/of: expected what is counted"),
        ("Occurrences", "Timeslices", ":13: spec.budgetingMethod: expected Occurrences, got 'Timeslices' (str). A run"),
        ("Occurrences", "Ocurrences", "expected a budgeting method, got 'Ocurrences' (str). Did you mean"),
        ("28d", "28 days", ":14: spec.timeWindow[0].duration: expected a duration like 28d, 4w or 1M, got '28 days'"),
        ("isRolling: true", "isRolling: maybe", "isRolling: expected true or false"),
        ("isRolling: true", "isRolling: false", "expected `calendar` exactly when `isRolling` is false"),
        ("isRolling: true}", "isRolling: true}, {duration: 1d, isRolling: true}", "expected one time window"),
        ("thresholdMetric", "rawMetric", "rawMetric: unknown key 'rawMetric'."),
        ("op: lt", "op: gt", ":18: spec.objectives[0].op: expected lt or lte (a limit from above), got 'gt'"),
        ("op: lt, ", "", ":18: spec.objectives[0]: expected the key 'op', got none."),
        ("value: 500, ", "", "expected the key 'value', got none."),
        (", target: 0.95", "", "expected either target (0.95) or targetPercent (95), got a mapping."),
        ("target: 0.95", "target: 95", ".target: expected a fraction between 0 and 1 (3 % is 0.03), got 95 (int)."),
        ("target: 0.95", "targetPercent: 100", "expected a percentage between 0 and 100"),
        ("0.95}]", "0.95}, {op: lt, value: 9, target: 0.5}]", ":18: spec.objectives: expected one objective, got"),
        ("  indicator:\n    spec:\n", "  indicatorRef: a\n  x:\n    spec:\n", "unknown key 'x'"),
        ("  service: ragworker\n", "", "spec: expected the key 'service', got none."),
        ("spec:\n  desc", "Spec:\n  desc", ":10: Spec: unknown key 'Spec'. Did you mean 'spec'?"),
    ],
)  # fmt: skip
def test_what_a_run_cannot_judge_is_refused_at_its_line(old: str, new: str, words: str) -> None:
    """Each mistake is one line with file, line, key and advice."""
    assert old in LATENCY
    with pytest.raises(BadInput) as caught:
        parse_objectives(LATENCY.replace(old, new, 1).encode(), file=SLO)
    said = str(caught.value)
    assert said.startswith(f"{SLO}:")
    assert "\n" not in said
    assert said.startswith(SLO + words) if words.startswith(":") else words in said, said


@pytest.mark.parametrize(
    ("slo", "words"),
    [
        (LATENCY.replace("H6.api_p95", "U1.own"), "expected the annotation readiness/section on an SLO whose claim"),
        (OWN.replace('    readiness/weight: "3"\n', ""), "expected the annotation readiness/weight on an SLO"),
        (OWN.replace("section: metrics", "section: nowhere"), "expected a claim id like A5.kill and a section of"),
        (OWN.replace("U1.own", "own"), "expected a claim id like A5.kill and a section of"),
        (LATENCY + "---\n" + LATENCY, "expected one SLO for the claim H6.api_p95, got a second beside"),
    ],
)  # fmt: skip
def test_an_slo_that_makes_no_claim_is_refused(slo: str, words: str) -> None:
    """What a block would have said has to stand in the annotations, once."""
    with pytest.raises(BadInput) as caught:
        parse(slo)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["../slo.yaml", "/etc/slo.yaml", "slo", "slo/*.yaml"])
def test_objectives_are_files_beside_the_scorecard(name: str) -> None:
    """No path leaves the folder, and a pattern is no file."""
    source = SOURCE.replace("objectives: [slo/ragworker.yaml]", f'objectives: ["{name}"]')
    with pytest.raises(BadInput, match=r"objectives\[0\]: expected a YAML file beside scorecard.yaml"):
        objective_files(source.encode(), file=FILE)
