"""`readiness merge RUN RUN ...`: partial runs of one commit and profile become the run that they are together."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from readiness.cli.places import run_folder, shown

DESCRIPTION = """\
Join runs that each examined a part (`readiness run --only ...`, perhaps side by side in CI) into one report. They must
agree in commit, profile, target, version and parts, and each must verify. Evidence for one claim from several runs is
pooled: a failure in any of them stays a failure. The runs themselves are left as they are."""

EPILOG = """\
example:
  readiness run --only A5.kill --only A5.once
  readiness run --only G1.ids
  readiness merge 20261123T101500Z-quick-1f3a 20261123T101640Z-quick-77c0
"""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the words of this verb."""
    parser = verbs.add_parser(
        "merge",
        help="join partial runs into one report",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="folders or ids of runs, two or more"
    )
    parser.add_argument(
        "--reports", type=Path, metavar="DIR", help="where the report goes (default: the first run's)"
    )
    parser.add_argument(
        "--lang", choices=("en", "ko"), default="en", help="language that the report opens in (it holds both)"
    )
    parser.add_argument(
        "--json", action="store_true", help="the scorecard as JSON on stdout instead of the table"
    )
    parser.set_defaults(main=main)


def main(arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    """Merge, conclude, print. Returns the scorecard's status."""
    from rich.console import Console  # noqa: PLC0415 - imported when asked, so that --help answers at once

    from readiness.conclude import conclude, point_latest  # noqa: PLC0415 - the same
    from readiness.merge import merge_runs  # noqa: PLC0415 - the same
    from readiness.render import render_terminal  # noqa: PLC0415 - the same

    folders = [run_folder(named) for named in arguments.runs]
    reports = (arguments.reports or folders[0].parent.parent).resolve()
    run_dir = merge_runs(folders, reports / "runs", argv=("readiness", *argv))
    card, page = conclude(run_dir, lang=arguments.lang)
    point_latest(reports, run_dir)
    if arguments.json:
        json.dump(card.to_json(), sys.stdout, indent=2, ensure_ascii=False)
        print()
    else:
        render_terminal(card, Console(highlight=False), lang=arguments.lang, report=shown(page))
    return card.status
