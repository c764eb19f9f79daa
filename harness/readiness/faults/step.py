"""The fault step of a run: every scenario, two at a time in processes of their own, and the evidence of it.

A scenario that this machine cannot do stands in the ledger as not run and counts for nothing. One whose fault was not
proven, or that the harness could not play, leaves the claim about faults open: silence never passes. What the figures
mean for a claim is left to the judge.
"""

from __future__ import annotations

import signal
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from readiness.errors import HarnessFailure
from readiness.evidence import EvidenceWriter
from readiness.faults.engine import FOLDER
from readiness.faults.result import Played
from readiness.faults.scenario import Scenario, load_scenarios
from readiness.load.series import Fault, merge_series
from readiness.stack.docker import step_environment
from readiness.stack.processes import ManagedProcess, clean_environment, read_tail, spawn

CHECK = "faults step"
AT_ONCE = 2
"""Scenarios that play at the same time: they mostly wait, and the machine's cores belong to the system."""

POLL_SECONDS = 0.2
SCENARIO_SECONDS = 240.0
"""No scenario may take longer, its stand and its liveness deadline included."""

END_SECONDS = 8.0
"""For healing and ending everything when the run is interrupted."""

LEDGER = "fault_ledger"
"""Key of the `facts` record of K.faults that holds every line of the ledger."""

SURVIVED_CLAIM = "K.faults"
LOST_CLAIM = "A5.faults_lost"
ONCE_CLAIM = "A5.faults_once"
RECOVERY_CLAIM = "H7.faults"
FAULT_CLAIMS = (SURVIVED_CLAIM, LOST_CLAIM, ONCE_CLAIM, RECOVERY_CLAIM)
"""The claims that this step gives evidence for."""


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """What to play: scenarios of `root`, each with a seed made from the run's."""

    root: Path
    target: str
    seed: int
    command: str

    def seed_of(self, scenario: Scenario) -> int:
        """A seed of its own for each scenario, the same whenever the run's seed is the same."""
        return zlib.crc32(f"{self.seed} {scenario.name}".encode()) % 2**31


def run_faults(
    plan: FaultPlan, run_dir: Path, *, tell: Callable[[Played], None], notify: Callable[[str], None]
) -> list[Played]:
    """Play every scenario and write the evidence. BadInput for a bad scenario file, before anything is played."""
    scenarios = load_scenarios(plan.root)
    began = time.monotonic()
    played = sorted(
        _play_all(plan, run_dir, scenarios, tell=tell, notify=notify),
        key=lambda one: (one.row or 99, one.name),
    )
    write_evidence(plan, run_dir, played, seconds=time.monotonic() - began)
    _shade(run_dir, played)
    return played


def _play_all(
    plan: FaultPlan,
    run_dir: Path,
    scenarios: Sequence[Scenario],
    *,
    tell: Callable[[Played], None],
    notify: Callable[[str], None],
) -> list[Played]:
    # The longest first, so that no long one plays alone at the end.
    waiting = sorted(scenarios, key=_length)
    playing: dict[str, tuple[Scenario, ManagedProcess, float]] = {}
    done: list[Played] = []
    try:
        while waiting or playing:
            while waiting and len(playing) < AT_ONCE:
                scenario = waiting.pop()
                playing[scenario.name] = (scenario, _start(plan, run_dir, scenario), time.monotonic())
                notify(f"faults: {', '.join(playing)}; {len(done)} of {len(scenarios)} played")
            for name, (scenario, process, since) in list(playing.items()):
                late = time.monotonic() - since > SCENARIO_SECONDS
                if process.poll() is None and not late:
                    continue
                process.stop(END_SECONDS)
                del playing[name]
                done.append(_result(plan, run_dir, scenario, process, late=late))
                tell(done[-1])
            time.sleep(POLL_SECONDS)
    finally:
        for _, process, _ in playing.values():
            process.terminate()
        for _, process, _ in playing.values():
            process.await_end(time.monotonic() + END_SECONDS)
    return done


def write_evidence(plan: FaultPlan, run_dir: Path, played: Sequence[Played], *, seconds: float) -> None:
    """Records of all claims of the step: one a fault, then the ledger, the histories and the outcome."""
    writer = EvidenceWriter(run_dir, command=plan.command)
    shown = [one for one in played if one.outcome in ("survived", "failed")]
    for claim in FAULT_CLAIMS:
        writer.command = f"{plan.command} --only {claim}"
        for one in shown:
            for kind, data in _measured(claim, one):
                writer.record(claim, kind, data, fault=one.title_en, check=CHECK)
    writer.command = plan.command
    writer.record(SURVIVED_CLAIM, "facts", {LEDGER: [asdict(one) for one in played]}, check=CHECK)
    for one in played:
        if one.history and (run_dir / one.history).is_file():
            writer.attach(SURVIVED_CLAIM, run_dir / one.history, name=f"fault-{one.name}.jsonl")
    for claim in FAULT_CLAIMS:
        outcome, reason = _outcome(claim, played)
        end = {"outcome": outcome, "reason": reason, "duration_seconds": round(seconds, 3)}
        writer.record(claim, "outcome", end, check=CHECK)


