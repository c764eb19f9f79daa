"""The scorecard: every value that a reader of the report sees, as frozen dataclasses.

One model, several faces: renderers read it and add nothing, the judge writes it and prints nothing. `to_json`
and `from_json` round-trip it; `schemas/scorecard-1.json` describes the JSON to other languages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from readiness.judge.charts import Charts
from readiness.judge.codec import JsonValue
from readiness.judge.codec import from_json as _decode
from readiness.judge.codec import to_json as _encode
from readiness.judge.detection import ClaimDetection, DetectionFacts, DetectionResult
from readiness.judge.ledger import FaultLine
from readiness.judge.pooling import Attempt

SCHEMA = "readiness/scorecard/1"

Language = Literal["en", "ko"]


class Verdict(StrEnum):
    """What a claim came to. Only PROVEN earns points."""

    PROVEN = "PROVEN"
    FAILED = "FAILED"
    INCONCLUSIVE = "INCONCLUSIVE"
    NOT_RUN = "NOT_RUN"
    INVALID = "INVALID"
    NOT_APPLICABLE = "NOT_APPLICABLE"


class GateState(StrEnum):
    """HELD only when every claim of the gate is PROVEN, FAILED when any of them is FAILED."""

    HELD = "HELD"
    FAILED = "FAILED"
    UNKNOWN = "UNKNOWN"


class PartState(StrEnum):
    """How real a part of the stack was.

    `embedded` is the real program out of a wheel; `simulated` stands in for it.
    """

    REAL = "real"
    EMBEDDED = "embedded"
    SIMULATED = "simulated"
    MISSING = "missing"


class Term(StrEnum):
    """When a recommendation can be done: this week, this quarter, after that."""

    SHORT = "short"
    MIDDLE = "middle"
    LONG = "long"


class Group(StrEnum):
    """The two scores of the founding report (J1, J2)."""

    RELIABILITY = "reliability"
    OBSERVABILITY = "observability"


class Status(StrEnum):
    """How a step of the run ended."""

    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Text:
    """The same sentence in both languages, plain text (renderers escape it)."""

    en: str
    ko: str

    def say(self, lang: Language | str) -> str:
        """Return the sentence in `lang`; everything but "ko" is English."""
        return self.ko if lang == "ko" else self.en


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a claim is not PROVEN.

    `code` is a key of `reasons.REASONS`; `detail` is verbatim, untrusted text of a check.
    """

    code: str
    params: Mapping[str, str | int | float] = field(default_factory=dict)
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Band:
    """Points out of 100. `proven` is floored, `failed` is rounded up when not zero, the rest is unknown."""

    proven: int
    unknown: int
    failed: int


@dataclass(frozen=True, slots=True)
class ClaimResult:
    """One claim and what its evidence came to.

    `value`, `bound` and the target share `unit`; `n` counts `n_unit`. `n_needed` is how many more of them
    would settle the claim if they go as so far (None: no number would, or it is settled). `n_eff` is how many
    independent ones time-ordered samples are worth (None: their order is not known), `runs` over how many attempts
    trials and exposure were pooled, `chance` how likely a run of this size proves the target when the truth is half
    of it. `detection` caps the points; None: the profile has no rule for that. `target`,
    `measured` and `needed` are the words every face prints: "P95 < 60 s", "38.4 s (P95 <= 41.2 s at 95 %, n =
    312 jobs)", "18 more jobs settle it".
    """

    id: str
    section: str
    spec: tuple[str, ...]
    statement: Text
    estimator: str
    unit: str
    target: Text
    measured: Text
    value: float | None
    bound: float | None
    n: int
    n_unit: Text
    n_needed: int | None
    needed: Text | None
    failures: int
    confidence: float
    verdict: Verdict
    reason: Reason | None
    weight: int
    gate: str | None = None
    fault: str | None = None
    sla: str | None = None
    founding: str | None = None
    evidence: tuple[str, ...] = ()
    digest: str = ""
    repeat: str = ""
    checks: tuple[str, ...] = ()
    n_eff: int | None = None
    runs: int = 1
    chance: float | None = None
    detection: ClaimDetection | None = None


