"""`readiness doctor`: what is on this machine, what is missing, what it would add, how to get it. Changes nothing."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from readiness.doctor import Diagnosis

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
    from readiness.doctor import diagnose  # noqa: PLC0415 - imported when asked, so that --help answers at once

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
    _print_table(found, lang=arguments.lang)
    missing = [item.part for item in found if not item.found]
    names = f"; missing: {', '.join(missing)}" if missing else ""
    print(f"doctor: {len(found) - len(missing)} of {len(found)} parts are here{names}")
    return 0


def _print_table(found: Sequence[Diagnosis], *, lang: str) -> None:
    from rich.console import Console  # noqa: PLC0415 - as above
    from rich.table import Table  # noqa: PLC0415 - as above

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("part", "here", "what it adds", "how to get it"):
        table.add_column(heading, overflow="fold")
    for item in found:
        here = (item.version or "yes") if item.found else "missing"
        table.add_row(item.part, here, item.adds.say(lang), "" if item.found else item.get)
    console = Console(highlight=False)
    with console.capture() as captured:
        console.print(table)
    # rich fills each line up to the width; nobody needs the blanks.
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))
