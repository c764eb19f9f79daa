"""Name every metric once, keep this process' own figures, and write the text that Prometheus reads.

Figures about jobs live in Redis, where Lua raises them in the same step as the state of the job; they are
read at scrape time and so stay true when workers die. Background jobs are counted by their runner under the
same names. What belongs to one API process (open streams, HTTP requests) is kept here. `exposition` joins
all three; it does no I/O.

prometheus_client stores the local figures, but the text is written here: its encoder appends `_total` to
the name of every counter, and two of the ten core names (spec E1) are counters without it. Source of the
format: https://prometheus.io/docs/instrumenting/exposition_formats/ (text format 0.0.4).
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from ragworker import __version__
from ragworker.errors import ErrorCode
from ragworker.job import EMBEDDING_LATENCY_BUCKETS_MS, JOB_DURATION_BUCKETS_MS

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

#: 300 and 500 ms are the claimed and the required API response times (H6).
HTTP_DURATION_BUCKETS_MS: Final = (2.5, 5, 10, 25, 50, 100, 300, 500, 1000, 2500, 5000, 10000)

#: The bounded set of error panels that a user interface may report; anything else is counted as `unknown`.
UI_ERROR_TYPES: Final = ("network", "timeout", "validation", "server", "unknown")


class Kind(StrEnum):
    """Metric types of the text format."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Home(StrEnum):
    """Where a figure lives."""

    PROCESS = "process"  # here
    JOBS = "jobs"  # in Redis for durable jobs and in the runner for background jobs; shown as one
    QUEUE = "queue"  # in Redis only
    SCRAPE = "scrape"  # made at the scrape


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric. `help` is printed as `# HELP`, `buckets` are the upper borders of a histogram.

    `stat` is the counter's name among `QueueGauges.stats`; where the metric has a label, what follows the
    colon in the stat's name is the label's value. `seeds` are label values that start at 0, so that
    `increase()` sees the first one.
    """

    name: str
    kind: Kind
    home: Home
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    stat: str = ""
    seeds: tuple[str, ...] = ()


#: The ten names of spec E1, each of which has a panel on the dashboard.
CORE_METRICS: Final = (
    MetricSpec("rag_queue_length", Kind.GAUGE, Home.JOBS, "Jobs waiting: ready, or delayed until a retry."),
    MetricSpec(
        "rag_job_duration_ms",
        Kind.HISTOGRAM,
        Home.JOBS,
        "From the submission of a job to its end, done or dead, in ms.",
        buckets=JOB_DURATION_BUCKETS_MS,
    ),
    MetricSpec("sse_connections_open", Kind.GAUGE, Home.PROCESS, "Event streams open in this API process."),
    MetricSpec("sse_reconnect_count", Kind.COUNTER, Home.PROCESS, "Event streams resumed by Last-Event-ID."),
    MetricSpec(
        "commit_positive_total",
        Kind.COUNTER,
        Home.JOBS,
        "Jobs whose effect was committed to SQL.",
        stat="committed",
    ),
    MetricSpec(
        "memory_token_used_pct",
        Kind.GAUGE,
        Home.JOBS,
        "Tokens held by in-flight batches, in percent of the budget, in the fullest live worker.",
    ),
    MetricSpec(
        "ui_error_panel_shown",
        Kind.COUNTER,
        Home.PROCESS,
        "Error panels that a user interface showed.",
        labels=("type",),
        seeds=UI_ERROR_TYPES,
    ),
    MetricSpec(
        "dlq_entries_total",
        Kind.COUNTER,
        Home.QUEUE,
        "Jobs ever moved to the dead-letter queue.",
        stat="dead",
    ),
    MetricSpec(
        "worker_active_jobs", Kind.GAUGE, Home.JOBS, "Jobs running now, durable ones under a live lease."
    ),
    MetricSpec(
        "embedding_api_latency_ms",
        Kind.HISTOGRAM,
        Home.JOBS,
        "Latency of requests to the embedding API, in ms.",
        buckets=EMBEDDING_LATENCY_BUCKETS_MS,
    ),
)

OTHER_METRICS: Final = (
    MetricSpec("rag_jobs_submitted_total", Kind.COUNTER, Home.JOBS, "Jobs accepted.", stat="submitted"),
    MetricSpec(
        "rag_jobs_finished_total",
        Kind.COUNTER,
        Home.JOBS,
        "Jobs that reached an end.",
        labels=("outcome",),
        stat="finished",
        seeds=("done", "dead", "cancelled"),
    ),
    MetricSpec(
        "rag_jobs_failed_total",
        Kind.COUNTER,
        Home.JOBS,
        "Failures by error code, retried or not.",
        labels=("code",),
        stat="failed",
        seeds=tuple(code.value for code in ErrorCode),
    ),
    MetricSpec("rag_jobs_retried_total", Kind.COUNTER, Home.JOBS, "Retries scheduled.", stat="retried"),
    MetricSpec(
        "rag_jobs_taken_over_total",
        Kind.COUNTER,
        Home.QUEUE,
        "Jobs taken from workers whose lease ran out.",
        stat="taken_over",
    ),
    MetricSpec(
        "rag_http_requests_total",
        Kind.COUNTER,
        Home.PROCESS,
        "HTTP requests answered.",
        labels=("method", "route", "status"),
    ),
    MetricSpec(
        "rag_http_request_duration_ms",
        Kind.HISTOGRAM,
        Home.PROCESS,
        "Time until the head of the answer was sent, in ms.",
        labels=("route",),
        buckets=HTTP_DURATION_BUCKETS_MS,
    ),
    MetricSpec("rag_dlq_entries", Kind.GAUGE, Home.QUEUE, "Jobs in the dead-letter queue now."),
    MetricSpec("rag_workers", Kind.GAUGE, Home.QUEUE, "Workers with a live lease."),
    MetricSpec("rag_redis_up", Kind.GAUGE, Home.SCRAPE, "1 when Redis answered this scrape in time, else 0."),
    MetricSpec(
        "rag_embedding_requests_total",
        Kind.COUNTER,
        Home.JOBS,
        "Requests to the embedding API by HTTP status, or timeout, or unreachable.",
        labels=("status",),
        stat="embedding_requests",
        seeds=("200", "429"),
    ),
    MetricSpec(
        "rag_embedding_tokens_total", Kind.COUNTER, Home.JOBS, "Tokens embedded.", stat="embedding_tokens"
    ),
    MetricSpec(
        "rag_rate_limited_total",
        Kind.COUNTER,
        Home.JOBS,
        "Embedding requests answered by 429.",
        stat="rate_limited",
    ),
    MetricSpec(
        "rag_build_info",
        Kind.GAUGE,
        Home.SCRAPE,
        "Always 1; labels name the build.",
        labels=("version", "python"),
    ),
)

METRICS: Final = CORE_METRICS + OTHER_METRICS

#: The joined figure of these is the larger one, not the sum: a share of a budget does not add up over
#: workers.
_JOINED_BY_MAXIMUM: Final = frozenset({"memory_token_used_pct"})


@dataclass(frozen=True, slots=True)
class Series:
    """One line of the text: `suffix` follows the metric's name (`_bucket`, `_sum`, `_count` or nothing)."""

    suffix: str = ""
    labels: tuple[tuple[str, str], ...] = ()


