"""An embedding API that behaves, or misbehaves as scripted, and keeps the true log of every request.

    python -m readiness.simulators.embedding --port 0 --log requests.jsonl

Speaks what an OpenAI-compatible client speaks (`POST /v1/embeddings`, key as Bearer). It is the witness of
what the target really sent: rate limits, concurrency and batches are judged from this log, never from the
target's own figures. Judging is left to the checks.

Control (loopback, no key):

- `POST /_control/script {"key", "rules": [...], "latency_ms"?}` replaces the script of one API key. A rule
  is `{"contains"?, "times"?, "status"?, "retry_after"?, "delay_ms"?, "garbage"?}`; the first rule whose
  `contains` is in an input and whose `times` are not used up decides. Without `status` and `garbage` it
  only delays.
- `GET /_control/log?key=` gives `{"requests": [...], "open", "dropped"}` in order of arrival; without
  `key`, all.

A record has `key_sha256` (`key_digest` of the key: no log holds the key itself), `at` and `ended` (seconds
of CLOCK_MONOTONIC, one clock for all processes of the machine), `wall` (UTC), `inputs`, `words`, `sha256` of
each input, `status` (499: the client went away before the answer), `in_flight` (of that key at arrival,
itself included) and `rule` (index, or null).

The vector of a text (64 dimensions): concatenate SHA-256 of the UTF-8 text followed by the ASCII digit 0,
1, 2, 3; read the 128 bytes as 64 big-endian unsigned 16-bit numbers p; c = 2p - 65535; the component is c /
sqrt(sum of c squared), rounded to float32. All c are odd, so the length is never zero.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import json
import math
import os
import struct
import sys
import time
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from readiness.simulators.web import (
    Request,
    Response,
    json_response,
    port_of,
    problem,
    run_until_signalled,
    serve_http,
)

DIMENSIONS = 64

CLIENT_CLOSED = 499
"""Status in the log of a request whose client went away; nginx uses the same number."""

MAX_LOGGED = 500_000
"""Records kept in memory: minutes of the heaviest load. The file keeps all of them."""

MAX_INPUTS = 2048
"""As the real API: more inputs in one request are refused with 400."""

GARBAGE = ("json", "shape", "count", "nan")

KEY_DIGEST_CHARS = 16
"""Hexadecimal digits of a key's digest: enough to tell the lanes of a run apart, and short to read."""

_NOT_JSON = b'{"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.1, 0.2'
_CACHED_VECTORS = 4096
_RULE_KEYS = {"contains", "times", "status", "retry_after", "delay_ms", "garbage"}


def vector_for(text: str) -> tuple[float, ...]:
    """The vector of one input, as the module's docstring defines it: what a check recomputes."""
    packed = _packed_vector(text)
    return struct.unpack(f"<{DIMENSIONS}f", packed)


def key_digest(key: str) -> str:
    """What stands for an API key in the log: the first digits of its SHA-256, empty when none was shown."""
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()[:KEY_DIGEST_CHARS] if key else ""


@dataclass(slots=True)
class Rule:
    """One line of a script; `left` counts down, None is without end."""

    contains: str = ""
    left: int | None = None
    status: int = 200
    retry_after: float | None = None
    delay_seconds: float = 0.0
    garbage: str = ""

    @classmethod
    def parse(cls, raw: object, *, where: str) -> Rule:
        """ValueError says what was expected of which key."""
        if not isinstance(raw, dict):
            raise ValueError(f"{where}: expected an object, got {type(raw).__name__}")
        unknown = sorted(set(raw) - _RULE_KEYS)
        if unknown:
            raise ValueError(
                f"{where}: expected the keys {', '.join(sorted(_RULE_KEYS))}, got {unknown[0]!r}"
            )
        garbage = raw.get("garbage") or ""
        if garbage and garbage not in GARBAGE:
            raise ValueError(f"{where}: expected garbage to be one of {', '.join(GARBAGE)}, got {garbage!r}")
        times = raw.get("times")
        return cls(
            contains=str(raw.get("contains") or ""),
            left=None if times is None else int(_number(times, f"{where}.times")),
            status=int(_number(raw.get("status", 200), f"{where}.status")),
            retry_after=None if raw.get("retry_after") is None else _number(raw["retry_after"], where),
            delay_seconds=_number(raw.get("delay_ms", 0), f"{where}.delay_ms") / 1000,
            garbage=garbage,
        )

    def take(self, inputs: Sequence[str]) -> bool:
        """True when the rule decides about this request; uses up one of its times."""
        if self.left == 0 or (self.contains and not any(self.contains in text for text in inputs)):
            return False
        if self.left is not None:
            self.left -= 1
        return True


