"""One trace from the request to the commit, over OTLP/HTTP, and nothing in it that is nobody's business."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
import timeit
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from api_process import SECRET, Api, RedisServer, redis_binary, running_api, wait_until
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from test_auth import claims, signed
from traced import CANARIES, Sink, Stand, running_worker

from ragworker import tracing
from ragworker.connection import connect
from ragworker.queue import Queue
from ragworker.settings import QueueSettings, Settings
from ragworker.stats import STAGES

TRACE = "trace-4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """Everything with tracing on, and a secret in every place where one may be."""
    folder = tmp_path_factory.mktemp("traced")
    server = RedisServer(redis_binary(), folder)
    server.start()
    with redis.Redis(unix_socket_path=f"{folder}/redis.sock") as client:
        client.config_set("requirepass", CANARIES["redis"])
    sink = Sink()
    with sink.serving() as url:
        environ = {
            "REDIS_URL": f"{server.url}?password={CANARIES['redis']}",
            "DATABASE_URL": f"sqlite:///{folder}/rag.db",
            "RAG_TEMP_DIR": str(folder / "temp"),
            "RAG_QUEUE": "traced",
            "RAG_LEASE_SECONDS": "0.8",
            "RAG_RETRY_BASE_SECONDS": "0.01",
            "RAG_EMBEDDING_URL": f"{url}/v1",
            "RAG_EMBEDDING_API_KEY": CANARIES["embedding"],
            "RAG_JWT_SECRET": SECRET,
            "RAG_JWT_AUDIENCE": "rag",
            "RAG_JWT_ISSUER": "tests",
            "DISTRIBUTED_TRACING_ENABLED": "true",
            "OTEL_EXPORTER_OTLP_ENDPOINT": url,
            "OTEL_EXPORTER_OTLP_HEADERS": f"x-token={CANARIES['collector']}",
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "LOG_LEVEL": "DEBUG",
        }
        headers = {"Authorization": f"Bearer {signed(claims(sub='alice'))}"}
        others = {name: value for name, value in environ.items() if name != "REDIS_URL"}
        with running_api(folder, redis_url=environ["REDIS_URL"], **others) as api:
            yield Stand(api, sink, environ, folder / "worker.log", headers)
    server.stop()


@pytest.fixture
def worker(stand: Stand) -> Iterator[subprocess.Popen[bytes]]:
    with running_worker(stand.environ, stand.worker_log) as process:
        yield process


ALL = ["POST /rag/jobs", "submit", "process", "extract", "embed", "commit"]


@pytest.mark.usefixtures("worker")
def test_one_trace_from_request_to_commit(stand: Stand) -> None:
    """The trace has the id of X-Trace-ID; each span has its parent, kind and service; the embedding API its own."""
    asked = len(stand.sink.asked)
    job_id, trace_id = stand.submit("one two three", ids={"X-Trace-ID": TRACE})
    assert (trace_id, stand.ended(job_id)) == (TRACE, "done")
    # A request that missed its turn of the rate limit leaves a span of its own before the one that was sent.
    found = {name: spans[-1] for name, spans in stand.spans(TRACE, names=ALL).items()}
    assert {name: (one.service, one.span.kind) for name, one in found.items()} == {
        "POST /rag/jobs": ("ragworker-api", Span.SPAN_KIND_SERVER),
        "submit": ("ragworker-api", Span.SPAN_KIND_PRODUCER),
        "process": ("ragworker-worker", Span.SPAN_KIND_CONSUMER),
        "extract": ("ragworker-worker", Span.SPAN_KIND_INTERNAL),
        "embed": ("ragworker-worker", Span.SPAN_KIND_CLIENT),
        "commit": ("ragworker-worker", Span.SPAN_KIND_INTERNAL),
    }
    names = {one.span.span_id: name for name, one in found.items()}
    assert {name: names.get(one.span.parent_span_id, "") for name, one in found.items()} == {
        "POST /rag/jobs": "",
        "submit": "POST /rag/jobs",
        "process": "submit",
        "extract": "process",
        "embed": "process",
        "commit": "process",
    }
    assert not found["POST /rag/jobs"].span.parent_span_id
    request = found["POST /rag/jobs"].attributes
    assert (request["http.route"], request["http.response.status_code"]) == ("/rag/jobs", 202)
    assert (request["http.request.method"], request["url.path"]) == ("POST", "/rag/jobs")
    delivery = found["process"].attributes
    assert (delivery["messaging.message.id"], delivery["rag.delivery"]) == (job_id, 1)
    assert delivery["rag.outcome"] == "done"
    assert {one.span.status.code for one in found.values()} == {Status.STATUS_CODE_UNSET}
    (headers,) = stand.sink.asked[asked:]
    embed = found["embed"].span.span_id.hex()
    assert headers["traceparent"] == f"00-{TRACE.removeprefix('trace-')}-{embed}-01"
    assert stand.sink.collector_headers[0]["x-token"] == CANARIES["collector"]


@pytest.mark.usefixtures("worker")
def test_retry_is_one_more_delivery_of_the_same_trace(stand: Stand) -> None:
    """A failed attempt is a failed CONSUMER span with its code; the next one stands beside it."""
    stand.sink.failures_left = 1
    job_id, trace_id = stand.submit("a text that is embedded twice")
    assert stand.ended(job_id) == "done"
    found = stand.spans(trace_id, names=["submit", "process", "process", "embed", "embed"])
    first, second = found["process"]
    assert {one.span.parent_span_id for one in (first, second)} == {found["submit"][0].span.span_id}
    assert (first.attributes["rag.attempt"], second.attributes["rag.attempt"]) == (1, 2)
    assert (first.attributes["rag.outcome"], second.attributes["rag.outcome"]) == ("retry", "done")
    (refused,) = [one for one in found["embed"] if one.span.status.code == Status.STATUS_CODE_ERROR]
    for one in (first, refused):
        assert one.span.status.code == Status.STATUS_CODE_ERROR
        assert one.attributes["error.type"] == one.span.status.message == "EMBEDDING_SERVER_ERROR"
    assert second.span.status.code == Status.STATUS_CODE_UNSET


async def claimed_for_a_moment(stand: Stand) -> str:
    """The id of the next job, claimed by a worker that then falls silent."""
    client = connect(stand.environ["REDIS_URL"])
    queue = Queue(client, name=stand.environ["RAG_QUEUE"], settings=QueueSettings(lease_seconds=0.5))
    (job,) = await queue.claim("silent", limit=1)
    await client.aclose()
    return job.job_id


def test_takeover_is_a_delivery_of_the_same_trace(stand: Stand) -> None:
    """A job of a worker that went silent appears as the second delivery, by the one that took it over."""
    job_id, trace_id = stand.submit("a text whose first worker goes silent")
    assert asyncio.run(claimed_for_a_moment(stand)) == job_id
    with running_worker(stand.environ, stand.worker_log):
        assert stand.ended(job_id) == "done"
    found = stand.spans(trace_id, names=["submit", "process", "commit"])
    (delivery,) = found["process"]
    assert delivery.attributes["rag.delivery"] == 2
    assert delivery.span.parent_span_id == found["submit"][0].span.span_id


def test_incoming_traceparent_is_the_parent(stand: Stand) -> None:
    """Without X-Trace-ID the caller's traceparent gives trace and parent; with another X-Trace-ID it gives nothing."""
    theirs, other = "1" * 32, "trace-" + "2" * 32
    parent = f"00-{theirs}-00f067aa0ba902b7-01"
    _, trace_id = stand.submit("a text of a traced caller", ids={"traceparent": parent})
    assert trace_id == f"trace-{theirs}"
    (request,) = stand.spans(trace_id, names=["POST /rag/jobs"])["POST /rag/jobs"]
    assert request.span.parent_span_id.hex() == "00f067aa0ba902b7"
    _, trace_id = stand.submit("a text with two traces", ids={"traceparent": parent, "X-Trace-ID": other})
    assert trace_id == other
    (request,) = stand.spans(other, names=["POST /rag/jobs"])["POST /rag/jobs"]
    assert not request.span.parent_span_id


