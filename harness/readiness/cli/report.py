"""`readiness report RUN`: judge an earlier run's evidence again and render every format. Needs no stack."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from readiness.cli.places import run_folder, shown

DESCRIPTION = """\
Judge the evidence of an earlier run again, with the profile and plan that it recorded, and write its report anew:
index.html, scorecard.json, scorecard.md, junit.xml in the run's folder are replaced. Evidence is only read; a claim
whose evidence is gone is NOT_RUN."""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the words of this verb."""
    parser = verbs.add_parser("report", help="judge and render an earlier run again", description=DESCRIPTION)
    parser.add_argument("run", type=Path, metavar="RUN", help="a run's folder or id, or reports/latest")
    parser.add_argument(
        "--lang", choices=("en", "ko"), default="en", help="language that the report opens in"
    )
    parser.add_argument(
        "--json", action="store_true", help="the scorecard as JSON on stdout instead of the table"
    )
    parser.set_defaults(main=main)


def main(arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    """Conclude the run again and print it. Returns the scorecard's status."""
    from rich.console import Console  # noqa: PLC0415 - imported when asked, so that --help answers at once

    from readiness.conclude import conclude  # noqa: PLC0415 - charts are slow to import; bad input answers first
    from readiness.render import render_terminal  # noqa: PLC0415 - the same

    run_dir = run_folder(arguments.run)
    card, page = conclude(run_dir, lang=arguments.lang)
    if arguments.json:
        json.dump(card.to_json(), sys.stdout, indent=2, ensure_ascii=False)
        print()
    else:
        render_terminal(card, Console(highlight=False), lang=arguments.lang, report=shown(page))
    return card.status
