"""Hand in jobs in the ways that are measured, and time each. Knows a queue only as a module of this folder.

A phase is a JSON object: `mode`, `jobs`, `first` (the number of its first job), and for `paced` also `rate`.

    one     one after another, each waited for          fill    as fast as the queue can, not measured
    fifty   50 at once with asyncio.gather, repeated    paced   at `rate` jobs a second, on an absolute schedule
    bulk    batches by the queue's own bulk call

The producer runs on plain asyncio for every queue: the loop is the application's choice, not the queue's.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import time
from pathlib import Path
from types import ModuleType
from typing import Any

from bench.peers.stage import STAGE

GATHERED = 50


def produce(peer: ModuleType) -> None:
    """Do all phases of the stage; the results are a JSON file in the stage's folder."""
    if inspect.iscoroutinefunction(peer.submit):
        results = asyncio.run(_produce_async(peer))
    else:
        results = [_timed(phase, _SYNC[_way(peer, phase, "one")](peer, phase)) for phase in STAGE.phases]
    Path(STAGE.out, "submitted.json").write_text(json.dumps(results), encoding="utf-8")


async def _produce_async(peer: ModuleType) -> list[dict[str, Any]]:
    if hasattr(peer, "open"):
        await peer.open()
    results = []
    for phase in STAGE.phases:
        results.append(_timed(phase, await _ASYNC[_way(peer, phase, "fifty")](peer, phase)))
    if hasattr(peer, "close"):
        await peer.close()
    return results


def _way(peer: ModuleType, phase: dict[str, Any], fastest: str) -> str:
    if phase["mode"] != "fill":
        return str(phase["mode"])
    return "bulk" if hasattr(peer, "submit_many") else fastest


def _timed(phase: dict[str, Any], seconds: float) -> dict[str, Any]:
    return {"mode": phase["mode"], "jobs": phase["jobs"], "seconds": seconds}


def _numbers(phase: dict[str, Any]) -> range:
    return range(phase["first"], phase["first"] + phase["jobs"])


def _batches(phase: dict[str, Any], size: int) -> list[range]:
    numbers = _numbers(phase)
    return [numbers[at : at + size] for at in range(0, len(numbers), size)]


def _one(peer: ModuleType, phase: dict[str, Any]) -> float:
    began = time.perf_counter()
    for n in _numbers(phase):
        peer.submit(n, time.time_ns())
    return time.perf_counter() - began


def _bulk(peer: ModuleType, phase: dict[str, Any]) -> float:
    began = time.perf_counter()
    for batch in _batches(phase, STAGE.bulk):
        peer.submit_many(batch)
    return time.perf_counter() - began


def _paced(peer: ModuleType, phase: dict[str, Any]) -> float:
    began = time.perf_counter()
    for position, n in enumerate(_numbers(phase)):
        time.sleep(max(0.0, began + position / phase["rate"] - time.perf_counter()))
        peer.submit(n, time.time_ns())
    return time.perf_counter() - began


async def _one_async(peer: ModuleType, phase: dict[str, Any]) -> float:
    began = time.perf_counter()
    for n in _numbers(phase):
        await peer.submit(n, time.time_ns())
    return time.perf_counter() - began


async def _fifty_async(peer: ModuleType, phase: dict[str, Any]) -> float:
    began = time.perf_counter()
    for batch in _batches(phase, GATHERED):
        await asyncio.gather(*(peer.submit(n, time.time_ns()) for n in batch))
    return time.perf_counter() - began


async def _bulk_async(peer: ModuleType, phase: dict[str, Any]) -> float:
    began = time.perf_counter()
    for batch in _batches(phase, STAGE.bulk):
        await peer.submit_many(batch)
    return time.perf_counter() - began


async def _paced_async(peer: ModuleType, phase: dict[str, Any]) -> float:
    began = time.perf_counter()
    for position, n in enumerate(_numbers(phase)):
        await asyncio.sleep(max(0.0, began + position / phase["rate"] - time.perf_counter()))
        await peer.submit(n, time.time_ns())
    return time.perf_counter() - began


_SYNC = {"one": _one, "bulk": _bulk, "paced": _paced}
_ASYNC = {"one": _one_async, "fifty": _fifty_async, "bulk": _bulk_async, "paced": _paced_async}
