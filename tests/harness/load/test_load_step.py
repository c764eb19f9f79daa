"""The load step with the real Locust against a small service that behaves well, badly, or not at all."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from harness.sample_scorecard import sample_profile
from load_service import Mood, Service, running

from readiness.evidence import EvidenceWriter, Record, read_claim
from readiness.evidence.writer import read_claim_file
from readiness.judge.validity import broken_rule
from readiness.load.plan import LoadPlan
from readiness.load.rawlog import LogTail
from readiness.load.step import LOAD_CLAIMS, LoadResult, run_load

LOCUSTFILE = Path(__file__).resolve().parents[3] / "loadtests" / "locustfile.py"
JUDGED = {"samples", "trials", "cases", "exposure"}


@dataclass
class FakeWorker:
    """This very process plays the worker."""

    pid: int = field(default_factory=os.getpid)
    alive: bool = True


@dataclass
class FakeLane:
    api_url: str
    workers: list[FakeWorker] = field(default_factory=lambda: [FakeWorker(), FakeWorker()])


@dataclass
class Ran:
    """A finished step: its result, its run folder, what the service counted, what the person was told."""

    result: LoadResult
    run_dir: Path
    service: Service
    told: list[str]

    def records(self, claim: str) -> list[Record]:
        return read_claim(self.run_dir, claim)

    def data(self, claim: str, kind: str) -> dict[str, object]:
        (record,) = [record for record in self.records(claim) if record.kind == kind]
        return dict(record.data)

    def kinds(self, claim: str) -> set[str]:
        return {record.kind for record in self.records(claim)}

    def outcomes(self) -> set[tuple[object, object]]:
        found = [self.data(claim, "outcome") for claim in LOAD_CLAIMS]
        return {(data["outcome"], data["reason"]) for data in found}


def run(
    tmp_path: Path,
    mood: Mood,
    *,
    plan: LoadPlan | None = None,
    disturb: Callable[[Path], None] | None = None,
    locustfile: Path = LOCUSTFILE,
    lane: Callable[[str], FakeLane] = FakeLane,
) -> Ran:
    told: list[str] = []
    plan = plan or LoadPlan(seconds=2, users=8, streams=40, seed=11, drain_seconds=1)
    with running(mood) as service:
        threading.Thread(target=disturb, args=(tmp_path,), daemon=True).start() if disturb else None
        writer = EvidenceWriter(tmp_path, command="readiness run")
        result = run_load(
            plan,
            lane=lane(service.url),
            run_dir=tmp_path,
            writer=writer,
            notify=told.append,
            locustfile=locustfile,
        )
    return Ran(result, tmp_path, service, told)


def generator_pid(run_dir: Path) -> int:
    """The process id that the generator wrote into its first line."""
    tail = LogTail(run_dir / "data" / "load.jsonl")
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for line in tail.new_lines():
            if line["kind"] == "start":
                return int(str(line["pid"]))
        time.sleep(0.02)
    raise AssertionError("the generator wrote no start line within 20 s")


def test_a_good_service_gives_evidence_that_equals_what_the_service_counted(tmp_path: Path) -> None:
    """Every planned job and stream is made, unlike any other, and each request is a sample: the service's own count."""
    ran = run(tmp_path, Mood(job_seconds=0.15))
    service = ran.service
    assert ran.result.problem == ""
    assert len(service.born) == service.streams == len(set(service.texts)) == len(set(service.keys)) == 40
    assert len(ran.data("H6.api_p95", "samples")["values"]) == service.requests
    assert ran.data("H3.failure_rate", "trials")["n"] == 40
    assert ran.data("H3.failure_rate", "trials")["failures"] == 0
    assert ran.data("H4.sse", "trials") == {
        "n": 40,
        "failures": 0,
        "failed_at": [],
        "unit": "streams",
        "examples": [],
    }
    assert ran.data("H2.dlq", "trials") == {"n": 40, "failures": 0, "unit": "jobs"}
    seconds = ran.data("H1.job_p95", "samples")["values"]
    assert isinstance(seconds, list)
    assert len(seconds) == 40
    assert all(0.15 <= value < 1 for value in seconds)
    exposure = ran.data("H8.mtbf", "exposure")
    assert exposure["replicas"] == 2
    assert exposure["failures"] == 0
    assert 1 < float(str(exposure["seconds"])) < 6
    assert ran.outcomes() == {("passed", "")}