@dataclass(frozen=True, slots=True)
class SectionResult:
    """One of the eight sections; `score` is floor(100 x proven weight / total weight)."""

    id: str
    group: Group
    title: Text
    weight: int
    score: int
    band: Band
    claims: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GateResult:
    """A condition that no score buys back."""

    id: str
    title: Text
    state: GateState
    claims: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Score:
    """`overall` = min(floor(weighted mean), worst section + 20); `struck` when a gate FAILED."""

    overall: int
    letter: str
    reliability: int
    observability: int
    struck: bool
    band: Band


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What identifies a run and lets another person repeat it. Times are UTC ISO 8601 with ms and `Z`."""

    id: str
    started_at: str
    finished_at: str
    duration_seconds: float
    argv: tuple[str, ...]
    commit: str
    dirty: bool
    seed: int
    profile: str
    profile_hash: str
    target: str
    target_version: str
    harness_version: str
    python: str
    platform: str
    cpu_count: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the stack: Redis, SQL, Prometheus, the embedding API ..."""

    name: str
    state: PartState
    provider: str
    version: str
    note: Text


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the run and how it ended; `detail` says why when it did not end well."""

    name: str
    seconds: float
    status: Status
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Setting:
    """One deployment setting: as used in the run, as the specification requires (empty: no requirement)."""

    name: str
    used: str
    required: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """A claim that moved since the last run of the same profile. `before` None: the claim is new."""

    claim: str
    before: Verdict | None
    after: Verdict


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What to do next; `points` is what the overall mean would gain if it earned its claims."""

    points: float
    term: Term
    text: Text
    claim: str | None = None
    part: str | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """A dashboard, runbook or contact of the operations chapter.

    `target` is a URL, an address or a channel.
    """

    name: Text
    target: str


@dataclass(frozen=True, slots=True)
class Operations:
    dashboards: tuple[Link, ...] = ()
    runbooks: tuple[Link, ...] = ()
    contacts: tuple[Link, ...] = ()


@dataclass(frozen=True, slots=True)
class EvidenceSummary:
    """The sealed evidence that this scorecard was judged from."""

    files: int
    records: int
    bytes: int
    manifest_sha256: str


@dataclass(frozen=True, slots=True)
class Previous:
    """The last run of the same profile hash, as far as the judge compares with it."""

    run: str
    profile_hash: str
    verdicts: Mapping[str, Verdict]


@dataclass(frozen=True, slots=True)
class Loosened:
    """Something that the profile asks less of than its base does: a claim, gate, section or knob, and how."""

    subject: str
    what: Text


@dataclass(frozen=True, slots=True)
class Baseline:
    """What the thresholds were compared with: `base` is a commit, empty when there was none; `note` then says why."""

    base: str = ""
    note: Text | None = None
    loosened: tuple[Loosened, ...] = ()


@dataclass(frozen=True, slots=True)
class RunContext:
    """All that the judge needs besides profile and evidence.

    Kept as context.json in the run folder, so that `verify` can judge again. `excluded` maps claims that the
    target's declared guarantees rule out to the reason why; only these are NOT_APPLICABLE and leave the
    denominator of the score. `only` names the claims that a partial run was for; empty: all of them. `attempts` are
    the earlier runs of the same commit and profile, `detection` what reports/detection.json said (None: no file).
    """

    run: RunFacts
    parts: tuple[Part, ...]
    steps: tuple[Step, ...] = ()
    settings: tuple[Setting, ...] = ()
    previous: Previous | None = None
    excluded: Mapping[str, str] = field(default_factory=dict)
    only: tuple[str, ...] = ()
    baseline: Baseline = field(default_factory=Baseline)
    attempts: tuple[Attempt, ...] = ()
    detection: DetectionFacts | None = None


@dataclass(frozen=True, slots=True)
class Scorecard:
    """The whole result of a run.

    `status` is the exit status 0..4, `verdict_word` "ready", "not ready" or "undecided".
    """

    schema: str
    run: RunFacts
    profile_title: Text
    parts: tuple[Part, ...]
    status: int
    verdict_word: Text
    sentence: Text
    score: Score
    sections: tuple[SectionResult, ...]
    gates: tuple[GateResult, ...]
    claims: tuple[ClaimResult, ...]
    changes: tuple[Change, ...]
    previous_run: str | None
    not_shown: tuple[Text, ...]
    recommendations: tuple[Recommendation, ...]
    settings: tuple[Setting, ...]
    operations: Operations
    charts: Charts
    steps: tuple[Step, ...]
    evidence: EvidenceSummary
    conclusion: Text
    baseline: Baseline = field(default_factory=Baseline)
    attempts: tuple[Attempt, ...] = ()
    detection: DetectionResult | None = None
    ledger: tuple[FaultLine, ...] = ()

    def to_json(self) -> dict[str, JsonValue]:
        """Return the JSON object of scorecard.json."""
        encoded = _encode(self)
        assert isinstance(encoded, dict)
        return encoded

    @classmethod
    def from_json(cls, value: JsonValue, *, where: str = "scorecard.json") -> Scorecard:
        """Read scorecard.json's object; BadInput names the path that does not fit."""
        return _decode(cls, value, where=where)

    def claim(self, claim_id: str) -> ClaimResult:
        """Return the claim of that id; KeyError when the profile has none."""
        for result in self.claims:
            if result.id == claim_id:
                return result
        raise KeyError(claim_id)
