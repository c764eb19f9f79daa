"""pytest plugin: the mark ``claim`` and the fixtures with which a check examines the target of a run.

A check says which claims it is evidence for, ``@pytest.mark.claim("A5.kill")``, looks at the system from
outside and records what it saw through ``evidence``. The plugin writes one ``outcome`` record per test and
claim. Outside of a run (READINESS_RUN unset, no --readiness) a marked test runs as any other and its evidence goes
nowhere; one that asks for the run's stack or target is skipped. With xdist use ``--dist loadgroup``: tests
that share a session lane are put in one group, so that the corpus is ingested once.

Judges nothing, and starts no stack: that is `readiness run`. Heavy modules are imported when a fixture
needs them, because pytest loads this plugin in every project that has readiness installed.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from readiness.checking.outcomes import (
    CLAIMS_PROPERTY,
    ERROR_ATTRIBUTE,
    CheckOutcome,
    OutcomeBook,
)
from readiness.checking.session import (
    DOCUMENTS_VARIABLE,
    NOT_IN_A_RUN,
    ROOT_VARIABLE,
    RUN_VARIABLE,
    RunSession,
)
from readiness.checking.suite_reporter import add_suite_options, open_suite_run
from readiness.errors import HarnessFailure

if TYPE_CHECKING:
    from xdist.remote import Producer  # type: ignore[import-untyped]  # ships no types
    from xdist.scheduler.protocol import Scheduling  # type: ignore[import-untyped]  # ships no types

    from readiness.checking.ingest import Ingested
    from readiness.checking.recorder import ClaimEvidence
    from readiness.documents import Corpus
    from readiness.evidence import EvidenceWriter
    from readiness.root import Root
    from readiness.stack.base import StackInfo
    from readiness.targets.base import Lane, Target

MAIN_LANE = "main"
MAIN_WORKERS = 2
SHARED_LANE = "_lane"  # a fixture of such a name is a lane of the session: its tests run in one process

_SESSION = pytest.StashKey[RunSession | None]()
_EVIDENCE = pytest.StashKey["ClaimEvidence"]()


class LaneFactory(Protocol):
    """``lane(name, **settings)``: a fresh isolated instance; settings are environment names and their
    values.
    """

    def __call__(
        self,
        name: str,
        *,
        api: bool = True,
        workers: int = 1,
        redis_url: str | None = None,
        **settings: object,
    ) -> Lane: ...


# Hooks


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("readiness").addoption(
        "--claim",
        action="append",
        default=[],
        metavar="ID",
        help="run only the checks marked with this claim (may be given more than once)",
    )
    add_suite_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "claim(*ids): the claims of the scorecard that this check is evidence for"
    )
    config.addinivalue_line(
        "markers", "xdist_group(name): tests that must run in one process under --dist loadgroup"
    )
    config.addinivalue_line("markers", "early: a long check, to be started before the others")
    open_suite_run(config)
    run = os.environ.get(RUN_VARIABLE, "")
    try:
        config.stash[_SESSION] = RunSession.load(Path(run)) if run else None
    except HarnessFailure as failure:
        raise pytest.UsageError(str(failure)) from failure
    in_xdist_worker = hasattr(config, "workerinput")
    if run and in_xdist_worker:
        from readiness.stack.processes import die_with_parent  # noqa: PLC0415 - only a run needs it

        die_with_parent()  # and with it the lanes that it started
    elif run:
        config.pluginmanager.register(OutcomeListener(config), "readiness-outcomes")


@pytest.hookimpl(tryfirst=True)  # before xdist writes the group into the node ids
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = set(config.getoption("--claim"))
    run = config.stash[_SESSION]
    if run is not None and (idle := [item for item in items if run.is_elsewhere(marked_claims(item))]):
        config.hook.pytest_deselected(items=idle)
        items[:] = [item for item in items if item not in idle]
    for item in items:
        claims = marked_claims(item)
        if not claims:
            continue
        item.user_properties.append((CLAIMS_PROPERTY, list(claims)))
        if shared := sorted(name for name in getattr(item, "fixturenames", ()) if name.endswith(SHARED_LANE)):
            item.add_marker(pytest.mark.xdist_group(shared[0]))
    if wanted:
        left = [item for item in items if not wanted.intersection(marked_claims(item))]
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if wanted.intersection(marked_claims(item))]
    session = config.stash[_SESSION]
    if session is not None and hasattr(config, "workerinput"):
        from readiness.checking.scheduling import order, write_checks, write_groups  # noqa: PLC0415 - needs xdist

        write_checks({item.nodeid: session.own(marked_claims(item)) for item in items}, session.run_dir)
        items[:] = order([item for item in items if item.nodeid not in session.finished])
        write_groups(items, session.run_dir)


@pytest.hookimpl(optionalhook=True)  # xdist may be absent
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling | None:
    session = config.stash[_SESSION]
    if session is None or config.getvalue("dist") != "loadgroup":
        return None
    from readiness.checking.scheduling import CheckScheduling  # noqa: PLC0415 - needs xdist

    return CheckScheduling(config, log, run_dir=session.run_dir)


def pytest_runtest_setup(item: pytest.Item) -> None:
    session = item.config.stash[_SESSION]
    if session is not None and (problems := session.unknown_claims(marked_claims(item))):
        raise HarnessFailure(" ".join(problems))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    session = item.config.stash[_SESSION]
    claims = marked_claims(item)
    if session is None or not claims:
        return report
    if call.excinfo is not None and call.excinfo.errisinstance(HarnessFailure):
        setattr(report, ERROR_ATTRIBUTE, True)
    if report.when == "call" and report.passed and (missing := unmeasured(item, claims)):
        report.outcome = "failed"
        report.longrepr = (
            f"the check passed but recorded no measurement for {', '.join(missing)}:"
            " call evidence.cases, trials, samples or exposure with at least one sample"
        )
        setattr(report, ERROR_ATTRIBUTE, True)
    if report.failed:
        words = f"seed {session.seed}; repeat: {session.repeat_command(claims)}"
        report.sections.append(("readiness", words))
    return report


class OutcomeListener:
    """Writes the outcome records. Lives in the one process that sees every report (the controller under
    xdist).
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._book = OutcomeBook()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if (outcome := self._book.add(report)) is not None:
            self._write(outcome)

    def pytest_sessionfinish(self) -> None:
        for outcome in self._book.rest():
            self._write(outcome)

    def _write(self, outcome: CheckOutcome) -> None:
        session = self._config.stash[_SESSION]
        if session is None:
            return
        data = {
            "outcome": outcome.outcome.value,
            "reason": outcome.reason,
            "duration_seconds": outcome.duration_seconds,
        }
        for claim in outcome.claims:
            if session.claims is None or claim in session.claims:
                writer = _writer(self._config, [claim])
                writer.record(claim, "outcome", data, check=outcome.check)


