"""The fault proxy does to a connection what it says, and never changes what passes."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from readiness.faults.proxy import Conditions, FaultProxy, start_proxy

WAIT_SECONDS = 10.0


class Echo(threading.Thread):
    """A server that sends back what it gets, and keeps the sizes in which it came."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.pieces: list[int] = []
        self.ends: list[str] = []

    def run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(1 << 20):
                    self.pieces.append(len(data))
                    connection.sendall(data)
                self.ends.append("eof")
            except OSError:
                self.ends.append("reset")

    def stop(self) -> None:
        self._listener.close()


@pytest.fixture
def echo() -> Iterator[Echo]:
    """A running echo server."""
    server = Echo()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[FaultProxy]:
    """A proxy before it."""
    started = start_proxy(("127.0.0.1", echo.port), seed=1)
    yield started
    started.close()


def dial(proxy: FaultProxy) -> socket.socket:
    """A connection through the proxy."""
    connection = socket.create_connection(("127.0.0.1", proxy.port), timeout=WAIT_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def read(connection: socket.socket, size: int) -> bytes:
    """Exactly so many bytes, or what came before the end."""
    found = b""
    while len(found) < size:
        data = connection.recv(size - len(found))
        if not data:
            break
        found += data
    return found


def until(condition: object, seconds: float = WAIT_SECONDS) -> bool:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    assert callable(condition)
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.005)
    return False


def round_trip(connection: socket.socket, data: bytes = b"ping") -> float:
    """Seconds until the echo is back."""
    began = time.monotonic()
    connection.sendall(data)
    assert read(connection, len(data)) == data
    return time.monotonic() - began


def is_refused(proxy: FaultProxy) -> bool:
    """A new connection is reset, while it is made or right after."""
    try:
        with dial(proxy) as connection:
            connection.recv(1)
    except ConnectionResetError:
        return True
    return False


def test_a_good_network_changes_nothing(proxy: FaultProxy, echo: Echo) -> None:
    """A megabyte comes back as it was, the end is told to the server, and the figures say what passed."""
    data = random.Random(3).randbytes(1_000_000)
    with dial(proxy) as connection:
        connection.settimeout(WAIT_SECONDS)
        threading.Thread(target=connection.sendall, args=(data,), daemon=True).start()
        assert read(connection, len(data)) == data
    assert until(lambda: echo.ends == ["eof"])
    counts = proxy.counts()
    assert (counts.bytes_up, counts.bytes_down, counts.resets) == (len(data), len(data), 0)
    assert until(lambda: proxy.counts().open == 0)


def test_latency_is_added_each_way_and_ends(proxy: FaultProxy) -> None:
    """80 ms up and 60 down are felt by an open connection at once; afterwards they are gone."""
    with dial(proxy) as connection:
        fast = round_trip(connection)
        proxy.set(up=Conditions(latency_ms=80), down=Conditions(latency_ms=60, jitter_ms=20))
        assert round_trip(connection) >= 0.12
        proxy.calm()
        assert min(round_trip(connection) for _ in range(5)) < max(0.05, 5 * fast)


def test_bandwidth_bounds_what_passes(proxy: FaultProxy) -> None:
    """20 kB at 50 kB/s take 0.4 s."""
    proxy.set(down=Conditions(bytes_per_second=50_000, slice_bytes=1000))
    with dial(proxy) as connection:
        assert round_trip(connection, b"x" * 20_000) >= 0.36


def test_slices_arrive_in_pieces_and_whole(proxy: FaultProxy, echo: Echo) -> None:
    """A request in pieces of 7 bytes reaches the server in pieces, and in order."""
    proxy.set(up=Conditions(slice_bytes=7, slice_delay_ms=2))
    data = bytes(range(200))
    with dial(proxy) as connection:
        assert round_trip(connection, data) > 0.02
    assert max(echo.pieces) < 100
    assert proxy.counts().slices == 28