def test_unsampled_trace_stays_unsampled_in_the_worker(stand: Stand) -> None:
    """A caller who does not record his trace does not get half of it: neither from the API nor from the worker."""
    theirs = "3" * 32
    quiet, trace_id = stand.submit(
        "a text nobody traces", ids={"traceparent": f"00-{theirs}-00f067aa0ba902b7-00"}
    )
    loud, later = stand.submit("a text that is traced")
    with running_worker(stand.environ, stand.worker_log):
        assert (stand.ended(quiet), stand.ended(loud)) == ("done", "done")
        stand.spans(later, names=ALL)
    assert stand.sink.of_trace(trace_id) == []


def test_refusals_are_spans_by_the_conventions(stand: Stand) -> None:
    """A 4xx is no error of the server; an unknown path has no route; probes and scrapes are not traced."""
    answer = stand.api.client.get("/rag/jobs/nowhere", headers=stand.headers)
    (request,) = stand.spans(answer.headers["X-Trace-ID"], names=["GET /rag/jobs/{job_id}"]).popitem()[1]
    assert request.attributes["http.response.status_code"] == 404
    assert request.span.status.code == Status.STATUS_CODE_UNSET
    unmatched = stand.api.client.get("/made-up").headers["X-Trace-ID"]
    quiet = [stand.api.client.get(path).headers["X-Trace-ID"] for path in ("/metrics", "/healthz", "/readyz")]
    (request,) = stand.spans(unmatched, names=["GET unmatched"])["GET unmatched"]
    assert "http.route" not in request.attributes
    assert not any(stand.sink.of_trace(trace_id) for trace_id in quiet)


