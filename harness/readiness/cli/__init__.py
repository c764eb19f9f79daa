"""The command `readiness`: parse the words, call one verb, turn what happened into one line and an exit status.

    0 proven   1 failed   2 inconclusive or not run   3 the harness itself failed   4 bad input

A verb is one file in this package with `add_parser` and `main`; the literal table VERBS lists them in the order of
`--help`. Verbs import what they need when they are called, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Final, NoReturn

from readiness import __version__
from readiness.cli import interrupts
from readiness.errors import BadInput, HarnessFailure, Interrupted

STATUS_HARNESS_FAILED: Final = 3
STATUS_BAD_INPUT: Final = 4

VERBS: Final = ("run", "plan", "init", "merge", "report", "verify", "doctor", "sabotage", "fault")

DESCRIPTION: Final = """\
Run a background-job system for real, break it on purpose, and write a reliability scorecard in which every point is
earned by evidence that anyone can recompute."""

EPILOG: Final = """\
examples:
  readiness run                                  the main job: real documents, kill -9, load; ends with a scorecard
  readiness run --documents ~/papers --lang ko   your own files, a Korean report
  readiness run --only A5.kill --seed 8231       one claim again, with the seed that the report names
  readiness report reports/latest                judge and render an earlier run again, from its evidence
  readiness verify reports/latest                recompute every figure, check every digest
  readiness doctor                               what this machine has, what is missing and what it would add

exit status (the same for every verb):
  0 proven   1 failed   2 inconclusive or not run   3 the harness itself failed   4 bad input
"""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose usage errors are one line with exit status 4."""

    def error(self, message: str) -> NoReturn:
        """Print what was wrong and where to look; exit with 4 (argparse itself would use 2, which means open)."""
        self.exit(STATUS_BAD_INPUT, f"{self.prog}: {message}. See {self.prog} --help.\n")


def build_parser() -> Parser:
    """Return the parser of the whole command."""
    parser = Parser(
        prog="readiness",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"readiness {__version__}")
    parser.add_argument("--debug", action="store_true", help="show a traceback when something goes wrong")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=Parser)
    for name in VERBS:
        importlib.import_module(f"readiness.cli.{name}").add_parser(verbs)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit status. Never lets a traceback out unless --debug is given."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    verb = next((word for word in words if word in VERBS), "")
    with interrupts.answered(verb):
        try:
            arguments = build_parser().parse_args(words)
            return int(arguments.main(arguments, words))
        except BadInput as wrong:
            return _end(verb, STATUS_BAD_INPUT, str(wrong), debug=debug)
        except HarnessFailure as failure:
            return _end(verb, STATUS_HARNESS_FAILED, str(failure), debug=debug)
        except (Interrupted, KeyboardInterrupt) as stopped:
            interrupts.heard()
            return _end(verb, STATUS_HARNESS_FAILED, str(stopped) or interrupts.NOTHING_LEFT, debug=debug)
        except BrokenPipeError:
            # The reader of stdout went away (`readiness report | head`): nobody is left to tell.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return STATUS_HARNESS_FAILED
        except Exception as unexpected:
            what = f"unexpected {type(unexpected).__name__}: {unexpected}."
            message = f"{what} This is a defect of readiness; --debug shows where"
            return _end(verb, STATUS_HARNESS_FAILED, message, debug=debug)


def _end(verb: str, status: int, message: str, *, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    line = " ".join(message.split())
    print(f"readiness {verb}: {line}" if verb else f"readiness: {line}", file=sys.stderr)
    return status
