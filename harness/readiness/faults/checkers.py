"""Judge the history of a fault scenario: one pure function a promise, each returns the violations that it found.

No clock, no I/O. A violation names the job or worker and what was seen; none means that the promise held for
everything that was recorded. An empty history holds no promise: `judge` says so instead of passing it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from readiness.faults.history import Effect, End, Story
from readiness.faults.scenario import CHECKERS, Expected
from readiness.targets.base import TERMINAL_STATES

CLOCK_SLACK_MS = 250
"""The queue's clock and ours may differ by this much; threads that write times down wait for a busy core."""

ENDS_CLAIM = frozenset(
    {"done", "dead", "cancelled", "retry_scheduled", "released", "taken_over", "requeued", "rolled_back"}
)
"""Events of a job's own history after which nobody owns it."""

AFTER_END = {
    "done": frozenset({"rolled_back"}),
    "dead": frozenset({"requeued"}),
    "cancelled": frozenset(),
    "rolled_back": frozenset(),
}
"""What may follow a final event: an undo on request, an operator's second chance, nothing."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken promise. `checker` is the name of its function here."""

    checker: str
    subject: str
    what: str

    def __str__(self) -> str:
        return (
            f"{self.checker}: {self.subject}: {self.what}" if self.subject else f"{self.checker}: {self.what}"
        )


@dataclass(frozen=True, slots=True)
class Timing:
    """The moments of a scenario, in ms since the epoch. `recovered_ms` None: it never did."""

    injected_ms: int
    healed_ms: int
    recovered_ms: int | None
    recovery_from: str = "heal"

    @property
    def recovery_seconds(self) -> float | None:
        """From the fault (or its end) until everything was well again; at least 0."""
        if self.recovered_ms is None:
            return None
        began = self.injected_ms if self.recovery_from == "inject" else self.healed_ms
        return max(0.0, (self.recovered_ms - began) / 1000)


def judge(
    story: Story, expected: Expected, timing: Timing, *, unjudged: Mapping[str, str] | None = None
) -> list[Violation]:
    """Ask every checker that the scenario does not leave out; a history without acknowledged jobs is one violation."""
    if not story.acknowledged:
        return [Violation("conservation", "", "no acknowledged job in the history: nothing was shown")]
    found: list[Violation] = []
    for name in CHECKERS:
        if name not in (unjudged or {}):
            found.extend(TABLE[name](story, expected, timing))
    return found


def lost_jobs(story: Story) -> dict[str, str]:
    """Acknowledged jobs that are in no state at all, or done without an effect; with what was seen."""
    ends = {end.job: end for end in story.ends}
    standing = effects_standing(story.effects, story)
    lost: dict[str, str] = {}
    for job in story.acknowledged:
        end = ends.get(job)
        if end is None or end.state == "missing":
            lost[job] = "acknowledged, and the target does not know it any more"
        elif end.state == "done" and standing.get(job, 0) < 1:
            lost[job] = "done, without an effect"
    return lost


def repeated_jobs(story: Story) -> dict[str, int]:
    """Jobs with more than one effect standing (commits without those that were undone), and how many."""
    return {job: count for job, count in effects_standing(story.effects, story).items() if count > 1}


def effects_standing(effects: Sequence[Effect], story: Story) -> dict[str, int]:
    """Commits less undos, by job: an undone job that is done again has two commits and one undo, and is no repeat."""
    undone = Counter(undo.job for undo in story.undos)
    return {job: count - undone[job] for job, count in Counter(one.job for one in effects).items()}


def conservation(story: Story, expected: Expected, timing: Timing) -> list[Violation]:
    """Acknowledged = done + dead + cancelled + live; no job is lost outside of a declared and reported window."""
    found: list[Violation] = []
    reported = {report.event for report in story.reports if report.count}
    window = expected.loss_window
    for job, what in lost_jobs(story).items():
        since = story.acknowledged[job].at_ms
        inside = window is not None and timing.injected_ms - 1000 * window.seconds <= since
        if not inside:
            found.append(Violation("conservation", job, what))
        elif window is not None and window.reported_by not in reported:
            found.append(
                Violation("conservation", job, f"{what}, silently: no {window.reported_by} in the logs")
            )
    dead = [end for end in story.ends if end.state == "dead"]
    if len(dead) > expected.dead:
        first = f"first: {dead[0].job} {dead[0].error}"
        found.append(
            Violation("conservation", "", f"{len(dead)} jobs dead, {expected.dead} expected; {first}")
        )
    strangers = {effect.job for effect in story.effects} - _known(story)
    return found + [
        Violation("conservation", job, "an effect of a job that nobody submitted") for job in strangers
    ]


