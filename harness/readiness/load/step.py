"""The load step: run Locust in a process of its own against a lane, then write down what came of it as
evidence.

Every way in which the generator can fail ends in an `error` outcome and no judged figure, so that silence
never passes: a Locust that died, that sent nothing, that was starved of CPU, or that had to be ended. What
the figures mean for a claim is left to the judge.
"""

from __future__ import annotations

import gzip
import math
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from readiness.evidence import EvidenceWriter
from readiness.judge.validity import VALIDITY
from readiness.load.figures import LoadFigures, percentile, read_figures, validity, why_unbelievable
from readiness.load.plan import REQUEST_SECONDS, TOKEN_VARIABLE, LoadPlan
from readiness.load.rawlog import Line, LogTail
from readiness.load.series import MACHINE, SAMPLE_SECONDS, SeriesRecorder, load_series, merge_series
from readiness.root import find_root
from readiness.stack.processes import ManagedProcess, clean_environment, spawn

PROCESS = "load"
RAW_LOG = "load.jsonl"
CHECK = "load step"
POLL_SECONDS = 0.2
TELL_SECONDS = 2.0
EXAMPLES = 5

LOAD_CLAIMS = (
    "H1.job_p95",
    "H2.dlq",
    "H3.failure_rate",
    "H4.sse",
    "H6.api_p95",
    "H8.mtbf",
    "H9.availability",
)
"""The claims that this step gives evidence for."""

EXPOSURE_CLAIMS = ("H8.mtbf", "H9.availability")
"""Those that are about the time without a failure that nobody injected."""

LANE_SETTINGS = {"RAG_EMBEDDING_RATE_LIMIT": "100000"}
"""What a lane needs so that a longer load measures the system and not the limit of 1000 embeddings a minute. The
other settings stay at their defaults, because the claims are about those."""


class LoadWorker(Protocol):
    """A worker of the lane, as far as the load step looks at it."""

    @property
    def pid(self) -> int: ...
    @property
    def alive(self) -> bool: ...


