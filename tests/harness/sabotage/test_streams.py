"""The event stream clients of the checks: what a cut, a silent and a stuffed stream look like."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from readiness.checking.streams import SILENT, listen, taking_nothing, unsent_bytes
from readiness.checking.waiting import wait_until

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


@contextmanager
def serving(act: Callable[[socket.socket, bytes], None]) -> Iterator[str]:
    """A server that hands each connection and its request's head to ``act``, then closes it."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer(connection: socket.socket) -> None:
            with connection:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += connection.recv(4096)
                connection.sendall(HEAD)
                act(connection, head)

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/events"


def test_a_stream_is_read_to_its_end_and_resumed_with_its_last_id() -> None:
    """Events, ids, heartbeats and the orderly end are seen; the id to resume from goes out as a header."""
    heads: list[bytes] = []

    def act(connection: socket.socket, head: bytes) -> None:
        heads.append(head)
        connection.sendall(b": keep-alive\n\nid: 7-1\nevent: state\ndata: {}\n\nevent: end\ndata: {}\n\n")

    with serving(act) as url:
        heard = listen(url, seconds=5, after="6-2")
    assert ([event.name for event in heard.events], heard.last_id, heard.heartbeats) == (
        ["state", "end"],
        "7-1",
        1,
    )
    assert heard.closed_at is not None
    assert heard.failure == ""
    assert b"last-event-id: 6-2" in heads[0].lower()


def test_silence_and_a_cut_are_told_apart() -> None:
    """A stream that says nothing is silent; one that its reader had enough of was cut, not closed."""
    done = threading.Event()

    def act(connection: socket.socket, head: bytes) -> None:
        connection.sendall(b"id: 1-1\ndata: {}\n\n")
        done.wait(10)

    with serving(act) as url:
        silent = listen(url, seconds=5, silence_seconds=0.3)
        cut = listen(url, seconds=5, enough=lambda heard: bool(heard.events))
        done.set()
    assert silent.failure.startswith(SILENT)
    assert (cut.failure, cut.closed_at, cut.last_id) == ("", None, "1-1")


def test_a_reader_that_takes_nothing_stops_the_sender_soon() -> None:
    """The sender's kernel holds what the reader does not take, and its buffers are full after some 100 kB."""
    sent: list[int] = [0]

    def act(connection: socket.socket, head: bytes) -> None:
        connection.settimeout(2.0)
        try:
            while True:
                sent[0] += connection.send(b"x" * 1000)
        except OSError:  # it waits no longer, or the reader has gone
            return

    with serving(act) as url, taking_nothing(url) as slow:
        wait_until(lambda: sent[0] > 1000, seconds=5, what="the sender to begin")
        before = -1
        while before != sent[0]:
            before = sent[0]
            time.sleep(0.3)
        assert sent[0] < 150_000
        assert unsent_bytes(slow) > 1000
