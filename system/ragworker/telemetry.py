"""Name every metric once, keep this process' own figures, and write the text that Prometheus reads.

Figures about jobs live in Redis, where Lua raises them in the same step as the state of the job; they are read at
scrape time (`Queue.gauges`) and so stay true when workers die. Background jobs are a queue of their own with the
same names. What belongs to one API process (open streams, HTTP requests) is kept here. `exposition` joins all
three; it does no I/O.

A figure is named by a tuple: a counter by its source and its labels' values, a histogram by `hist`, the metric,
the labels' values and a border (observations in that bucket alone) or `sum`. `QueueGauges.stats` has the same
names with colons. The text is written here and not by a library, because the usual encoder appends `_total` to
every counter, and two of the ten core names (spec E1) are counters without it. Source of the format:
https://prometheus.io/docs/instrumenting/exposition_formats/ (text format 0.0.4).
"""

from __future__ import annotations

import platform
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final

from ragworker import __version__
from ragworker.errors import ErrorCode
from ragworker.job import EMBEDDING_LATENCY_BUCKETS_MS, JOB_DURATION_BUCKETS_MS
from ragworker.stats import STAGE_DURATION_BUCKETS_MS, STAGES

if TYPE_CHECKING:
    from ragworker.queue import QueueGauges

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

#: 300 and 500 ms are the claimed and the required API response times (H6).
HTTP_DURATION_BUCKETS_MS: Final = (2.5, 5, 10, 25, 50, 100, 300, 500, 1000, 2500, 5000, 10000)

#: The bounded set of error panels that a user interface may report; anything else is counted as `unknown`.
UI_ERROR_TYPES: Final = ("network", "timeout", "validation", "server", "unknown")

#: Figures by name; see the module's docstring.
Figures = dict[tuple[str, ...], float]


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric: counter, gauge or histogram. `help` is printed as `# HELP`, `buckets` are upper borders.

    `source` is the field or stat of `QueueGauges` that it shows; without one it is this process' own. `seeds` are
    values of the label that start at 0, so that `increase()` sees the first one.
    """

    name: str
    kind: str
    source: str
    help: str
    labels: tuple[str, ...] = ()
    seeds: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


def _gauge(name: str, source: str, help: str, *labels: str) -> MetricSpec:
    return MetricSpec(name, "gauge", source, help, labels)


def _counter(name: str, source: str, help: str, *labels: str, seeds: tuple[str, ...] = ()) -> MetricSpec:
    return MetricSpec(name, "counter", source, help, labels, seeds)


def _histogram(
    name: str, source: str, buckets: tuple[float, ...], help: str, *labels: str, seeds: tuple[str, ...] = ()
) -> MetricSpec:
    return MetricSpec(name, "histogram", source, help, labels, seeds, buckets)


# fmt: off
#: The ten names of spec E1, each of which has a panel on the dashboard.
CORE_METRICS: Final = (
    _gauge("rag_queue_length", "queue_length", "Jobs waiting: ready, or delayed until a retry."),
    _histogram("rag_job_duration_ms", "hist", JOB_DURATION_BUCKETS_MS,
               "From the submission of a job to its end, done or dead, in ms."),
    _gauge("sse_connections_open", "", "Event streams open in this API process."),
    _counter("sse_reconnect_count", "", "Event streams resumed by Last-Event-ID."),
    _counter("commit_positive_total", "committed", "Jobs whose effect was committed to SQL."),
    _gauge("memory_token_used_pct", "token_used_pct",
           "Tokens held by in-flight batches, in percent of the budget, in the fullest live worker."),
    _counter("ui_error_panel_shown", "", "Error panels that a user interface showed.", "type", seeds=UI_ERROR_TYPES),
    _counter("dlq_entries_total", "dead", "Jobs ever moved to the dead-letter queue."),
    _gauge("worker_active_jobs", "active_jobs", "Jobs running now, durable ones under a live lease."),
    _histogram("embedding_api_latency_ms", "hist", EMBEDDING_LATENCY_BUCKETS_MS,
               "Latency of requests to the embedding API, in ms."),
)

OTHER_METRICS: Final = (
    _counter("rag_jobs_submitted_total", "submitted", "Jobs accepted."),
    _counter("rag_jobs_finished_total", "finished", "Jobs that reached an end.", "outcome",
             seeds=("done", "dead", "cancelled")),
    _counter("rag_jobs_failed_total", "failed", "Failures by error code, retried or not.", "code",
             seeds=tuple(code.value for code in ErrorCode)),
    _counter("rag_jobs_retried_total", "retried", "Retries scheduled."),
    _counter("rag_jobs_taken_over_total", "taken_over", "Jobs taken from workers whose lease ran out."),
    _gauge("rag_jobs_unfinished", "unfinished", "Jobs waiting, or claimed by any worker, dead or alive."),
    _histogram("rag_stage_duration_ms", "hist", STAGE_DURATION_BUCKETS_MS,
               "Time of a job in one stage, in ms; queue_wait ends with its first claim.", "stage", seeds=STAGES),
    _counter("rag_http_requests_total", "", "HTTP requests answered.", "method", "route", "status"),
    _histogram("rag_http_request_duration_ms", "", HTTP_DURATION_BUCKETS_MS,
               "Time until the head of the answer was sent, in ms.", "route"),
    _gauge("rag_dlq_entries", "dlq_entries", "Jobs in the dead-letter queue now."),
    _gauge("rag_workers", "workers", "Workers with a live lease."),
    _gauge("rag_queue_paused", "paused", "1 when the queue accepts jobs but gives none out, else 0."),
    _gauge("rag_redis_up", "", "1 when Redis answered this scrape in time, else 0."),
    _counter("rag_embedding_requests_total", "embedding_requests",
             "Requests to the embedding API by HTTP status, or timeout, or unreachable.", "status",
             seeds=("200", "429")),
    _counter("rag_embedding_tokens_total", "embedding_tokens", "Tokens embedded."),
    _counter("rag_embedding_cost_usd_total", "embedding_cost_usd",
             "What these tokens are expected to cost, in US dollars."),
    _counter("rag_rate_limited_total", "rate_limited", "Embedding requests answered by 429."),
    _gauge("rag_build_info", "", "Always 1; labels name the build.", "version", "python"),
)
# fmt: on

METRICS: Final = CORE_METRICS + OTHER_METRICS

#: A share of a budget does not add up over queues.
_JOINED_BY_MAXIMUM: Final = frozenset({"token_used_pct"})

#: Only Redis has these: an API process is no worker that an operator started, paused or lost.
_DURABLE_ONLY: Final = frozenset({"workers", "paused", "taken_over"})


class ProcessFigures:
    """This process' own counters, gauges and histograms, safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._specs = {spec.name: spec for spec in METRICS if not spec.source}
        self._figures: Figures = {("sse_connections_open",): 0.0}

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Raise a counter. KeyError for a metric or label that this process does not have."""
        self._add((name, *self._values(name, labels)), amount)

    def change(self, name: str, delta: float) -> None:
        """Raise or lower a gauge."""
        self.count(name, delta)

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add one observation to a histogram."""
        bucket = next((str(border) for border in self._specs[name].buckets if value <= border), "+Inf")
        series = ("hist", name, *self._values(name, labels))
        self._add((*series, bucket), 1)
        self._add((*series, "sum"), value)

    def figures(self) -> Figures:
        """All of them as they stand now."""
        with self._lock:
            return dict(self._figures)

    def _values(self, name: str, labels: Mapping[str, str]) -> tuple[str, ...]:
        return tuple(labels[label] for label in self._specs[name].labels)

    def _add(self, figure: tuple[str, ...], amount: float) -> None:
        with self._lock:
            self._figures[figure] = self._figures.get(figure, 0.0) + amount


