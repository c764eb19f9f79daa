"""Run the app under uvicorn: one listening socket, JSON logs only, a bounded farewell."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import uvicorn
from sse_starlette.sse import AppStatus

from ragworker.api.app import create_app
from ragworker.api.services import Services
from ragworker.logs import get_logger
from ragworker.settings import FlagSource, Settings, SettingsError
from ragworker.tracing import exporting

logger = get_logger(__name__)

#: Requests and background jobs have this long to end after SIGTERM; Kubernetes kills after 30 s.
SHUTDOWN_SECONDS: Final = 10

#: A peer that acknowledges nothing for this long is gone. Without it a vanished client's stream would count
#: as open for the quarter of an hour that TCP retries.
PEER_GONE_MS: Final = 30_000

#: Connections waiting to be accepted.
BACKLOG: Final = 512


def serve(settings: Settings, *, flag: FlagSource) -> int:
    """Serve until SIGTERM or SIGINT; the exit status. SettingsError when the address cannot be had."""
    listener = _listen(settings.api_host, settings.api_port)
    host, port = listener.getsockname()[:2]
    app = create_app(settings, flag=flag)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        lifespan="on",
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    # uvicorn raises the signal once more when it is done; the process should then end by itself, with
    # status 0.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    # Its own way of ending streams cuts them in the middle of the chunked body; ours finishes it.
    AppStatus.enable_automatic_graceful_drain = False
    fields = {"host": host, "port": port, "settings": settings.effective()}
    with exporting(settings, service="ragworker-api"):
        _Server(config, services=app.state.services, fields=fields).run(sockets=[listener])
    logger.info("api.stopped")
    return 0


class _Server(uvicorn.Server):
    """Says `api.ready`, with port and settings in force, once it accepts connections.

    Ends event streams before it waits for them.
    """

    def __init__(self, config: uvicorn.Config, *, services: Services, fields: Mapping[str, object]) -> None:
        super().__init__(config)
        self._services = services
        self._fields = fields

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._services.end_streams()
        await super().shutdown(sockets=sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            logger.info("api.ready", extra={"fields": self._fields})


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named, because asyncio turns Nagle's delay off only on sockets that say that they are
    # TCP: without it every answer of two writes waits 40 ms for the client's acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if sys.platform == "linux":
            # Accepted connections inherit it. Elsewhere the keep-alive alone has to do.
            with suppress(OSError):
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, PEER_GONE_MS)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"RAG_API_HOST, RAG_API_PORT: expected a free address, got {host}:{port} ({error.strerror}). "
            "Stop what listens there, or set RAG_API_PORT=0 for a free port."
        ) from None
    return listener
