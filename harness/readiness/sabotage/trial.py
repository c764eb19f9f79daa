"""One `readiness run` of a copy of the checkout, and what it left: verdicts, words of the failures, its last lines.

The run is a process of its own whose packages come from the copy. What its report means is left to `judging.py`.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from readiness.errors import Interrupted
from readiness.evidence import read_all
from readiness.stack.processes import ManagedProcess, clean_environment, read_tail, spawn

RUN_SECONDS: Final[Mapping[str, float]] = {"quick": 420.0, "release": 1800.0}
"""How long one run may take, by profile: a sabotaged system may make every wait of its checks run out."""

STOP_SECONDS: Final = 12.0
"""An interrupted run ends its own processes first and seals what it has."""

PROCESS: Final = "run"
POLL_SECONDS: Final = 0.1
TAIL_LINES: Final = 8
LONGEST_WORDS: Final = 20_000
"""Characters kept of one claim's failure: more than any message, less than a log."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What one run left. `status` None: it was ended after its deadline. No verdicts: it wrote no scorecard."""

    status: int | None
    verdicts: Mapping[str, str]
    words: Mapping[str, str] = field(default_factory=dict)
    last_lines: str = ""
    seconds: float = 0.0

    @property
    def failed(self) -> tuple[str, ...]:
        """The claims that the run found FAILED or INVALID."""
        return tuple(claim for claim, verdict in self.verdicts.items() if verdict in ("FAILED", "INVALID"))


def run_copy(copy: Path, reports: Path, *, profile: str, only: Sequence[str], stop: threading.Event) -> Seen:
    """Run the checks of ``only`` (all when empty) on ``copy``; the run writes into the new folder ``reports``.

    Raises Interrupted, after the run and all that it started have ended, as soon as ``stop`` is set.
    """
    reports.mkdir(parents=True)
    chosen = [word for claim in only for word in ("--only", claim)]
    words = ["run", "--root", str(copy), "--reports", str(reports), "--profile", profile, *chosen]
    packages = f"{copy / 'system'}:{copy / 'harness'}"
    began = time.monotonic()
    process = spawn(
        reports,
        PROCESS,
        [sys.executable, "-m", "readiness", *words],
        env=clean_environment({"PYTHONPATH": packages}),
        cwd=copy,
    )
    try:
        status = _wait(process, seconds=RUN_SECONDS.get(profile, max(RUN_SECONDS.values())), stop=stop)
    finally:
        process.stop(STOP_SECONDS)
    verdicts, said = read_report(reports)
    return Seen(
        status=status,
        verdicts=verdicts,
        words=said,
        last_lines=" | ".join(read_tail(process.log, TAIL_LINES)),
        seconds=round(time.monotonic() - began, 1),
    )


def read_report(reports: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Return verdict and words of failure per claim of the run below ``reports``; nothing without a scorecard."""
    run = next(iter(sorted((reports / "runs").glob("*"))), None)
    if run is None:
        return {}, {}
    try:
        card = json.loads((run / "scorecard.json").read_text(encoding="utf-8"))
        claims = {str(claim["id"]): claim for claim in card["claims"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}, {}
    evidence = read_all(run)
    verdicts = {name: str(claim.get("verdict")) for name, claim in claims.items()}
    words: dict[str, str] = {}
    for name, claim in claims.items():
        if verdicts[name] in ("FAILED", "INVALID", "NOT_RUN"):
            records = evidence[name].records if name in evidence else ()
            said = [
                *_of_claim(claim),
                *(line for record in records for line in _of_record(record.kind, record.data)),
            ]
            words[name] = "\n".join(said)[:LONGEST_WORDS]
    return verdicts, words


def _of_claim(claim: Mapping[str, Any]) -> list[str]:
    reason = claim.get("reason")
    said = (
        [str(reason.get("detail", "")), json.dumps(reason, ensure_ascii=False)]
        if isinstance(reason, dict)
        else []
    )
    with contextlib.suppress(KeyError, TypeError):
        said.append(str(claim["measured"]["en"]))
    return [line for line in said if line]


def _of_record(kind: str, data: Mapping[str, Any]) -> list[str]:
    if kind == "outcome":
        return [str(data.get("reason", ""))] if data.get("outcome") != "passed" else []
    examples = data.get("examples")
    return [str(example) for example in examples] if isinstance(examples, list) else []


def _wait(process: ManagedProcess, *, seconds: float, stop: threading.Event) -> int | None:
    deadline = time.monotonic() + seconds
    while (status := process.poll()) is None:
        if stop.wait(POLL_SECONDS):
            raise Interrupted
        if time.monotonic() > deadline:
            return None
    return status
