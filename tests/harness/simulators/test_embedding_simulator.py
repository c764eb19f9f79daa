"""The embedding API behaves, misbehaves as scripted, and its log is the truth."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import math
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from readiness.checking.waiting import wait_until
from readiness.simulators.embedding import DIMENSIONS, vector_for

KEY = "sk-test"
REQUESTS_PER_CPU_SECOND = 1500


class Simulator:
    """A running simulator and what a client and a check ask of it."""

    def __init__(self, log: Path) -> None:
        argv = [sys.executable, "-m", "readiness.simulators.embedding", "--port", "0", "--log", str(log)]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.port = int(json.loads(self.process.stdout.readline())["port"])
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=10, trust_env=False)

    def embed(self, *texts: str, key: str = KEY, **more: object) -> httpx.Response:
        """One embedding request."""
        return self.client.post(
            "/v1/embeddings",
            json={"model": "m", "input": list(texts), **more},
            headers={"Authorization": f"Bearer {key}"},
        )

    def script(self, *rules: Mapping[str, object], key: str = KEY, latency_ms: int = 0) -> httpx.Response:
        """Replace the script of a key."""
        return self.client.post(
            "/_control/script", json={"key": key, "rules": rules, "latency_ms": latency_ms}
        )

    def log(self, key: str | None = KEY) -> list[dict[str, Any]]:
        """The true log."""
        answer = self.client.get("/_control/log", params={} if key is None else {"key": key}).json()
        assert answer["dropped"] == 0
        return list(answer["requests"])

    def stop(self) -> None:
        """End it."""
        self.client.close()
        self.process.terminate()
        self.process.communicate(timeout=5)


@pytest.fixture
def log_file(tmp_path: Path) -> Path:
    """Where the simulator keeps its log."""
    return tmp_path / "requests.jsonl"


@pytest.fixture
def simulator(log_file: Path) -> Iterator[Simulator]:
    """A fresh simulator."""
    running = Simulator(log_file)
    yield running
    running.stop()


def test_vectors_are_what_the_documentation_says() -> None:
    """The documented algorithm, written down a second time, gives the same 64 float32 of unit length."""
    text = "Grüße, 안녕하세요"
    stream = b"".join(hashlib.sha256(text.encode() + bytes([48 + index])).digest() for index in range(4))
    odd = [2 * int.from_bytes(stream[at : at + 2], "big") - 65535 for at in range(0, 128, 2)]
    length = math.sqrt(sum(number**2 for number in odd))
    expected = [struct.unpack("<f", struct.pack("<f", number / length))[0] for number in odd]
    assert list(vector_for(text)) == expected
    assert math.isclose(sum(number**2 for number in expected), 1, rel_tol=1e-6)
    assert vector_for(text) != vector_for(text + " ")


def test_a_well_behaved_answer(simulator: Simulator) -> None:
    """Each input gets its vector, exactly and in order, as floats and as base64; tokens are words x 1.3."""
    texts = ["one two three", "네 다섯"]
    answer = simulator.embed(*texts)
    body = answer.json()
    assert (answer.status_code, body["object"], body["model"]) == (200, "list", "m")
    assert [item["index"] for item in body["data"]] == [0, 1]
    for item, text in zip(body["data"], texts, strict=True):
        packed = struct.pack(f"<{DIMENSIONS}f", *item["embedding"])
        assert struct.unpack(f"<{DIMENSIONS}f", packed) == vector_for(text)
    assert body["usage"] == {"prompt_tokens": 4 + 3, "total_tokens": 4 + 3}
    packed = base64.b64decode(
        simulator.embed(texts[0], encoding_format="base64").json()["data"][0]["embedding"]
    )
    assert struct.unpack(f"<{DIMENSIONS}f", packed) == vector_for(texts[0])


def test_the_log_tells_what_was_sent(simulator: Simulator, log_file: Path) -> None:
    """Inputs, words, digests, status and times are logged, in memory and in the file alike, keys apart."""
    before = time.monotonic()
    simulator.embed("one two three", "four")
    simulator.embed("five", key="sk-other")
    record = simulator.log()[0]
    assert len(simulator.log()) == 1
    assert (record["inputs"], record["words"], record["status"], record["rule"]) == (2, 4, 200, None)
    assert record["sha256"] == [hashlib.sha256(text).hexdigest() for text in (b"one two three", b"four")]
    assert before <= record["at"] <= record["ended"] <= time.monotonic()
    assert record["wall"].endswith("Z")
    assert [json.loads(line) for line in log_file.read_text().splitlines()] == simulator.log(None)


def test_no_key_is_written_down(simulator: Simulator, log_file: Path) -> None:
    """File and answers name a key by its digest only; asking with the key still finds its requests, and no other's."""
    simulator.embed("mine")
    simulator.embed("not mine", key="sk-other")
    simulator.client.post("/v1/embeddings", json={"input": "nobody's"})
    logged = simulator.log(None)
    assert [record["key_sha256"] for record in logged] == [
        hashlib.sha256(KEY.encode()).hexdigest()[:16],
        hashlib.sha256(b"sk-other").hexdigest()[:16],
        "",
    ]
    assert [simulator.log(key) for key in (KEY, "sk-other", "")] == [[record] for record in logged]
    for text in (log_file.read_text(), json.dumps(logged)):
        assert KEY not in text
        assert "sk-other" not in text


