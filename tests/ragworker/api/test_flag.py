"""USE_DURABLE_WORKER: re-read at run time, one value per request, and no request harmed when it turns."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from api_process import Api, RedisServer, running_api, wait_until
from starlette.types import Message, Receive, Scope, Send

from ragworker.api.auth import Authenticator
from ragworker.api.context import RequestContext, durable_selected
from ragworker.telemetry import ProcessFigures


@pytest.fixture(scope="module")
def turning_api(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """An API whose flag these tests turn; retries come late, so that background jobs stay to be looked at."""
    with running_api(
        tmp_path_factory.mktemp("flag"), redis_url=redis_server.url, RAG_RETRY_BASE_SECONDS="100"
    ) as api:
        yield api


def test_flag_turns_at_run_time_both_ways(turning_api: Api) -> None:
    """Rewriting the file decides the next request; jobs of both places stay to be found."""
    modes = {}
    for number, flag in enumerate(["true", "FALSE", "On", "0", "yes", "no"]):
        turning_api.set_flag(flag)
        modes[flag] = turning_api.submit(f"flag text {number}").json()
    assert [answer["mode"] for answer in modes.values()] == ["durable", "background"] * 3
    for answer in modes.values():
        job = turning_api.client.get(f"/rag/jobs/{answer['job_id']}").json()
        assert (job["job_id"], job["mode"]) == (answer["job_id"], answer["mode"])


def test_unclear_flag_is_false_with_one_warning(turning_api: Api) -> None:
    """A text that is no yes and no no selects the background, and is said once, not at every request."""
    turning_api.set_flag("perhaps")
    answers = [turning_api.submit(f"unclear flag {number}").json()["mode"] for number in range(3)]
    turning_api.set_flag("true")
    assert answers == ["background"] * 3
    (line,) = turning_api.lines(message="settings.flag_not_understood")
    assert (line["level"], "perhaps" in line["reason"]) == ("WARNING", True)


def test_turning_the_flag_under_load_fails_no_request(turning_api: Api) -> None:
    """Eight clients submit and look while the flag turns twenty times: no request fails, no accepted job is lost."""
    failures: list[str] = []
    accepted: dict[str, str] = {}
    turned = threading.Event()

    def client(number: int) -> None:
        with httpx.Client(base_url=turning_api.client.base_url, timeout=15, trust_env=False) as http:
            for count in itertools.count():
                if turned.is_set():
                    return
                answer = http.post("/rag/jobs", json={"text": f"text {count} of client {number}"})
                if answer.status_code != 202:
                    failures.append(answer.text)
                    continue
                job = answer.json()
                accepted[job["job_id"]] = job["mode"]
                for path in (f"/rag/jobs/{job['job_id']}", "/rag/dlq", "/readyz"):
                    if not (seen := http.get(path)).is_success:
                        failures.append(seen.text)

    with ThreadPoolExecutor(8) as pool:
        clients = [pool.submit(client, number) for number in range(8)]
        for turn in range(20):
            before = len(accepted)
            turning_api.set_flag("false" if turn % 2 else "true")
            # Ten more jobs under each value: the flag turns amid requests, not between them.
            wait_until(lambda: len(accepted) >= before + 10, seconds=20, what="ten more jobs")  # noqa: B023  called at once
        turned.set()
        for one in clients:
            one.result(timeout=20)
    turning_api.set_flag("true")
    assert not failures, f"{len(failures)} of {4 * len(accepted)} requests failed: {failures[:3]}"
    assert len(accepted) >= 200
    assert set(accepted.values()) == {"durable", "background"}
    for job_id, mode in accepted.items():
        assert turning_api.client.get(f"/rag/jobs/{job_id}").json()["mode"] == mode


def test_background_jobs_stream_and_cancel_like_durable_ones(turning_api: Api) -> None:
    """A background job can be watched and cancelled by the same routes, and the stream ends."""
    turning_api.set_flag("false")
    job_id = turning_api.submit("background text to cancel").json()["job_id"]
    with turning_api.client.stream("GET", f"/rag/jobs/{job_id}/events") as answer:
        lines = answer.iter_lines()
        assert any(line.startswith("data: ") for line in lines)
        assert turning_api.client.post(f"/rag/jobs/{job_id}/cancel").status_code == 202
        assert "event: end" in list(lines)
    turning_api.set_flag("true")
    assert turning_api.client.get(f"/rag/jobs/{job_id}").json()["state"] == "cancelled"


def test_one_request_sees_one_value() -> None:
    """Requests that overlap each keep the value they began with, in threads too, whatever the flag does (A3)."""
    values = iter([True, False, True, False])
    seen: list[tuple[bool, ...]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        first = durable_selected()
        await asyncio.sleep(0.01)
        seen.append((first, durable_selected(), await asyncio.to_thread(durable_selected)))

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(_: Message) -> None: ...

    async def overlap() -> None:
        outermost = RequestContext(
            app, read_flag=lambda: next(values), authenticator=Authenticator(), figures=ProcessFigures()
        )
        scope: Scope = {"type": "http", "scheme": "http", "method": "GET", "path": "/", "headers": []}
        await asyncio.gather(*(outermost(dict(scope), receive, send) for _ in range(4)))

    asyncio.run(overlap())
    assert sorted(seen) == [(False,) * 3] * 2 + [(True,) * 3] * 2


def test_flag_outside_a_request_is_a_mistake() -> None:
    """Asking for the flag where no request runs fails loudly instead of guessing."""
    with pytest.raises(LookupError):
        durable_selected()


def test_vanished_flag_file_keeps_the_last_value(redis_server: RedisServer, tmp_path: Path) -> None:
    """A flag file that cannot be read leaves the last value in force, with a warning."""
    with running_api(tmp_path, redis_url=redis_server.url) as api:
        assert api.submit("before").json()["mode"] == "durable"
        api.flag_file.unlink()
        assert api.submit("after").json()["mode"] == "durable"
        wait_until(lambda: bool(api.lines(level="WARNING")), seconds=5, what="a warning in the log")