class LoadLane(Protocol):
    """The part of a lane (`readiness.targets.base.Lane`) that the load step needs: an address, and its
    workers.
    """

    @property
    def api_url(self) -> str: ...
    @property
    def workers(self) -> Sequence[LoadWorker]: ...


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What the step did. `problem` says why nothing can be concluded from it; "" when something can."""

    figures: LoadFigures
    problem: str
    seconds: float
    worker_failures: int
    validity: Mapping[str, object]

    @property
    def sentence(self) -> str:
        """One line for the person who watches."""
        if self.problem:
            return f"load: nothing measured, {self.problem}"
        figures = self.figures
        p95 = percentile([request.sample_ms for request in figures.requests], 0.95)
        return (
            f"load: {len(figures.jobs)} jobs, {figures.not_done} not done, {len(figures.streams)} streams,"
            f" {figures.unclean_streams} broken, API P95 {p95:.0f} ms of {len(figures.requests)} requests"
        )


def run_load(
    plan: LoadPlan,
    *,
    lane: LoadLane,
    run_dir: Path,
    writer: EvidenceWriter,
    notify: Callable[[str], None],
    locustfile: Path | None = None,
    token: str = "",
    server_jobs: Callable[[], int | None] | None = None,
) -> LoadResult:
    """Put the planned load on the lane, whose API and workers run already, and write evidence of
    `LOAD_CLAIMS`.

    `locustfile` defaults to that of the content root, `token` is a Bearer token; `server_jobs` counts the jobs that
    the lane knows of, None when it cannot say. Takes at most `plan.limit_seconds` and a few more to end what is
    left. Raises StackError when Locust cannot be started at all.
    """
    file = locustfile or find_root().path / "loadtests" / "locustfile.py"
    log = run_dir / "data" / RAW_LOG
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)  # a resumed run starts its load afresh
    workers_before = [worker for worker in lane.workers if worker.alive]
    recorder = SeriesRecorder(
        metrics_url=f"{lane.api_url}/metrics",
        pids=lambda: [worker.pid for worker in workers_before if worker.alive],
    )
    began = time.monotonic()
    recorder.start()
    try:
        lines, problem = _generate(plan, lane.api_url, file, run_dir, log=log, token=token, notify=notify)
    finally:
        recorder.stop()
    figures = read_figures(lines)
    itself = validity(figures)
    itself["scrape_gap_intervals"] = round(recorder.longest_gap_seconds / SAMPLE_SECONDS, 2)
    if server_jobs is not None:
        itself["server_jobs"] = server_jobs()
    result = LoadResult(
        figures=figures,
        problem=problem or why_unbelievable(figures),
        seconds=time.monotonic() - began,
        worker_failures=sum(not worker.alive for worker in workers_before),
        validity=itself,
    )
    _write_evidence(writer, plan, result, workers=len(workers_before), log=log, recorder=recorder)
    _write_series(run_dir, recorder, figures)
    notify(result.sentence)
    return result


def _generate(
    plan: LoadPlan,
    api_url: str,
    locustfile: Path,
    run_dir: Path,
    *,
    log: Path,
    token: str,
    notify: Callable[[str], None],
) -> tuple[list[Line], str]:
    """Run Locust to its end or to its limit; its raw lines, and what went wrong with the process itself."""
    env = clean_environment({**plan.environment(log=str(log)), **({TOKEN_VARIABLE: token} if token else {})})
    process = spawn(run_dir, PROCESS, _command(plan, api_url, locustfile), env=env, cwd=locustfile.parent)
    tail = LogTail(log)
    lines: list[Line] = []
    try:
        problem = _watch(process, plan, tail, lines, notify=notify)
    finally:
        process.stop()
    lines.extend(tail.new_lines())
    return lines, problem


def _command(plan: LoadPlan, api_url: str, locustfile: Path) -> list[str]:
    everybody = str(plan.users)
    arrive = (
        f"{math.ceil(plan.seconds) + 2}s"  # its clock starts before the users do; all done ends it sooner
    )
    give_up = str(int(plan.drain_seconds + REQUEST_SECONDS))
    # Failed requests are evidence, not a reason for a bad exit status: that is for a Locust that broke.
    options = ["--headless", "--only-summary", "--exit-code-on-error", "0", "--loglevel", "INFO"]
    bounds = ["-u", everybody, "-r", everybody, "-t", arrive, "--stop-timeout", give_up]
    return [sys.executable, "-m", "locust", "-f", str(locustfile), "--host", api_url, *options, *bounds]


def _watch(
    process: ManagedProcess,
    plan: LoadPlan,
    tail: LogTail,
    lines: list[Line],
    *,
    notify: Callable[[str], None],
) -> str:
    """Collect lines until Locust ends by itself; what went wrong, "" when nothing did."""
    began = told = time.monotonic()
    while (status := process.poll()) is None:
        now = time.monotonic()
        if now - began > plan.limit_seconds:
            return f"Locust was not done within {plan.limit_seconds:.0f} s and was ended"
        lines.extend(tail.new_lines())
        if now - told >= TELL_SECONDS:
            told = now
            notify(_progress(plan, lines))
        time.sleep(POLL_SECONDS)
    return "" if status == 0 else f"Locust ended with status {status}. {process.tail_note()}"


def _progress(plan: LoadPlan, lines: Iterable[Line]) -> str:
    seen = Counter(str(line.get("kind")) for line in lines)
    return f"load: {seen['job']} of {plan.streams} jobs, {seen['stream']} streams, {seen['request']} requests"


def _write_evidence(
    writer: EvidenceWriter,
    plan: LoadPlan,
    result: LoadResult,
    *,
    workers: int,
    log: Path,
    recorder: SeriesRecorder,
) -> None:
    seen = {"machine_cpu_percent_mean": _rounded(recorder.mean(MACHINE)), "scrapes_missed": recorder.missed}
    facts = {**_facts(plan, result), **seen, "workers": workers}
    packed = _pack(log)
    command = writer.command
    for claim in LOAD_CLAIMS:
        writer.command = f"{command} --only {claim}"
        writer.record(claim, "facts", facts, check=CHECK)
        if packed:
            writer.attach(claim, packed)
        outcome, reason = _outcome(claim, result, workers=workers)
        if outcome != "error":
            for kind, data in _measured(claim, result, workers=workers):
                writer.record(claim, kind, data, check=CHECK)
        end = {"outcome": outcome, "reason": reason, "duration_seconds": round(result.seconds, 3)}
        writer.record(claim, "outcome", end, check=CHECK)
    writer.command = command


def _outcome(claim: str, result: LoadResult, *, workers: int) -> tuple[str, str]:
    """Whether the step could measure what the claim is about. The measure itself is the judge's."""
    figures = result.figures
    if result.problem:
        return "error", result.problem
    if figures.failed_requests == len(figures.requests):
        return (
            "failed",
            f"none of {len(figures.requests)} requests got a proper answer, first: {_first(figures)}",
        )
    if claim == "H4.sse" and not figures.streams:
        return "failed", "no job was accepted, so no event stream could be opened"
    if claim in EXPOSURE_CLAIMS and not workers:
        return "error", "no worker was alive when the load began"
    return "passed", ""


