"""Name every metric once, keep this process' own figures, and write the text that Prometheus reads.

Queue-wide figures (queue length, jobs finished, durations) live in Redis, where Lua raises them in the same
step as the state of the job; they are read at scrape time and so stay true when workers die. What belongs
to one API process (open streams, HTTP requests, background jobs) is kept here. `exposition` joins both; it
does no I/O.

prometheus_client stores the local figures, but the text is written here: its encoder appends `_total` to
the name of every counter, and two of the ten core names (spec E1) are counters without it. Source of the
format: https://prometheus.io/docs/instrumenting/exposition_formats/ (text format 0.0.4).
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from ragworker import __version__

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

#: Reach to 5 min, the recovery objective (H7), and hold 60 000, the objective of the P95 (H1), as an exact
#: border.
JOB_DURATION_BUCKETS_MS: Final = (
    50,
    100,
    250,
    500,
    1000,
    2500,
    5000,
    10000,
    30000,
    45000,
    60000,
    120000,
    300000,
)

#: An embedding request answers in tens of ms; its deadline is 30 s (RAG_EMBEDDING_TIMEOUT_SECONDS).
EMBEDDING_LATENCY_BUCKETS_MS: Final = (5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000)

#: 300 and 500 ms are the claimed and the required API response times (H6).
HTTP_DURATION_BUCKETS_MS: Final = (1, 2.5, 5, 10, 25, 50, 100, 200, 300, 500, 1000, 2500, 5000, 10000)

#: The bounded set of error panels that a user interface may report; anything else is counted as `unknown`.
UI_ERROR_TYPES: Final = ("network", "timeout", "validation", "server", "unknown")


class Kind(StrEnum):
    """Metric types of the text format."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Home(StrEnum):
    """Where a figure lives: in this process, in Redis, in both (their sum), or made at the scrape."""

    PROCESS = "process"
    QUEUE = "queue"
    BOTH = "both"
    SCRAPE = "scrape"


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric; `help` is printed as `# HELP`, `buckets` are the upper borders of a histogram."""

    name: str
    kind: Kind
    home: Home
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


#: The ten names of spec E1, each of which has a panel on the dashboard.
CORE_METRICS: Final = (
    MetricSpec("rag_queue_length", Kind.GAUGE, Home.BOTH, "Jobs waiting: ready, or delayed until a retry."),
    MetricSpec(
        "rag_job_duration_ms",
        Kind.HISTOGRAM,
        Home.BOTH,
        "From the submission of a job to its end, in ms.",
        buckets=JOB_DURATION_BUCKETS_MS,
    ),
    MetricSpec("sse_connections_open", Kind.GAUGE, Home.PROCESS, "Event streams open in this API process."),
    MetricSpec("sse_reconnect_count", Kind.COUNTER, Home.PROCESS, "Event streams resumed by Last-Event-ID."),
    MetricSpec("commit_positive_total", Kind.COUNTER, Home.BOTH, "Jobs whose effect was committed to SQL."),
    MetricSpec(
        "memory_token_used_pct",
        Kind.GAUGE,
        Home.BOTH,
        "Tokens held by in-flight batches, in percent of the budget, in the fullest live worker.",
    ),
    MetricSpec(
        "ui_error_panel_shown",
        Kind.COUNTER,
        Home.PROCESS,
        "Error panels that a user interface showed.",
        ("type",),
    ),
    MetricSpec("dlq_entries_total", Kind.COUNTER, Home.QUEUE, "Jobs ever moved to the dead-letter queue."),
    MetricSpec("worker_active_jobs", Kind.GAUGE, Home.BOTH, "Jobs running now under a live lease."),
    MetricSpec(
        "embedding_api_latency_ms",
        Kind.HISTOGRAM,
        Home.BOTH,
        "Latency of requests to the embedding API, in ms.",
        buckets=EMBEDDING_LATENCY_BUCKETS_MS,
    ),
)

OTHER_METRICS: Final = (
    MetricSpec("rag_jobs_finished_total", Kind.COUNTER, Home.BOTH, "Jobs that reached an end.", ("outcome",)),
    MetricSpec(
        "rag_jobs_failed_total", Kind.COUNTER, Home.BOTH, "Failed attempts, retried or not.", ("code",)
    ),
    MetricSpec(
        "rag_http_requests_total",
        Kind.COUNTER,
        Home.PROCESS,
        "HTTP requests answered.",
        ("method", "route", "status"),
    ),
    MetricSpec(
        "rag_http_request_duration_ms",
        Kind.HISTOGRAM,
        Home.PROCESS,
        "Time until the answer's head was sent, in ms.",
        ("route",),
        buckets=HTTP_DURATION_BUCKETS_MS,
    ),
    MetricSpec("rag_dlq_entries", Kind.GAUGE, Home.QUEUE, "Jobs in the dead-letter queue now."),
    MetricSpec("rag_workers", Kind.GAUGE, Home.QUEUE, "Workers with a live lease."),
    MetricSpec("rag_redis_up", Kind.GAUGE, Home.SCRAPE, "1 when Redis answered this scrape in time, else 0."),
    MetricSpec(
        "rag_embedding_requests_total", Kind.COUNTER, Home.BOTH, "Answers of the embedding API.", ("status",)
    ),
    MetricSpec("rag_rate_limited_total", Kind.COUNTER, Home.BOTH, "Embedding requests answered by 429."),
    MetricSpec(
        "rag_build_info", Kind.GAUGE, Home.SCRAPE, "Always 1; labels name the build.", ("version", "python")
    ),
)

METRICS: Final = CORE_METRICS + OTHER_METRICS

#: Of these the joined figure is the larger one, not the sum: a share of a budget does not add up over
#: workers.
_JOINED_BY_MAXIMUM: Final = frozenset({"memory_token_used_pct"})


@dataclass(frozen=True, slots=True)
class Series:
    """One line of the text: `suffix` follows the metric's name (`_bucket`, `_sum`, `_count` or nothing)."""

    suffix: str = ""
    labels: tuple[tuple[str, str], ...] = ()


