"""The command line: run the API or a worker, look after jobs, dead letters and the queue.

Results go to stdout (`--json` for machines), logs, progress and errors to stderr. Exit status: 0 done, 1 refused (no
such job, not dead, ended already, not drained in time), 3 Redis or SQL cannot be reached, 4 bad settings or arguments.
What a verb needs is loaded when it runs, so that a worker never loads the web framework and `--help` loads nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NoReturn, cast

from ragworker import __version__
from ragworker.logs import configure_logging
from ragworker.settings import FlagSource, Settings, SettingsError

EXIT_REFUSED, EXIT_UNREACHABLE, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 1, 3, 4, 130

#: What libraries take along where it happens to be installed, at 7 MB a worker: httpx its command line with rich and
#: pygments, redis-py its metrics.
UNUSED: Final = ("httpx._main", "opentelemetry.sdk.metrics")

SETTINGS_ARE: Final = (
    "All settings are environment variables, or lines of the file that RAG_ENV_FILE names; see the README."
)

GROUPS: Final = {
    "jobs": "submit, list, show, cancel and undo jobs of the durable queue",
    "dlq": "look after the dead-letter queue",
    "queue": "figures of the queue; stop, start and drain it",
}

#: Every verb: what it does, an example ({} is the verb), and its arguments.
VERBS: Final = {
    "api": ("serve the HTTP API until SIGTERM", "USE_DURABLE_WORKER=true {}"),
    "worker": ("work until SIGTERM; jobs in hand are finished or handed back", "RAG_QUEUE=mail {}"),
    "retry-table": ("print the delays before retries and the policy of each error code", "{}"),
    "jobs submit": (
        "queue documents, files or folders of them; the same one only once",
        *("{} handbook.md docs/", "FILE", "--media-type", "--priority", "--key", "--user"),
    ),
    "jobs list": ("jobs on record, newest first", "{} --limit 10", "--limit"),
    "jobs show": ("one job with its history", "{} job-3f2a...", "JOB"),
    "jobs cancel": ("ask for the end of a job", "{} job-3f2a... --reason obsolete", "JOB", "--reason"),
    "jobs rollback": ("undo what a job committed in the last RAG_ROLLBACK_SECONDS", "{} job-3f2a...", "JOB"),
    "dlq list": ("dead letters, newest first", "{}", "--limit"),
    "dlq show": ("one dead letter with its error and history", "{} job-3f2a...", "JOB"),
    "dlq requeue": ("give a dead job a fresh series of attempts", "{} job-3f2a...", "JOB"),
    "dlq purge": ("forget a dead job and its document for good", "{} job-3f2a...", "JOB"),
    "queue stats": ("lengths, workers and counters as of now", "{} --json"),
    "queue pause": ("give out no more jobs; submissions are accepted, running jobs go on", "{}"),
    "queue resume": ("give out jobs again", "{}"),
    "queue drain": ("wait until no job is unfinished; progress on stderr", "{} --seconds 600", "--seconds"),
}


def _number(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"expected a number from {low} to {high}, got: {text!r}")
        return int(text)

    return parse


#: What verbs take, as argparse has it.
ARGUMENTS: Final[dict[str, dict[str, Any]]] = {
    "JOB": {"help": "the id that the submission answered, job-..."},
    "FILE": {
        "nargs": "+",
        "type": Path,
        "help": "text, Markdown, reStructuredText, HTML or PDF; or a folder",
    },
    "--limit": {"type": _number(1, 1000), "default": 50, "help": "at most so many (1 to 1000, default 50)"},
    "--reason": {"default": "cancelled by an operator", "help": "kept with the request"},
    "--media-type": {"help": "when the file's ending does not say it, e.g. text/markdown"},
    "--priority": {"choices": ("normal", "high"), "default": "normal"},
    "--key": {"help": "names the work of one FILE; the same key is the same job (default: the content)"},
    "--user": {"default": "anonymous", "help": "whose job it is (default: anonymous)"},
    "--seconds": {"type": _number(0, 86_400), "default": 60, "help": "give up after so long (default 60)"},
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        settings = Settings.load(os.environ)
        if arguments.verb in ("api", "worker"):
            return _serve(settings, arguments.verb)
        return _answer(settings, arguments)
    except SettingsError as error:
        return _fail(str(error), EXIT_BAD_INPUT)
    except KeyboardInterrupt:
        return _fail("interrupted", EXIT_INTERRUPTED)


def _serve(settings: Settings, verb: str) -> int:
    configure_logging(settings, service=f"ragworker-{verb}", secrets=settings.secrets)
    if verb == "api":
        return int(import_module("ragworker.api.server").serve(settings, flag=FlagSource(os.environ)))
    with _unimportable(*UNUSED):
        process = import_module("ragworker.process")
    return int(process.main(settings))


@contextmanager
def _unimportable(*names: str) -> Iterator[None]:
    """Inside the block these modules are not found, unless they are there already."""
    hidden = dict.fromkeys(name for name in names if name not in sys.modules)
    sys.modules.update(cast("dict[str, ModuleType]", hidden))  # None is Python's own sign for it
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def _answer(settings: Settings, arguments: argparse.Namespace) -> int:
    operator = import_module("ragworker.operator_verbs")
    try:
        data, summary = operator.ask(settings, arguments.verb, vars(arguments))
    except operator.RefusedError as error:
        return _fail(str(error), EXIT_REFUSED)
    except operator.UnreachableError as error:
        return _fail(str(error), EXIT_UNREACHABLE)
    text = (
        json.dumps(data, ensure_ascii=False)
        if arguments.json
        else "\n".join([*operator.tables(data), summary])
    )
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough. Python would complain once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _fail(message: str, status: int) -> int:
    print(f"ragworker: {message}", file=sys.stderr)
    return status


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, with the status of bad input."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_BAD_INPUT, f"{self.prog}: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    commands = {verb: example.format(f"ragworker {verb}") for verb, (_, example, *_) in VERBS.items()}
    examples = "\n".join(f"  {command:<55} {VERBS[verb][0]}" for verb, command in commands.items())
    parser = _Parser(
        prog="ragworker",
        description="A durable retrieval-augmented-generation worker on Redis: documents in, embedded chunks out.",
        epilog=f"examples:\n{examples}\n\n{SETTINGS_ARE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"ragworker {__version__}")
    groups = {"": parser.add_subparsers(metavar="COMMAND", required=True)}
    for group, text in GROUPS.items():
        members = groups[""].add_parser(group, help=text, description=text)
        groups[group] = members.add_subparsers(metavar="COMMAND", required=True)
    for verb, (text, _, *taken) in VERBS.items():
        group, _, name = verb.rpartition(" ")
        one = groups[group].add_parser(name, help=text, description=text, epilog=f"example: {commands[verb]}")
        one.set_defaults(verb=verb)
        one.add_argument("--json", action="store_true", help="one JSON value on stdout instead of text")
        for argument in taken:
            one.add_argument(argument, **ARGUMENTS[argument])
    return parser
