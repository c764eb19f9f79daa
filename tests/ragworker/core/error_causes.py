"""What goes wrong with documents, the embedding API and Redis, for `test_errors.py`: it raises what libraries raise."""

from __future__ import annotations

import asyncio
import io
import secrets
import signal
import socket
import threading
import time
from email.utils import formatdate

import pytest
import redis
import redis.asyncio
from core_parts import new_job, wait_until
from error_place import DOCUMENT, Place
from pypdf import PdfWriter
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from ragworker.limits import RedisLimiter
from ragworker.settings import EmbeddingSettings


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
