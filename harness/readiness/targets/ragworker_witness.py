"""What ragworker's logs, files and keys say about deliveries, in words that hold for any target. Reads only."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from readiness.targets.base import JsonObject, JsonValue, Sighting
from readiness.targets.ragworker_keys import QueueKeys

if TYPE_CHECKING:
    from readiness.targets.base import Lane

# Log event -> kind of sighting. "job.finished" tells of all ends but a hand-back, which "job.released" tells.
KINDS = {
    "worker.ready": "ready",
    "job.claimed": "claimed",
    "job.finished": "settled",
    "job.retry_scheduled": "settled",
    "job.released": "settled",
    "job.outcome_refused": "refused",
    "lease.taken_over": "taken_over",
}


def read_sightings(lines: Iterable[JsonObject]) -> list[Sighting]:
    """The log lines that tell of a delivery, in order of time."""
    found = [_sighting(KINDS[str(line["message"])], line) for line in lines if line.get("message") in KINDS]
    return sorted(found, key=lambda one: one.at_ms)


def files_below(folder: Path) -> list[Path]:
    """Every file of a temporary folder, at any depth; a folder that vanishes meanwhile has none."""
    try:
        return sorted(path for path in folder.rglob("*") if path.is_file())
    except FileNotFoundError:
        return []


def keys_out_of_place(lane: Lane) -> list[str]:
    """Jobs of the queue that are in no place, in two or in a wrong one, and what was left of uploads."""
    with QueueKeys(lane) as keys:
        return keys.snapshot().misplaced()


def _sighting(kind: str, line: JsonObject) -> Sighting:
    return Sighting(
        at_ms=_ms(line.get("timestamp")),
        kind=kind,
        job_id=_text(line.get("job_id")),
        worker=_text(line.get("from_worker" if kind == "taken_over" else "worker")),
        fence=_whole(line.get("fence")),
        attempt=_whole(line.get("attempt"), 1),
        delivery=_whole(line.get("delivery"), 1),
        outcome=_text(line.get("outcome")),
        pid=_whole(line.get("pid")),
    )


def _ms(value: JsonValue) -> int:
    return int(datetime.fromisoformat(str(value)).timestamp() * 1000) if value else 0


def _text(value: JsonValue) -> str:
    return "" if value is None else str(value)


def _whole(value: JsonValue, default: int = 0) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else default