@pytest.mark.parametrize(
    ("rule", "status", "retry_after"),
    [
        ({"status": 429, "retry_after": 2}, 429, "2"),
        ({"status": 429, "retry_after": 0.25}, 429, "0.25"),
        ({"status": 503}, 503, None),
        ({"status": 400}, 400, None),
        ({"status": 401}, 401, None),
    ],
)
def test_scripted_refusals(
    simulator: Simulator, rule: Mapping[str, object], status: int, retry_after: str | None
) -> None:
    """A scripted status comes with its Retry-After, in the shape of the real API, and is in the log."""
    simulator.script(rule)
    answer = simulator.embed("text")
    assert (answer.status_code, answer.headers.get("retry-after")) == (status, retry_after)
    assert set(answer.json()["error"]) == {"message", "type", "code"}
    assert [(record["status"], record["rule"]) for record in simulator.log()] == [(status, 0)]


@pytest.mark.parametrize(
    ("garbage", "is_wrong"),
    [
        ("json", lambda text: not text.endswith("}")),
        ("shape", lambda text: not isinstance(json.loads(text)["data"], list)),
        ("count", lambda text: len(json.loads(text)["data"]) == 1),
        ("nan", lambda text: math.isnan(json.loads(text)["data"][0]["embedding"][0])),
    ],
)
def test_scripted_garbage(simulator: Simulator, garbage: str, is_wrong: Any) -> None:
    """Each kind of garbage is a 200 whose content is wrong in its own way, and the next answer is right again."""
    simulator.script({"garbage": garbage, "times": 1})
    answer = simulator.embed("first", "second")
    assert answer.status_code == 200
    assert is_wrong(answer.text)
    assert len(simulator.embed("first", "second").json()["data"]) == 2


def test_rules_match_count_down_and_leave_other_keys_alone(simulator: Simulator) -> None:
    """The first rule decides whose word is in an input and whose times are left; other keys are untouched."""
    simulator.script({"contains": "poison", "status": 500}, {"status": 429, "times": 2})
    seen = [simulator.embed(text).status_code for text in ("fine", "a poison b", "fine", "fine", "poison")]
    assert seen == [429, 500, 429, 200, 500]
    assert simulator.embed("poison", key="sk-other").status_code == 200
    assert [record["rule"] for record in simulator.log()] == [1, 0, 1, None, 0]
    simulator.script()
    assert simulator.embed("poison").status_code == 200


def test_delays_and_latency_add_up(simulator: Simulator) -> None:
    """A rule's delay comes on top of the key's latency, and `ended - at` shows both."""
    simulator.script({"contains": "slow", "delay_ms": 120}, latency_ms=40)
    simulator.embed("slow")
    simulator.embed("quick")
    slow, quick = (record["ended"] - record["at"] for record in simulator.log())
    assert slow >= 0.16
    assert 0.04 <= quick < slow


def test_requests_in_flight_are_counted_at_arrival(simulator: Simulator) -> None:
    """Five requests at once are seen as 1 to 5 in flight; a request after them is alone again."""
    simulator.script(latency_ms=300)

    def ask() -> None:
        with httpx.Client(trust_env=False) as client:
            client.post(
                f"http://127.0.0.1:{simulator.port}/v1/embeddings",
                json={"input": "x"},
                headers={"Authorization": f"Bearer {KEY}"},
            )

    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    simulator.script()
    simulator.embed("after")
    flights = [record["in_flight"] for record in simulator.log()]
    assert flights[-1] == 1
    assert max(flights) >= 4  # a busy machine may start the last thread late


def test_a_client_that_goes_away_is_no_longer_in_flight(simulator: Simulator) -> None:
    """A killed client's request ends in the log as 499, and does not count against the next one."""
    simulator.script(latency_ms=30_000)
    body = b'{"input": "x"}'
    head = (
        f"POST /v1/embeddings HTTP/1.1\r\nauthorization: Bearer {KEY}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", simulator.port)) as gone:
        gone.sendall(head.encode() + body)
        wait_until(
            lambda: simulator.client.get("/_control/log", params={"key": KEY}).json()["open"] == 1,
            seconds=5,
            what="the request in flight",
        )
    record = wait_until(simulator.log, seconds=5, what="the end of the request")[0]
    assert record["status"] == 499
    simulator.script()
    simulator.embed("next")
    assert simulator.log()[-1]["in_flight"] == 1