def marked_claims(item: pytest.Item) -> tuple[str, ...]:
    """The claims of all ``claim`` marks on a test, in order, each once."""
    found = (str(claim) for mark in item.iter_markers("claim") for claim in mark.args)
    return tuple(dict.fromkeys(found))


def unmeasured(item: pytest.Item, claims: Sequence[str]) -> list[str]:
    """The claims for which the test recorded not a single measurement."""
    evidence = item.stash.get(_EVIDENCE, None)
    measured = evidence.measured if evidence is not None else set()
    return [claim for claim in claims if claim not in measured]


def _session(config: pytest.Config) -> RunSession:
    session = config.stash[_SESSION]
    if session is None:
        pytest.skip(NOT_IN_A_RUN)
    return session


def _writer(config: pytest.Config, claims: Sequence[str]) -> EvidenceWriter:
    from readiness.evidence import EvidenceWriter  # noqa: PLC0415 - only a run needs it

    session = _session(config)
    return EvidenceWriter(session.run_dir, command=session.repeat_command(claims))


# Fixtures: the run


@pytest.fixture(scope="session")
def run_dir(pytestconfig: pytest.Config) -> Path:
    """The run folder that everything is written to."""
    return _session(pytestconfig).run_dir


@pytest.fixture(scope="session")
def plan(pytestconfig: pytest.Config) -> Mapping[str, Any]:
    """The content of plan.json, with the profile's knobs (``kills`` and the like) beside the rest."""
    return _session(pytestconfig).knobs