#: A metric's lines with their values.
Lines = dict[Series, float]

#: Figures read from Redis at one scrape: metric name -> lines.
QueueFigures = Mapping[str, Lines]


class ProcessFigures:
    """This process' own counters, gauges and histograms, safe to use from any thread."""

    def __init__(self) -> None:
        self._kept: dict[str, Counter | Gauge | Histogram] = {
            spec.name: _collector(spec) for spec in METRICS if spec.home in (Home.PROCESS, Home.BOTH)
        }
        for kind in UI_ERROR_TYPES:
            # A series that starts at 0 lets `increase()` see the first error.
            self.count("ui_error_panel_shown", 0, type=kind)

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Raise a counter."""
        collector = self._kept[name]
        assert isinstance(collector, Counter), name
        (collector.labels(**labels) if labels else collector).inc(amount)

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add one observation to a histogram."""
        collector = self._kept[name]
        assert isinstance(collector, Histogram), name
        (collector.labels(**labels) if labels else collector).observe(value)

    def change(self, name: str, delta: float) -> None:
        """Raise or lower a gauge."""
        collector = self._kept[name]
        assert isinstance(collector, Gauge), name
        collector.inc(delta)

    def set(self, name: str, value: float) -> None:
        """Set a gauge."""
        collector = self._kept[name]
        assert isinstance(collector, Gauge), name
        collector.set(value)

    def lines(self, name: str) -> Lines:
        """The metric's lines as they stand now; empty for a metric that is not kept here."""
        collector = self._kept.get(name)
        if collector is None:
            return {}
        return {
            Series(
                sample.name.removeprefix(name).removeprefix("_total"), tuple(sorted(sample.labels.items()))
            ): (sample.value)
            for family in collector.collect()
            for sample in family.samples
            if not sample.name.endswith("_created")
        }


def exposition(process: ProcessFigures, queue: QueueFigures | None, *, queue_expected: bool) -> str:
    """The text of one scrape.

    `queue` is None when Redis did not answer. Then the queue-wide series are absent if the durable worker
    is in use (`queue_expected`): a sum without its larger half would read as a counter reset and as an
    empty queue.
    """
    made = {
        "rag_redis_up": {Series(): float(queue is not None)},
        "rag_build_info": {
            Series(labels=(("python", platform.python_version()), ("version", __version__))): 1.0
        },
    }
    parts: list[str] = []
    for spec in METRICS:
        if queue is None and queue_expected and spec.home in (Home.QUEUE, Home.BOTH):
            continue
        lines = made.get(spec.name) or _joined(
            process.lines(spec.name), (queue or {}).get(spec.name, {}), spec.name
        )
        if not lines and spec.name == "dlq_entries_total":
            lines = {Series(): 0.0}
        parts.extend(_family_text(spec, lines))
    return "".join(parts)


def histogram_lines(counts: Sequence[float], total: float, *, buckets: Sequence[float]) -> Lines:
    """A histogram's lines from observations per bucket.

    `counts` are not cumulative and have one entry more than `buckets`: the last one lies beyond all borders.
    """
    lines: Lines = {}
    running = 0.0
    for border, count in zip((*buckets, float("inf")), counts, strict=True):
        running += count
        lines[Series("_bucket", (("le", _number(border)),))] = running
    lines[Series("_sum")] = total
    lines[Series("_count")] = running
    return lines


def _collector(spec: MetricSpec) -> Counter | Gauge | Histogram:
    # Each process object has its own collectors outside any registry: tests and two apps in one process do
    # not mix.
    if spec.kind is Kind.COUNTER:
        return Counter(spec.name, spec.help, spec.labels, registry=None)
    if spec.kind is Kind.GAUGE:
        return Gauge(spec.name, spec.help, spec.labels, registry=None)
    return Histogram(spec.name, spec.help, spec.labels, registry=None, buckets=spec.buckets)


def _joined(ours: Lines, theirs: Lines, name: str) -> Lines:
    if name in _JOINED_BY_MAXIMUM:
        return {key: max(ours.get(key, 0.0), theirs.get(key, 0.0)) for key in {**ours, **theirs}}
    return {key: ours.get(key, 0.0) + theirs.get(key, 0.0) for key in {**ours, **theirs}}


def _family_text(spec: MetricSpec, lines: Lines) -> Iterator[str]:
    if not lines and not spec.labels:
        return
    yield f"# HELP {spec.name} {spec.help}\n# TYPE {spec.name} {spec.kind}\n"
    for series, value in lines.items():
        labels = ",".join(f'{name}="{_escaped(text)}"' for name, text in series.labels)
        yield f"{spec.name}{series.suffix}{f'{{{labels}}}' if labels else ''} {_number(value)}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return "+Inf" if value == float("inf") else repr(float(value))