def repeated(story: Story, expected: Expected, timing: Timing) -> list[Violation]:
    """No job has two effects standing, and one idempotency key names one job."""
    twice = [
        Violation("repeated", job, f"{count} effects") for job, count in sorted(repeated_jobs(story).items())
    ]
    jobs_of: dict[str, set[str]] = defaultdict(set)
    for submit in story.submits:
        if submit.answer == "acknowledged" and submit.mode != "background":
            jobs_of[submit.key].add(submit.job)
    twins = [
        (key, jobs) for key, jobs in sorted(jobs_of.items()) if len(jobs) > 1 and not _all_lost(jobs, story)
    ]
    return twice + [
        Violation("repeated", key, f"one key, jobs {', '.join(sorted(jobs))}") for key, jobs in twins
    ]


def fencing(story: Story, expected: Expected, timing: Timing) -> list[Violation]:
    """Fences of a job's effects rise, and no older owner commits after a newer one began."""
    found: list[Violation] = []
    claims: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
    for claim in story.claims:
        claims[claim.job].append((claim.fence, claim.at_ms, claim.worker))
    last: dict[str, int] = {}
    for effect in story.effects:
        before = last.get(effect.job)
        if before is not None and effect.fence <= before:
            found.append(
                Violation("fencing", effect.job, f"fence {effect.fence} committed after fence {before}")
            )
        last[effect.job] = effect.fence
        newer = [one for one in claims[effect.job] if one[0] > effect.fence and one[1] < effect.at_ms]
        if newer:
            fence, at, worker = newer[0]
            what = (
                f"{effect.worker} committed with fence {effect.fence} {effect.at_ms - at} ms after {worker} owned it"
                f" with fence {fence}"
            )
            found.append(Violation("fencing", effect.job, what))
    return found


def overlap(story: Story, expected: Expected, timing: Timing) -> list[Violation]:
    """Nobody is given a job that another one rightly owns: by the job's own history, and by who lost a lease."""
    found: list[Violation] = []
    for end in story.ends:
        owner = ""
        for _, event, worker in end.events:
            if event == "claimed" and owner:
                found.append(Violation("overlap", end.job, f"claimed by {worker} while {owner} owned it"))
            owner = worker if event == "claimed" else "" if event in ENDS_CLAIM else owner
    pids = {seen.worker: seen.pid for seen in story.workers}
    for end in story.ends:
        # The job's own history, on the queue's clock: a worker's log may be on one that a fault has set wrong.
        for at_ms, event, worker in end.events:
            if event == "taken_over" and not _excused(story, pids.get(worker, -1), at_ms):
                what = f"taken from {worker}, a worker that nobody had stopped or cut off"
                found.append(Violation("overlap", end.job, what))
    return found + _together(story)


def order(story: Story, expected: Expected, timing: Timing) -> list[Violation]:
    """A final state stays: in what was seen from outside, and in the job's own history."""
    found: list[Violation] = []
    undone = {undo.job for undo in story.undos}
    final: dict[str, str] = {}
    for look in sorted(story.looks, key=lambda one: one.at_ms):
        before = final.get(look.job)
        allowed = look.state == before or (look.state == "cancelled" and look.job in undone)
        if before is not None and not allowed:
            found.append(Violation("order", look.job, f"seen {before}, later {look.state}"))
        if look.state in TERMINAL_STATES:
            final[look.job] = look.state
    for end in story.ends:
        seen = final.get(end.job)
        if seen is not None and end.state not in (seen, "missing") and end.job not in undone:
            found.append(Violation("order", end.job, f"seen {seen}, at the end {end.state}"))
        found.extend(_illegal_steps(end))
    return found


