"""The checkers of fault histories: a good history passes all of them, each kind of violation is found by its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from readiness.faults.checkers import (
    TABLE,
    Timing,
    Violation,
    effects_standing,
    judge,
    lost_jobs,
    repeated_jobs,
)
from readiness.faults.history import (
    Claim,
    Effect,
    Embed,
    End,
    Gauge,
    Harm,
    Leftover,
    Look,
    Report,
    Settle,
    Story,
    Submit,
    TakeOver,
    Undo,
    WorkerSeen,
)
from readiness.faults.scenario import CHECKERS, Expected, LossWindow

INJECTED, HEALED, RECOVERED = 10_000, 12_000, 14_000
TIMING = Timing(INJECTED, HEALED, RECOVERED)
EXPECTED = Expected(recovery_seconds=10, max_attempts=3, max_deliveries=3)
FAULTY_PID, HEALTHY_PID = 11, 22


def told(violations: list[Violation]) -> set[str]:
    """The checkers that found something."""
    return {violation.checker for violation in violations}


@st.composite
def good_stories(draw: st.DrawFn) -> Story:
    """Histories that keep every promise: retries, takeovers from a stopped worker, cancellations, undone effects."""
    entries: list[object] = [
        WorkerSeen(0, "faulty", FAULTY_PID),
        WorkerSeen(0, "healthy", HEALTHY_PID),
        Harm(900, HEALED + 10_000, FAULTY_PID),
    ]
    fence = 0
    for number in range(draw(st.integers(1, 6))):
        job, at = f"job-{number}", 100 * number
        entries.append(Submit(at, f"key-{number}", "acknowledged", job, "durable", digest=f"d{number}"))
        events: list[tuple[int, str, str]] = []
        attempt = delivery = 1

        def step(event: str, worker: str, job: str = job, events: list[tuple[int, str, str]] = events) -> int:
            events.append((1000 + 50 * len(events), event, worker))
            return events[-1][0]

        for _ in range(draw(st.integers(0, 2))):
            fence += 1
            moment = step("claimed", "healthy")
            entries.append(Claim(moment, job, "healthy", fence, attempt, delivery))
            entries.append(Embed(moment + 1, moment + 5, job, 500))
            entries.append(Settle(step("retry_scheduled", "healthy"), job, "retry"))
            attempt += 1
        if draw(st.booleans()):
            fence += 1
            moment = step("claimed", "faulty")
            entries.append(Claim(moment, job, "faulty", fence, attempt, delivery))
            entries.append(TakeOver(INJECTED + 3000, job, "faulty"))
            step("taken_over", "faulty")
            delivery += 1
        end = draw(st.sampled_from(["done", "cancelled", "undone"]))
        if end != "cancelled":
            fence += 1
            moment = step("claimed", "healthy")
            entries.append(Claim(moment, job, "healthy", fence, attempt, delivery))
            entries.append(Embed(moment + 1, moment + 5, job, 200))
            entries.append(Effect(moment + 6, job, "healthy", fence))
            entries.append(Settle(step("done", "healthy"), job, "done"))
            entries.append(Look(moment + 100, job, "done"))
        else:
            step("cancelled", "")
        if end == "undone":
            entries.append(Undo(moment + 200, job, fence))
            step("rolled_back", "somebody")
        state = "done" if end == "done" else "cancelled"
        entries.append(Look(20_000, job, state))
        entries.append(End(20_001, job, state, attempt, delivery, 15_000, "", tuple(events)))
    entries += [Gauge(20_002, "jobs waiting", 0.0), Gauge(20_002, "jobs running", 0.0)]
    return Story.of(entries)  # type: ignore[arg-type]  # all of them are entries


def first_job(story: Story) -> str:
    """A job of the story."""
    return next(iter(story.acknowledged))


@given(good_stories())
def test_a_good_history_breaks_no_promise(story: Story) -> None:
    """Retries, takeovers, cancellations and undone effects are no violations."""
    assert judge(story, EXPECTED, TIMING) == []


def forget(story: Story) -> Story:
    """The target does not know an acknowledged job any more."""
    job = first_job(story)
    return replace(story, ends=tuple(end for end in story.ends if end.job != job))


def commit_twice(story: Story) -> Story:
    """Two effects of one job, in order."""
    fence = max((effect.fence for effect in story.effects), default=0)
    more = (Effect(19_000, first_job(story), "healthy", fence + 1 + n) for n in range(2))
    return replace(story, effects=(*story.effects, *more))


def commit_as_stale_owner(story: Story) -> Story:
    """The older of two owners commits although the newer one began."""
    job = first_job(story)
    claims = (Claim(16_000, job, "faulty", 9000), Claim(17_000, job, "healthy", 9001))
    return replace(
        story, claims=(*story.claims, *claims), effects=(*story.effects, Effect(18_000, job, "faulty", 9000))
    )


def take_from_the_healthy(story: Story) -> Story:
    """A job is taken from a worker that nobody stopped: its lease was not renewed."""
    events = ((1, "claimed", "healthy"), (5000, "taken_over", "healthy"), (5001, "cancelled", ""))
    return replace(story, ends=(replace(story.ends[0], events=events), *story.ends[1:]))


def own_twice(story: Story) -> Story:
    """By its own history a job was claimed while somebody owned it."""
    events = ((1, "claimed", "a"), (2, "claimed", "b"), (3, "done", "b"))
    return replace(story, ends=(replace(story.ends[0], events=events), *story.ends[1:]))


def work_together(story: Story) -> Story:
    """Two requests for one job at the same time, before any harm."""
    job = first_job(story)
    return replace(story, embeds=(*story.embeds, Embed(50, 90, job, 200), Embed(60, 70, job, 200)))


def come_back(story: Story) -> Story:
    """A job that was seen done is seen running later."""
    job = first_job(story)
    return replace(story, looks=(*story.looks, Look(21_000, job, "done"), Look(21_001, job, "running")))


def rise_again(story: Story) -> Story:
    """A cancelled job runs again, by its own history."""
    events = ((1, "cancelled", ""), (2, "claimed", "b"), (3, "done", "b"))
    return replace(story, ends=(replace(story.ends[0], events=events), *story.ends[1:]))


def try_for_ever(story: Story) -> Story:
    """More attempts than declared."""
    return replace(story, ends=(replace(story.ends[0], attempt=4), *story.ends[1:]))


def deliver_for_ever(story: Story) -> Story:
    """More deliveries than declared."""
    return replace(story, ends=(replace(story.ends[0], deliveries=4), *story.ends[1:]))


def ask_for_ever(story: Story) -> Story:
    """The embedding API saw more requests than attempts and deliveries explain; the target says nothing of it."""
    job = first_job(story)
    more = tuple(Embed(30_000 + 10 * n, 30_005 + 10 * n, job, 500) for n in range(6))
    return replace(story, embeds=(*story.embeds, *more))


def hang(story: Story) -> Story:
    """A job never ends."""
    stuck = replace(story.ends[0], state="running", events=((1, "claimed", "a"),))
    looks = tuple(look for look in story.looks if look.job != stuck.job)
    effects = tuple(effect for effect in story.effects if effect.job != stuck.job)
    return replace(story, ends=(stuck, *story.ends[1:]), looks=looks, effects=effects)


def leave_a_file(story: Story) -> Story:
    """Something is left behind."""
    return replace(story, leftovers=(Leftover(20_000, "file upload-1"),))


def count_a_ghost(story: Story) -> Story:
    """A gauge does not come back to zero."""
    return replace(story, gauges=(*story.gauges, Gauge(20_000, "jobs running", 1.0)))


def commit_a_stranger(story: Story) -> Story:
    """An effect of a job that nobody submitted."""
    return replace(story, effects=(*story.effects, Effect(19_000, "stranger", "healthy", 1)))


def die(story: Story) -> Story:
    """A job ends dead where none may."""
    dead = replace(story.ends[0], state="dead", events=((1, "claimed", "a"), (2, "dead", "a")))
    looks = tuple(look for look in story.looks if look.job != dead.job)
    return replace(story, ends=(dead, *story.ends[1:]), looks=looks)


def two_names(story: Story) -> Story:
    """One idempotency key, two jobs."""
    twin = replace(story.submits[0], job="twin", at_ms=500)
    end = End(20_000, "twin", "cancelled", events=((1, "cancelled", ""),))
    return replace(story, submits=(*story.submits, twin), ends=(*story.ends, end))


VIOLATIONS: list[tuple[Callable[[Story], Story], str]] = [
    (forget, "conservation"),
    (commit_a_stranger, "conservation"),
    (die, "conservation"),
    (commit_twice, "repeated"),
    (two_names, "repeated"),
    (commit_as_stale_owner, "fencing"),
    (take_from_the_healthy, "overlap"),
    (own_twice, "overlap"),
    (work_together, "overlap"),
    (come_back, "order"),
    (rise_again, "order"),
    (try_for_ever, "attempts"),
    (deliver_for_ever, "attempts"),
    (ask_for_ever, "attempts"),
    (hang, "recovery"),
    (leave_a_file, "orphans"),
    (count_a_ghost, "gauges"),
]


@pytest.mark.parametrize(("spoil", "checker"), VIOLATIONS, ids=[spoil.__name__ for spoil, _ in VIOLATIONS])
@given(story=good_stories())
def test_each_violation_is_found_by_its_checker(
    story: Story, spoil: Callable[[Story], Story], checker: str
) -> None:
    """However the rest of the history looks."""
    found = judge(spoil(story), EXPECTED, TIMING)
    assert checker in told(found), found


def test_each_checker_has_a_violation_here() -> None:
    """No checker goes unproven; recovery's other half is below."""
    assert {checker for _, checker in VIOLATIONS} == set(CHECKERS) == set(TABLE)


