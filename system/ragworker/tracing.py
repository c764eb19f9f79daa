"""Show every request and every delivery of its job as spans of one trace, exported over OTLP/HTTP.

    request (SERVER) -> submit (PRODUCER) -> process (CONSUMER) -> extract, embed (CLIENT), commit
                                         `-> process: each retry and each takeover once more

`with span("extract"):` is all that the rest of the code knows. The trace's id is the 32 digits of X-Trace-ID,
so that logs and spans find each other; the parent travels in the job's record as `span_id`. Names follow the
semantic conventions (https://opentelemetry.io/docs/specs/semconv/), a failure is one of the 19 codes, and no
attribute holds document text.

Off (DISTRIBUTED_TRACING_ENABLED) nothing of OpenTelemetry is imported and a span is one shared object that does
nothing. On, finished spans wait in a bounded queue for a thread of their own: a collector that is away costs
spans, never a job or its time. The SDK's own variables hold too, such as OTEL_TRACES_SAMPLER, OTEL_BSP_* and
OTEL_EXPORTER_OTLP_TIMEOUT.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from secrets import randbits
from threading import Thread
from typing import Any, Final, Literal

from ragworker import __version__
from ragworker.errors import LeaseLostError, WorkerCancellationError, classify
from ragworker.job import ClaimedJob
from ragworker.logs import get_logger
from ragworker.settings import Settings

logger = get_logger(__name__)

Kind = Literal["internal", "server", "client", "producer", "consumer"]
Attributes = Mapping[str, str | int | float | bool]

#: What is left to export at the end of a process gets this long.
CLOSE_SECONDS: Final = 2.0

#: https://www.w3.org/TR/trace-context/: version 00 has four parts, later ones may have more.
_TRACEPARENT: Final = re.compile(
    r"(?!ff|00.{54})[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-((?!0{16})[0-9a-f]{16}-[0-9a-f]{2})(?:-.*)?"
)

_PARENT: Final = re.compile(r"trace-([0-9a-f]{32}) (?:([0-9a-f]{16})-([0-9a-f]{2}))?")


class Span:
    """A stretch of work, from `with` to its end. This very class is the span of a process that does not trace."""

    __slots__ = ()

    def __enter__(self) -> Span:
        return self

    def __exit__(self, *raised: Any) -> None:
        pass

    def set(self, attributes: Attributes, *, name: str = "") -> None:
        """Add what became known on the way; `name` renames the span."""

    def fail(self, code: str) -> None:
        """Mark as failed, by an error code or an HTTP status. An exception that leaves the block does so itself."""


_OFF: Final = Span()
_tracer: ContextVar[_Tracer | None] = ContextVar("ragworker_tracer", default=None)

#: The trace id under which a span without a parent begins; 0 for a random one.
_wanted: ContextVar[int] = ContextVar("ragworker_wanted_trace_id", default=0)


@contextmanager
def exporting(settings: Settings, *, service: str) -> Iterator[None]:
    """Trace what the block does, if DISTRIBUTED_TRACING_ENABLED; `service` as in `configure_logging`."""
    if not settings.distributed_tracing_enabled:
        yield
        return
    tracer = _Tracer(settings, service)
    token = _tracer.set(tracer)
    try:
        yield
    finally:
        _tracer.reset(token)
        # The SDK would wait half a minute for a collector that does not answer.
        closing = Thread(target=tracer.provider.shutdown, name="tracing-close", daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)


def span(
    name: str,
    kind: Kind = "internal",
    attributes: Attributes | None = None,
    *,
    parent: tuple[str, str] | None = None,
) -> Span:
    """A span below the current one, or below `parent`: an X-Trace-ID, and a `parent_id` in it or nothing."""
    tracer = _tracer.get()
    return _OFF if tracer is None else tracer.start(name, kind, attributes, parent)


def submit_span() -> Span:
    """The span of handing a job to the queue; `parent_id` inside it is what the job's record carries."""
    return span("submit", "producer", {"messaging.system": "redis", "messaging.operation.type": "send"})


def job_span(job: ClaimedJob) -> Span:
    """The span of one delivery, below the one under which the job was submitted."""
    if _tracer.get() is None:
        return _OFF
    attributes: Attributes = {
        "messaging.system": "redis",
        "messaging.operation.type": "process",
        "messaging.message.id": job.job_id,
        "rag.attempt": job.attempt,
        "rag.delivery": job.delivery,
    }
    return span("process", "consumer", attributes, parent=(job.trace_id, job.span_id))


