"""Objectives from OpenSLO v1 files: an SLO that names a claim by annotation gives that claim its target.

OpenSLO says what share of what is to be good; it has no unit, weight, section or gate, so these are annotations:

    metadata:
      annotations: {readiness/claim: H1.job_p95, readiness/unit: s, readiness/of: jobs}

`thresholdMetric` with `op: lt`, `value` and `target` is a percentile (95 % of jobs below 60 s is P95 < 60 s),
`ratioMetric` with `target` a rate of failures. What a run cannot judge is refused at its line: time slices, several
objectives in one SLO, referenced indicators. Metric sources are for your monitoring: readiness measures by itself and
only checks that they are there. Other kinds of object in a file are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from readiness.errors import BadInput
from readiness.judge.figures import NOUNS
from readiness.judge.model import Text
from readiness.judge.profile_estimators import fraction
from readiness.judge.profile_model import Estimator, EstimatorKind
from readiness.judge.profile_yaml import Cursor, compose_all, nearest

API_VERSION = "openslo/v1"
KINDS = ("SLO", "SLI", "Service", "DataSource", "AlertPolicy", "AlertCondition", "AlertNotificationTarget")
PREFIX = "readiness/"
ANNOTATIONS = ("claim", "section", "weight", "unit", "of", "spec", "statement-ko", "checks")
METHODS = ("Occurrences", "Timeslices", "RatioTimeslices")
DURATION = re.compile(r"[1-9]\d{0,3}[mhdwMQY]")
DAYS_AND_UP = "a duration like 28d, 4w or 1M"
SPEC_KEYS = (
    "description", "service", "indicator", "indicatorRef", "timeWindow", "budgetingMethod", "objectives",
    "alertPolicies",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Objective:
    """What one SLO says of its claim. `section` and `weight` are there when the SLO is to make the claim by itself."""

    claim: str
    estimator: Estimator
    place: str
    statement: Text
    section: str | None = None
    weight: int | None = None
    spec: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()


def parse_objectives(content: bytes, *, file: str) -> tuple[Objective, ...]:
    """Return the objectives of an OpenSLO file, in its order; BadInput names file and line of what does not fit."""
    found = tuple(objective for root in compose_all(content, file=file) for objective in _object(root))
    seen: dict[str, str] = {}
    for objective in found:
        if objective.claim in seen:
            raise BadInput(
                f"{objective.place}: expected one SLO for the claim {objective.claim}, got a second beside"
                f" {seen[objective.claim]}. Remove one."
            )
        seen[objective.claim] = objective.place
    return found


def _object(root: Cursor) -> Iterator[Objective]:
    keys = root.fields(("apiVersion", "kind", "metadata", "spec"), required=("apiVersion", "kind"))
    keys["apiVersion"].word((API_VERSION,), what=f"{API_VERSION}")
    if keys["kind"].word(KINDS, what="a kind of OpenSLO object") != "SLO":
        return
    whole = root.fields(("apiVersion", "kind", "metadata", "spec"), required=("metadata", "spec"))
    yield _slo(whole["metadata"], whole["spec"])


def _slo(metadata: Cursor, spec: Cursor) -> Objective:
    head = metadata.fields(("name", "displayName", "labels", "annotations"), required=("name", "annotations"))
    head["name"].text(longest=63)
    notes = _annotations(head["annotations"])
    keys = spec.fields(SPEC_KEYS, required=("service", "timeWindow", "budgetingMethod", "objectives"))
    keys["service"].text(longest=63)
    _time_window(keys["timeWindow"])
    method = keys["budgetingMethod"]
    if method.word(METHODS, what="a budgeting method") != "Occurrences":
        method.fail(
            "Occurrences", hint="A run judges samples and trials, not slices of time. Count occurrences."
        )
    description = keys["description"].text() if "description" in keys else head["name"].text()
    return Objective(
        claim=notes["claim"].text(longest=40),
        estimator=_estimator(spec, keys, notes),
        place=f"{metadata.file}:{metadata.line}",
        statement=Text(description, notes["statement-ko"].text() if "statement-ko" in notes else description),
        section=notes["section"].text(longest=40) if "section" in notes else None,
        weight=_weight(notes["weight"]) if "weight" in notes else None,
        spec=_words(notes, "spec"),
        checks=_words(notes, "checks"),
    )


def _annotations(cursor: Cursor) -> dict[str, Cursor]:
    """Return our annotations by their short names; those of others are theirs."""
    notes: dict[str, Cursor] = {}
    for name, entry in cursor.mapping().items():
        if not name.startswith(PREFIX):
            continue
        short = name.removeprefix(PREFIX)
        if short not in ANNOTATIONS:
            entry.fail(f"a known annotation (got {name!r}) as the key", hint=nearest(short, ANNOTATIONS))
        notes[short] = entry
    for name, why in (
        ("claim", "It names the claim: readiness/claim: H1.job_p95."),
        ("of", "It names what is counted: readiness/of: jobs."),
    ):
        if name not in notes:
            cursor.fail(f"the annotation {PREFIX}{name}", hint=why)
    return notes


def _weight(cursor: Cursor) -> int:
    if not re.fullmatch(r"[1-9]|10", text := cursor.scalar()):
        cursor.fail("a weight from 1 to 10")
    return int(text)


def _words(notes: Mapping[str, Cursor], name: str) -> tuple[str, ...]:
    """Return the comma-separated words of an annotation: its values are text, never lists."""
    if name not in notes:
        return ()
    return tuple(word.strip() for word in notes[name].text().split(",") if word.strip())


def _time_window(cursor: Cursor) -> None:
    items = cursor.items(at_least=1)
    if len(items) > 1:
        cursor.fail("one time window")
    keys = items[0].fields(("duration", "isRolling", "calendar"), required=("duration", "isRolling"))
    if not DURATION.fullmatch(keys["duration"].scalar()):
        keys["duration"].fail(DAYS_AND_UP)
    rolling = keys["isRolling"].scalar()
    if rolling not in ("true", "false"):
        keys["isRolling"].fail("true or false")
    if (rolling == "false") != ("calendar" in keys):
        items[0].fail(
            "`calendar` exactly when `isRolling` is false", hint="See the OpenSLO v1 specification."
        )


def _estimator(spec: Cursor, keys: Mapping[str, Cursor], notes: Mapping[str, Cursor]) -> Estimator:
    if "indicator" not in keys:
        spec.fail(
            "the indicator written out under `indicator`", hint="References to other files are not followed."
        )
    indicator = keys["indicator"].fields(("metadata", "spec"), required=("spec",))
    metrics = indicator["spec"].fields(("description", "ratioMetric", "thresholdMetric"))
    if ("ratioMetric" in metrics) == ("thresholdMetric" in metrics):
        indicator["spec"].fail("either ratioMetric or thresholdMetric")
    goals = keys["objectives"].items(at_least=1)
    if len(goals) > 1:
        keys["objectives"].fail("one objective", hint="Write one SLO a claim.")
    noun = NOUNS[_noun(notes["of"])]
    if "ratioMetric" in metrics:
        _ratio_metric(metrics["ratioMetric"])
        goal = goals[0].fields(("displayName", "target", "targetPercent"))
        return Estimator(EstimatorKind.RATE, "fraction", noun, limit=round(1 - _target(goals[0], goal), 12))
    metrics["thresholdMetric"].fields(("metricSource",), required=("metricSource",))["metricSource"].mapping()
    if "unit" not in notes:
        goals[0].fail(
            "the annotation readiness/unit beside a threshold",
            hint="OpenSLO's `value` has no unit: say s, ms or %.",
        )
    goal = goals[0].fields(
        ("displayName", "op", "value", "target", "targetPercent"), required=("op", "value")
    )
    goal["op"].word(("lt", "lte"), what="lt or lte (a limit from above)")
    return Estimator(
        EstimatorKind.PERCENTILE,
        notes["unit"].text(longest=10),
        noun,
        limit=goal["value"].number(0, 1e12),
        quantile=_target(goals[0], goal),
    )


def _noun(cursor: Cursor) -> str:
    return cursor.word(tuple(NOUNS), what="what is counted")


def _target(whole: Cursor, goal: Mapping[str, Cursor]) -> float:
    """Return the share that is to be good: `target` as a fraction, or `targetPercent`."""
    if ("target" in goal) == ("targetPercent" in goal):
        whole.fail(
            "either target (0.95) or targetPercent (95)", hint="It says for which share the objective holds."
        )
    if "target" in goal:
        return fraction(goal["target"])
    percent = goal["targetPercent"].number(0, 100)
    if not 0 < percent < 100:
        goal["targetPercent"].fail("a percentage between 0 and 100")
    return round(percent / 100, 12)


def _ratio_metric(cursor: Cursor) -> None:
    keys = cursor.fields(("counter", "good", "bad", "total", "raw", "rawType"))
    if "raw" in keys:
        if [name for name in ("good", "bad", "total") if name in keys]:
            cursor.fail("either raw or good/bad with total")
        return
    if "total" not in keys or ("good" in keys) == ("bad" in keys):
        cursor.fail("`total` and either `good` or `bad`")
