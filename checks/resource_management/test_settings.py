"""Each of the eleven deployment variables acts as specified: on what the system does, not only on what it says."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from readiness.checking.ends import ends_of, state_of
from readiness.checking.history import attempts_on, batch_sizes, requests_of, window_counts
from readiness.checking.recorder import ClaimEvidence
from readiness.checking.waiting import WaitedTooLong, wait_until
from readiness.documents import Document
from readiness.pytest_plugin import LaneFactory
from readiness.stack.base import StackInfo
from readiness.stack.prometheus import remove_scrape_target
from readiness.targets.base import Lane

# As specified [A1, B1-B3, C2, G5, I1]; what an unset webhook is told as is the system's to choose.
DEFAULTS = {
    "RAG_EMBEDDING_BATCH_SIZE": "32",
    "RAG_EMBEDDING_RATE_LIMIT": "1000",
    "RAG_EMBEDDING_CONCURRENCY": "3",
    "RAG_MAX_RETRIES": "4",
    "LOG_FORMAT": "json",
    "LOG_LEVEL": "INFO",
}
BATCH, RATE, WINDOW_SECONDS, RETRIES = 5, 4, 1.0, 1
CHUNKS = 23  # five requests of 5, 5, 5, 5 and 3
WEBHOOK = "http://127.0.0.1:9/hook-canary-7c1d"
GIVEN = {
    "RAG_EMBEDDING_BATCH_SIZE": str(BATCH),
    "RAG_EMBEDDING_RATE_LIMIT": str(RATE),
    "RAG_EMBEDDING_CONCURRENCY": "1",
    "RAG_MAX_RETRIES": str(RETRIES),
    "PROMETHEUS_ENABLED": "false",
    "GRAFANA_DASHBOARD_ENABLED": "true",
    "DISTRIBUTED_TRACING_ENABLED": "true",
    "LOG_FORMAT": "json",
    "LOG_LEVEL": "DEBUG",
}
FINISH_SECONDS = 25.0
# The lane waits for the JSON line of a worker that is ready; one that logs text never writes it.
SAYS_READY = ("sh", "-c", """echo '{"message": "worker.ready"}'; exec "$0" "$@" """)


@pytest.mark.claim("I1.variables")
def test_each_variable_acts(
    lane: LaneFactory, pressure_lane: Lane, stack: StackInfo, evidence: ClaimEvidence, seed: int
) -> None:
    """Defaults are told; given values change batches, rate, concurrency, retries, metrics, traces and logs."""
    told = pressure_lane.effective_settings
    cases = {f"{name} is {value} by default": told.get(name) == value for name, value in DEFAULTS.items()}
    cases["PROMETHEUS_ENABLED: /metrics answers by default"] = metrics_status(pressure_lane) == httpx.codes.OK
    with collector() as (endpoint, spans):
        given = lane(
            "settings",
            workers=1,
            RAG_RETRY_BASE_SECONDS="0.05",
            RAG_EMBEDDING_RATE_WINDOW_SECONDS=WINDOW_SECONDS,
            OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
            OTEL_BSP_SCHEDULE_DELAY="200",
            ALERTMANAGER_WEBHOOK_URL=WEBHOOK,
            **GIVEN,
        )
        remove_scrape_target(
            stack.run_dir, given.name
        )  # it has no metrics on purpose: nobody is to be alarmed
        cases |= {
            f"{name}={value} is told": given.effective_settings.get(name) == value
            for name, value in GIVEN.items()
        }
        cases |= worked(given, seed)
        cases["PROMETHEUS_ENABLED=false: no /metrics"] = metrics_status(given) == httpx.codes.NOT_FOUND
        cases["DISTRIBUTED_TRACING_ENABLED: spans reach the collector"] = soon(lambda: bool(spans))
        cases |= logged(given)
    wrong = [name for name, holds in cases.items() if not holds]
    evidence.cases(len(cases), len(wrong), wrong, "effects of the deployment variables")
    assert not wrong, f"{len(wrong)} of {len(cases)}: {'; '.join(wrong)}"


def worked(given: Lane, seed: int) -> dict[str, bool]:
    """Submit on both paths, one after the other; what the embedding API saw of it."""
    words = " ".join(f"s{seed}-{number}" for number in range(150 * CHUNKS + 30))
    fails = f"settings fail {seed}"
    given.script_embedding([{"contains": fails, "status": 500}], latency_ms=40)
    given.set_flag("FALSE")
    background = given.enqueue(document("background", f"settings background {seed}"))
    ends = ends_of(given, [background.job_id], seconds=FINISH_SECONDS)
    before = len(given.embedding_log())
    given.set_flag("true")
    large, failing = (
        given.enqueue(document(name, text)) for name, text in (("large", words), ("fails", fails))
    )
    ends = {**ends, **ends_of(given, [large.job_id, failing.job_id], seconds=FINISH_SECONDS)}
    requests = requests_of(given.embedding_log()[before:])
    tries = len(attempts_on(requests, fails))
    sizes = sorted((one.inputs for one in requests if one.inputs > 1), reverse=True)
    most = max(window_counts([one.at for one in requests], seconds=WINDOW_SECONDS), default=0)
    together = max((one.in_flight for one in requests), default=0)
    return {
        "USE_DURABLE_WORKER=true: the durable path": large.mode == "durable",
        "USE_DURABLE_WORKER=FALSE: background tasks": background.mode == "background",
        "what can be done is done on both paths": [state_of(ends[one.job_id]) for one in (large, background)]
        == ["done", "done"],
        f"RAG_EMBEDDING_BATCH_SIZE: batches of {BATCH}, got {sizes}": sizes
        == batch_sizes(CHUNKS, limit=BATCH),
        f"RAG_EMBEDDING_RATE_LIMIT: up to {RATE} in {WINDOW_SECONDS} s, got {most}": 0 < most <= RATE,
        f"RAG_EMBEDDING_CONCURRENCY: 1 in flight, got {together}": together == 1,
        f"RAG_MAX_RETRIES: {RETRIES + 1} attempts, got {tries}": tries == RETRIES + 1,
        "RAG_MAX_RETRIES: then dead": state_of(ends[failing.job_id]) == "dead",
    }


def logged(given: Lane) -> dict[str, bool]:
    """Levels and formats of log lines; the webhook stands in none of them."""
    json_lines = given.log_lines()
    given.start_worker(settings={"LOG_FORMAT": "text", "LOG_LEVEL": "INFO"}, prefix=SAYS_READY)

    def text_lines() -> list[str]:
        return [str(line["_raw"]) for line in given.log_lines() if "_raw" in line]

    spoke = soon(lambda: any("worker.ready" in line for line in text_lines()))
    everything = "\n".join(map(str, given.log_lines()))
    return {
        "LOG_FORMAT=json: every line is JSON": bool(json_lines)
        and not [one for one in json_lines if "_raw" in one],
        "LOG_FORMAT=text: lines of text": spoke,
        "LOG_LEVEL=DEBUG: lines of that level": any(one.get("level") == "DEBUG" for one in json_lines),
        "ALERTMANAGER_WEBHOOK_URL: told as set": given.effective_settings.get("ALERTMANAGER_WEBHOOK_URL")
        not in (None, "", "not set"),
        "ALERTMANAGER_WEBHOOK_URL: in no log": WEBHOOK not in everything,
    }


def document(name: str, text: str) -> Document:
    return Document(name=f"settings-{name}.txt", media_type="text/plain", content=text.encode(), path=None)


def metrics_status(lane: Lane) -> int:
    return httpx.get(f"{lane.api_url}/metrics", timeout=10, trust_env=False).status_code


def soon(holds: object) -> bool:
    """Whether it comes true within the deadline."""
    assert callable(holds)
    try:
        wait_until(holds, seconds=FINISH_SECONDS, what="what a setting asks for")
    except WaitedTooLong:
        return False
    return True


@contextmanager
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """An OTLP/HTTP collector: its address, and the bodies that came."""
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: what came is kept."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", bodies
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)
