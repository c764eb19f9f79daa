"""`readiness run`: the main job, from flags to scorecard."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from readiness.cli import interrupts
from readiness.cli.places import PLAN_FILE, run_folder, shown
from readiness.errors import BadInput
from readiness.stack.base import MASK

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
  readiness run --redis docker --sql docker --monitoring docker   real parts in containers (images: --image)
  readiness run --only A5.kill --seed 8231        one claim, repeated with its seed
  readiness run --resume reports/runs/ID          go on where a killed run ended

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
        help="auto (default), local, embedded, fakeredis, docker, or a redis:// URL",
    )
    add(
        "--sql",
        default="sqlite",
        metavar="WHICH",
        help="sqlite (default), or docker: PostgreSQL in a container",
    )
    add(
        "--monitoring",
        dest="monitoring_in",
        default="local",
        metavar="WHICH",
        help="Prometheus and Alertmanager: local (default; the machine's), or docker",
    )
    add(
        "--image",
        dest="images",
        action="append",
        default=[],
        metavar="PART=IMAGE",
        help="image of redis, postgres, prometheus or alertmanager for docker; never pulled (may be repeated)",
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
    add(
        "--resume",
        type=Path,
        metavar="RUN",
        help="go on with a run that was cut short: its own words and seed, only the checks that it had not finished",
    )
    add(
        "--base",
        metavar="REF",
        help="commit that the thresholds are compared with (default: where this branch left main)",
    )
    add("--json", action="store_true", help="the scorecard as JSON on stdout instead of the table")
    parser.set_defaults(main=main)


def main(arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    """Plan, run, print. Returns the scorecard's status."""
    # Imported here, because they take most of a second: --help and Ctrl-C answer at once.
    from rich.console import Console  # noqa: PLC0415 - see above

    from readiness.plan import Choices, make_plan  # noqa: PLC0415 - see above
    from readiness.progress import Progress  # noqa: PLC0415 - see above
    from readiness.run import execute  # noqa: PLC0415 - see above

    resume = None
    if arguments.resume is not None:
        resume = run_folder(arguments.resume)
        arguments = _first_words(resume, arguments)
    choices = Choices(
        profile=arguments.profile,
        documents=arguments.documents,
        redis=arguments.redis,
        monitoring=arguments.monitoring,
        monitoring_in=arguments.monitoring_in,
        sql=arguments.sql,
        images=tuple(arguments.images),
        api_port=arguments.api_port,
        only=tuple(arguments.only),
        seed=arguments.seed,
        lang=arguments.lang,
        root=arguments.root,
        reports=arguments.reports,
        resume=resume,
        base=arguments.base,
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


def _first_words(run_dir: Path, given: argparse.Namespace) -> argparse.Namespace:
    """The words with which the run of ``run_dir`` began; only what is about this terminal is taken from ``given``.

    Raises BadInput for a run that another command made, and where a password that was not kept is needed again.
    """
    from readiness.cli import build_parser  # noqa: PLC0415 - the package imports this module

    plan = json.loads((run_dir / PLAN_FILE).read_text(encoding="utf-8"))
    words = [str(word) for word in plan.get("argv", ())][1:]
    if "run" not in words or plan.get("suite"):
        raise BadInput(
            f"--resume {run_dir.name}: expected a run of `readiness run`, got one of: {' '.join(words)}."
        )
    first = build_parser().parse_args(words)
    first.json, first.debug = given.json, given.debug
    if MASK in first.redis:
        if given.redis == "auto":
            raise BadInput(
                "--resume: the password of the run's Redis was not kept; give --redis with it again."
            )
        first.redis = given.redis
    return first
