"""The plugin's part for a project's own suite: the options of `pytest --readiness`, and the scorecard at the end.

Opening and judging the run is suite.py's, imported when the option is given: pytest loads this in every project that
has readiness installed.
"""

from __future__ import annotations

import os
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from readiness.checking.session import RUN_VARIABLE
from readiness.errors import BadInput, HarnessFailure

if TYPE_CHECKING:
    from readiness.checking.suite import Suite
    from readiness.judge.model import Scorecard

FAILED = 1  # exit status of a scorecard with a failed claim or gate; pytest's for failed tests


def add_suite_options(parser: pytest.Parser) -> None:
    """Add --readiness and what belongs to it."""
    group = parser.getgroup("readiness")
    group.addoption(
        "--readiness",
        action="store_true",
        help="make this session a run: write a scorecard of its marked tests below reports/ of the root folder",
    )
    group.addoption(
        "--readiness-profile",
        default="quick",
        metavar="NAME",
        help="profile of reports/scorecard.yaml to judge by (default: quick)",
    )
    group.addoption(
        "--readiness-seed",
        type=int,
        default=None,
        metavar="N",
        help="the run's seed (default: drawn, and part of every repeat command)",
    )


def open_suite_run(config: pytest.Config) -> None:
    """Open a run when --readiness asks for one; its folder travels to xdist's processes by the environment."""
    if not config.getoption("--readiness") or hasattr(config, "workerinput"):
        return
    if os.environ.get(RUN_VARIABLE):
        raise pytest.UsageError(f"--readiness: this session belongs to a run already ({RUN_VARIABLE} is set)")
    from readiness.checking.suite import open_suite  # noqa: PLC0415 - only a suite run needs the judge

    try:
        suite = open_suite(
            config.rootpath,
            profile_name=config.getoption("--readiness-profile"),
            argv=config.invocation_params.args and [str(word) for word in config.invocation_params.args],
            only=config.getoption("--claim"),
            seed=config.getoption("--readiness-seed"),
        )
    except BadInput as wrong:
        raise pytest.UsageError(str(wrong)) from None
    os.environ[RUN_VARIABLE] = str(suite.run_dir)
    config.pluginmanager.register(SuiteReporter(suite), "readiness-suite")


class SuiteReporter:
    """Concludes the run when the last outcome is written, prints the scorecard and lends it its exit status."""

    def __init__(self, suite: Suite) -> None:
        self._suite = suite
        self._card: Scorecard | None = None
        self._page: Path | None = None
        self._problem = ""

    @pytest.hookimpl(trylast=True)  # after the outcomes of tests that were cut short
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        from readiness.checking.suite import close_suite  # noqa: PLC0415 - only a suite run needs the judge

        try:
            self._card, self._page = close_suite(self._suite)
        except (BadInput, HarnessFailure) as failure:
            self._problem = str(failure)
        if session.exitstatus == pytest.ExitCode.OK and (self._card is None or self._card.status == FAILED):
            session.exitstatus = FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("readiness")
        if self._card is None:
            terminalreporter.write_line(f"no scorecard: {self._problem}")
            return
        from rich.console import Console  # noqa: PLC0415 - only a suite run prints a scorecard

        from readiness.render import render_terminal  # noqa: PLC0415 - the same

        page = str(self._page)
        if self._page is not None and self._page.is_relative_to(Path.cwd()):
            page = str(self._page.relative_to(Path.cwd()))
        text = StringIO()
        console = Console(
            file=text,
            highlight=False,
            width=terminalreporter._tw.fullwidth,
            force_terminal=terminalreporter.hasmarkup,
        )
        render_terminal(self._card, console, lang="en", report=page)
        terminalreporter.write(text.getvalue())

    def pytest_unconfigure(self) -> None:
        os.environ.pop(RUN_VARIABLE, None)
