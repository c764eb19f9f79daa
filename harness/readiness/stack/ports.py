"""Loopback ports: take a free one, and make sure that who answers on it is the process we started."""

from __future__ import annotations

import contextlib
import socket
import urllib.error
import urllib.request

import psutil

LOOPBACK = "127.0.0.1"

PROBE_SECONDS = 2.0
"""How long one question of a probe may take."""

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Loopback is never behind the user's proxy."""


def free_port() -> int:
    """A port that was free a moment ago. Somebody may take it before its user does, so starters try again."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def listens(pid: int, port: int) -> bool:
    """True when process `pid` itself listens on `port`, and not a stranger that was faster."""
    try:
        connections = psutil.Process(pid).net_connections(kind="tcp")
    except psutil.Error:
        return False
    return any(
        connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
        for connection in connections
    )


def answers_http(url: str) -> bool:
    """True when a GET is answered with 200."""
    try:
        with _DIRECT.open(url, timeout=PROBE_SECONDS) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False


def text_of(url: str) -> str:
    """The body that a GET is answered with. OSError when it is not."""
    with _DIRECT.open(url, timeout=PROBE_SECONDS) as answer:
        return str(answer.read().decode("utf-8", "replace"))
