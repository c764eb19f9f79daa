"""Each alert's fault is caused in a running system, and the rule's own expression notices it in a real Prometheus.

Windows and `for` are sixty times shorter than in the rules; thresholds are those of the rules. Nothing is routed here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from readiness.checking.prometheus import Prometheus, held_seconds
from readiness.checking.recorder import ClaimEvidence
from readiness.checking.waiting import WaitedTooLong, wait_until
from readiness.documents import Document
from readiness.pytest_plugin import LaneFactory
from readiness.root import Root
from readiness.rules import Alert, load_agreement, load_rules
from readiness.rules.rewrite import narrowed
from readiness.stack.base import StackInfo
from readiness.stack.redis import start_private_redis
from readiness.targets.base import JsonValue, Lane

AGREED = load_agreement(Path(__file__).with_name("agreed.yaml"))
FASTER = 60.0
STEP_SECONDS = 0.5
LATE_SECONDS = (
    20.0  # scrapes of 1 s, discovery of 5 s, a busy machine; beside the rule's own window and `for`
)
POLL_SECONDS = 0.3
HOLD_MS = 250_000  # such a request ends with its worker
SLOTS, BACKLOG, HELD = 30, 90, 4
HELD_WORDS = 330  # two chunks in one batch: 468 tokens
OBJECTIVE_SECONDS = 61.0  # a job that waited so long is slow, however fast it is done then
SETTINGS = {
    "RAG_WORKER_CONCURRENCY": SLOTS,
    "RAG_EMBEDDING_CONCURRENCY": SLOTS,
    "RAG_LEASE_SECONDS": 2,
    "RAG_RETRY_BASE_SECONDS": 0.02,
    "RAG_EMBEDDING_TIMEOUT_SECONDS": 300,
    "RAG_MEMORY_TOKEN_BUDGET": 1000,
}


@dataclass(slots=True)
class Drill:
    """What is asked, of whom, and what came of it."""

    lane: Lane
    prometheus: Prometheus
    alerts: dict[str, Alert]
    wrong: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    count: int = 0

    def condition(self, name: str) -> str:
        """The rule's expression about this instance."""
        return narrowed(self.alerts[name].expr, {"lane": self.lane.name}, faster=FASTER)

    def holds(self, name: str) -> bool:
        """Whether its condition is true now."""
        return bool(self.prometheus.now(self.condition(name)))

    def submit(self, text: str = "") -> str:
        """One more document, by default one that ends dead at once."""
        self.count += 1
        content = f"{text}-{self.count} {text}" if text else " " * self.count
        document = Document(f"drill-{self.count}.txt", "text/plain", content.encode())
        return self.lane.enqueue(document).job_id

    @contextmanager
    def firing(self, *names: str, feed: Callable[[], object] = lambda: None) -> Iterator[None]:
        """The fault is there: each alert must fire; what stands in the block heals it, then none may hold."""
        self.must_fire(*names, feed=feed)
        yield
        self.must_end(*names)

    def must_end(self, *names: str) -> None:
        """No condition holds any more, within the rule's own window and a margin."""
        bound = LATE_SECONDS + max(AGREED[name].window for name in names) / FASTER
        with self.judged(f"{', '.join(names)}: expected to end with the fault"):
            wait_until(
                lambda: not any(self.holds(name) for name in names),
                seconds=bound,
                what="the end of the condition",
                every_seconds=POLL_SECONDS,
            )

    def must_fire(self, *names: str, feed: Callable[[], object] = lambda: None) -> None:
        """Each alert's condition holds as long as its `for`, within its own time and a margin."""
        began = time.time()
        for name in names:
            needed = AGREED[name].for_seconds / FASTER

            def fired(name: str = name, needed: float = needed) -> bool:
                feed()
                curves = self.prometheus.between(self.condition(name), began, step=STEP_SECONDS)
                return any(held_seconds(curve, step=STEP_SECONDS) >= needed for curve in curves)

            bound = needed + AGREED[name].window / FASTER + LATE_SECONDS
            with self.judged(f"{name}: expected it to fire"):
                wait_until(
                    fired, seconds=bound, what="its condition for its time", every_seconds=POLL_SECONDS
                )
            self.seconds[name] = round(time.time() - began, 2)

    @contextmanager
    def judged(self, what: str) -> Iterator[None]:
        """Note what does not come."""
        try:
            yield
        except WaitedTooLong as late:
            self.wrong.append(f"{what}: {late}")


