"""fakeredis as a TCP server in a process of its own: `python -m readiness.stack.fakeredis_server --port N`.

Stands in where no real redis-server can run. It keeps nothing on disk, so it shows nothing about durability.

Three habits of fakeredis' own TCP server are mended, because documents meet them. It answers a text without
line ends as a simple string, which is one endless line to a client that reads lines up to 64 KiB. It writes
to a socket that does not block, so an answer larger than the socket's buffer ends in the middle. And it feeds
its parser line by line, which takes time in the square of a document's lines.
"""

from __future__ import annotations

import argparse
import io
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from typing import Any

from fakeredis import TcpFakeServer
from fakeredis._clients._tcp_server import TCPFakeRequestHandler, Writer, encode_reply

from readiness.stack.ports import LOOPBACK

PIECE_BYTES = 1024 * 1024
"""The most that is read at once: a document of 25 MiB comes in a few dozen pieces."""

WRITE_SECONDS = 30.0
"""How long one answer waits for a client that does not read; then the connection ends."""


class PieceReader(io.BufferedReader):
    """Gives what has come, wherever it ends: the parser behind it cuts commands itself."""

    def readline(self, size: int | None = -1, /) -> bytes:
        """Empty when nothing has come yet, as at the end."""
        return self.read1(PIECE_BYTES)


class BulkWriter(Writer):
    """Writes every text as a bulk string, as a real server writes values, and waits for slow readers."""

    def dump(self, value: Any) -> None:
        """Send one reply. fakeredis encodes texts inside a list as bulk strings: `nested` asks for that.

        Raises ConnectionError when the client does not read: the connection ends without a second try.
        """
        try:
            self.writer.write(encode_reply(value, self.request_handler.protocol_version, nested=True))
        except TimeoutError as error:
            raise ConnectionAbortedError(f"{self.client_address}: nobody reads the answer") from error


class WaitingSocket(io.BufferedIOBase):
    """The same connection through a second socket object: writing waits, reading does not."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__()
        self._connection = connection.dup()
        self._connection.settimeout(WRITE_SECONDS)

    def write(self, data: Any, /) -> int:
        """All of it, or TimeoutError."""
        self._connection.sendall(data)
        return len(data)

    def close(self) -> None:
        """End this socket object; the connection lives on in the other one."""
        self._connection.close()
        super().close()


class Handler(TCPFakeRequestHandler):
    """One connection."""

    def setup(self) -> None:
        """As fakeredis sets it up, with our reader and writer."""
        super().setup()
        self.wfile = WaitingSocket(self.connection)
        self.writer = BulkWriter(self.client_address, self.wfile, self)
        self.rfile = PieceReader(self.rfile.detach())


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="readiness.stack.fakeredis_server")
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args(argv)
    server = TcpFakeServer((LOOPBACK, options.port), server_version=(7, 0))
    server.RequestHandlerClass = Handler
    server.daemon_threads = True
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    ended.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