def exposition(
    process: ProcessFigures, *, durable: QueueGauges | None, background: QueueGauges, durable_expected: bool
) -> str:
    """The text of one scrape, in the order of `METRICS`. ValueError when a histogram has a border that is not ours.

    `durable` is None when Redis did not answer. Then all figures about jobs are absent if the durable worker is
    in use (`durable_expected`): a sum without its larger half would read as a counter reset and as an empty queue.
    """
    build = ("rag_build_info", __version__, platform.python_version())
    figures = process.figures() | {("rag_redis_up",): float(durable is not None), build: 1.0}
    unknown = durable is None and durable_expected
    for queue in (durable, background):
        for figure, value in _of_queue(queue).items() if queue else ():
            before = figures.get(figure, 0.0)
            if figure[0] in _JOINED_BY_MAXIMUM:
                figures[figure] = max(before, value)
            elif queue is durable or figure[0] not in _DURABLE_ONLY:
                figures[figure] = before + value
    return "".join(
        line for spec in METRICS if not (spec.source and unknown) for line in _family(spec, figures)
    )


def _of_queue(gauges: QueueGauges) -> Figures:
    own = {(one.name,): float(getattr(gauges, one.name)) for one in fields(gauges) if one.name != "stats"}
    return own | {tuple(name.split(":")): value for name, value in gauges.stats.items()}


def _family(spec: MetricSpec, figures: Figures) -> Iterator[str]:
    lines = list(_bucket_lines(spec, figures) if spec.kind == "histogram" else _plain_lines(spec, figures))
    if lines or spec.labels:
        yield f"# HELP {spec.name} {spec.help}\n# TYPE {spec.name} {spec.kind}\n"
        yield from lines


def _plain_lines(spec: MetricSpec, figures: Figures) -> Iterator[str]:
    known: Figures = {(seed,): 0.0 for seed in spec.seeds}
    known |= _below((spec.source or spec.name,), figures)
    if spec.kind == "counter" and not spec.labels:
        known.setdefault((), 0.0)
    for values, value in known.items():
        yield _line(spec.name, dict(zip(spec.labels, values, strict=True)), value)


def _bucket_lines(spec: MetricSpec, figures: Figures) -> Iterator[str]:
    """Figures are kept per bucket; Prometheus wants them cumulated up to each border."""
    known = _below(("hist", spec.name), figures)
    borders = {str(border): repr(float(border)) for border in spec.buckets} | {"+Inf": "+Inf"}
    foreign = {name[-1] for name in known} - {*borders, "sum", "count"}
    if foreign:
        raise ValueError(f"{spec.name}: expected the borders {', '.join(borders)}, got also: {min(foreign)}")
    started = {(seed,) for seed in spec.seeds} if spec.labels else {()}
    for values in sorted(started | {name[:-1] for name in known}):
        labels, running = dict(zip(spec.labels, values, strict=True)), 0.0
        for border, shown in borders.items():
            running += known.get((*values, border), 0.0)
            yield _line(f"{spec.name}_bucket", {**labels, "le": shown}, running)
        yield _line(f"{spec.name}_count", labels, running)
        yield _line(f"{spec.name}_sum", labels, known.get((*values, "sum"), 0.0))


def _below(source: tuple[str, ...], figures: Figures) -> Figures:
    depth = len(source)
    return {name[depth:]: value for name, value in figures.items() if name[:depth] == source}


def _line(name: str, labels: Mapping[str, str], value: float) -> str:
    shown = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
    return f"{name}{f'{{{shown}}}' if shown else ''} {float(value)!r}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
