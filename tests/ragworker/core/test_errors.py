"""Each of the 19 codes, from what really causes it: status lines, sockets, databases, Redis, full disks, dead workers.

A cause is an async function that does what goes wrong. It raises whatever the libraries raise, or returns the code
under which the queue buried the job. The tests of what only PostgreSQL says are in `../store/test_store_errors.py`.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path

import pytest
import redis
import redis.asyncio
from core_parts import EmbeddingServer, RedisServer, new_job, wait_until
from pypdf import PdfWriter
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from ragworker.cancellation import Cancellation
from ragworker.connection import connect
from ragworker.embedding import EmbeddingClient
from ragworker.errors import ErrorCode, JobFailedError, Policy, classify
from ragworker.ingest import Ingestor
from ragworker.job import ClaimedJob
from ragworker.limits import BatchGate, RedisLimiter
from ragworker.queue import Queue
from ragworker.retry import decide
from ragworker.settings import EmbeddingSettings, QueueSettings, Settings
from ragworker.stats import Stats
from ragworker.store import ChunkRow, DocumentRow, Store, VectorRow
from ragworker.tempfiles import PrivateFiles

pytestmark = pytest.mark.anyio

#: No message may quote it.
DOCUMENT = b"zebra two three"


@dataclass
class Place:
    """Where things go wrong: a folder, an embedding API, and a Redis that the cause may spoil."""

    folder: Path
    api: EmbeddingServer
    redis_server: RedisServer

    @property
    def redis(self) -> redis.asyncio.Redis:
        return connect(self.redis_server.url)

    @contextmanager
    def redis_cli(self) -> Iterator[redis.Redis]:
        with closing(redis.Redis(port=self.redis_server.port)) as client:
            yield client

    def queue(self, *, max_deliveries: int = 20) -> Queue:
        settings = QueueSettings(lease_seconds=0.3, max_deliveries=max_deliveries)
        return Queue(self.redis, name="errors", settings=settings)

    async def ingest(
        self,
        document: bytes,
        *,
        media_type: str = "text/plain",
        arrives: bytes | None = None,
        folder: Path | None = None,
        database: str = "",
    ) -> None:
        """The real pipeline on one document, of which `arrives` is what comes out of the queue."""
        settings = Settings(embedding=EmbeddingSettings(url=self.api.url, timeout_seconds=0.5))
        store = Store(database or f"sqlite:///{self.folder / 'rag.db'}")
        store.create_schema()
        threads, stats = ThreadPoolExecutor(4), Stats()
        limiter = RedisLimiter(self.redis, queue="errors", settings=settings.embedding)
        embedder = EmbeddingClient(settings.embedding, stats=stats, threads=threads, limiter=limiter)
        ingestor = Ingestor(
            settings,
            store=store,
            embedder=embedder,
            gate=BatchGate(concurrency=3, token_budget=100_000),
            files=PrivateFiles(folder or self.folder / "tmp", owner="w1"),
            threads=threads,
            stats=stats,
            worker="w1",
        )
        try:
            await ingestor.run(Delivered(document, media_type, document if arrives is None else arrives))
        finally:
            await embedder.close()
            threads.shutdown()
            store.close()

    async def answered(self, status: int, *, body: object = None, **headers: str) -> None:
        """A document whose embedding request is answered by this."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.api.answer = lambda _: (status, named, {} if body is None else body)
        await self.ingest(DOCUMENT)


class Delivered:
    """A delivery that nobody cancels and nobody takes over."""

    def __init__(self, document: bytes, media_type: str, arrives: bytes) -> None:
        digest = hashlib.sha256(document).hexdigest()
        self.job = ClaimedJob("job-1", 1, 1, 1, "n", media_type, len(document), digest)
        self.cancellation = Cancellation()
        self._arrives = arrives

    async def progressed(self, stage: str, done: int, total: int) -> None:
        pass

    async def confirm(self) -> None:
        pass

    async def document(self) -> AsyncIterator[bytes]:
        if self._arrives:
            yield self._arrives


async def nobody_foresaw_it(_place: Place) -> None:
    {}["a mistake of ours"]


async def api_says_429(place: Place) -> None:
    await place.answered(429, retry_after="7")