@pytest.mark.parametrize(
    ("body", "key", "status"),
    [
        (b"{", KEY, 400),
        (b'{"input": []}', KEY, 400),
        (b'{"input": ["a", 5]}', KEY, 400),
        (b'{"input": ""}', KEY, 400),
        (b"[1]", KEY, 400),
        (json.dumps({"input": ["x"] * 2049}).encode(), KEY, 400),
        (b'{"input": "x"}', "", 401),
    ],
)
def test_what_the_real_api_refuses_is_refused_and_logged(
    simulator: Simulator, body: bytes, key: str, status: int
) -> None:
    """Malformed requests and requests without key are refused, and are in the log all the same."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    answer = simulator.client.post("/v1/embeddings", content=body, headers=headers)
    assert answer.status_code == status
    assert [record["status"] for record in simulator.log(key)] == [status]


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ({"staus": 429}, "got 'staus'"),
        ({"garbage": "noise"}, "expected garbage to be one of json, shape, count, nan"),
        ({"delay_ms": -1}, "expected a number of at least 0"),
        ({"times": True}, "expected a number of at least 0"),
    ],
)
def test_a_wrong_script_is_refused_whole(simulator: Simulator, rule: Mapping[str, object], told: str) -> None:
    """A script with an unknown key or value changes nothing and is told what was expected."""
    simulator.script({"status": 503})
    answer = simulator.script(rule)
    assert answer.status_code == 422
    assert told in answer.json()["error"]["message"]
    assert simulator.embed("x").status_code == 503


def test_a_killed_simulator_has_logged_what_it_answered(simulator: Simulator, log_file: Path) -> None:
    """After kill -9 the file has every request that was answered."""
    texts = [f"text {number}" for number in range(20)]
    for text in texts:
        simulator.embed(text)
    simulator.process.kill()
    logged = [json.loads(line)["sha256"][0] for line in log_file.read_text().splitlines()]
    assert logged == [hashlib.sha256(text.encode()).hexdigest() for text in texts]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n", b"411"),
        (b"POST / HTTP/1.1\r\ncontent-length: -5\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\ncontent-length: 99999999999\r\n\r\n", b"413"),
        (b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 20_000, b"431"),
        (b"GET /nowhere HTTP/1.1\r\nconnection: close\r\n\r\n", b"404"),
    ],
)
def test_bytes_that_are_no_request_are_refused(simulator: Simulator, sent: bytes, status: bytes) -> None:
    """Malformed, endless or oversized requests get one answer and a closed connection."""
    with socket.create_connection(("127.0.0.1", simulator.port), timeout=5) as raw:
        raw.sendall(sent)
        assert raw.makefile("rb").read().split(b" ")[1] == status


def test_split_and_pipelined_requests_are_answered_in_order(simulator: Simulator) -> None:
    """Two requests in one packet, and one in single bytes, get their answers one after another."""
    request = b"GET /_control/health HTTP/1.1\r\nhost: x\r\n\r\n"
    with socket.create_connection(("127.0.0.1", simulator.port), timeout=5) as raw:
        raw.sendall(request + request)
        for byte in request[:-1]:
            raw.sendall(bytes([byte]))
        raw.sendall(request[-1:].replace(b"\n", b"\n") + request.replace(b"host: x", b"connection: close"))
        assert raw.makefile("rb").read().count(b'{"status": "ok"}') == 4


def test_the_simulator_is_not_what_a_load_test_measures(simulator: Simulator) -> None:
    """One core answers well over a thousand requests a second (CPU time, so a busy machine does not matter)."""
    asyncio.run(_hammer(simulator.port, ["warm up"], connections=4, requests=100))
    cpu = psutil.Process(simulator.process.pid)
    before = sum(cpu.cpu_times()[:2])
    asyncio.run(_hammer(simulator.port, ["some words of a chunk"], connections=8, requests=2000))
    used = sum(cpu.cpu_times()[:2]) - before
    assert len(simulator.log()) == 2100
    assert 2000 / used >= REQUESTS_PER_CPU_SECOND


async def _hammer(port: int, texts: Sequence[str], *, connections: int, requests: int) -> None:
    """Send requests over keep-alive connections, each waiting for its answer."""
    body = json.dumps({"model": "m", "input": list(texts)}).encode()
    head = (
        f"POST /v1/embeddings HTTP/1.1\r\nauthorization: Bearer {KEY}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    payload = head.encode() + body

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(requests // connections):
            writer.write(payload)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = int(answer.split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
        writer.close()
        await writer.wait_closed()

    await asyncio.wait_for(asyncio.gather(*(client() for _ in range(connections))), timeout=60)
