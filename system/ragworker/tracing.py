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
from asyncio import CancelledError
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
Ids = tuple[str, str]

#: What is left to export at the end of a process gets this long.
CLOSE_SECONDS: Final = 2.0

#: https://www.w3.org/TR/trace-context/: version 00 has four parts, later ones may have more.
_TRACEPARENT: Final = re.compile(
    r"(?!ff|00.{54})[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-((?!0{16})[0-9a-f]{16}-[0-9a-f]{2})(?:-.*)?"
)

_TRACE_ID: Final = re.compile(r"trace-([0-9a-f]{32})")


class Span:
    """A stretch of work, from `with` to its end. Made without arguments it does nothing."""

    __slots__ = ("_recorded", "_scope", "_tracer")

    def __init__(self, tracer: _Tracer | None = None, recorded: Any = None) -> None:
        self._tracer, self._recorded = tracer, recorded

    def __enter__(self) -> Span:
        if self._tracer is not None:
            self._scope = self._tracer.api.use_span(self._recorded, True, False, False)
            self._scope.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if self._tracer is None:
            return
        if isinstance(error, (WorkerCancellationError, LeaseLostError, CancelledError)):
            self.set({"rag.ended_by": type(error).__name__})
        elif error is not None:
            self.fail(classify(error).code)
        self._scope.__exit__(None, None, None)

    def __bool__(self) -> bool:
        """Whether anybody will see it; what is only for it need not be made when not."""
        return self._tracer is not None

    def set(self, attributes: Attributes, *, name: str = "") -> None:
        """Add what became known on the way; `name` renames the span."""
        if self._tracer is not None:
            self._recorded.set_attributes(attributes)
            if name:
                self._recorded.update_name(name)

    def fail(self, code: str) -> None:
        """Mark as failed, by an error code or an HTTP status. An exception that leaves the block does so itself."""
        if self._tracer is not None:
            self.set({"error.type": code})
            self._recorded.set_status(self._tracer.api.StatusCode.ERROR, code)


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


def span(name: str, kind: Kind = "internal", about: Attributes | None = None, ids: Ids | None = None) -> Span:
    """A span below the current one, or below `ids`: an X-Trace-ID, and a `parent_id` in it or nothing."""
    tracer = _tracer.get()
    return _OFF if tracer is None else tracer.start(name, kind, about, ids)


def submit_span() -> Span:
    """The span of handing a job to the queue; `parent_id` inside it is what the job's record carries."""
    return span("submit", "producer", {"messaging.system": "redis", "messaging.operation.type": "send"})


def job_span(job: ClaimedJob) -> Span:
    """The span of one delivery, below the one under which the job was submitted."""
    if _tracer.get() is None:
        return _OFF
    about: Attributes = {
        "messaging.system": "redis",
        "messaging.operation.type": "process",
        "messaging.message.id": job.job_id,
        "rag.attempt": job.attempt,
        "rag.delivery": job.delivery,
    }
    return span("process", "consumer", about, (job.trace_id, job.span_id))


def traceparent() -> str:
    """The current span as the header of that name; empty without tracing."""
    carrier: dict[str, str] = {}
    if tracer := _tracer.get():
        tracer.w3c.inject(carrier)
    return carrier.get("traceparent", "")


def parent_id() -> str:
    """The current span as a job's record carries it (`span_id`): `<16 hex>-<flags>`; empty without tracing."""
    return traceparent()[36:]


def ids_of(header: str) -> Ids:
    """The X-Trace-ID and the parent id that a `traceparent` stands for; two empty texts when it is not valid."""
    found = _TRACEPARENT.fullmatch(header)
    return (f"trace-{found[1]}", found[2]) if found else ("", "")


class _Tracer:
    """OpenTelemetry, loaded and bounded."""

    def __init__(self, settings: Settings, service: str) -> None:
        self.api = import_module("opentelemetry.trace")
        self.w3c = import_module(
            "opentelemetry.trace.propagation.tracecontext"
        ).TraceContextTextMapPropagator()
        sdk = import_module("opentelemetry.sdk.trace")
        exports = import_module("opentelemetry.sdk.trace.export")
        otlp = import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
        ids = sdk.RandomIdGenerator()
        ids.generate_trace_id = lambda: _wanted.get() or randbits(128)
        ids.is_trace_id_random = lambda: False
        about = sdk.Resource.create({"service.name": service, "service.version": __version__})
        self.provider = sdk.TracerProvider(resource=about, id_generator=ids, shutdown_on_exit=False)
        self._spans = self.provider.get_tracer("ragworker", __version__)
        url, headers = f"{settings.otlp_endpoint}/v1/traces", dict(settings.otlp_headers)
        exporter = otlp.OTLPSpanExporter(url, headers=headers)
        self._send, self._last = exporter.export, exports.SpanExportResult.SUCCESS
        exporter.export = self._export
        self.provider.add_span_processor(exports.BatchSpanProcessor(exporter))
        # It says every failure, several times over; `_export` says the first.
        logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)

    def start(self, name: str, kind: Kind, about: Attributes | None, ids: Ids | None) -> Span:
        """A span that runs from now on."""
        context = None
        if ids is not None:
            found = _TRACE_ID.fullmatch(ids[0])
            _wanted.set(int(found[1], 16) if found else 0)
            context = self.w3c.extract({"traceparent": f"00-{found[1]}-{ids[1]}"} if found else {})
        return Span(self, self._spans.start_span(name, context, self.api.SpanKind[kind.upper()], about))

    def _export(self, spans: Any) -> Any:
        result = self._send(spans)
        if result is not self._last:
            self._last = result
            if result.name == "SUCCESS":
                logger.info("tracing.collector_back")
            else:
                logger.warning("tracing.collector_lost")
        return result