@pytest.mark.usefixtures("worker")
def test_stages_of_a_job_are_timed(stand: Stand) -> None:
    """One job adds one duration to each stage, and the time that it waited is counted once although it is retried."""
    names = [f'rag_stage_duration_ms_count{{stage="{stage}"}}' for stage in STAGES]

    def moved(before: list[float]) -> list[float]:
        return [stand.api.metric(name) - value for name, value in zip(names, before, strict=True)]

    wait_until(lambda: stand.api.metric("rag_jobs_unfinished") == 0, seconds=20, what="an idle queue")
    before = [stand.api.metric(name) for name in names]
    stand.sink.failures_left = 1
    job_id, _ = stand.submit("a text whose stages are timed")
    assert stand.ended(job_id) == "done"
    wait_until(lambda: moved(before)[-1] > 0, seconds=20, what="the worker's figures in Redis")
    assert moved(before) == [1, 2, 2, 1]


@pytest.mark.usefixtures("worker")
def test_no_log_and_no_span_holds_a_secret_or_the_document(stand: Stand) -> None:
    """After jobs that worked, failed and could not be read, no canary is anywhere, at DEBUG level."""
    for number, failures in enumerate((0, 100)):
        stand.sink.failures_left = failures
        job_id, trace_id = stand.submit(f"{CANARIES['document']} {number}", name=f"{number}.txt")
        assert stand.ended(job_id) == ("done" if failures == 0 else "dead")
        stand.spans(trace_id, names=ALL[:3])
    stand.sink.failures_left = 0
    job_id, _ = stand.submit(f"{CANARIES['document']} broken", media_type="application/pdf")
    assert stand.ended(job_id) == "dead"
    token = stand.headers["Authorization"].removeprefix("Bearer ")
    told = {
        "api log": stand.api.log.read_bytes(),
        "worker log": stand.worker_log.read_bytes(),
        "spans": b"".join(stand.sink.bodies),
    }
    for place, text in told.items():
        assert len(text) > 1_000, place
        for name, canary in {**CANARIES, "token": token}.items():
            assert canary.encode() not in text, (name, place)


