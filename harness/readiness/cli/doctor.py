"""`readiness doctor`: what is on this machine, what is missing, what it would add, how to get it. Changes nothing."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from readiness.doctor import diagnose

DESCRIPTION = """\
Look for every part that a run can use. Nothing is started, installed or changed. A missing part is no error: its
claims stay NOT_RUN and the report says so."""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the words of this verb."""
    parser = verbs.add_parser("doctor", help="say what this machine has and lacks", description=DESCRIPTION)
    parser.add_argument("--json", action="store_true", help="the same as JSON on stdout")
    parser.add_argument("--lang", choices=("en", "ko"), default="en", help="language of the explanations")
    parser.set_defaults(main=main)


def main(arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    """Print a table and a line with the counts. Always 0: a missing part is information, not a failure."""
    found = diagnose()
    if arguments.json:
        rows = [
            {
                "part": d.part,
                "found": d.found,
                "version": d.version,
                "adds": d.adds.say(arguments.lang),
                "get": d.get,
            }
            for d in found
        ]
        json.dump(rows, sys.stdout, indent=2, ensure_ascii=False)
        print()
        return 0
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("part", "here", "what it adds", "how to get it"):
        table.add_column(heading, overflow="fold")
    for item in found:
        here = item.version or "yes" if item.found else "missing"
        table.add_row(item.part, here, item.adds.say(arguments.lang), "" if item.found else item.get)
    Console(highlight=False).print(table)
    missing = [item.part for item in found if not item.found]
    print(
        f"doctor: {len(found) - len(missing)} of {len(found)} parts are here"
        + (f"; missing: {', '.join(missing)}" if missing else "")
    )
    return 0
