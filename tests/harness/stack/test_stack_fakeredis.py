"""The simulated Redis carries what a real one carries, whatever the size."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from redis.asyncio import Redis

from readiness.stack.redis import start_redis

SECONDS = 30.0
LARGE = (b"line\r\n\x00 text \n" * 20_000)[:200_000]
SHAPES = {
    "with newlines and NULs": LARGE,
    "of one line": LARGE.replace(b"\r", b"r").replace(b"\n", b"n"),
    "larger than a socket's buffers": LARGE * 40,
    "a status word": b"OK",
    "empty": b"",
}


@pytest.mark.parametrize("payload", SHAPES.values(), ids=SHAPES.keys())
def test_a_payload_comes_back_as_it_went(run_dir: Path, payload: bytes) -> None:
    """A value of any size and of any bytes round-trips through redis.asyncio, from GET and from a script."""

    async def round_trip(url: str) -> list[object]:
        async with asyncio.timeout(SECONDS), Redis.from_url(url) as client:
            assert await client.set("payload", payload) is True
            return [
                await client.get("payload"),
                await client.eval("return redis.call('GET', KEYS[1])", 1, "payload"),
                await client.ping(),
            ]

    server = start_redis(run_dir, "fakeredis")
    try:
        assert asyncio.run(round_trip(server.url)) == [payload, payload, True]
    finally:
        server.terminate()
        server.await_end(0.0)


def test_a_slow_reader_gets_the_whole_answer(run_dir: Path) -> None:
    """A client that asks for more than the buffers hold, and reads late, gets every byte of every answer."""

    async def ask_late(url: str) -> list[int]:
        host, port = url.removeprefix("redis://").split("/")[0].split(":")
        async with asyncio.timeout(SECONDS), Redis.from_url(url) as client:
            await client.set("payload", LARGE)
            reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
            writer.write(b"*2\r\n$3\r\nGET\r\n$7\r\npayload\r\n" * 100)
            await writer.drain()
            await asyncio.wait_for(client.ping(), SECONDS)
            sizes = []
            for _ in range(100):
                size = int((await reader.readline()).removeprefix(b"$"))
                sizes.append(size)
                assert await reader.readexactly(size + 2) == LARGE + b"\r\n"
            writer.close()
            return sizes

    server = start_redis(run_dir, "fakeredis")
    try:
        assert asyncio.run(ask_late(server.url)) == [len(LARGE)] * 100
    finally:
        server.terminate()
        server.await_end(0.0)
