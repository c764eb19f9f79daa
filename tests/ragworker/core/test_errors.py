"""Each of the 19 codes, from what really causes it: status lines, sockets, databases, Redis, full disks, dead workers.

A cause is an async function that does what goes wrong. It raises whatever the libraries raise, or returns the code
under which the queue buried the job. The tests of what only PostgreSQL says are in `../store/test_store_errors.py`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from core_parts import EmbeddingServer, RedisServer, new_job, wait_until
from error_causes import (
    answer_is_endless,
    answer_is_no_embedding,
    answer_is_no_json,
    api_is_silent,
    api_moved,
    api_says_400,
    api_says_401,
    api_says_403,
    api_says_408,
    api_says_413,
    api_says_429,
    api_says_500,
    api_says_503,
    api_says_503_and_when,
    broken_pdf,
    document_is_another,
    document_is_gone,
    document_without_a_word,
    gateway_says_502_at_length,
    line_before_our_limit_is_too_long,
    line_breaks_in_the_answer,
    name_is_unknown,
    nobody_foresaw_it,
    nobody_listens,
    pdf_with_a_password,
    picture,
    redis_is_a_replica,
    redis_is_busy,
    redis_is_full,
    redis_is_gone,
    redis_is_loading,
    redis_is_stopped,
    redis_lost_its_master,
    redis_lost_its_replicas,
    redis_wants_a_password,
    word_without_end,
)
from error_place import Place

from ragworker.errors import ErrorCode, JobFailedError, Policy, classify
from ragworker.retry import decide
from ragworker.store import ChunkRow, DocumentRow, Store, VectorRow

pytestmark = pytest.mark.anyio


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
