"""Where alerts arrive: a mail server and chat webhooks that deliver to nobody and keep everything.

    python -m readiness.simulators.sinks --mail-port 0 --http-port 0 --log arrivals.jsonl

Mail comes by SMTP without TLS or login. Over HTTP every POST is kept: `/slack/...` as channel "slack",
`/webhook/...` as channel "webhook", anything else as channel "http". What should have arrived is judged by
checks.

`GET /_control/log?channel=` gives `{"arrivals": [...], "dropped"}` in order of arrival. Each has `channel`,
`at` (seconds of CLOCK_MONOTONIC), `wall` (UTC), and for mail `from`, `to`, `subject`, `headers`, `text`,
`html`; for HTTP `path`, `headers` and `json`, or `text` when the body is no JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import email
import email.policy
import json
import os
import sys
import time
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP

from readiness.simulators.web import (
    LOOPBACK,
    Request,
    Response,
    json_response,
    port_of,
    problem,
    run_until_signalled,
    serve_http,
)

MAX_KEPT = 20_000
"""Arrivals kept in memory: far above what twelve alerts can send in a run. The file keeps all of them."""

SLACK_PREFIX = "/slack"
WEBHOOK_PREFIX = "/webhook"


class ArrivalLog:
    """Everything that arrived, in memory and in a file; in the file before the sender hears of it."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._kept: deque[dict[str, object]] = deque(maxlen=MAX_KEPT)
        self._count = 0

    def add(self, channel: str, **content: object) -> None:
        """Keep one arrival."""
        wall = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        arrival = {"channel": channel, "at": time.monotonic(), "wall": wall, **content}
        os.write(self._file, json.dumps(arrival, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
        self._kept.append(arrival)
        self._count += 1

    def answer(self, channel: str | None) -> Response:
        """The arrivals of one channel (None: of all)."""
        chosen = [arrival for arrival in self._kept if channel is None or arrival["channel"] == channel]
        return json_response(200, {"arrivals": chosen, "dropped": self._count - len(self._kept)})


class MailSink:
    """What aiosmtpd calls for each message."""

    def __init__(self, log: ArrivalLog) -> None:
        self._log = log

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        """Keep the message and accept it."""
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        self._log.add(
            "mail",
            **{"from": envelope.mail_from, "to": list(envelope.rcpt_tos)},
            subject=str(message.get("Subject", "")),
            headers={name: str(value) for name, value in message.items()},
            text=_body(message, "plain"),
            html=_body(message, "html"),
        )
        return "250 kept"


class ChatSink:
    """The HTTP side: chat and webhooks, and the control route."""

    def __init__(self, log: ArrivalLog) -> None:
        self._log = log

    async def handle(self, request: Request) -> Response:
        """Keep every POST; Slack hears "ok", as from the real one."""
        if request.path == "/_control/log":
            return self._log.answer(request.query.get("channel", [None])[0])
        if request.path == "/_control/health":
            return json_response(200, {"status": "ok"})
        if request.method != "POST":
            return problem(405, f"expected POST, got {request.method}")
        self._log.add(
            _channel(request.path), path=request.path, headers=request.headers, **_content(request.body)
        )
        return Response(200, b"ok", content_type="text/plain")


def _channel(path: str) -> str:
    first = "/" + path.strip("/").split("/")[0]
    return {SLACK_PREFIX: "slack", WEBHOOK_PREFIX: "webhook"}.get(first, "http")


def _content(body: bytes) -> dict[str, object]:
    try:
        return {"json": json.loads(body)}
    except ValueError:
        return {"text": body.decode("utf-8", "replace")}


def _body(message: EmailMessage, kind: str) -> str:
    part = message.get_body(preferencelist=(kind,))
    return "" if part is None else str(part.get_content())


async def _serve(*, mail_port: int, http_port: int, log: Path) -> None:
    kept = ArrivalLog(log)
    loop = asyncio.get_running_loop()
    # A hostname is given because aiosmtpd would look its own up by DNS.
    mail = await loop.create_server(
        lambda: SMTP(MailSink(kept), hostname="localhost", enable_SMTPUTF8=True, loop=loop),
        LOOPBACK,
        mail_port,
    )
    http = await serve_http(ChatSink(kept).handle, port=http_port)
    async with mail, http:
        ports = {"mail_port": port_of(mail), "http_port": port_of(http)}
        await run_until_signalled({"message": "simulator.ready", **ports})


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM; the first line on stdout names `mail_port` and `http_port`."""
    parser = argparse.ArgumentParser(prog="readiness.simulators.sinks", description="mail and chat sinks")
    parser.add_argument("--mail-port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--http-port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--log", type=Path, required=True, help="JSON lines, one an arrival")
    options = parser.parse_args(argv)
    asyncio.run(_serve(mail_port=options.mail_port, http_port=options.http_port, log=options.log))
    return 0


if __name__ == "__main__":
    sys.exit(main())
