"""The profile as values.

Sections, gates, claims with their estimators, and the knobs of a run. No file, no YAML.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum

from readiness.judge.codec import JsonValue, from_json, to_json
from readiness.judge.detection import DetectionRule
from readiness.judge.model import Group, Operations, Text

SCORECARD_FILE = "reports/scorecard.yaml"
# What the hash of a profile covers: everything that a score means.
HASHED = ("claims", "gates", "sections", "knobs", "target", "exclusions", "evidence_days", "detection")
# Systems change: what was measured longer ago says little about the one of today.
EVIDENCE_DAYS = 14
# What a claim may name in `checks` besides files below checks/: the run's own steps.
CHECK_STEPS = ("load", "faults")


class EstimatorKind(StrEnum):
    """How evidence turns into a figure with a bound; estimators.py says how each is computed."""

    CHECKS = "checks"
    ZERO_VIOLATIONS = "zero_violations"
    RATE = "rate"
    PERCENTILE = "percentile"
    COUNT = "count"
    MTBF = "mtbf"
    AVAILABILITY = "availability"
    WORST = "worst"


@dataclass(frozen=True, slots=True)
class Estimator:
    """An estimator with its target. `limit` is a maximum, or for mtbf (hours) and availability a minimum.

    `minimum_n` is the number of cases, trials or samples below which nothing is proven; `window` the number
    of `noun` that a count refers to; `quantile` belongs to percentile alone. `unit` is the unit of `limit`;
    "fraction" is 0..1.
    """

    kind: EstimatorKind
    unit: str
    noun: Text
    limit: float = 0.0
    minimum_n: int = 1
    quantile: float | None = None
    window: int | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """A promise of the target.

    `needs` names parts of the stack that must be real for its evidence to count. `checks` names files below
    checks/ and steps of the run (`CHECK_STEPS`); each must have left an outcome, or the claim is NOT_RUN.
    """

    id: str
    section: str
    spec: tuple[str, ...]
    statement: Text
    estimator: Estimator
    weight: int
    fault: str | None = None
    needs: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()
    sla: str | None = None
    founding: str | None = None


@dataclass(frozen=True, slots=True)
class Section:
    id: str
    group: Group
    title: Text
    weight: int


@dataclass(frozen=True, slots=True)
class Gate:
    id: str
    title: Text
    claims: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Exclusion:
    """A claim that a person declared not applicable: why, who answers for it, and the last day (YYYY-MM-DD, UTC)."""

    claim: str
    reason: Text
    owner: str
    until: str


@dataclass(frozen=True, slots=True)
class CheckLimits:
    """Deadlines in seconds: of the whole checks step and of one test."""

    timeout_seconds: float = 120.0
    test_timeout_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Knobs:
    """How long and how hard a run of the profile works. `seed` None: drawn at the start and recorded."""

    kills: int = 20
    load_seconds: float = 12.0
    load_users: int = 20
    sse_streams: int = 10
    documents_min: int = 60
    system_settings: Mapping[str, str] = field(default_factory=dict)
    seed: int | None = None
    checks: CheckLimits = field(default_factory=CheckLimits)


@dataclass(frozen=True, slots=True)
class Profile:
    """A resolved profile; kept as profile.json in the run folder and judged from there.

    Evidence older than `evidence_days` at the end of the run proves nothing. `elsewhere` are the ids of claims that
    the file has for other profiles only: their checks are not run.
    """

    name: str
    title: Text
    target: str
    sections: tuple[Section, ...]
    gates: tuple[Gate, ...]
    claims: tuple[Claim, ...]
    knobs: Knobs
    operations: Operations = field(default_factory=Operations)
    origin: str = SCORECARD_FILE
    elsewhere: tuple[str, ...] = ()
    exclusions: tuple[Exclusion, ...] = ()
    evidence_days: int = EVIDENCE_DAYS
    detection: DetectionRule | None = None

    @property
    def content_hash(self) -> str:
        """SHA-256 over the canonical JSON of what a score means: claims, gates, sections, knobs and so on."""
        return content_hash(self.to_json())

    def claim(self, claim_id: str) -> Claim:
        """Return the claim of that id; KeyError when there is none."""
        for claim in self.claims:
            if claim.id == claim_id:
                return claim
        raise KeyError(claim_id)

    def gate_of(self, claim_id: str) -> str | None:
        """Return the id of the gate that a claim belongs to."""
        return next((gate.id for gate in self.gates if claim_id in gate.claims), None)

    def to_json(self) -> dict[str, JsonValue]:
        """Return the JSON object of profile.json."""
        encoded = to_json(self)
        assert isinstance(encoded, dict)
        return encoded

    @classmethod
    def from_json(cls, value: JsonValue) -> Profile:
        """Read profile.json's object; BadInput names the path that does not fit."""
        return from_json(cls, value, where="profile.json")


def content_hash(profile: Mapping[str, JsonValue]) -> str:
    """Return the hash of profile.json's object. Keys that an older readiness did not write are not hashed."""
    body = {name: profile[name] for name in HASHED if name in profile}
    text = json.dumps(body, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


KNOB_NAMES = tuple(knob.name for knob in fields(Knobs))
