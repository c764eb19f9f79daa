"""A TCP proxy in user space that makes a good network bad: for machines whose kernel has no netem, and without root.

One proxy stands before one server on the loopback. Each direction has its own `Conditions`, which may be changed while
connections are open: latency, jitter, bandwidth, slicing, silence, a reset after so many bytes. Order and content of
the bytes never change, as TCP promises: silence holds bytes back (a real network would send them again) and loses none.
What it cannot show: loss below TCP, or a connection that is not even accepted (see namespaces.py).

The vocabulary follows Toxiproxy (https://github.com/Shopify/toxiproxy#toxics). Knows nothing of what passes through.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from readiness.errors import HarnessFailure

LOOPBACK = "127.0.0.1"
T = TypeVar("T")

READ_BYTES = 65_536
HELD_CHUNKS = 256
"""Chunks on the way in one direction of one connection; a sender that is faster is held by TCP itself."""

START_SECONDS = 5.0
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER of no time: close() sends RST


@dataclass(frozen=True, slots=True)
class Conditions:
    """How one direction is: all zero and False is a good network.

    `latency_ms` is added to every chunk, give or take up to `jitter_ms` (uniform, never out of order).
    `bytes_per_second` bounds what passes; `slice_bytes` cuts what passes into pieces of at most so many bytes,
    `slice_delay_ms` apart. `silent` holds everything back and keeps the connection open. `reset_after_bytes` ends
    both sides with RST after exactly so many more bytes of each connection in this direction.
    """

    latency_ms: float = 0.0
    jitter_ms: float = 0.0
    bytes_per_second: float = 0.0
    slice_bytes: int = 0
    slice_delay_ms: float = 0.0
    silent: bool = False
    reset_after_bytes: int | None = None


GOOD = Conditions()


@dataclass(frozen=True, slots=True)
class Counts:
    """What passed and what was done, since the start. `up` is from the client to the server."""

    connections: int = 0
    open: int = 0
    refused: int = 0
    resets: int = 0
    half_open: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    delayed: int = 0
    slices: int = 0
    held: int = 0


class FaultProxy:
    """A running proxy. Its methods may be called from any thread; they return when the change is in force."""

    def __init__(self, upstream: tuple[str, int], *, seed: int) -> None:
        self._upstream = upstream
        self._rng = random.Random(seed)  # noqa: S311 - jitter of the scenario's seed, nothing secret
        self._conditions = {"up": GOOD, "down": GOOD}
        self._heard = {"up": asyncio.Event(), "down": asyncio.Event()}
        self._refusing = False
        self._half_open = False
        self._counts = Counts()
        self._links: set[_Link] = set()
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._thread.start()
        self.port: int = self._ask(self._listen())

    # What a fault does with it

    def set(self, *, up: Conditions | None = None, down: Conditions | None = None) -> None:
        """Change one or both directions, for open connections too; what is not given stays as it is."""
        self._ask(self._set(up, down))

    def calm(self) -> None:
        """A good network again. What was held arrives; connections that were left half-open end."""
        self._ask(self._calm())

    def refuse(self, *, yes: bool = True) -> None:
        """Answer every new connection with a reset; open ones stay."""
        self._refusing = yes

    def half_open(self, *, yes: bool = True) -> None:
        """From now on neither side hears that the other one ended: its socket stays open and silent."""
        self._half_open = yes

    def reset_all(self) -> int:
        """End every open connection with RST on both sides; how many there were."""
        return self._ask(self._reset_all())

    def counts(self) -> Counts:
        """The figures so far."""
        return replace(self._counts, open=len(self._links))

    def close(self) -> None:
        """End the listener and every connection. Doing it twice is harmless."""
        if self._loop.is_closed():
            return
        with contextlib.suppress(TimeoutError):
            self._ask(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=START_SECONDS)
        if not self._thread.is_alive():
            self._loop.close()

    # Inside the loop

    def _ask(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=START_SECONDS)

    async def _listen(self) -> int:
        try:
            self._server = await asyncio.start_server(self._accept, LOOPBACK, 0)
        except OSError as error:
            raise HarnessFailure(
                f"fault proxy: expected a free port on {LOOPBACK}, got: {error.strerror or error}"
            ) from error
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def _set(self, up: Conditions | None, down: Conditions | None) -> None:
        for name, given in (("up", up), ("down", down)):
            if given is not None:
                self._conditions[name] = given
                (self._heard[name].clear if given.silent else self._heard[name].set)()
                for link in self._links:
                    link.passed[name] = 0  # bytes are counted from the change on

    async def _calm(self) -> None:
        self._refusing = self._half_open = False
        await self._set(GOOD, GOOD)
        for link in [link for link in self._links if link.ended]:
            link.reset()

    async def _reset_all(self) -> int:
        links = list(self._links)
        for link in links:
            link.reset()
        self._counts = replace(self._counts, resets=self._counts.resets + len(links))
        return len(links)

    async def _end(self) -> None:
        if self._server is not None:
            self._server.close()
        for link in list(self._links):
            link.reset()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._counts = replace(self._counts, connections=self._counts.connections + 1)
        if self._refusing:
            self._counts = replace(self._counts, refused=self._counts.refused + 1)
            _reset(writer)
            return
        try:
            there, back = await asyncio.open_connection(*self._upstream)
        except OSError:
            self._counts = replace(self._counts, refused=self._counts.refused + 1)
            _reset(writer)
            return
        link = _Link(writer, back)
        self._links.add(link)
        pumps = (self._pump(link, "up", reader, back), self._pump(link, "down", there, writer))
        try:
            await asyncio.gather(*pumps)
        finally:
            link.reset()
            self._links.discard(link)

    async def _pump(
        self, link: _Link, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Carry one direction: what is read waits in order for its moment and is then written."""
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(HELD_CHUNKS)
        carrier = asyncio.create_task(self._carry(link, name, waiting, writer))
        last = 0.0
        try:
            with contextlib.suppress(ConnectionError):
                while data := await reader.read(READ_BYTES):
                    last = max(last, self._loop.time() + self._latency(self._conditions[name]))
                    await waiting.put((last, data))
            link.ended = True
            if self._half_open and not link.is_reset:
                self._counts = replace(self._counts, half_open=self._counts.half_open + 1)
                return
            await waiting.put((last, b""))
            await carrier
        finally:
            if not self._half_open:
                carrier.cancel()

    async def _carry(
        self,
        link: _Link,
        name: str,
        waiting: asyncio.Queue[tuple[float, bytes]],
        writer: asyncio.StreamWriter,
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                due, data = await waiting.get()
                await asyncio.sleep(max(0.0, due - self._loop.time()))
                await self._until_heard(name)
                if not data:
                    writer.write_eof()
                    return
                await self._write(link, name, writer, data)

    async def _until_heard(self, name: str) -> None:
        if self._conditions[name].silent:
            self._counts = replace(self._counts, held=self._counts.held + 1)
            await self._heard[name].wait()

    async def _write(self, link: _Link, name: str, writer: asyncio.StreamWriter, data: bytes) -> None:
        while data:
            await self._until_heard(name)
            how = self._conditions[name]
            size = min(how.slice_bytes or len(data), len(data))
            if how.reset_after_bytes is not None:
                size = min(size, how.reset_after_bytes - link.passed[name])
            piece, data = data[:size], data[size:]
            if piece:
                writer.write(piece)
                await writer.drain()
                self._passed(link, name, len(piece), sliced=bool(data))
            if how.reset_after_bytes is not None and link.passed[name] >= how.reset_after_bytes:
                self._counts = replace(self._counts, resets=self._counts.resets + 1)
                link.reset()
                return
            pause = how.slice_delay_ms / 1000 if data else 0.0
            if how.bytes_per_second:
                pause = max(pause, len(piece) / how.bytes_per_second)
            if pause:
                await asyncio.sleep(pause)

    def _latency(self, how: Conditions) -> float:
        if not (how.latency_ms or how.jitter_ms):
            return 0.0
        self._counts = replace(self._counts, delayed=self._counts.delayed + 1)
        return max(0.0, how.latency_ms + self._rng.uniform(-how.jitter_ms, how.jitter_ms)) / 1000

    def _passed(self, link: _Link, name: str, size: int, *, sliced: bool) -> None:
        link.passed[name] += size
        counts = self._counts
        self._counts = replace(
            counts,
            bytes_up=counts.bytes_up + size * (name == "up"),
            bytes_down=counts.bytes_down + size * (name == "down"),
            slices=counts.slices + sliced,
        )


class _Link:
    """One connection through the proxy: both of its sockets, and what passed since the conditions changed."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self._sides = (client, server)
        self.passed = {"up": 0, "down": 0}
        self.ended = False
        self.is_reset = False

    def reset(self) -> None:
        """End both sides at once; a side that has ended in order already notices nothing."""
        self.is_reset = True
        for side in self._sides:
            _reset(side)


def start_proxy(upstream: tuple[str, int], *, seed: int) -> FaultProxy:
    """A proxy before the server at ``upstream``. HarnessFailure when no port can be had; end it with `close`."""
    return FaultProxy(upstream, seed=seed)


def _reset(writer: asyncio.StreamWriter) -> None:
    raw = writer.get_extra_info("socket")
    if raw is not None and not writer.transport.is_closing():
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    writer.transport.abort()