#: A metric's lines with their values.
Lines = dict[Series, float]


@dataclass(frozen=True, slots=True)
class JobFigures:
    """What one place (Redis, or the background runner) says of its jobs; `stats` as in `queue.QueueGauges`.

    `dlq_entries` and `workers` are None where there is no such thing.
    """

    queue_length: int = 0
    active_jobs: int = 0
    token_used_pct: float = 0.0
    dlq_entries: int | None = None
    workers: int | None = None
    stats: Mapping[str, float] = field(default_factory=dict)

    def lines(self, spec: MetricSpec) -> Lines:
        """The lines of one metric. ValueError when a histogram has a border that is not ours."""
        gauges = {
            "rag_queue_length": self.queue_length,
            "worker_active_jobs": self.active_jobs,
            "memory_token_used_pct": self.token_used_pct,
            "rag_dlq_entries": self.dlq_entries,
            "rag_workers": self.workers,
        }
        if spec.kind is Kind.GAUGE:
            value = gauges[spec.name]
            return {} if value is None else {Series(): float(value)}
        if spec.kind is Kind.HISTOGRAM:
            return _histogram_lines(spec, self.stats)
        if not spec.labels:
            return {Series(): self.stats.get(spec.stat, 0.0)}
        prefix = f"{spec.stat}:"
        counted = {
            name[len(prefix) :]: value for name, value in self.stats.items() if name.startswith(prefix)
        }
        return {
            Series(labels=((spec.labels[0], label),)): value
            for label, value in sorted({**dict.fromkeys(spec.seeds, 0.0), **counted}.items())
        }


