"""A lane end to end: a real API, real workers and a real Redis, looked at the way the checks look at them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from readiness.checking.waiting import wait_until
from readiness.documents import Document
from readiness.simulators.embedding import vector_for
from readiness.stack.assembly import Stack
from readiness.stack.base import StackInfo, StackPlan
from readiness.stack.binaries import embedded_redis_program, find_program
from readiness.stack.strays import LEDGER
from readiness.targets import open_target
from readiness.targets.base import TERMINAL_STATES, Lane, TargetError

SECONDS = 30.0
DOCUMENTS = [Document(f"d{number}.txt", "text/plain", b"word%d " % number * 400) for number in range(3)]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackInfo]:
    """A stack without monitoring, on a real Redis."""
    if not (find_program("redis-server", "valkey-server") or embedded_redis_program()):
        pytest.skip("no real redis-server here: it adds takeover after kill -9; `make services` installs it")
    run_dir = tmp_path_factory.mktemp("lane-run")
    with Stack.start(StackPlan(monitoring=False), run_dir) as started:
        yield started.info
    assert survivors(run_dir) == []


@pytest.fixture
def lane(stack: StackInfo) -> Iterator[Lane]:
    """A fresh lane with an API."""
    with open_target("ragworker", stack).lane("lane") as fresh:
        fresh.start_api()
        yield fresh


@pytest.fixture(scope="module")
def busy(stack: StackInfo) -> Iterator[Lane]:
    """A lane with an API and a worker that several tests share: each looks at its own jobs only."""
    with open_target("ragworker", stack).lane("busy") as shared:
        shared.start_api()
        shared.start_worker()
        yield shared


def survivors(run_dir: Path) -> list[int]:
    """Children of the ledger that still live."""
    pids = [json.loads(line)["pid"] for line in (run_dir / LEDGER).read_text().splitlines()]
    return [
        pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    ]


def test_documents_go_all_the_way(busy: Lane) -> None:
    """Three documents are done, committed once each, and what SQL holds is what the simulator was asked."""
    lane = busy
    jobs = [lane.enqueue(document).job_id for document in DOCUMENTS]
    statuses = lane.wait_all(jobs, seconds=SECONDS)
    assert {status.state for status in statuses.values()} == {"done"}
    assert sorted(effect.job_id for effect in lane.effects()) == sorted(jobs)
    committed = lane.committed()
    for job_id, document in zip(jobs, DOCUMENTS, strict=True):
        row = committed[job_id]
        assert (row.name, row.sha256, row.words) == (document.name, document.sha256, 400)
        # 400 words: chunks of 180, 180 and 100 words, which are 234, 234 and 130 tokens.
        assert (row.chunk_count, row.chunk_rows, row.vector_rows) == (3, 3, 3)
        assert row.token_count == row.token_sum == statuses[job_id].tokens == 598
        assert all(chunk.vector == vector_for(chunk.text) for chunk in lane.chunks(job_id))
    assert sum(int(str(request["inputs"])) for request in lane.embedding_log()) == 9
    assert (lane.depth(), lane.in_flight(), lane.dead_letters()) == (0, 0, [])


def test_another_worker_finishes_what_a_killed_one_held(lane: Lane) -> None:
    """kill -9 of a busy worker loses no document and commits none twice."""
    lane.script_embedding([], latency_ms=400)
    first = lane.start_worker()
    jobs = [lane.enqueue(document).job_id for document in DOCUMENTS]
    wait_until(lambda: lane.in_flight() > 0, seconds=SECONDS, what="a claimed job")
    first.kill()
    assert not first.alive
    second = lane.start_worker()
    statuses = lane.wait_all(jobs, seconds=SECONDS)
    assert {status.state for status in statuses.values()} == {"done"}
    assert max(status.deliveries for status in statuses.values()) >= 2
    assert sorted(effect.job_id for effect in lane.effects()) == sorted(jobs)
    assert second.alive
    assert [worker.pid for worker in lane.workers] == [first.pid, second.pid]


def test_a_job_waits_until_there_is_a_worker_and_can_be_cancelled(lane: Lane) -> None:
    """Without worker a job stays queued and counted; cancelled, it ends without effect; unknown jobs are missing."""
    job = lane.enqueue(DOCUMENTS[0], key="once")
    assert (job.status_code, job.mode, job.state) == (202, "durable", "queued")
    again = lane.enqueue(DOCUMENTS[0], key="once")
    assert (again.status_code, again.job_id, again.duplicate) == (200, job.job_id, True)
    assert lane.depth() == 1
    assert lane.cancel(job.job_id, reason="a test") == 202
    lane.start_worker()
    status = lane.wait_all([job.job_id], seconds=SECONDS)[job.job_id]
    assert (status.state, lane.effects()) == ("cancelled", [])
    assert lane.status("no-such-job").state == "missing"
    assert lane.cancel(job.job_id) == 409


def test_a_document_that_cannot_be_embedded_is_a_dead_letter_and_comes_back(busy: Lane) -> None:
    """A scripted refusal ends in the dead-letter queue with its error; requeued with a mended script, it is done."""
    lane = busy
    lane.script_embedding([{"contains": "word0", "status": 400}])
    job_id = lane.enqueue(DOCUMENTS[0], key="dead").job_id
    status = lane.wait_all([job_id], seconds=SECONDS)[job_id]
    assert status.state == "dead"
    assert status.error_code
    assert [entry["job_id"] for entry in lane.dead_letters()] == [job_id]
    lane.script_embedding([])
    assert lane.requeue(job_id) == 202
    assert lane.wait_all([job_id], seconds=SECONDS)[job_id].state == "done"


def test_log_lines_of_all_processes_are_parsed(busy: Lane) -> None:
    """Every line of API and worker is JSON, and the request's ids are in the worker's lines."""
    lane = busy
    submitted = lane.enqueue(DOCUMENTS[1], key="logs")
    lane.wait_all([submitted.job_id], seconds=SECONDS)
    mine = [line for line in lane.log_lines() if line.get("job_id") == submitted.job_id]
    assert {line["service"] for line in mine} == {"ragworker-api", "ragworker-worker"}
    assert {line["request_id"] for line in mine} == {submitted.request_id}
    assert [line["_raw"] for line in lane.log_lines() if "_raw" in line] == []


def test_the_api_comes_back_on_its_port(lane: Lane) -> None:
    """A killed API answers again at the same address after a restart, and knows its jobs."""
    job_id = lane.enqueue(DOCUMENTS[2]).job_id
    address = lane.api_url
    lane.kill_api()
    with pytest.raises(TargetError, match="expected an answer"):
        lane.status(job_id)
    lane.start_api()
    assert lane.api_url == address
    assert lane.status(job_id).state == "queued"
    lane.stop_api()


def test_a_frozen_worker_is_alive_and_goes_on(lane: Lane) -> None:
    """A paused worker exists but commits nothing; resumed or replaced, the document is committed once."""
    worker = lane.start_worker()
    worker.pause()
    job_id = lane.enqueue(DOCUMENTS[0]).job_id
    assert worker.alive
    assert lane.effects() == []
    worker.resume()
    assert lane.wait_all([job_id], seconds=SECONDS)[job_id].state == "done"
    worker.stop()
    worker.stop()
    assert not worker.alive


def test_the_flag_switches_a_running_lane(busy: Lane) -> None:
    """set_flag reaches the next request of a running API."""
    lane = busy
    assert lane.enqueue(DOCUMENTS[0], key="flag-on").mode == "durable"
    lane.set_flag("false")
    submitted = lane.enqueue(DOCUMENTS[1], key="flag-off")
    lane.set_flag("true")
    assert submitted.mode == "background"
    assert lane.wait_all([submitted.job_id], seconds=SECONDS)[submitted.job_id].state in TERMINAL_STATES


def test_a_setting_that_the_target_refuses_is_one_line(stack: StackInfo) -> None:
    """A target that does not start is a TargetError with its own words, and leaves no process."""
    with open_target("ragworker", stack).lane("refused", settings={"RAG_MAX_RETRIES": "many"}) as lane:
        with pytest.raises(TargetError, match="RAG_MAX_RETRIES") as caught:
            lane.start_api()
        assert "\n" not in str(caught.value)


def test_a_wished_port_that_is_taken_is_said(stack: StackInfo) -> None:
    """A lane whose settings name a port starts on it or fails with the target's words; it takes no other."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with open_target("ragworker", stack).lane("port", settings={"RAG_API_PORT": port}) as lane:
            with pytest.raises(TargetError, match=port):
                lane.start_api()
            with pytest.raises(TargetError, match="expected a started API"):
                lane.enqueue(DOCUMENTS[0])


def test_processes_of_a_lane_die_with_a_killed_harness(stack: StackInfo, tmp_path: Path) -> None:
    """kill -9 of a harness process that holds a lane ends the lane's API and worker."""
    if sys.platform != "linux":
        pytest.skip("children that die with the harness need PR_SET_PDEATHSIG (Linux)")
    program = f"""
    import time
    from pathlib import Path
    from readiness.stack import StackInfo
    from readiness.targets import open_target
    with open_target("ragworker", StackInfo.read(Path({str(stack.run_dir)!r}))).lane("orphan") as lane:
        lane.start_api()
        worker = lane.start_worker()
        print(lane._api.pid, worker.pid, flush=True)
        time.sleep(60)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE
    ) as harness:
        assert harness.stdout is not None
        pids = [int(word) for word in harness.stdout.readline().split()]
        assert len(pids) == 2
        os.kill(harness.pid, signal.SIGKILL)
    wait_until(
        lambda: not set(pids) & set(survivors(stack.run_dir)), seconds=10, what="the end of API and worker"
    )