@pytest.mark.early
@pytest.mark.claim("F9.fires")
def test_every_alert_fires_and_ends(
    root: Root, run_dir: Path, stack: StackInfo, lane: LaneFactory, evidence: ClaimEvidence
) -> None:
    """Dead letters, refusals, reconnects, a hung API, no worker, a backlog, Redis away, the API away: 12 of 12."""
    if stack.prometheus_url is None or stack.redis_provider == "fakeredis":
        pytest.skip("needs prometheus and a redis-server of its own; `make services` installs them")
    redis = start_private_redis(run_dir, "redis-drill")
    try:
        running = lane("drill", redis_url=redis.url, **SETTINGS)  # type: ignore[arg-type]  # settings of several types
        alerts = {alert.name: alert for alert in load_rules(root.path / "rules").alerts}
        missing = AGREED.keys() - alerts.keys()
        assert not missing, f"there is no rule {', '.join(sorted(missing))}"
        with Prometheus(stack.prometheus_url) as prometheus:
            drill = Drill(running, prometheus, alerts)
            build = f'rag_build_info{{lane="{running.name}"}}'
            wait_until(
                lambda: prometheus.now(build), seconds=LATE_SECONDS, what="a scrape", every_seconds=0.2
            )
            early = [name for name in alerts if name != "RAGMetricsAbsent" and drill.holds(name)]
            drill.wrong += [f"{name}: holds before its fault" for name in early]
            failures(drill)
            reconnects(drill)
            standstill(drill)
            refusals(drill)  # late: after answers 429 workers slow down for a while
            redis.stop()
            away = "/rag/jobs/job-" + "0" * 32  # cannot be looked up: 503
            with drill.firing("RedisUnreachable", "APIErrorRateHigh", feed=lambda: running.http().get(away)):
                redis.start()
            running.kill_api()
            with drill.firing("RAGMetricsAbsent"):
                running.start_api()
    finally:
        redis.stop()
    silent = sorted(AGREED.keys() - drill.seconds.keys())
    drill.wrong += [f"{name}: its fault was not caused" for name in silent]
    n = max(2 * len(AGREED), len(drill.wrong))
    evidence.cases(n, len(drill.wrong), drill.wrong, "alerts that fire by their fault and end with it")
    evidence.facts(fired_after_seconds=drill.seconds, faster=FASTER)
    assert not drill.wrong, drill.wrong[0]


def failures(drill: Drill) -> None:
    """Documents without text end dead, one after the other."""
    with drill.firing("DLQEntriesIncreasing", "HighRAGFailureRate", feed=drill.submit):
        pass


def refusals(drill: Drill) -> None:
    """The embedding API answers 429 to thirty requests on their way together: one after the other they slow down."""
    rule: dict[str, JsonValue] = {
        "contains": "limited",
        "times": SLOTS,
        "delay_ms": 2000,
        "status": 429,
        "retry_after": 0.05,
    }
    drill.lane.script_embedding([rule])
    for _ in range(SLOTS):
        drill.submit("limited")
    with drill.firing("RateLimitingSpike"):
        drill.lane.script_embedding([])


def reconnects(drill: Drill) -> None:
    """Streams of an ended job are resumed more than a hundred times."""
    job, client = drill.submit("streamed"), drill.lane.http()
    drill.lane.wait_all([job], seconds=LATE_SECONDS)

    def reconnect() -> None:
        for _ in range(12):
            client.get(f"/rag/jobs/{job}/events", headers={"Last-Event-ID": "1-1"})

    with drill.firing("SSEReconnectionSpike", feed=reconnect):
        pass


def standstill(drill: Drill) -> None:
    """The embedding API hangs, work piles up, the worker dies; when one is back, all of it is late."""
    lane = drill.lane
    lane.script_embedding([{"contains": "held", "delay_ms": HOLD_MS}])
    words = " ".join(f"w{number}" for number in range(HELD_WORDS))
    for _ in range(HELD):
        drill.submit(f"held {words}")
    waiting = [drill.submit("late") for _ in range(BACKLOG)]
    begun = time.monotonic()
    with drill.firing("HighMemoryTokenUsage", "RAGProcessingStalled", "RAGQueueLengthHigh"):
        lane.workers[-1].kill()
        with drill.firing("RAGWorkersGone"):
            time.sleep(max(0.0, OBJECTIVE_SECONDS - (time.monotonic() - begun)))  # until the backlog is late
            lane.script_embedding([], latency_ms=2500)
            lane.start_worker()
    drill.must_fire("SlowRAGProcessing")
    lane.wait_all(waiting, seconds=120)
    lane.script_embedding([])
    drill.must_end("SlowRAGProcessing")