@pytest.fixture(scope="session")
def seed(pytestconfig: pytest.Config) -> int:
    """The run's seed."""
    return _session(pytestconfig).seed


@pytest.fixture(scope="session")
def stack(run_dir: Path) -> StackInfo:
    """What the run started: addresses and parts."""
    from readiness.stack.base import StackInfo  # noqa: PLC0415 - only a run needs it

    return StackInfo.read(run_dir)


@pytest.fixture(scope="session")
def root() -> Root:
    """The content rooms: checks, rules, dashboards, load tests, profile."""
    from readiness.root import find_root  # noqa: PLC0415 - only a run needs it

    given = os.environ.get(ROOT_VARIABLE, "")
    return find_root(Path(given) if given else None)


@pytest.fixture(scope="session")
def documents(root: Root) -> Corpus:
    """The documents of the run: READINESS_DOCUMENTS, or the default corpus."""
    from readiness.documents import load_documents  # noqa: PLC0415 - only a run needs it

    folder = os.environ.get(DOCUMENTS_VARIABLE, "")
    return load_documents(Path(folder) if folder else None, samples=root.samples)


# Fixtures: the target


@pytest.fixture(scope="session")
def target(pytestconfig: pytest.Config, stack: StackInfo) -> Target:
    """The adapter of the system under examination, bound to this run's stack."""
    from readiness.targets import open_target  # noqa: PLC0415 - only a run needs it

    return open_target(_session(pytestconfig).target, stack)


def open_lane(
    cleanup: ExitStack,
    target: Target,
    name: str,
    *,
    api: bool = True,
    workers: int = 1,
    redis_url: str | None = None,
    settings: Mapping[str, object],
) -> Lane:
    """Open a lane, start its API and workers, and leave its end to ``cleanup``."""
    words = {key: str(value) for key, value in settings.items()}
    lane = cleanup.enter_context(target.lane(name, settings=words, redis_url=redis_url))
    if api:
        lane.start_api()
    for _ in range(workers):
        lane.start_worker()
    return lane


@pytest.fixture
def lane(target: Target) -> Iterator[LaneFactory]:
    """Factory of fresh isolated instances; all of them are stopped when the test ends, however it ends."""
    with ExitStack() as cleanup:
        yield lane_factory(cleanup, target)


def lane_factory(cleanup: ExitStack, target: Target) -> LaneFactory:
    """A LaneFactory whose lanes end with ``cleanup``: for fixtures of a wider scope than one test."""

    def make(
        name: str,
        *,
        api: bool = True,
        workers: int = 1,
        redis_url: str | None = None,
        **settings: object,
    ) -> Lane:
        return open_lane(
            cleanup, target, name, api=api, workers=workers, redis_url=redis_url, settings=settings
        )

    return make


@pytest.fixture(scope="session")
def main_lane(target: Target) -> Iterator[Lane]:
    """The lane that the corpus is ingested on: defaults, one API, two workers."""
    with ExitStack() as cleanup:
        name = MAIN_LANE + os.environ.get("PYTEST_XDIST_WORKER", "")
        yield open_lane(cleanup, target, name, workers=MAIN_WORKERS, settings={})


@pytest.fixture(scope="session")
def ingested(main_lane: Lane, documents: Corpus) -> Ingested:
    """The whole corpus, submitted through the API and brought to its end by two workers."""
    from readiness.checking.ingest import ingest  # noqa: PLC0415 - only a run needs it

    return ingest(main_lane, documents)


# Fixtures: the evidence


@pytest.fixture
def evidence(request: pytest.FixtureRequest) -> ClaimEvidence:
    """Records measurements for the claims that the test is marked with."""
    from readiness.checking.recorder import ClaimEvidence, Nowhere  # noqa: PLC0415 - only checks need it

    item: pytest.Item = request.node
    claims = marked_claims(item)
    in_a_run = request.config.stash[_SESSION] is not None
    if not claims:
        raise HarnessFailure(
            f"{item.nodeid}: expected a mark claim(…) on a test that records evidence; add it"
        )
    recorder = ClaimEvidence(
        _writer(request.config, claims) if in_a_run else Nowhere(),
        claims=claims,
        check=item.nodeid.rpartition("@")[0] or item.nodeid,
    )
    item.stash[_EVIDENCE] = recorder
    return recorder
