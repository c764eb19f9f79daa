"""Copy into the history what the target's own records say when everything is over: commits, logs, ends, leftovers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from readiness.checking.history import requests_of
from readiness.faults.history import (
    Claim,
    Effect,
    Embed,
    End,
    Gauge,
    History,
    Leftover,
    Report,
    Settle,
    TakeOver,
    Undo,
    WorkerSeen,
    now_ms,
)
from readiness.targets.base import Lane, Sighting, TargetError

QUIET_SECONDS = 8.0
"""Settles and sweeps that follow the last end: a lease of 3 s, the sweep every 3 s, a busy machine."""

LOOK_SECONDS = 0.25


def gather(lane: Lane, history: History, *, report_events: Iterable[str] = ()) -> None:
    """Write down what the target kept: call it when no job moves any more."""
    for effect in lane.effects():
        history.add(Effect(effect.at_ms, effect.job_id, effect.worker, effect.fence))
    for undone in lane.undone():
        history.add(Undo(undone.at_ms, undone.job_id, undone.fence))
    for sighting in lane.sightings():
        _add_sighting(history, sighting)
    _add_embeds(lane, history)
    for job in history.story().acknowledged:
        history.add(_end(lane, job))
    wanted = sorted(set(report_events))
    if wanted:
        lines = [str(line.get("message")) for line in lane.log_lines()]
        for event in wanted:
            history.add(Report(now_ms(), event, lines.count(event)))


def gather_quiet(lane: Lane, history: History) -> None:
    """Wait until gauges are 0 and nothing is left behind, then write both down, whatever they are by then."""
    deadline = time.monotonic() + QUIET_SECONDS
    while True:
        figures = [("jobs waiting", _figure(lane.depth)), ("jobs running", _figure(lane.in_flight))]
        left = lane.leftovers()
        quiet = not left and all(value == 0 for _, value in figures)
        if quiet or time.monotonic() >= deadline:
            break
        time.sleep(LOOK_SECONDS)
    for name, value in figures:
        history.add(Gauge(now_ms(), name, value))
    for what in left:
        history.add(Leftover(now_ms(), what))


def _add_sighting(history: History, seen: Sighting) -> None:
    match seen.kind:
        case "ready":
            history.add(WorkerSeen(seen.at_ms, seen.worker, seen.pid))
        case "claimed":
            history.add(Claim(seen.at_ms, seen.job_id, seen.worker, seen.fence, seen.attempt, seen.delivery))
        case "settled" | "refused":
            history.add(Settle(seen.at_ms, seen.job_id, seen.outcome, seen.kind == "settled"))
        case "taken_over":
            history.add(TakeOver(seen.at_ms, seen.job_id, seen.worker))


def _add_embeds(lane: Lane, history: History) -> None:
    """Requests by the job whose text they carried. The simulator's clock is CLOCK_MONOTONIC: shifted to the epoch."""
    job_of = {submit.digest: submit.job for submit in history.story().submits if submit.job}
    shift = time.time() - time.monotonic()
    for request in requests_of(lane.embedding_log()):
        at, ended = 1000 * (request.at + shift), 1000 * (request.ended + shift)
        for digest in request.digests:
            if digest in job_of:
                history.add(Embed(round(at, 1), round(ended, 1), job_of[digest], request.status))


def _end(lane: Lane, job: str) -> End:
    try:
        status = lane.status(job)
    except TargetError as error:  # an answer that makes no sense is the target's fault, and no final state
        return End(now_ms(), job, "unreadable", error=str(error)[:200])
    if status.state == "missing":
        return End(now_ms(), job, "missing")
    return End(
        now_ms(),
        job,
        status.state,
        status.attempt,
        status.deliveries,
        status.finished_ms,
        f"{status.error_code} {status.error_message}".strip()[:200],
        tuple((event.at_ms, event.event, event.worker) for event in status.history),
    )


def _figure(ask: Callable[[], int]) -> float:
    try:
        return float(ask())
    except TargetError:
        return -1.0  # no figure: not zero, so that silence does not pass