@given(good_stories())
def test_a_recovery_that_is_late_or_never_came_is_found(story: Story) -> None:
    """The bound is the scenario's; a scenario that counts from the injection is judged from there."""
    assert told(judge(story, EXPECTED, replace(TIMING, recovered_ms=None))) == {"recovery"}
    assert told(judge(story, EXPECTED, replace(TIMING, recovered_ms=HEALED + 10_001))) == {"recovery"}
    assert judge(story, EXPECTED, replace(TIMING, recovered_ms=HEALED + 10_000)) == []
    late = replace(TIMING, recovered_ms=INJECTED + 10_001, recovery_from="inject")
    assert told(judge(story, EXPECTED, late)) == {"recovery"}


def test_a_history_without_acknowledged_jobs_shows_nothing() -> None:
    """Silence is no proof."""
    assert told(judge(Story(), EXPECTED, TIMING)) == {"conservation"}


def test_a_done_job_without_effect_is_lost() -> None:
    """What the target says is compared with what is in SQL."""
    story = Story(submits=(Submit(0, "k", "acknowledged", "j"),), ends=(End(1, "j", "done"),))
    assert lost_jobs(story) == {"j": "done, without an effect"}


def test_an_undone_effect_that_is_committed_again_is_no_repeat() -> None:
    """Two commits and one undo are one effect; two commits alone are two."""
    effects = (Effect(1, "j", "w", 1), Effect(3, "j", "w", 2))
    assert repeated_jobs(Story(effects=effects, undos=(Undo(2, "j", 1),))) == {}
    assert repeated_jobs(Story(effects=effects)) == {"j": 2}
    assert effects_standing(effects, Story(undos=(Undo(2, "j", 1),))) == {"j": 1}


