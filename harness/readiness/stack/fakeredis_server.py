"""fakeredis as a TCP server in a process of its own: `python -m readiness.stack.fakeredis_server --port N`.

Stands in where no real redis-server can run. It keeps nothing on disk, so it shows nothing about durability.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Sequence

from fakeredis import TcpFakeServer

from readiness.stack.ports import LOOPBACK


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="readiness.stack.fakeredis_server")
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args(argv)
    server = TcpFakeServer((LOOPBACK, options.port), server_version=(7, 0))
    server.daemon_threads = True
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    ended.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
