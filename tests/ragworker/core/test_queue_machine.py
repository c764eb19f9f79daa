"""The queue does what its model does, whatever happens in whatever order, on every Redis that this machine has."""

from __future__ import annotations

from collections.abc import Callable

import fakeredis
import pytest
import redis
from core_parts import RedisServer, named_server
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from queue_machine import Client, QueueMachine

from ragworker.connection import connect

#: `pytest --hypothesis-profile=deep` looks for much longer (conftest.py).
DEEP = settings.get_current_profile_name() == "deep"
EXAMPLES, STEPS = (2000, 60) if DEEP else (60, 50)

#: Making a failing example small takes minutes, so only a deep run does it; the printed blob repeats either.
PHASES = [phase for phase in Phase if DEEP or phase is not Phase.shrink]


def machine(
    open_client: Callable[[], Client], mutate: Callable[[str, str], str] | None = None
) -> type[QueueMachine]:
    namespace = {"open_client": staticmethod(open_client)}
    if mutate is not None:
        namespace["mutate"] = staticmethod(mutate)
    return type("QueueMachine", (QueueMachine,), namespace)


def opener(
    server: str, running: dict[str, RedisServer], factory: pytest.TempPathFactory
) -> Callable[[], Client]:
    if server == "fakeredis":
        return lambda: fakeredis.FakeAsyncRedis(server=fakeredis.FakeServer())
    url = named_server(server, running, factory).url
    return lambda: connect(url)


@pytest.mark.parametrize("server", ["fakeredis", "wheel", "local"])
def test_queue_does_what_its_model_does(
    server: str, real_servers: dict[str, RedisServer], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Submits, claims, outcomes, crashes, lost answers, cancels, operators, a clock that jumps: never a difference."""
    run_state_machine_as_test(
        machine(opener(server, real_servers, tmp_path_factory)),
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=PHASES,
            report_multiple_bugs=False,
            print_blob=True,
        ),
    )


#: Scripts broken in one place, each by (script, what it says, what it says then): all must be noticed.
MUTATIONS = {
    "a fence is given twice": ("job", "fence = fence + 1\n", "fence = fence\n"),
    "fences forget the clock": ("job", "or '0') + 1, NOW)", "or '0') + 1, 0)"),
    "normal jobs go first": ("job", "'LPOP', P .. 'ready:high', limit", "'LPOP', P .. 'ready:normal', limit"),
    "the same work twice": ("submit", "if not state then", "if true then"),
    "a paused queue gives": ("job", "if redis.call('EXISTS', P .. 'paused') == 1 then", "if false then"),
    "a settled job stays claimed": ("settle", "in_slices('HDEL', P .. 'claimed:' .. worker, gone)", ""),
    "a retry is no attempt": ("settle", "'retrying', attempt + 1", "'retrying', attempt"),
    "a repeat is not recognised": ("settle", "return f[1] == fence or", "return"),
    "a repeated end is not recognised": ("settle", "(f[3] == 'done' or f[3] == 'cancelled')", "false"),
    "any end is a repeat": ("settle", "or f[2] == fence and", "or"),
    "a lease that lives is taken": (
        "take_over",
        "P .. 'leases', '-inf', NOW_TEXT",
        "P .. 'leases', '-inf', '+inf'",
    ),
    "a taken job stays claimed": (
        "take_over",
        "redis.call('HDEL', P .. 'claimed:' .. worker, claims[i])",
        "",
    ),
    "a lease goes before its jobs": ("take_over", "if last < #claims then", "if false then"),
    "poison goes round": ("take_over", "if lost >= max_deliveries then", "if false then"),
    "a cancelled job stays in line": ("cancel", "redis.call('LREM', P .. 'ready:' .. f[4], 1, id)", ""),
    "a former owner is forgotten": ("cancel", "if f[2] then", "if false then"),
    "figures count twice": ("renew", "if flush > tonumber", "if true or flush > tonumber"),
    "last words are heard": ("progress", "~= 'running' then", "== 'queued' then"),
    "what failed is rolled back": ("rolled_back", "f[1] ~= 'done'", "f[1] == 'queued'"),
}

#: These need a rare turn of events; only a deep run takes the time.
SUBTLE = {
    "records pile up": ("job", "redis.call('ZCARD', finished) - keep", "0"),
    "one who leaves keeps its lease": ("leave", "redis.call('ZADD', P .. 'leases', NOW_TEXT, worker)", ""),
    "a delayed job stays delayed": (
        "job",
        "redis.call('ZREM', P .. 'delayed', id)\n    make_ready",
        "make_ready",
    ),
    "a cancelled retry waits": ("settle", "if f[6] then", "if false then"),
    "the dead are handed jobs": ("job", "or '0') > NOW then", "or '0') > 0 then"),
    "what lives is forgotten": ("submit", "in_slices('ZREM', P .. 'finished', news)", ""),
    "any fence will do": ("settle", "if held[n] == ARGV[i + 1] and", "if held[n] and"),
    "a dead letter stays": ("requeue", "redis.call('ZREM', P .. 'dlq', id)", ""),
}


@pytest.mark.parametrize("mutation", [*MUTATIONS, *SUBTLE] if DEEP else list(MUTATIONS))
def test_broken_script_is_noticed(mutation: str) -> None:
    """The machine sees a difference when one line of one script is wrong."""
    script, says, then = (MUTATIONS | SUBTLE)[mutation]

    def mutate(name: str, text: str) -> str:
        if script in ("job", name):
            assert text.count(says) == 1, f"{script}.lua changed: break it elsewhere to try {mutation!r}"
            text = text.replace(says, then)
        return text

    broken = machine(lambda: fakeredis.FakeAsyncRedis(server=fakeredis.FakeServer()), mutate)
    found = settings(
        max_examples=400,
        stateful_step_count=STEPS,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
        report_multiple_bugs=False,
        database=None,
        derandomize=True,
        print_blob=False,
    )
    with pytest.raises((AssertionError, redis.ResponseError)) as caught:
        run_state_machine_as_test(broken, settings=found)
    assert "break it elsewhere" not in str(caught.value)