def traceparent() -> str:
    """The current span as the header of that name; empty without tracing."""
    tracer = _tracer.get()
    ids = tracer.api.get_current_span().get_span_context() if tracer else None
    return f"00-{ids.trace_id:032x}-{ids.span_id:016x}-{ids.trace_flags:02x}" if ids and ids.is_valid else ""


def parent_id() -> str:
    """The current span as a job's record carries it (`span_id`): `<16 hex>-<flags>`; empty without tracing."""
    return traceparent()[36:]


def ids_of(header: str) -> tuple[str, str]:
    """The X-Trace-ID and the parent id that a `traceparent` stands for; two empty texts when it is not valid."""
    found = _TRACEPARENT.fullmatch(header)
    return (f"trace-{found[1]}", found[2]) if found else ("", "")


class _Tracer:
    """OpenTelemetry, loaded and bounded."""

    def __init__(self, settings: Settings, service: str) -> None:
        sdk: Any = import_module("opentelemetry.sdk.trace")
        exports: Any = import_module("opentelemetry.sdk.trace.export")
        otlp: Any = import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
        self.api: Any = import_module("opentelemetry.trace")
        self.context: Any = import_module("opentelemetry.context")
        ids = sdk.RandomIdGenerator()
        ids.generate_trace_id = lambda: _wanted.get() or randbits(128)
        ids.is_trace_id_random = lambda: False
        about = sdk.Resource.create({"service.name": service, "service.version": __version__})
        self.provider = sdk.TracerProvider(resource=about, id_generator=ids, shutdown_on_exit=False)
        self._spans = self.provider.get_tracer("ragworker", __version__)
        exporter = otlp.OTLPSpanExporter(
            endpoint=f"{settings.otlp_endpoint}/v1/traces", headers=dict(settings.otlp_headers)
        )
        self._send, self._lost = exporter.export, False
        exporter.export = self._export
        self.provider.add_span_processor(exports.BatchSpanProcessor(exporter))
        # It says every failure, several times over; `_export` says the first.
        logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)

    def start(
        self, name: str, kind: Kind, attributes: Attributes | None, parent: tuple[str, str] | None
    ) -> Span:
        """A span that runs from now on."""
        api, context = self.api, None
        if parent is not None:
            context = self.context.Context()
            found = _PARENT.fullmatch(" ".join(parent))
            _wanted.set(int(found[1], 16) if found else 0)
            if found and found[2]:
                ids = api.SpanContext(
                    _wanted.get(), int(found[2], 16), True, api.TraceFlags(int(found[3], 16))
                )
                context = api.set_span_in_context(api.NonRecordingSpan(ids), context)
        return _Live(self, self._spans.start_span(name, context, api.SpanKind[kind.upper()], attributes))

    def _export(self, spans: Any) -> Any:
        result = self._send(spans)
        lost, before = result.name == "FAILURE", self._lost
        self._lost = lost
        if lost and not before:
            logger.warning("tracing.collector_lost")
        elif before and not lost:
            logger.info("tracing.collector_back")
        return result


class _Live(Span):
    """A span that is recorded."""

    __slots__ = ("_recorded", "_token", "_tracer")

    def __init__(self, tracer: _Tracer, recorded: Any) -> None:
        self._tracer, self._recorded = tracer, recorded

    def __enter__(self) -> Span:
        current = self._tracer.api.set_span_in_context(self._recorded)
        self._token = self._tracer.context.attach(current)
        return self

    def __exit__(self, *raised: Any) -> None:
        if isinstance(raised[1], Exception) and not isinstance(
            raised[1], (WorkerCancellationError, LeaseLostError)
        ):
            self.fail(classify(raised[1]).code)
        elif raised[0] is not None:
            self.set({"rag.ended_by": raised[0].__name__})
        self._tracer.context.detach(self._token)
        self._recorded.end()

    def set(self, attributes: Attributes, *, name: str = "") -> None:
        self._recorded.set_attributes(attributes)
        if name:
            self._recorded.update_name(name)

    def fail(self, code: str) -> None:
        self._recorded.set_attribute("error.type", code)
        self._recorded.set_status(self._tracer.api.StatusCode.ERROR, code)
