"""Scenario files: read whole, every mistake named by file and line; the repository's own ones fit their acts."""

from __future__ import annotations

import inspect
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from readiness.errors import BadInput
from readiness.faults.act import Params
from readiness.faults.acts import ACTS, act_class, make_act
from readiness.faults.capabilities import PROBES, Machine
from readiness.faults.engine import why_missing
from readiness.faults.scenario import (
    Expected,
    Scenario,
    find_scenario,
    load_scenarios,
    parse_scenario,
    scenario_files,
)

REPOSITORY = Path(__file__).resolve().parents[3]
SCENARIOS = [path.stem for path in scenario_files(REPOSITORY)]

GOOD = """\
title: {en: A worker dies, ko: 워커 종료}
row: 1
stand:
  workers: 3
  settings: {RAG_LEASE_SECONDS: 2}
  redis: own
  redis_options: {maxmemory: 8mb}
  proxy: [redis]
  embedding_ms: 40
steady_state: {jobs: 4, within_seconds: 12}
stream: {jobs: 50, every_ms: 70, words: 90}
method:
  - {act: freeze_worker, seconds: {from: 1, to: 2}}
  - {act: kill_worker, times: 2}
hold_seconds: 1.5
expected: {lost: 0, repeated: 0, recovery_seconds: 9, max_attempts: 2, max_deliveries: 4}
rollback: [kill_worker, freeze_worker]
recovery_from: inject
liveness_seconds: 20
unjudged: {overlap: everybody loses a lease}
"""


def parse(text: str) -> Scenario:
    """The scenario of a text."""
    return parse_scenario(text.encode(), name="sample", file="checks/faults/sample.yaml")


def test_every_key_is_read() -> None:
    """What stands in the file is in the value."""
    found = parse(GOOD)
    assert (found.title.ko, found.row, found.hold_seconds, found.liveness_seconds) == (
        "워커 종료",
        1,
        1.5,
        20,
    )
    assert (found.stand.workers, found.stand.redis, found.stand.proxies) == (3, "own", ("redis",))
    assert dict(found.stand.settings) == {"RAG_LEASE_SECONDS": "2"}
    assert dict(found.stand.redis_options) == {"maxmemory": "8mb"}
    assert (found.steady_state.jobs, found.steady_state.within_seconds) == (4, 12)
    assert (found.stream.jobs, found.stream.every_ms, found.stream.words) == (50, 70, 90)
    assert found.expected == Expected(recovery_seconds=9, max_attempts=2, max_deliveries=4)
    assert found.rollback == ("kill_worker", "freeze_worker")
    assert found.recovery_from == "inject"
    assert dict(found.unjudged) == {"overlap": "everybody loses a lease"}
    assert found.method[0].values == {"seconds": (1.0, 2.0)}


def test_acts_are_healed_last_first_unless_told_otherwise() -> None:
    """The default order is that of taking off what was put on."""
    text = GOOD.replace("rollback: [kill_worker, freeze_worker]\n", "")
    assert parse(text).rollback == ("kill_worker", "freeze_worker")


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("row: 1", "row: 30", 2, "a whole number from 0 to 29"),
        ("row: 1", "rows: 1", 2, "Did you mean 'row'?"),
        ("act: kill_worker", "act: kill_workers", 14, "Did you mean 'kill_worker'?"),
        ("times: 2", "times: 0", 14, "1 to 20 kills"),
        ("times: 2", "tmes: 2", 14, "Did you mean 'times'?"),
        ("{from: 1, to: 2}", "{from: 2, to: 1}", 13, "2 to 30"),
        ("lost: 0", "lost: 1", 16, "a whole number from 0 to 0"),
        ("redis: own", "redis: mine", 6, "one of shared, own, act"),
        ("redis: own", "redis: shared", 4, "redis: own beside redis_options"),
        ("proxy: [redis]", "proxy: [sql]", 8, "redis, api, embedding"),
        ("[kill_worker, freeze_worker]", "[kill_worker]", 17, "each act of `method` once"),
        ("recovery_from: inject", "recovery_from: start", 18, "one of inject, heal"),
        ("overlap: everybody", "overlaps: everybody", 20, "Did you mean 'overlap'?"),
        ("hold_seconds: 1.5", "hold_seconds: soon", 15, "a number from 0 to 60"),
        ("en: A worker dies, ", "", 1, "'en'"),
    ],
)
def test_a_mistake_is_named_by_file_and_line(old: str, new: str, line: int, words: str) -> None:
    """One line: file, line, key, what was expected."""
    assert GOOD.count(old) == 1
    with pytest.raises(BadInput) as caught:
        parse(GOOD.replace(old, new))
    message = str(caught.value)
    assert message.startswith(f"checks/faults/sample.yaml:{line}:"), message
    assert words in message
    assert "\n" not in message


@given(st.integers(0, 2**31), st.floats(0, 10), st.floats(0, 10))
def test_a_range_is_drawn_from_the_seed(seed: int, one: float, other: float) -> None:
    """The same seed draws the same number, inside of the range."""
    low, high = sorted((round(one, 2), round(other, 2)))
    move = parse(GOOD.replace("{from: 1, to: 2}", f"{{from: {low}, to: {high}}}")).method[0]
    drawn = move.drawn(random.Random(seed)).number("seconds")
    assert low <= drawn <= high
    assert drawn == move.drawn(random.Random(seed)).number("seconds")


def test_an_unknown_name_gets_the_nearest_one() -> None:
    """`readiness fault run` with a slip of the finger."""
    with pytest.raises(BadInput, match="Did you mean 'freeze_worker'"):
        find_scenario(REPOSITORY, "freez_worker")


def test_the_repository_has_scenarios_in_the_order_of_the_catalogue() -> None:
    """All are read; names are unique because files are."""
    found = load_scenarios(REPOSITORY)
    assert len(found) == len(SCENARIOS) > 10
    rows = [one.row or 99 for one in found]
    assert rows == sorted(rows)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_says_what_it_does_in_both_languages(name: str) -> None:
    """And begins with a comment that says why; its acts can be built and asked what they lack."""
    path = REPOSITORY / "checks" / "faults" / f"{name}.yaml"
    found = find_scenario(REPOSITORY, name)
    assert path.read_text(encoding="utf-8").startswith("# ")
    assert found.title.en != found.title.ko
    assert isinstance(why_missing(found, Machine()), str)
    for move in found.method:
        make_act(move.act, move.drawn(random.Random(1)))


@pytest.mark.parametrize("name", sorted(ACTS))
def test_an_act_has_all_its_parts(name: str) -> None:
    """Six steps, a docstring, parameters with a default inside of their bounds; and a scenario that plays it."""
    found = act_class(name)
    assert found.__doc__
    defaults = {key: parameter.default for key, parameter in found.parameters.items()}
    act = make_act(name, Params(defaults))
    for step in ("missing", "prepare", "inject", "prove_active", "heal", "prove_healed"):
        assert inspect.getdoc(getattr(act, step)), f"{name}.{step} has no docstring"
    for key, parameter in found.parameters.items():
        if parameter.words:
            assert parameter.default in parameter.words, key
        else:
            assert not isinstance(parameter.default, str)
            assert parameter.low <= parameter.default <= parameter.high, key
    assert any(move.act == name for one in load_scenarios(REPOSITORY) for move in one.method)


@pytest.mark.parametrize("need", sorted(PROBES))
def test_a_probe_answers_in_words(need: str) -> None:
    """Each need can be asked for on any machine, and changes nothing."""
    assert isinstance(Machine().missing(need), str)
