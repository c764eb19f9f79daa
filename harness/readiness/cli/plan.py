"""`readiness plan`: what a run of a profile can prove, before it runs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

DESCRIPTION = """\
Say for each claim how much a run of the profile will observe, whether that proves a flawless system, and how likely it
proves one whose truth is half of what the target allows. Strict is good, deaf is not: a claim with a small chance
needs a longer run, not luck. Starts nothing and writes nothing."""

EPILOG = """\
examples:
  readiness plan                     the quick profile
  readiness plan --profile release   what the longer run is for
  readiness plan --json              the same for a program

A size is known from the profile's knobs, from the last run of the same profile, or it is at least what the claim asks
for. Chances are exact for independent samples; "worth" counts for fewer what the last run showed to be alike. For
availability every recovery is taken to last 5 s.
"""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the words of this verb."""
    parser = verbs.add_parser(
        "plan",
        help="say what a run can prove, before it runs",
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
    add("--root", type=Path, metavar="DIR", help="folder with checks, loadtests, rules, dashboards, reports")
    add(
        "--reports",
        type=Path,
        metavar="DIR",
        help="where earlier runs are (default: reports/ beside the rooms)",
    )
    add("--json", action="store_true", help="a list of objects on stdout instead of the table")
    parser.set_defaults(main=main)


def main(arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    """Print the table. Returns 0."""
    # Imported here, because they take a while: --help answers at once.
    from rich.console import Console  # noqa: PLC0415 - see above
    from rich.table import Table  # noqa: PLC0415 - see above

    from readiness.judge.codec import to_json  # noqa: PLC0415 - see above
    from readiness.judge.profile import load_profile  # noqa: PLC0415 - see above
    from readiness.planning import in_words, outlooks  # noqa: PLC0415 - see above
    from readiness.root import find_root  # noqa: PLC0415 - see above

    root = find_root(arguments.root, reports=arguments.reports)
    profile = load_profile(root.path, arguments.profile)
    found = outlooks(profile, root.runs)
    if arguments.json:
        print(json.dumps([to_json(one) for one in found], indent=2, ensure_ascii=False))
        return 0
    table = Table(box=None, pad_edge=False)
    for title in ("claim", "target", "observes (known from)", "flawless: proven", "half the target: proven"):
        table.add_column(title, overflow="fold")
    for one in found:
        table.add_row(*in_words(one))
    Console(highlight=False).print(table)
    names = ", ".join(one.claim for one in found if not one.flawless) or "none"
    print(f"plan: {len(found)} claims of {profile.name}; too short even for a flawless system: {names}")
    return 0
