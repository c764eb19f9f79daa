"""Go through many sabotages: clean copy, clean run, each defect in turn, then the copy as it was must pass again.

Each of `jobs` threads owns one copy and takes the next sabotage from a common queue. The main thread only waits, so
that Ctrl-C reaches it; then every run is ended in order and the copies are removed.
"""

from __future__ import annotations

import queue
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeVar

from readiness.errors import Interrupted
from readiness.judge.profile_model import CHECK_STEPS, Profile
from readiness.sabotage.catalogue import Sabotage
from readiness.sabotage.judging import Judged, Outcome, clean_fault, judge_trial, judge_whole, not_judged
from readiness.sabotage.tree import Tree
from readiness.sabotage.trial import Seen, run_copy

TICK_SECONDS: Final = 0.2

T = TypeVar("T")

Tell = Callable[[str, str], None]
"""Called with a kind of `Progress.mark` ("" for a plain note) and a line."""


@dataclass(frozen=True, slots=True)
class Campaign:
    """What one call found: every sabotage judged, and how often a run without any sabotage raised an alarm."""

    judged: tuple[Judged, ...]
    clean_runs: int
    false_alarms: tuple[str, ...]
    seconds: float


@dataclass
class Bench:
    """What the threads share: where the copies are, what is told, the wish to stop, counters behind a lock."""

    workspace: Path
    profiles: Mapping[str, Profile]
    tell: Tell
    whole_on_miss: bool = True
    keep: bool = False
    stop: threading.Event = field(default_factory=threading.Event)
    clean_runs: int = 0
    false_alarms: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _runs: int = 0

    def run(self, tree: Tree, name: str, *, profile: str, only: Sequence[str]) -> Seen:
        """Run a copy; reports go to a folder of their own."""
        with self._lock:
            self._runs += 1
            folder = f"{self._runs:03d}-{name}"
        reports = self.workspace / folder
        try:
            return run_copy(tree.path, reports, profile=profile, only=only, stop=self.stop)
        finally:
            if not self.keep:
                shutil.rmtree(reports, ignore_errors=True)

    def run_clean(self, tree: Tree, name: str, *, profile: str, only: Sequence[str]) -> Seen:
        """Run an unbroken copy and count what it wrongly finds."""
        seen = self.run(tree, name, profile=profile, only=only)
        alarms = [f"{claim}: {' '.join(seen.words.get(claim, '').split())[:200]}" for claim in seen.failed]
        if not seen.verdicts:
            alarms.append(f"no scorecard (status {seen.status}): {seen.last_lines[:200]}")
        with self._lock:
            self.clean_runs += 1
            self.false_alarms += alarms
        for alarm in alarms:
            self.tell("failed", f"{name}: alarm without a sabotage: {alarm}")
        return seen

    def cheapest_claim(self, profile: str) -> str:
        """A claim to run where any will do: one that needs no part of the stack."""
        claims = self.profiles[profile].claims
        return next((claim.id for claim in claims if not claim.needs), claims[0].id)

    def words_of(self, sabotage: Sabotage) -> str:
        """The claim to run for a sabotage."""
        return self.cheapest_claim(sabotage.profile) if sabotage.of_the_harness else sabotage.claim


def run_campaign(
    sabotages: Sequence[Sabotage], trees: Sequence[Tree], bench: Bench, *, clean: int = 0
) -> Campaign:
    """Judge every sabotage, then run the quick checks ``clean`` times unbroken. Raises Interrupted."""
    began = time.monotonic()
    judged: list[Judged] = []
    if sabotages:
        ready, unfit = _sift(sabotages, trees[0], bench)
        judged += unfit
        todo: queue.SimpleQueue[Sabotage] = queue.SimpleQueue()
        for sabotage in ready:
            todo.put(sabotage)
        total = len(sabotages)
        for found in _together(trees, bench, lambda tree: _work(tree, todo, bench, total)):
            judged += found
    if clean:
        numbers: queue.SimpleQueue[int] = queue.SimpleQueue()
        for number in range(1, clean + 1):
            numbers.put(number)
        _together(trees, bench, lambda tree: _stay_clean(tree, numbers, bench, clean))
    order = {sabotage.id: place for place, sabotage in enumerate(sabotages)}
    judged.sort(key=lambda one: order[one.sabotage.id])
    return Campaign(
        judged=tuple(judged),
        clean_runs=bench.clean_runs,
        false_alarms=tuple(bench.false_alarms),
        seconds=round(time.monotonic() - began, 1),
    )


def quick_checks(profile: Profile) -> tuple[str, ...]:
    """The claims of a profile that need neither the load nor the fault step."""
    from readiness.load.step import LOAD_CLAIMS  # noqa: PLC0415 - the load step pulls in half of the harness

    return tuple(
        claim.id
        for claim in profile.claims
        if claim.id not in LOAD_CLAIMS and not set(claim.checks) & set(CHECK_STEPS)
    )