def summary(played: Sequence[Played]) -> str:
    """One line for the person who watches."""
    survived = sum(one.outcome == "survived" for one in played)
    shown = [one for one in played if one.outcome in ("survived", "failed")]
    times = [one.recovery_seconds for one in shown if one.recovery_seconds is not None]
    slowest = f", the slowest recovery {max(times):.1f} s" if times else ""
    return (
        f"faults: {survived} of {len(played)} survived, {len(played) - len(shown)} not run;"
        f" {sum(one.acknowledged for one in shown)} jobs, {sum(one.lost for one in shown)} lost,"
        f" {sum(one.repeated for one in shown)} repeated{slowest}"
    )


def _length(scenario: Scenario) -> float:
    """How long it may take, roughly: only the order of play depends on it."""
    return scenario.expected.recovery_seconds + scenario.hold_seconds + len(scenario.method)


def _start(plan: FaultPlan, run_dir: Path, scenario: Scenario) -> ManagedProcess:
    words = ["--run-dir", str(run_dir), "--scenario", str(plan.root / scenario.file)]
    choice = ["--target", plan.target, "--seed", str(plan.seed_of(scenario))]
    command = [sys.executable, "-m", "readiness.faults", *words, *choice]
    env = clean_environment(step_environment())
    return spawn(run_dir, f"fault-{scenario.name}", command, env=env)


def _result(
    plan: FaultPlan, run_dir: Path, scenario: Scenario, process: ManagedProcess, *, late: bool
) -> Played:
    """The scenario's result; an error line when it left none."""
    status = process.poll()
    try:
        if status == 0:
            return Played.read(run_dir / FOLDER / scenario.name)
    except HarnessFailure:
        pass
    how = f"was not done within {SCENARIO_SECONDS:.0f} s" if late else f"ended with status {_named(status)}"
    tail = " | ".join(read_tail(process.log))
    return Played(
        name=scenario.name,
        title_en=scenario.title.en,
        title_ko=scenario.title.ko,
        row=scenario.row,
        seed=plan.seed_of(scenario),
        outcome="error",
        reason=f"{how}; logs/{process.log.name} ends with: {tail}",
        recovery_limit_seconds=scenario.expected.recovery_seconds,
    )


def _named(status: int | None) -> str:
    return signal.Signals(-status).name if status is not None and status < 0 else str(status)


def _measured(claim: str, one: Played) -> Iterable[tuple[str, dict[str, object]]]:
    """The judged records of one fault that was proven active."""
    if claim == SURVIVED_CLAIM:
        failed = one.outcome == "failed"
        what = f"{one.name}: {one.reason}"
        yield (
            "cases",
            {"n": 1, "failures": int(failed), "examples": [what] if failed else [], "what": "faults"},
        )
    elif claim == LOST_CLAIM and one.acknowledged:
        yield "trials", _jobs(one, one.lost, one.lost_jobs)
    elif claim == ONCE_CLAIM and one.acknowledged:
        yield "trials", _jobs(one, one.repeated, one.repeated_jobs)
    elif claim == RECOVERY_CLAIM:
        took, limit = one.recovery_seconds, one.recovery_limit_seconds
        if took is not None:
            what = f"recovery from: {one.name}, from the {'fault' if one.recovery_from == 'inject' else 'healing'} on"
            yield "samples", {"values": [took], "unit": "s", "what": what}
        late = took is None or took > limit
        shown = "never recovered" if took is None else f"{took:.1f} s, at most {limit:g} s declared"
        examples = [f"{one.name}: {shown}"] if late else []
        yield (
            "cases",
            {"n": 1, "failures": int(late), "examples": examples, "what": "recoveries in their bound"},
        )


def _jobs(one: Played, failures: int, examples: Sequence[str]) -> dict[str, object]:
    named = [f"{one.name}: {example}" for example in examples] if failures else []
    return {"n": one.acknowledged, "failures": failures, "unit": "jobs", "examples": named}


def _outcome(claim: str, played: Sequence[Played]) -> tuple[str, str]:
    """Whether the step could measure what the claim is about."""
    broken = [one for one in played if one.outcome == "error"]
    if not played:
        return "skipped", "the content root has no scenario in checks/faults/"
    if broken:
        return "error", f"{len(broken)} of {len(played)} faults could not be played: {broken[0].verdict}"
    failed = [one for one in played if one.outcome == "failed"]
    unproven = [one for one in played if one.outcome == "unproven"]
    if failed and claim == SURVIVED_CLAIM:
        return "failed", f"{len(failed)} of {len(played)} faults: {failed[0].verdict}"
    if unproven and claim == SURVIVED_CLAIM:
        return "error", f"{len(unproven)} of {len(played)} faults were not proven: {unproven[0].verdict}"
    return "passed", ""


def _shade(run_dir: Path, played: Sequence[Played]) -> None:
    """Each fault on the report's time axis, from its injection until the system had recovered."""
    windows = [
        (one.title_en, one.injected_ms, one.recovered_ms or one.healed_ms or one.injected_ms)
        for one in played
        if one.injected_ms is not None and one.outcome in ("survived", "failed")
    ]
    if not windows:
        return
    zero = min(start for _, start, _ in windows)
    bands = [Fault(name, (start - zero) / 1000, (end - zero) / 1000) for name, start, end in windows]
    merge_series(run_dir, (), t0=datetime.fromtimestamp(zero / 1000, UTC), faults=bands)