async def line_before_our_limit_is_too_long(place: Place) -> None:
    settings = EmbeddingSettings(rate_limit=1, rate_window_seconds=3600)
    limiter = RedisLimiter(place.redis, queue=secrets.token_hex(4), settings=settings)
    await limiter.acquire(1)
    await limiter.acquire(1)


async def document_without_a_word(place: Place) -> None:
    await place.ingest(b" \n\t ")


async def picture(place: Place) -> None:
    await place.ingest(b"\x89PNG", media_type="image/png")


async def broken_pdf(place: Place) -> None:
    await place.ingest(b"%PDF-1.7 this is no document", media_type="application/pdf")


async def pdf_with_a_password(place: Place) -> None:
    writer, file = PdfWriter(), io.BytesIO()
    writer.add_blank_page(72, 72)
    writer.encrypt("secret")
    writer.write(file)
    await place.ingest(file.getvalue(), media_type="application/pdf")


async def word_without_end(place: Place) -> None:
    await place.ingest(b"zebra" * 600_000)


async def document_is_gone(place: Place) -> None:
    await place.ingest(DOCUMENT, arrives=b"")


async def document_is_another(place: Place) -> None:
    await place.ingest(DOCUMENT, arrives=DOCUMENT[::-1])


async def api_is_silent(place: Place) -> None:
    place.api.delay_seconds = 1.5
    await place.ingest(DOCUMENT)


async def nobody_listens(place: Place) -> None:
    place.api.url = "http://127.0.0.1:1/v1"
    await place.ingest(DOCUMENT)


async def name_is_unknown(place: Place) -> None:
    place.api.url = "http://nowhere.invalid/v1"
    await place.ingest(DOCUMENT)