def test_a_declared_loss_must_be_in_its_window_and_reported() -> None:
    """A loss window excuses what was acknowledged just before the fault, and only when the target says so."""
    expected = replace(EXPECTED, loss_window=LossWindow(seconds=1, reported_by="limit.redis_changed"))
    told_so = Report(20_000, "limit.redis_changed", 1)
    kept = Submit(0, "k0", "acknowledged", "kept")
    inside = Submit(INJECTED - 900, "k1", "acknowledged", "inside")
    before = Submit(INJECTED - 1100, "k2", "acknowledged", "before")
    ends, effects = (End(1, "kept", "done"),), (Effect(1, "kept", "w", 1),)
    good = Story(submits=(kept, inside), ends=ends, effects=effects, reports=(told_so,))
    assert judge(good, expected, TIMING) == []
    silent = judge(replace(good, reports=(replace(told_so, count=0),)), expected, TIMING)
    assert [violation.subject for violation in silent] == ["inside"]
    assert "silently" in silent[0].what
    early = judge(replace(good, submits=(kept, inside, before)), expected, TIMING)
    assert [violation.subject for violation in early] == ["before"]


def test_a_job_whose_submission_has_no_outcome_may_exist() -> None:
    """While an outcome is unknown, an effect of a job that no answer named is no stranger's."""
    kept = Submit(0, "k0", "acknowledged", "kept")
    unknown = Submit(1, "k1", "unknown")
    effects = (Effect(1, "kept", "w", 1), Effect(2, "nameless", "w", 2))
    story = Story(submits=(kept, unknown), ends=(End(3, "kept", "done"),), effects=effects)
    assert judge(story, EXPECTED, TIMING) == []
    assert told(judge(replace(story, submits=(kept,)), EXPECTED, TIMING)) == {"conservation"}


def test_a_checker_is_left_out_only_by_its_name() -> None:
    """What a scenario leaves unjudged is one checker, with a reason; the others still judge."""
    story = Story(
        submits=(Submit(0, "k", "acknowledged", "j"),),
        ends=(End(1, "j", "done"),),
        effects=(Effect(1, "j", "w", 1), Effect(2, "j", "w", 2)),
        leftovers=(Leftover(3, "file x"),),
    )
    assert told(judge(story, EXPECTED, TIMING)) == {"repeated", "orphans"}
    assert told(judge(story, EXPECTED, TIMING, unjudged={"orphans": "why not"})) == {"repeated"}


def test_a_takeover_is_excused_only_while_its_worker_is_harmed() -> None:
    """Before the fault and long after it nobody may lose a lease; the harm of one worker excuses no other."""
    base = Story(
        submits=(Submit(0, "k", "acknowledged", "j"),),
        workers=(WorkerSeen(0, "a", 1), WorkerSeen(0, "b", 2)),
        harms=(Harm(100, 200, 1),),
    )
    for at, worker, fine in ((150, "a", True), (99, "a", False), (10_000, "a", False), (150, "b", False)):
        events = ((1, "claimed", worker), (at, "taken_over", worker), (20_000, "cancelled", ""))
        end = End(30_000, "j", "cancelled", events=events)
        found = judge(replace(base, ends=(end,)), EXPECTED, TIMING)
        assert (found == []) is fine, (at, worker, found)
    events = ((1, "claimed", "b"), (150, "taken_over", "b"), (20_000, "cancelled", ""))
    everybody = replace(base, harms=(Harm(100, 200),), ends=(End(30_000, "j", "cancelled", events=events),))
    assert judge(everybody, EXPECTED, TIMING) == []