class ProcessFigures:
    """This process' own counters, gauges and histograms, safe to use from any thread."""

    def __init__(self) -> None:
        self._kept = {spec.name: _collector(spec) for spec in METRICS if spec.home is Home.PROCESS}
        for spec in METRICS:
            for seed in spec.seeds if spec.home is Home.PROCESS else ():
                self.count(spec.name, 0, **{spec.labels[0]: seed})

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

    def lines(self, spec: MetricSpec) -> Lines:
        """The lines of one metric as they stand now."""
        samples = (sample for family in self._kept[spec.name].collect() for sample in family.samples)
        return {
            # The library calls the sample of a counter `<name>_total` even where the name ends so already.
            Series(
                sample.name.removeprefix(spec.name).removeprefix("_total"),
                tuple(sorted(sample.labels.items())),
            ): sample.value
            for sample in samples
            if not sample.name.endswith("_created")
        }


def exposition(
    process: ProcessFigures, *, background: JobFigures, queue: JobFigures | None, queue_expected: bool
) -> str:
    """The text of one scrape.

    `queue` is None when Redis did not answer. Then all figures about jobs are absent if the durable worker
    is in use (`queue_expected`): a sum without its larger half would read as a counter reset and as an
    empty queue.
    """
    parts: list[str] = []
    for spec in METRICS:
        if spec.home is Home.SCRAPE:
            lines = _scrape_lines(spec, redis_up=queue is not None)
        elif spec.home is Home.PROCESS:
            lines = process.lines(spec)
        elif queue is None and queue_expected:
            continue
        elif spec.home is Home.QUEUE:
            lines = (queue or JobFigures()).lines(spec)
        else:
            lines = _joined(background.lines(spec), queue.lines(spec) if queue else {}, spec.name)
        parts.extend(_family_text(spec, lines))
    return "".join(parts)


def _collector(spec: MetricSpec) -> Counter | Gauge | Histogram:
    # Outside any registry: two apps in one process, as in tests, do not mix.
    if spec.kind is Kind.COUNTER:
        return Counter(spec.name, spec.help, spec.labels, registry=None)
    if spec.kind is Kind.GAUGE:
        return Gauge(spec.name, spec.help, spec.labels, registry=None)
    return Histogram(spec.name, spec.help, spec.labels, registry=None, buckets=spec.buckets)


def _scrape_lines(spec: MetricSpec, *, redis_up: bool) -> Lines:
    if spec.name == "rag_redis_up":
        return {Series(): float(redis_up)}
    return {Series(labels=(("python", platform.python_version()), ("version", __version__))): 1.0}


def _histogram_lines(spec: MetricSpec, stats: Mapping[str, float]) -> Lines:
    """Redis keeps observations per bucket; Prometheus wants them cumulated up to each border."""
    prefix = f"hist:{spec.name}:"
    kept = {name[len(prefix) :]: value for name, value in stats.items() if name.startswith(prefix)}
    borders = {**{str(border): _number(border) for border in spec.buckets}, "+Inf": "+Inf"}
    unknown = kept.keys() - borders.keys() - {"sum", "count"}
    if unknown:
        raise ValueError(f"{spec.name}: expected the borders {', '.join(borders)}, got also: {min(unknown)}")
    lines: Lines = {}
    running = 0.0
    for name, shown in borders.items():
        running += kept.get(name, 0.0)
        lines[Series("_bucket", (("le", shown),))] = running
    lines[Series("_count")] = running
    lines[Series("_sum")] = kept.get("sum", 0.0)
    return lines


def _joined(ours: Lines, theirs: Lines, name: str) -> Lines:
    pairs = {key: (ours.get(key, 0.0), theirs.get(key, 0.0)) for key in {**ours, **theirs}}
    return {key: max(pair) if name in _JOINED_BY_MAXIMUM else sum(pair) for key, pair in pairs.items()}


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