async def line_breaks_in_the_answer(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def cut() -> None:
            line, _ = server.accept()
            line.recv(65536)
            line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
            line.close()

        threading.Thread(target=cut, daemon=True).start()
        place.api.url = f"http://127.0.0.1:{port}/v1"
        await place.ingest(DOCUMENT)


async def api_says_500(place: Place) -> None:
    await place.answered(500)


async def gateway_says_502_at_length(place: Place) -> None:
    await place.answered(502, body="x" * 1_000_000)


async def api_says_503(place: Place) -> None:
    await place.answered(503)


async def api_says_408(place: Place) -> None:
    await place.answered(408)


async def api_says_503_and_when(place: Place) -> None:
    await place.answered(503, retry_after=formatdate(time.time() + 30, usegmt=True))


async def answer_is_no_embedding(place: Place) -> None:
    await place.answered(200, body={"data": []})


async def answer_is_no_json(place: Place) -> None:
    await place.answered(200, body=b"<html>")


async def answer_is_endless(place: Place) -> None:
    await place.answered(200, body=b" " * 1_000_000)


async def api_says_401(place: Place) -> None:
    await place.answered(401)


async def api_says_403(place: Place) -> None:
    await place.answered(403)


async def api_says_400(place: Place) -> None:
    await place.answered(400)


async def api_says_413(place: Place) -> None:
    await place.answered(413)


async def api_moved(place: Place) -> None:
    await place.answered(302, location="http://127.0.0.1:1/")


async def redis_is_gone(place: Place) -> None:
    place.redis_server.kill()
    await place.queue().submit(new_job())


async def redis_is_stopped(place: Place) -> None:
    assert place.redis_server.process is not None
    client = redis.asyncio.Redis(
        port=place.redis_server.port, socket_timeout=0.3, retry=Retry(NoBackoff(), 0)
    )
    await client.ping()
    place.redis_server.process.send_signal(signal.SIGSTOP)
    try:
        await client.ping()
    finally:
        place.redis_server.process.send_signal(signal.SIGCONT)


async def redis_is_a_replica(place: Place) -> None:
    with place.redis_cli() as cli:
        cli.execute_command("REPLICAOF", "127.0.0.1", "1")
    await place.queue().submit(new_job())


async def redis_lost_its_master(place: Place) -> None:
    with place.redis_cli() as cli:
        cli.config_set("replica-serve-stale-data", "no")
        cli.execute_command("REPLICAOF", "127.0.0.1", "1")
    await place.queue().get("j")


async def redis_lost_its_replicas(place: Place) -> None:
    with place.redis_cli() as cli:
        cli.config_set("min-replicas-to-write", 1)
    await place.queue().submit(new_job())


async def redis_is_full(place: Place) -> None:
    with place.redis_cli() as cli:
        cli.config_set("maxmemory", 1)
    await place.queue().submit(new_job())


async def redis_is_busy(place: Place) -> None:
    with place.redis_cli() as cli:
        cli.config_set("lua-time-limit", 1)
    endless = threading.Thread(target=_run_endless_script, args=(place,), daemon=True)
    endless.start()
    try:
        while True:
            await place.queue().get("j")
            await asyncio.sleep(0.01)
    finally:
        with place.redis_cli() as cli:
            cli.script_kill()
        endless.join(10)


def _run_endless_script(place: Place) -> None:
    with place.redis_cli() as cli, pytest.raises(redis.ResponseError):
        cli.eval("while true do end", 0)


async def redis_is_loading(place: Place) -> None:
    with place.redis_cli() as cli:
        for number in range(800):
            cli.set(f"key:{number}", secrets.token_bytes(20_000))
        cli.bgrewriteaof()

    async def rewritten() -> bool:
        with place.redis_cli() as cli:
            return not cli.info("persistence")["aof_rewrite_in_progress"]

    await wait_until(rewritten, seconds=15, what="the append-only file to be rewritten")
    place.redis_server.kill()
    # Microseconds a key; the server answers while it loads, every two megabytes.
    place.redis_server.launch("--key-load-delay", "5000")
    for _ in range(1000):
        try:
            await place.queue().get("j")
        except redis.BusyLoadingError:
            raise
        except redis.ConnectionError:
            await asyncio.sleep(0.01)
    pytest.fail("Redis loaded too fast")


async def redis_wants_a_password(place: Place) -> None:
    with place.redis_cli() as cli:
        cli.config_set("requirepass", "x")
    await place.queue().get("j")


async def database_is_locked(place: Place) -> None:
    with _sqlite(place) as connection:
        connection.execute("CREATE TABLE t (a)")
        connection.execute("BEGIN IMMEDIATE")
        await _in_database(place, "INSERT INTO t VALUES (1)", "?timeout=0.05")


async def database_has_no_tables(place: Place) -> None:
    await _in_database(place, "INSERT INTO documents (job_id) VALUES ('a')")


async def database_is_garbage(place: Place) -> None:
    (place.folder / "rag.db").write_bytes(b"this is no database" * 1000)
    Store(f"sqlite:///{place.folder / 'rag.db'}").create_schema()


async def database_has_no_folder(place: Place) -> None:
    store = Store(f"sqlite:///{place.folder / 'sub' / 'rag.db'}")
    (place.folder / "sub").rmdir()
    store.create_schema()


async def row_is_there_already(place: Place) -> None:
    store = Store(f"sqlite:///{place.folder / 'rag.db'}")
    store.create_schema()
    twice = [ChunkRow(0, 1, "a"), ChunkRow(0, 1, "a")]
    document = DocumentRow("j", "n", "text/plain", "0" * 64, 1, 1, 2, 1, "u", 1, "w")
    store.commit(document, twice, [VectorRow(n, 1, b"\0\0\0\0") for n in range(2)])


async def row_has_no_value(place: Place) -> None:
    store = Store(f"sqlite:///{place.folder / 'rag.db'}")
    store.create_schema()
    await _in_database(place, "INSERT INTO documents (job_id) VALUES ('a')")


async def disk_is_full(place: Place) -> None:
    with _small_disk(place.folder / "full") as folder:
        await place.ingest(b"zebra " * 100_000, folder=folder)


async def disk_of_the_database_is_full(place: Place) -> None:
    with _small_disk(place.folder / "full") as folder:
        await place.ingest(b"zebra " * 100_000, database=f"sqlite:///{folder / 'rag.db'}")


async def database_may_not_grow(place: Place) -> None:
    with _sqlite(place) as connection:
        connection.execute("CREATE TABLE t (a)")
    await _in_database(place, "INSERT INTO t VALUES (zeroblob(1000000))", before="PRAGMA max_page_count=3")


async def file_may_not_grow(place: Place) -> str:
    return _in_process(
        "RLIMIT_FSIZE, 1000", f"open({str(place.folder / 'big')!r}, 'wb').write(b'x' * 100_000)"
    )


async def memory_is_used_up(_place: Place) -> str:
    return _in_process("RLIMIT_AS, 1 << 30", "bytearray(1 << 33)")


async def files_are_used_up(_place: Place) -> str:
    return _in_process("RLIMIT_NOFILE, 20", "keep = [open('/dev/null') for _ in range(30)]")


async def files_are_used_up_when_a_pdf_comes(place: Place) -> str:
    path = place.folder / "a.pdf"
    path.write_bytes(b"%PDF-1.7")
    do = f"""
from ragworker.extract import read_words
import pypdf
keep = []
try:
    while True: keep.append(open('/dev/null'))
except OSError: pass
from pathlib import Path
list(read_words(Path({str(path)!r}), 'application/pdf', stopped=lambda: False))"""
    return _in_process("RLIMIT_NOFILE, 60", do)


async def threads_are_used_up(_place: Place) -> str:
    do = "import threading; threading.stack_size(1 << 30); threading.Thread(target=print).start()"
    return _in_process("RLIMIT_AS, 1 << 30", do)


async def worker_dies_of_the_job(place: Place) -> str:
    queue = place.queue(max_deliveries=1)
    job_id = (await queue.submit(new_job())).job_id
    program = """
import asyncio, os, signal, sys
from ragworker.connection import connect
from ragworker.queue import Queue
from ragworker.settings import QueueSettings
queue = Queue(connect(sys.argv[1]), name="errors", settings=QueueSettings(lease_seconds=0.3))
assert asyncio.run(queue.claim("victim", limit=1))
os.kill(os.getpid(), signal.SIGKILL)
"""
    worker = await asyncio.create_subprocess_exec(sys.executable, "-c", program, place.redis_server.url)
    assert await worker.wait() == -signal.SIGKILL

    async def taken_over() -> bool:
        return any(one.dead for one in await queue.take_over(limit=10))

    await wait_until(taken_over, what="the dead worker's job to be buried")
    view = await queue.get(job_id)
    assert view is not None
    assert view.error is not None
    return view.error.code


#: Every code with what causes it.
CAUSES: dict[ErrorCode, tuple[Callable[[Place], Awaitable[str | None]], ...]] = {
    ErrorCode.TEMPORARY_FAILURE: (nobody_foresaw_it,),
    ErrorCode.RATE_LIMITED: (api_says_429, line_before_our_limit_is_too_long),
    ErrorCode.VALIDATION_ERROR: (document_without_a_word,),
    ErrorCode.UNSUPPORTED_MEDIA_TYPE: (picture,),
    ErrorCode.DOCUMENT_UNREADABLE: (broken_pdf, pdf_with_a_password),
    ErrorCode.DOCUMENT_TOO_LARGE: (word_without_end,),
    ErrorCode.PAYLOAD_MISSING: (document_is_gone, document_is_another),
    ErrorCode.EMBEDDING_TIMEOUT: (api_is_silent,),
    ErrorCode.EMBEDDING_UNREACHABLE: (nobody_listens, name_is_unknown, line_breaks_in_the_answer),
    ErrorCode.EMBEDDING_SERVER_ERROR: (api_says_500, gateway_says_502_at_length, api_says_503, api_says_408),
    ErrorCode.EMBEDDING_OVERLOADED: (api_says_503_and_when,),
    ErrorCode.EMBEDDING_BAD_RESPONSE: (answer_is_no_embedding, answer_is_no_json, answer_is_endless),
    ErrorCode.EMBEDDING_AUTH_FAILED: (api_says_401, api_says_403),
    ErrorCode.EMBEDDING_REJECTED: (api_says_400, api_says_413, api_moved),
    ErrorCode.QUEUE_UNAVAILABLE: (
        redis_is_gone,
        redis_is_stopped,
        redis_is_a_replica,
        redis_lost_its_master,
        redis_lost_its_replicas,
        redis_is_full,
        redis_is_busy,
        redis_is_loading,
        redis_wants_a_password,
    ),
    ErrorCode.STORE_UNAVAILABLE: (
        database_is_locked,
        database_has_no_tables,
        database_is_garbage,
        database_has_no_folder,
    ),
    ErrorCode.STORE_REJECTED: (row_is_there_already, row_has_no_value),
    ErrorCode.RESOURCE_EXHAUSTED: (
        disk_is_full,
        disk_of_the_database_is_full,
        database_may_not_grow,
        file_may_not_grow,
        memory_is_used_up,
        files_are_used_up,
        files_are_used_up_when_a_pdf_comes,
        threads_are_used_up,
    ),
    ErrorCode.WORKER_CRASHED: (worker_dies_of_the_job,),
}

#: What the other side asked for, in seconds.
WISHES = {api_says_429: 7.0, api_says_503_and_when: 30.0}

NEVER = {
    ErrorCode.VALIDATION_ERROR,
    ErrorCode.UNSUPPORTED_MEDIA_TYPE,
    ErrorCode.DOCUMENT_UNREADABLE,
    ErrorCode.DOCUMENT_TOO_LARGE,
    ErrorCode.PAYLOAD_MISSING,
    ErrorCode.EMBEDDING_AUTH_FAILED,
    ErrorCode.EMBEDDING_REJECTED,
    ErrorCode.STORE_REJECTED,
    ErrorCode.WORKER_CRASHED,
}


@pytest.fixture
def place(tmp_path: Path, own_redis_server: RedisServer) -> Iterator[Place]:
    """A place of its own."""
    api = EmbeddingServer()
    yield Place(tmp_path, api, own_redis_server)
    api.close()


def test_every_code_has_a_cause() -> None:
    """No code without something real that leads to it."""
    assert set(CAUSES) == set(ErrorCode)
    assert all(CAUSES.values())


@pytest.mark.parametrize(
    ("code", "cause"),
    [pytest.param(code, cause, id=cause.__name__) for code, causes in CAUSES.items() for cause in causes],
)
async def test_cause_has_its_code_and_policy(
    place: Place, code: ErrorCode, cause: Callable[[Place], Awaitable[str | None]]
) -> None:
    """What goes wrong ends under its code, is retried as the policy says, and the message gives nothing away."""
    wish = None
    try:
        found = await asyncio.wait_for(cause(place), 60)
    except Exception as error:
        failure = classify(error)
        found, wish = failure.code, failure.retry_after_seconds
        assert "zebra" not in failure.message
        assert str(place.folder) not in failure.message
    assert found == code
    decision = decide(code, attempt=1, max_retries=4, retry_after_seconds=wish)
    assert decision.retry is (code not in NEVER)
    if code.policy is Policy.EXPONENTIAL_BACKOFF:
        assert decision.delay_seconds == 1.0
    if cause in WISHES:
        assert code.policy is Policy.DELAYED_RETRY
        assert decision.delay_seconds == pytest.approx(WISHES[cause], abs=5)


def test_failure_with_a_code_stays_itself() -> None:
    """It is not classified again; of a group the first counts; a long message is cut."""
    failure = JobFailedError(ErrorCode.EMBEDDING_AUTH_FAILED, "m" * 1000)
    assert classify(failure) is failure
    assert classify(ExceptionGroup("x", [failure, KeyError()])) is failure
    assert len(failure.message) == 300


@contextmanager
def _sqlite(place: Place) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(place.folder / "rag.db", isolation_level=None)) as connection:
        yield connection