@pytest.mark.parametrize(("direction", "size"), [("up", 0), ("up", 5), ("down", 5)])
def test_a_reset_after_exactly_so_many_bytes(
    proxy: FaultProxy, echo: Echo, *, direction: str, size: int
) -> None:
    """In the middle of a command: the other side has the first bytes, both sides get RST."""
    conditions = Conditions(reset_after_bytes=size)
    proxy.set(up=conditions if direction == "up" else None, down=conditions if direction == "down" else None)
    with dial(proxy) as connection:
        connection.sendall(b"0123456789")
        got = read(connection, size) if direction == "down" else b""
        with pytest.raises(ConnectionResetError):
            connection.recv(100)
    assert until(lambda: len(echo.ends) == 1)
    assert sum(echo.pieces) == (size if direction == "up" else 10)
    assert len(got) == (size if direction == "down" else 0)
    assert proxy.counts().resets == 1
    proxy.calm()
    with dial(proxy) as connection:
        round_trip(connection)


@pytest.mark.parametrize("direction", ["up", "down"])
def test_silence_one_way_holds_back_and_loses_nothing(
    proxy: FaultProxy, echo: Echo, *, direction: str
) -> None:
    """A one-way black hole: the other way works, the connection stays, and what was held arrives in order."""
    silent = Conditions(silent=True)
    with dial(proxy) as connection:
        round_trip(connection)
        proxy.set(up=silent if direction == "up" else None, down=silent if direction == "down" else None)
        connection.sendall(b"held ")
        connection.sendall(b"back")
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connection.recv(10)
        assert sum(echo.pieces) == (4 if direction == "up" else 13)
        assert proxy.counts().held >= 1
        proxy.calm()
        connection.settimeout(WAIT_SECONDS)
        assert read(connection, 9) == b"held back"


def test_half_open_tells_nobody(proxy: FaultProxy, echo: Echo) -> None:
    """The client is gone and the server does not hear of it, until the network is good again."""
    with dial(proxy) as connection:
        round_trip(connection)
        proxy.half_open()
    assert until(lambda: proxy.counts().half_open == 1)
    time.sleep(0.1)
    assert echo.ends == []
    assert proxy.counts().open == 1
    proxy.calm()
    assert until(lambda: len(echo.ends) == 1)
    assert until(lambda: proxy.counts().open == 0)


def test_refusing_and_ending(proxy: FaultProxy) -> None:
    """New connections get RST, open ones stay; `reset_all` ends those; a calm proxy serves again."""
    with dial(proxy) as connection:
        round_trip(connection)
        proxy.refuse()
        assert is_refused(proxy)
        round_trip(connection)
        assert proxy.reset_all() == 1
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    proxy.calm()
    with dial(proxy) as connection:
        round_trip(connection)
    assert proxy.counts().refused == 1


def test_a_server_that_is_not_there_is_a_reset() -> None:
    """Without a server behind it the proxy does as a dead server does."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    lone = start_proxy(("127.0.0.1", port), seed=1)
    assert is_refused(lone)
    lone.close()


def test_closing_ends_everything_and_twice_is_harmless(echo: Echo) -> None:
    """No thread and no connection is left."""
    before = threading.active_count()
    started = start_proxy(("127.0.0.1", echo.port), seed=1)
    with dial(started) as connection:
        round_trip(connection)
        started.half_open()
        started.close()
        started.close()
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    assert until(lambda: echo.ends != [])
    assert until(lambda: threading.active_count() <= before)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.binary(min_size=1, max_size=5000),
    up=st.builds(
        Conditions,
        latency_ms=st.floats(0, 5),
        jitter_ms=st.floats(0, 5),
        slice_bytes=st.integers(0, 900),
        bytes_per_second=st.sampled_from([0.0, 200_000.0]),
    ),
    changes=st.lists(st.builds(Conditions, silent=st.booleans(), slice_bytes=st.integers(0, 99)), max_size=3),
)
def test_whatever_the_conditions_the_bytes_are_the_same(
    proxy: FaultProxy, *, data: bytes, up: Conditions, changes: list[Conditions]
) -> None:
    """Conditions that change in the middle delay and cut, but never lose, repeat or reorder."""
    with dial(proxy) as connection:
        proxy.set(up=up)
        connection.sendall(data)
        for change in changes:
            proxy.set(up=change, down=change)
        proxy.calm()
        assert read(connection, len(data)) == data
