"""`python -m bench.peers NAME work|submit`: one process of a scenario. Told the rest by BENCH_STAGE; see stage.py."""

from __future__ import annotations

import sys
from importlib import import_module

from bench.peers.produce import produce


def main(name: str, role: str) -> None:
    """Import the queue's module under its real name, so that jobs name functions that any worker finds."""
    peer = import_module(name if "." in name else f"bench.peers.{name}")
    if role == "work":
        peer.work()
    else:
        produce(peer)


if __name__ == "__main__":
    main(*sys.argv[1:])