async def _in_database(place: Place, statement: str, query: str = "", *, before: str = "SELECT 1") -> None:
    """What SQLAlchemy makes of a statement that fails."""
    import sqlalchemy as sql  # noqa: PLC0415  most causes need none

    engine = sql.create_engine(f"sqlite:///{place.folder / 'rag.db'}{query}", hide_parameters=True)
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql(before)
            connection.exec_driver_sql(statement)
    finally:
        engine.dispose()


@contextmanager
def _small_disk(folder: Path) -> Iterator[Path]:
    """A file system of 200 kB."""
    folder.mkdir()
    mounted = os.geteuid() == 0 and not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k,mode=0700", "tmpfs", str(folder)], capture_output=True, check=False
    ).returncode  # fmt: skip
    if not mounted:
        pytest.skip("only root may mount a small file system; `file_may_not_grow` shows the same code")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _in_process(limit: str, do: str) -> str:
    """The code of what a process raises that may use no more than `limit`."""
    program = f"""
import resource, sys
from ragworker.errors import classify
from ragworker import extract
resource.setrlimit(resource.{limit.partition(",")[0]}, ({limit.partition(",")[2]},) * 2)
try:
    exec({do!r})
except BaseException as error:
    code = classify(error).code
else:
    code = "nothing was raised"
sys.stdout.write(code)
"""
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    ).stdout
