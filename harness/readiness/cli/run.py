"""`readiness run`: the main job, from flags to scorecard."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from readiness.cli import interrupts
from readiness.cli.places import shown

DESCRIPTION = """\
Start the system under examination on real parts, ingest real documents, kill its workers, load it, watch it from
outside, and write a scorecard. Real Redis, Prometheus and Alertmanager are used where the machine has them; what is
missing leaves its claims NOT_RUN, by name. Everything runs on loopback, lives in the run's folder and is ended."""

EPILOG = """\
examples:
  readiness run                                   quick profile, default documents, best parts that are here
  readiness run --documents ~/papers              your own .txt .md .rst .html .pdf files
  readiness run --redis embedded --no-monitoring  only what the wheels carry, as on a fresh machine
  readiness run --redis redis://127.0.0.1:6379/9  a Redis that is already there
  readiness run --only A5.kill --seed 8231        one claim, repeated with its seed

The result is in reports/runs/<id>/ (index.html, scorecard.json, scorecard.md, junit.xml, evidence/, logs/);
reports/latest points to it. The last line on stdout is the verdict.
"""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the words of this verb."""
    parser = verbs.add_parser(
        "run",
        help="run the main job and write a scorecard",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--profile",
        default="quick",
        metavar="NAME|FILE",
        help="quick (default), release, or a YAML file of yours",
    )
    add(
        "--documents",
        type=Path,
        metavar="DIR",
        help="real files to ingest (default: a corpus of at least 60)",
    )
    add(
        "--redis",
        default="auto",
        metavar="WHICH",
        help="auto (default), local, embedded, fakeredis, or a redis:// URL",
    )
    add(
        "--no-monitoring",
        dest="monitoring",
        action="store_false",
        help="do without Prometheus and Alertmanager",
    )
    add(
        "--api-port",
        type=int,
        default=0,
        metavar="N",
        help="port of the system's API (default: any free one)",
    )
    add("--only", action="append", default=[], metavar="CLAIM", help="only this claim (may be repeated)")
    add("--seed", type=int, metavar="N", help="seed of every random choice (default: drawn, and printed)")
    add(
        "--lang", choices=("en", "ko"), default="en", help="language that the report opens in (it holds both)"
    )
    add("--root", type=Path, metavar="DIR", help="folder with checks, loadtests, rules, dashboards, reports")
    add("--reports", type=Path, metavar="DIR", help="where reports go (default: reports/ beside the rooms)")
    add("--json", action="store_true", help="the scorecard as JSON on stdout instead of the table")
    parser.set_defaults(main=main)


def main(arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    """Plan, run, print. Returns the scorecard's status."""
    # Imported here, because they take most of a second: --help and Ctrl-C answer at once.
    from rich.console import Console  # noqa: PLC0415 - see above

    from readiness.plan import Choices, make_plan  # noqa: PLC0415 - see above
    from readiness.progress import Progress  # noqa: PLC0415 - see above
    from readiness.run import execute  # noqa: PLC0415 - see above

    choices = Choices(
        profile=arguments.profile,
        documents=arguments.documents,
        redis=arguments.redis,
        monitoring=arguments.monitoring,
        api_port=arguments.api_port,
        only=tuple(arguments.only),
        seed=arguments.seed,
        lang=arguments.lang,
        root=arguments.root,
        reports=arguments.reports,
    )
    plan = make_plan(choices, argv=("readiness", *argv))
    interrupts.in_order()
    with Progress() as progress:
        card, report = execute(plan, progress)
    if arguments.json:
        json.dump(card.to_json(), sys.stdout, indent=2, ensure_ascii=False)
        print()
        return card.status
    from readiness.render import render_terminal  # noqa: PLC0415 - charts are slow to import; the plan comes first

    render_terminal(card, Console(highlight=False), lang=choices.lang, report=shown(report))
    return card.status