@dataclass(slots=True)
class Script:
    """How the requests of one key are treated."""

    rules: list[Rule] = field(default_factory=list)
    latency_seconds: float = 0.0


@dataclass(slots=True)
class Arrival:
    """What is known of a request when all of it has come."""

    key: str
    at: float
    wall: str
    in_flight: int
    inputs: tuple[str, ...] = ()
    rule: int | None = None


class RequestLog:
    """Every request, in memory for the control API and in a file that survives the process.

    A record is in the file before its answer leaves, so a killed simulator loses nothing that was answered.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._kept: deque[tuple[float, str, bytes]] = deque(maxlen=MAX_LOGGED)
        self._count = 0

    def add(self, arrival: Arrival, status: int) -> None:
        """Write one finished request."""
        owner = key_digest(arrival.key)
        record = {
            "key_sha256": owner,
            "at": arrival.at,
            "wall": arrival.wall,
            "ended": time.monotonic(),
            "inputs": len(arrival.inputs),
            "words": sum(len(text.split()) for text in arrival.inputs),
            "sha256": [
                hashlib.sha256(text.encode("utf-8", "replace")).hexdigest() for text in arrival.inputs
            ],
            "status": status,
            "in_flight": arrival.in_flight,
            "rule": arrival.rule,
        }
        line = json.dumps(record).encode()
        os.write(self._file, line + b"\n")
        self._kept.append((arrival.at, owner, line))
        self._count += 1

    def answer(self, key: str | None, *, open_requests: int) -> Response:
        """The records of one key (None: of all) in the order of their arrival."""
        wanted = None if key is None else key_digest(key)
        chosen = sorted((at, line) for at, owner, line in self._kept if wanted in (None, owner))
        tail = f'], "open": {open_requests}, "dropped": {self._count - len(self._kept)}}}'.encode()
        return Response(200, b'{"requests": [' + b", ".join(line for _, line in chosen) + tail)


class EmbeddingApi:
    """The routes and their state."""

    def __init__(self, log: RequestLog) -> None:
        self._log = log
        self._scripts: defaultdict[str, Script] = defaultdict(Script)
        self._open: defaultdict[str, int] = defaultdict(int)

    async def handle(self, request: Request) -> Response:
        """Every request of every route."""
        if request.path == "/v1/embeddings":
            return await self._embed(request)
        if request.path == "/_control/script":
            return self._set_script(request)
        if request.path == "/_control/log":
            key = request.query.get("key", [None])[0]
            waiting = sum(self._open.values()) if key is None else self._open.get(key, 0)
            return self._log.answer(key, open_requests=waiting)
        if request.path == "/_control/health":
            return json_response(200, {"status": "ok"})
        return problem(404, f"no such route: {request.path}")

    async def _embed(self, request: Request) -> Response:
        """Answer one embedding request and log it, whatever the answer is and even if nobody waits for it."""
        key = _bearer(request)
        self._open[key] += 1
        arrival = Arrival(key=key, at=time.monotonic(), wall=_utc_now(), in_flight=self._open[key])
        status = 500
        try:
            response = await self._decide(request, arrival)
            status = response.status
        except asyncio.CancelledError:
            status = CLIENT_CLOSED
            raise
        finally:
            self._open[key] -= 1
            self._log.add(arrival, status)
        return response

    async def _decide(self, request: Request, arrival: Arrival) -> Response:
        if request.method != "POST":
            return _refusal(405, "expected POST")
        try:
            body = json.loads(request.body)
            arrival.inputs = _inputs(body)
        except ValueError as error:
            return _refusal(400, str(error))
        if not arrival.key:
            return _refusal(401, "expected an API key as Authorization: Bearer, got none")
        script = self._scripts[arrival.key]
        arrival.rule, rule = _first_rule(script.rules, arrival.inputs)
        seconds = script.latency_seconds + rule.delay_seconds
        if seconds > 0:
            await asyncio.sleep(seconds)
        if rule.status != 200:
            return _refusal(rule.status, f"scripted by rule {arrival.rule}", retry_after=rule.retry_after)
        return _embeddings(arrival.inputs, body, garbage=rule.garbage)

    def _set_script(self, request: Request) -> Response:
        if request.method != "POST":
            return problem(405, f"expected POST, got {request.method}")
        try:
            raw = json.loads(request.body)
            if not isinstance(raw, dict) or not isinstance(raw.get("key"), str):
                raise ValueError('expected {"key": text, "rules": [...]}')
            rules = raw.get("rules", [])
            if not isinstance(rules, list):
                raise ValueError(f"rules: expected a list, got {type(rules).__name__}")
            script = Script(
                rules=[Rule.parse(rule, where=f"rules[{index}]") for index, rule in enumerate(rules)],
                latency_seconds=_number(raw.get("latency_ms", 0), "latency_ms") / 1000,
            )
        except ValueError as error:
            return problem(422, str(error))
        self._scripts[raw["key"]] = script
        return json_response(200, {"key": raw["key"], "rules": len(script.rules)})


def _first_rule(rules: Sequence[Rule], inputs: Sequence[str]) -> tuple[int | None, Rule]:
    for index, rule in enumerate(rules):
        if rule.take(inputs):
            return index, rule
    return None, Rule()


def _embeddings(inputs: Sequence[str], body: Mapping[str, object], *, garbage: str) -> Response:
    """A well-formed answer, or one of the four ways in which an answer is not."""
    if garbage == "json":
        return Response(200, _NOT_JSON)
    if garbage == "shape":
        return json_response(200, {"object": "list", "data": {"embedding": "expected a list here"}})
    render = _base64_vector if body.get("encoding_format") == "base64" else _float_vector
    vectors = [render(text) for text in inputs]
    if garbage == "count":
        vectors.pop()
    if garbage == "nan" and vectors:
        vectors[0] = b"[" + b", ".join([b"NaN"] * DIMENSIONS) + b"]"
    tokens = sum((len(text.split()) * 13 + 9) // 10 for text in inputs)
    tail = {"model": str(body.get("model", "")), "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}
    data = b", ".join(
        b'{"object": "embedding", "index": %d, "embedding": %s}' % (index, vector)
        for index, vector in enumerate(vectors)
    )
    return Response(200, b'{"object": "list", "data": [' + data + b"], " + json.dumps(tail).encode()[1:])


def _refusal(status: int, message: str, *, retry_after: float | None = None) -> Response:
    """An error as the real API words it."""
    kind = {429: "rate_limit_error", 401: "authentication_error"}.get(status, "invalid_request_error")
    body = {"error": {"message": message, "type": "server_error" if status >= 500 else kind, "code": None}}
    headers = () if retry_after is None else (("retry-after", f"{retry_after:g}"),)
    return Response(status, json.dumps(body).encode(), headers=headers)


def _inputs(body: object) -> tuple[str, ...]:
    """The texts of a request; ValueError as the real API would refuse it."""
    raw = body.get("input") if isinstance(body, dict) else None
    texts = [raw] if isinstance(raw, str) else raw
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
        raise ValueError("input: expected a text or a list of texts, none of them empty")
    if len(texts) > MAX_INPUTS:
        raise ValueError(f"input: expected at most {MAX_INPUTS} texts, got {len(texts)}")
    return tuple(texts)


@lru_cache(maxsize=_CACHED_VECTORS)
def _packed_vector(text: str) -> bytes:
    seed = text.encode("utf-8", "replace")
    stream = b"".join(hashlib.sha256(seed + b"%d" % index).digest() for index in range(DIMENSIONS * 2 // 32))
    odd = [2 * number - 65535 for number in struct.unpack(f">{DIMENSIONS}H", stream)]
    length = math.sqrt(sum(number * number for number in odd))
    return struct.pack(f"<{DIMENSIONS}f", *(number / length for number in odd))


@lru_cache(maxsize=_CACHED_VECTORS)
def _float_vector(text: str) -> bytes:
    """JSON list; nine digits give back the same float32."""
    return ("[" + ", ".join(f"{number:.9g}" for number in vector_for(text)) + "]").encode()


def _base64_vector(text: str) -> bytes:
    return b'"' + base64.b64encode(_packed_vector(text)) + b'"'


def _bearer(request: Request) -> str:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def _number(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0 or not math.isfinite(value):
        raise ValueError(f"{where}: expected a number of at least 0, got {value!r}")
    return float(value)


def _utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def _serve(*, port: int, log: Path) -> None:
    api = EmbeddingApi(RequestLog(log))
    server = await serve_http(api.handle, port=port)
    async with server:
        await run_until_signalled({"message": "simulator.ready", "port": port_of(server)})


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM. The first line on stdout is `{"message": "simulator.ready", "port": ...}`."""
    parser = argparse.ArgumentParser(
        prog="readiness.simulators.embedding", description="embedding API simulator"
    )
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--log", type=Path, required=True, help="JSON lines, one a request")
    options = parser.parse_args(argv)
    asyncio.run(_serve(port=options.port, log=options.log))
    return 0


if __name__ == "__main__":
    sys.exit(main())