def test_unreachable_collector_costs_spans_only(redis_server: RedisServer, tmp_path: Path) -> None:
    """Nothing listens: requests are answered as fast as ever, it is said once, and the end is not held up."""
    settings = {
        "DISTRIBUTED_TRACING_ENABLED": "true",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
        "OTEL_BSP_SCHEDULE_DELAY": "20",
    }
    with running_api(tmp_path, redis_url=redis_server.url, **settings) as api:
        for number in range(50):
            assert api.submit(f"text {number}").status_code == 202
        wait_until(
            lambda: bool(api.lines(message="tracing.collector_lost")),
            seconds=20,
            what="collector_lost in the log",
        )
        for number in range(50):
            assert api.submit(f"more text {number}").status_code == 202
        begun = time.monotonic()
        assert api.stop() == 0
        assert time.monotonic() - begun < 10
        lost = api.lines(message="tracing.collector_lost")
        assert [line["level"] for line in lost] == ["WARNING"]
        assert {line["logger"] for line in api.lines() if "tracing" in line["message"]} == {
            "ragworker.tracing"
        }
        assert not [line for line in api.lines() if line["logger"].startswith("opentelemetry.exporter")]


def test_collector_that_never_answers_holds_nobody_up() -> None:
    """It accepts and stays silent: spans cost no time while work goes on, and the end waits its bound only."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        settings = Settings.load(
            {
                "DISTRIBUTED_TRACING_ENABLED": "true",
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
            }
        )
        slowest = 0.0
        with tracing.exporting(settings, service="s"):
            for number in range(3_000):
                begun = time.monotonic()
                with tracing.span("embed", "client", {"number": number}):
                    pass
                slowest = max(slowest, time.monotonic() - begun)
            begun = time.monotonic()
        assert tracing.CLOSE_SECONDS - 0.5 < time.monotonic() - begun < tracing.CLOSE_SECONDS + 8
        assert slowest < 5


def test_without_tracing_nothing_is_loaded_and_a_span_is_free() -> None:
    """A process with tracing off loads no tracer and no exporter, and all its spans are one object."""
    program = (
        "import sys; from ragworker.settings import Settings; from ragworker import tracing, process; "
        "import ragworker.api.app\n"
        "with tracing.exporting(Settings.load({}), service='s'), tracing.span('a') as span:\n"
        "    assert span is tracing.span('b') and tracing.traceparent() == tracing.parent_id() == ''\n"
        "costly = ('opentelemetry.sdk.trace', 'opentelemetry.exporter', 'requests')\n"
        "print([name for name in sys.modules if name.startswith(costly)])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr

    def one() -> None:
        with tracing.span("embed", "client"):
            pass

    calls = 2_000
    assert min(timeit.repeat(one, number=calls, repeat=20)) / calls < 10e-6


@pytest.mark.parametrize(
    ("header", "valid"),
    [
        (f"00-{'a' * 32}-{'b' * 16}-01", True),
        (f"00-{'a' * 32}-{'b' * 16}-00", True),
        (f"cc-{'a' * 32}-{'b' * 16}-01-what-comes-later", True),
        (f"00-{'a' * 32}-{'b' * 16}-01-more", False),
        (f"ff-{'a' * 32}-{'b' * 16}-01", False),
        (f"00-{'0' * 32}-{'b' * 16}-01", False),
        (f"00-{'a' * 32}-{'0' * 16}-01", False),
        (f"00-{'A' * 32}-{'b' * 16}-01", False),
        (f"00-{'a' * 31}-{'b' * 16}-01", False),
        ("", False),
    ],
)
def test_traceparent_is_read_as_specified(header: str, valid: bool) -> None:
    """https://www.w3.org/TR/trace-context/: lower case, no zero ids, no version ff, more parts only from version 01."""
    expected = (f"trace-{'a' * 32}", f"{'b' * 16}-{header[53:55]}") if valid else ("", "")
    assert tracing.ids_of(header) == expected


def test_trace_id_of_zeros_is_replaced(api: Api) -> None:
    """An all-zero trace id is invalid: another one is made; a traceparent counts also while nobody traces."""
    zeros = api.client.get("/healthz", headers={"X-Trace-ID": f"trace-{'0' * 32}"}).headers["X-Trace-ID"]
    assert zeros.strip("trace-0") != ""
    parent = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "X-Trace-ID": "trace-no"}
    assert api.client.get("/healthz", headers=parent).headers["X-Trace-ID"] == f"trace-{'a' * 32}"