def _measured(claim: str, result: LoadResult, *, workers: int) -> list[tuple[str, Mapping[str, object]]]:
    """The judged records of a claim."""
    figures = result.figures
    # In the order of time, so that the judge sees which neighbours are alike.
    jobs = sorted(figures.jobs, key=lambda job: job.at)
    streams = sorted(figures.streams, key=lambda stream: stream.at)
    if claim == "H6.api_p95":
        in_order = sorted(figures.requests, key=lambda request: request.at)
        values = [round(request.sample_ms, 3) for request in in_order]
        return [
            ("samples", {"values": values, "unit": "ms", "what": "API requests under load", "ordered": True})
        ]
    if claim == "H1.job_p95":
        values = [round(job.sample_seconds, 4) for job in jobs]
        what = "submission to the end of the job"
        return [("samples", {"values": values, "unit": "s", "what": what, "ordered": True})]
    if claim == "H3.failure_rate":
        bad = [
            f"{job.job_id or 'not accepted'}: {job.state or 'never ended'}" for job in jobs if not job.done
        ]
        return [
            (
                "trials",
                {**_in_order([not job.done for job in jobs]), "unit": "jobs", "examples": bad[:EXAMPLES]},
            )
        ]
    if claim == "H4.sse":
        cut = [f"{stream.outcome}: {stream.problem}" for stream in streams if stream.outcome != "ended"]
        counted = _in_order([stream.outcome != "ended" for stream in streams])
        return [("trials", {**counted, "unit": "streams", "examples": cut[:EXAMPLES]})] if streams else []
    if claim == "H2.dlq":
        dead = sum(job.state == "dead" for job in jobs)
        return [("trials", {"n": len(jobs), "failures": dead, "unit": "jobs"})]
    exposure = {
        "seconds": round(result.figures.busy_seconds * workers, 3),
        "failures": result.worker_failures,
    }
    return [("exposure", {**exposure, "replicas": workers})]


def _in_order(failed: Sequence[bool]) -> dict[str, object]:
    """Trials in the order of time: how many, how many failed, and which."""
    places = [place for place, one in enumerate(failed) if one]
    return {"n": len(failed), "failures": len(places), "failed_at": places}


def _facts(plan: LoadPlan, result: LoadResult) -> dict[str, object]:
    figures = result.figures
    durations = [job.seconds for job in figures.jobs if job.seconds is not None]
    return {
        "seed": plan.seed,
        "planned": {"seconds": plan.seconds, "users": plan.users, "streams": plan.streams},
        "submissions": len(figures.jobs),
        "requests": len(figures.requests),
        "requests_failed": figures.failed_requests,
        "streams": len(figures.streams),
        "streams_by_outcome": dict(Counter(stream.outcome for stream in figures.streams)),
        "jobs_by_state": dict(Counter(job.state or "never ended" for job in figures.jobs)),
        "job_seconds_p50": round(percentile(durations, 0.5), 3),
        "dropped": figures.dropped,
        "worker_failures": result.worker_failures,
        VALIDITY: dict(result.validity),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def _first(figures: LoadFigures) -> str:
    return next((request.problem for request in figures.requests if request.problem), "")


def _pack(log: Path) -> Path | None:
    """The raw log, compressed the same way each time (no clock in it); None when there is none."""
    if not log.exists():
        return None
    packed = log.with_name(f"{log.name}.gz")
    with (
        log.open("rb") as source,
        packed.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as target,
    ):
        shutil.copyfileobj(source, target)
    return packed


def _write_series(run_dir: Path, recorder: SeriesRecorder, figures: LoadFigures) -> None:
    merge_series(run_dir, recorder.series(), t0=recorder.t0)
    if figures.started_wall:
        merge_series(run_dir, load_series(figures), t0=datetime.fromtimestamp(figures.started_wall, UTC))