def attempts(story: Story, expected: Expected, timing: Timing) -> list[Violation]:
    """No job is tried or delivered more often than declared, counted by the target and at the embedding API."""
    found: list[Violation] = []
    asked = Counter(embed.job for embed in story.embeds)
    for end in story.ends:
        if end.attempt > expected.max_attempts:
            found.append(
                Violation(
                    "attempts", end.job, f"{end.attempt} attempts, at most {expected.max_attempts} declared"
                )
            )
        if end.deliveries > expected.max_deliveries:
            what = f"{end.deliveries} deliveries, at most {expected.max_deliveries} declared"
            found.append(Violation("attempts", end.job, what))
        most = expected.max_attempts + expected.max_deliveries - 1
        if asked[end.job] > most:
            found.append(
                Violation(
                    "attempts", end.job, f"{asked[end.job]} requests at the embedding API, at most {most}"
                )
            )
    return found


def recovery(story: Story, expected: Expected, timing: Timing) -> list[Violation]:
    """Everything acknowledged has ended and new work is done, within the declared time."""
    live = [end for end in story.ends if end.state not in TERMINAL_STATES and end.state != "missing"]
    found = [
        Violation("recovery", end.job, f"{end.state} when the deadline was over {end.error}".rstrip())
        for end in live
    ]
    took = timing.recovery_seconds
    if took is None:
        found.append(Violation("recovery", "", "not recovered before the deadline"))
    elif took > expected.recovery_seconds:
        what = f"took {took:.1f} s, at most {expected.recovery_seconds:g} s declared"
        found.append(Violation("recovery", "", what))
    return found


def orphans(story: Story, expected: Expected, timing: Timing) -> list[Violation]:
    """No file and no key is kept for work that is over."""
    return [Violation("orphans", "", leftover.what) for leftover in story.leftovers]


def gauges(story: Story, expected: Expected, timing: Timing) -> list[Violation]:
    """What counts waiting and running work is back to zero."""
    return [
        Violation("gauges", gauge.name, f"{gauge.value:g} when all was over, expected {gauge.expected:g}")
        for gauge in story.gauges
        if gauge.value != gauge.expected
    ]


Checker = Callable[[Story, Expected, Timing], list[Violation]]
TABLE: Mapping[str, Checker] = {
    "conservation": conservation,
    "repeated": repeated,
    "fencing": fencing,
    "overlap": overlap,
    "order": order,
    "attempts": attempts,
    "recovery": recovery,
    "orphans": orphans,
    "gauges": gauges,
}


def _known(story: Story) -> set[str]:
    """Jobs that some answer named. While an outcome is unknown a job may exist that no answer named."""
    named = {submit.job for submit in story.submits if submit.job}
    unknown = {submit.key for submit in story.submits if submit.answer == "unknown"}
    told = {submit.key for submit in story.submits if submit.job}
    return named | ({effect.job for effect in story.effects} if unknown - told else set())


def _all_lost(jobs: set[str], story: Story) -> bool:
    """Whether all but one of these jobs were lost: then the key was rightly given to a new one."""
    return len(jobs - set(lost_jobs(story))) <= 1


def _excused(story: Story, pid: int, at_ms: int) -> bool:
    """Whether this process was harmed then, so that it may have lost its lease."""
    return any(
        harm.pid in (0, pid) and harm.at_ms <= at_ms <= harm.until_ms + CLOCK_SLACK_MS for harm in story.harms
    )


def _together(story: Story) -> list[Violation]:
    """Two requests for one job's text at the same time, although nobody had been harmed before."""
    found: list[Violation] = []
    by_job: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for embed in story.embeds:
        by_job[embed.job].append((embed.at_ms, embed.ended_ms))
    for job, spans in by_job.items():
        for (_, ended), (began, _) in pairwise(sorted(spans)):
            if began < ended and not any(harm.at_ms <= began for harm in story.harms):
                found.append(Violation("overlap", job, f"two requests at once for {ended - began:.0f} ms"))
    return found


def _illegal_steps(end: End) -> list[Violation]:
    """Steps in a job's own history that no job may take."""
    names = [event for _, event, _ in end.events]
    wrong = [
        f"{first}, then {second}"
        for first, second in pairwise(names)
        if first in AFTER_END and second not in AFTER_END[first]
    ]
    times = [at for at, _, _ in end.events]
    if times != sorted(times):
        wrong.append("its history goes back in time")
    return [Violation("order", end.job, one) for one in wrong]