def _sift(sabotages: Sequence[Sabotage], tree: Tree, bench: Bench) -> tuple[list[Sabotage], list[Judged]]:
    """The clean run: a claim that does not hold now cannot be expected to notice anything."""
    ready: list[Sabotage] = []
    unfit: list[Judged] = []
    for profile in dict.fromkeys(sabotage.profile for sabotage in sabotages):
        mine = [sabotage for sabotage in sabotages if sabotage.profile == profile]
        claims = tuple(dict.fromkeys(bench.words_of(sabotage) for sabotage in mine))
        bench.tell("", f"clean run of {len(claims)} claims, profile {profile}")
        seen = bench.run_clean(tree, f"clean-{profile}", profile=profile, only=claims)
        for sabotage in mine:
            fault = clean_fault(sabotage.claim, seen)
            if fault:
                unfit.append(not_judged(sabotage, fault))
                bench.tell("open", f"{sabotage.id} not judged: {fault}")
            else:
                ready.append(sabotage)
    return ready, unfit


def _work(tree: Tree, todo: queue.SimpleQueue[Sabotage], bench: Bench, total: int) -> list[Judged]:
    """One thread: sabotage after sabotage on its own copy, at the end the copy unbroken once more."""
    judged: list[Judged] = []
    while True:
        try:
            sabotage = todo.get_nowait()
        except queue.Empty:
            break
        found = _try(tree, sabotage, bench)
        judged.append(found)
        _announce(found, bench, left=todo.qsize(), total=total)
    return _mended(tree, judged, bench)


def _try(tree: Tree, sabotage: Sabotage, bench: Bench) -> Judged:
    tree.apply(sabotage)
    try:
        only = (bench.words_of(sabotage),)
        seen = bench.run(tree, sabotage.id, profile=sabotage.profile, only=only)
        found = judge_trial(sabotage, seen)
        if found.outcome is Outcome.MISSED and bench.whole_on_miss:
            bench.tell("", f"{sabotage.id}: missed by {sabotage.claim}; does any other check notice?")
            whole = bench.run(tree, f"{sabotage.id}-whole", profile="quick", only=())
            found = judge_whole(found, whole)
        return found
    finally:
        tree.revert()


def _mended(tree: Tree, judged: list[Judged], bench: Bench) -> list[Judged]:
    """After the last sabotage every claim that noticed one must hold again: else it would have failed anyway."""
    for profile in dict.fromkeys(one.sabotage.profile for one in judged):
        mine = [one for one in judged if one.sabotage.profile == profile]
        claims = tuple(dict.fromkeys(bench.words_of(one.sabotage) for one in mine))
        bench.tell("", f"all taken back: {len(claims)} claims must hold again, profile {profile}")
        seen = bench.run_clean(tree, f"reverted-{profile}", profile=profile, only=claims)
        for one in mine:
            fault = clean_fault(one.sabotage.claim, seen)
            if fault:
                judged[judged.index(one)] = replace(
                    one, outcome=Outcome.NOT_JUDGED, reason=f"after it was taken back: {fault}"
                )
    return judged


def _stay_clean(tree: Tree, numbers: queue.SimpleQueue[int], bench: Bench, total: int) -> None:
    only = quick_checks(bench.profiles["quick"])
    while True:
        try:
            number = numbers.get_nowait()
        except queue.Empty:
            return
        seen = bench.run_clean(tree, f"clean-{number}", profile="quick", only=only)
        kind = "failed" if seen.failed or not seen.verdicts else "passed"
        bench.tell(kind, f"clean run {number} of {total}: {len(seen.failed)} alarms in {seen.seconds:.0f} s")


def _announce(found: Judged, bench: Bench, *, left: int, total: int) -> None:
    kinds = {Outcome.KILLED: "passed", Outcome.NOT_JUDGED: "open", Outcome.WRONG_CHECK: "open"}
    name, outcome = found.sabotage.id, found.outcome.value.replace("_", " ")
    by = f" by {', '.join(found.noticed_by[:3])}" if found.noticed_by else ""
    line = f"{name} {outcome}{by} in {found.seconds:.0f} s ({left} of {total} left): {found.reason[:160]}"
    bench.tell(kinds.get(found.outcome, "failed"), line)


def _together(trees: Sequence[Tree], bench: Bench, work: Callable[[Tree], T]) -> list[T]:
    """Do ``work`` on every tree at once; the first failure, or Ctrl-C, stops all of them in order."""
    with ThreadPoolExecutor(max_workers=len(trees), thread_name_prefix="sabotage") as pool:
        futures: list[Future[T]] = [pool.submit(work, tree) for tree in trees]
        try:
            pending: set[Future[T]] = set(futures)
            while pending:
                done, pending = wait(pending, timeout=TICK_SECONDS, return_when=FIRST_EXCEPTION)
                if any(future.exception() is not None for future in done):
                    break
        finally:
            if not all(future.done() for future in futures):
                bench.stop.set()
        failures = [future.exception() for future in futures]
    # What went wrong comes first; the others were only told to stop because of it.
    for failure in failures:
        if failure is not None and not isinstance(failure, Interrupted):
            raise failure
    return [future.result() for future in futures]