def test_the_raw_log_and_the_curves_are_kept(tmp_path: Path) -> None:
    """The attached log repeats every request; the curves show the system's gauges and the workers' memory."""
    ran = run(tmp_path, Mood(), plan=LoadPlan(seconds=2, users=4, streams=20, seed=3))
    attachment = ran.data("H4.sse", "attachment")
    lines = gzip.decompress((tmp_path / str(attachment["path"])).read_bytes()).splitlines()
    assert sum(json.loads(line)["kind"] == "request" for line in lines) == ran.service.requests
    series = json.loads((tmp_path / "evidence" / "raw" / "series.json").read_text())["series"]
    by_name = {one["name"]: one["points"] for one in series}
    assert {
        "queue depth",
        "active jobs",
        "worker 1 memory",
        "worker 2 memory",
        "machine CPU",
        "arrivals",
    } <= set(by_name)
    assert {value for _, value in by_name["queue depth"]} == {3.0}
    assert ran.told[-1].startswith("load: 20 jobs, 0 not done")


def test_dead_endless_and_broken_are_counted_exactly(tmp_path: Path) -> None:
    """Dead jobs, jobs that never end and streams closed without `end` are what the service did, no more and no less."""
    ran = run(tmp_path, Mood(dead_every=5, break_every=4, endless_every=20, chunked=False, line_end="\n"))
    born = range(40)
    endless = {n for n in born if n % 20 == 0}
    dead = {n for n in born if n % 5 == 0} - endless
    broken = {n for n in born if n % 4 == 0} | endless
    assert ran.data("H3.failure_rate", "trials")["failures"] == len(dead | endless)
    assert ran.data("H2.dlq", "trials")["failures"] == len(dead)
    assert ran.data("H4.sse", "trials")["failures"] == len(broken)
    values = ran.data("H1.job_p95", "samples")["values"]
    assert isinstance(values, list)
    assert values.count(3600.0) == len(dead | endless)


@pytest.mark.parametrize("mood", [Mood(status=503), Mood(silent=True)], ids=["refuses", "never answers"])
def test_a_service_that_answers_nothing_fails(tmp_path: Path, mood: Mood) -> None:
    """Refusing every job or never answering is a failure with the number of requests, never a pass with no samples."""
    ran = run(tmp_path, mood, plan=LoadPlan(seconds=1, users=4, streams=8, seed=3, drain_seconds=1))
    ((outcome, reason),) = ran.outcomes()
    assert outcome == "failed"
    assert "none of 8 requests" in str(reason)
    assert ran.data("H3.failure_rate", "trials")["failures"] == 8
    assert min(ran.data("H6.api_p95", "samples")["values"]) >= 10_000


def test_a_generator_that_dies_measures_nothing(tmp_path: Path) -> None:
    """A Locust killed half-way leaves an error with its status and no judged record, however good its first half."""
    ran = run(tmp_path, Mood(), disturb=lambda folder: os.kill(generator_pid(folder), signal.SIGKILL))
    assert "Locust ended with status -9" in ran.result.problem
    assert {outcome for outcome, _ in ran.outcomes()} == {"error"}
    assert all(not ran.kinds(claim) & JUDGED for claim in LOAD_CLAIMS)


