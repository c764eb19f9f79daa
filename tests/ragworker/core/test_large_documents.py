"""Large documents pass through a worker in pieces: its memory follows the batch, not the document (spec B5)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import redis.asyncio
from core_parts import EmbeddingServer, Lane, RedisServer, ended, make_lane, new_job, wait_until

from ragworker.chunking import ChunkPlan
from ragworker.connection import connect
from ragworker.delivery import Delivery
from ragworker.job import JobState
from ragworker.queue import Queue

pytestmark = pytest.mark.anyio

#: `RAG_TEST_DOCUMENT_MB=200 pytest tests/ragworker/core/test_large_documents.py -s` measures the promise itself.
MEGABYTES = int(os.environ.get("RAG_TEST_DOCUMENT_MB", "40"))

#: What a worker may grow by: less than a document of the default size.
GROWTH_MB = 32.0

#: What it may have at most, whatever the document.
PEAK_MB = 150.0

#: A worker that has nothing to do, on SQLite and without traces.
IDLE_MB = 60.0


def memory_mb(pid: int, name: str) -> float:
    """A line of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def command_line_worker(lane: Lane, log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ragworker", "worker"]
    with log.open("wb") as stderr:
        return subprocess.Popen(command, env={**os.environ, **lane.environ}, stderr=stderr)


def english(size: int) -> bytes:
    line = b"a worker reads one document after the other and keeps none of them in memory while it does so\n"
    return line * (size // len(line))


def one_line(size: int) -> bytes:
    return english(size).replace(b"\n", b" ")


def letters(size: int) -> bytes:
    return b"a " * (size // 8)  # an eighth of the size: as many words as all of an ordinary text has


def korean(size: int) -> bytes:
    return "한국어 문서를 읽는 작업자는 ".encode() * (size // 40)


def markup(size: int) -> bytes:
    line = b"<p>a worker <b>reads</b> one document<script>var no = 'no';</script> after the <i>other</i></p> "
    return b"<script>" + b"x" * 5_000_000 + b"</script>" + line * (size // 2 // len(line))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize(
    ("make", "media_type"),
    [
        (english, "text/plain"),
        (one_line, "text/plain"),
        (letters, "text/plain"),
        (korean, "text/plain"),
        (markup, "text/html"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_memory_does_not_follow_the_document(
    tmp_path: Path,
    redis_server: RedisServer,
    embedding: EmbeddingServer,
    make: Callable[[int], bytes],
    media_type: str,
) -> None:
    """The worker's peak stays below what the document alone would take, and everything is committed."""
    limits = {"RAG_EMBEDDING_RATE_LIMIT": "1000000", "RAG_LEASE_SECONDS": "3"}
    lane = make_lane(tmp_path, redis_server.url, embedding, **limits)

    def forgetful(inputs: list[str]) -> tuple[int, dict[str, str], object]:
        embedding.requests.clear()
        return embedding.vectors(inputs)

    embedding.answer = forgetful
    client = connect(redis_server.url)
    queue = Queue(client, name=lane.settings.queue_name, settings=lane.settings.queue)
    worker = lane.start_worker()

    async def ready() -> bool:
        return any(line["message"] == "worker.ready" for line in lane.log_lines())

    await wait_until(ready, seconds=20, what="the worker to be ready")
    idle_mb = memory_mb(worker.pid, "VmRSS")
    payload = make(MEGABYTES << 20)
    words = sum(map(len, (line.split() for line in payload.splitlines()))) if make is not markup else 0
    job_id = (
        await queue.submit(replace(new_job("large", payload=payload), media_type=media_type, name=""))
    ).job_id
    size = len(payload)
    del payload
    view = (await ended(queue, [job_id], seconds=60 + 3 * MEGABYTES))[job_id]
    peak_mb = memory_mb(worker.pid, "VmHWM")
    lane.stop()
    await client.aclose()
    figures = f"{size / 1e6:.0f} MB, {view.figures.words} words, idle {idle_mb:.1f} MB, peak {peak_mb:.1f} MB"
    print(f"\n{make.__name__}: {figures}")
    assert view.state is JobState.DONE, view.error
    assert words in (0, view.figures.words)
    chunks = ChunkPlan().count(view.figures.words)
    assert lane.rows("select (select count(*) from chunks), (select count(*) from vectors)") == [
        (chunks, chunks)
    ]
    assert peak_mb < min(PEAK_MB, idle_mb + GROWTH_MB)


async def test_word_without_end_is_refused(
    tmp_path: Path, redis_server: RedisServer, embedding: EmbeddingServer
) -> None:
    """A document that is one word is a dead letter that says so, and does not take the worker's memory either."""
    lane = make_lane(tmp_path, redis_server.url, embedding)
    client = connect(redis_server.url)
    queue = Queue(client, name=lane.settings.queue_name, settings=lane.settings.queue)
    worker = lane.start_worker()
    job_id = (await queue.submit(new_job("large", payload=b"x" * (MEGABYTES << 20)))).job_id
    view = (await ended(queue, [job_id], seconds=60 + MEGABYTES))[job_id]
    peak_mb = memory_mb(worker.pid, "VmHWM")
    lane.stop()
    await client.aclose()
    assert view.state is JobState.DEAD
    assert view.error is not None
    assert (view.error.code, view.attempt) == ("DOCUMENT_TOO_LARGE", 1)
    assert peak_mb < PEAK_MB
    assert embedding.requests == []


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
async def test_idle_worker_is_small(
    tmp_path: Path, redis_server: RedisServer, embedding: EmbeddingServer
) -> None:
    """`ragworker worker` with nothing to do takes less than 60 MB, libraries that it does not need left out."""
    lane = make_lane(tmp_path, redis_server.url, embedding)
    lane.processes.append(command_line_worker(lane, tmp_path / "worker-cli.log"))

    async def ready() -> bool:
        return any(line["message"] == "worker.ready" for line in lane.log_lines())

    await wait_until(ready, seconds=20, what="the worker to be ready")
    idle_mb = memory_mb(lane.processes[0].pid, "VmRSS")
    lane.stop()
    assert idle_mb < IDLE_MB


async def test_redis_that_blinks_costs_no_document(
    client: redis.asyncio.Redis, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection lost between two pieces is waited out: the next piece follows, and none is missing."""
    payload = english(3 << 20)
    await queue.submit(new_job("large", payload=payload))
    job = (await queue.claim("w1", limit=1))[0]
    real, calls = client.getrange, []

    async def getrange(*args: object) -> object:
        calls.append(args)
        if len(calls) == 2:
            raise redis.ConnectionError("the server is gone for a moment")
        return await real(*args)

    monkeypatch.setattr(client, "getrange", getrange)
    assert b"".join([piece async for piece in Delivery(job, queue, "w1").document()]) == payload
    assert len(calls) == 4