def test_a_starved_generator_measures_nothing(tmp_path: Path) -> None:
    """A generator that was frozen for a second blames itself, not the service."""

    def freeze(folder: Path) -> None:
        process = psutil.Process(generator_pid(folder))
        process.suspend()
        time.sleep(1.2)
        process.resume()

    ran = run(tmp_path, Mood(), disturb=freeze)
    lag = ran.result.validity["late_ms_p99"]
    assert isinstance(lag, float)
    assert lag > 250
    for claim in set(LOAD_CLAIMS) - {"H1.job_p95"}:  # a second is little where the target is a minute
        reason = broken_rule(sample_profile().claim(claim), read_claim_file(tmp_path, claim).records)
        assert reason is not None
        assert reason.code == "harness_schedule"


def test_a_locust_file_that_cannot_be_loaded_measures_nothing(tmp_path: Path) -> None:
    """A Locust that ends at once is an error that quotes its log."""
    broken = tmp_path / "locustfile.py"
    broken.write_text("raise SystemExit('no users today')\n")
    ran = run(tmp_path, Mood(), locustfile=broken)
    assert "Locust ended with status" in ran.result.problem
    assert "no users today" in ran.result.problem
    assert {outcome for outcome, _ in ran.outcomes()} == {"error"}


def test_an_endless_generator_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Locust that hangs for ever is ended at the limit, and no process of it is left."""
    monkeypatch.setattr("readiness.load.plan.STARTUP_SECONDS", -8.0)  # the limit becomes three seconds
    pids: list[int] = []

    def hang(folder: Path) -> None:
        pids.append(generator_pid(folder))
        psutil.Process(pids[0]).suspend()

    plan = LoadPlan(seconds=1, users=2, streams=4, seed=1, drain_seconds=0)
    ran = run(tmp_path, Mood(), plan=plan, disturb=hang)
    assert "was not done within 3 s and was ended" in ran.result.problem
    assert not psutil.pid_exists(pids[0])


def test_a_worker_that_dies_under_load_is_a_failure_in_the_exposure(tmp_path: Path) -> None:
    """The mean time between failures hears of each worker that was alive before and is gone after."""
    lane = FakeLane("")

    def with_url(url: str) -> FakeLane:
        lane.api_url = url
        return lane

    def bury(folder: Path) -> None:
        generator_pid(folder)
        lane.workers[0].alive = False

    plan = LoadPlan(seconds=1, users=2, streams=6, seed=1)
    ran = run(tmp_path, Mood(), plan=plan, disturb=bury, lane=with_url)
    assert ran.data("H8.mtbf", "exposure")["failures"] == 1


def test_no_worker_means_no_exposure(tmp_path: Path) -> None:
    """Without a worker there is nothing whose failures could be counted: an error for that claim alone."""
    plan = LoadPlan(seconds=1, users=2, streams=6, seed=1)
    ran = run(tmp_path, Mood(), plan=plan, lane=lambda url: FakeLane(url, workers=[]))
    assert ran.data("H8.mtbf", "outcome")["outcome"] == "error"
    assert "exposure" not in ran.kinds("H8.mtbf")
    assert ran.data("H4.sse", "outcome")["outcome"] == "passed"


def test_the_locust_file_works_by_hand_without_a_plan(tmp_path: Path) -> None:
    """Plain `locust -f loadtests/locustfile.py --host URL` submits at its gentle rate and ends with status 0."""
    argv = [
        sys.executable,
        "-m",
        "locust",
        "-f",
        str(LOCUSTFILE),
        "--headless",
        "-u",
        "20",
        "-r",
        "20",
        "-t",
        "2s",
    ]
    env = {name: value for name, value in os.environ.items() if not name.startswith("READINESS_LOAD_")}
    with running(Mood(job_seconds=0.05)) as service:
        ran = subprocess.run(
            [*argv, "--host", service.url, "--stop-timeout", "5"],
            env=env,
            cwd=tmp_path,
            capture_output=True,
            timeout=60,
            check=False,
        )
    assert ran.returncode == 0, ran.stderr.decode()[-2000:]
    assert 3 <= len(service.born) <= 45  # about 20 users x 0.5/s x 2 s
    assert service.streams == len(service.born)
    assert list(tmp_path.iterdir()) == []
