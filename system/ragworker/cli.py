"""The command line: run the API or a worker, look after jobs, dead letters and the queue.

Results go to stdout (`--json` for machines), logs and errors to stderr. Exit status: 0 done, 1 refused (no
such job, not dead, ended already), 3 Redis cannot be reached, 4 bad settings or arguments. What a verb
needs is loaded when it runs, so that a worker never loads the web framework and `--help` loads nothing.
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

EXIT_REFUSED: Final = 1
EXIT_UNREACHABLE: Final = 3
EXIT_BAD_INPUT: Final = 4
EXIT_INTERRUPTED: Final = 130

#: What libraries take along where it happens to be installed, at 7 MB a worker: httpx its command line with rich and
#: pygments, redis-py its metrics.
UNUSED: Final = ("httpx._main", "opentelemetry.sdk.metrics")

EPILOG: Final = """\
examples:
  USE_DURABLE_WORKER=true ragworker api          serve the HTTP API on RAG_API_HOST:RAG_API_PORT
  RAG_QUEUE=mail ragworker worker                work on the queue `mail` until SIGTERM
  ragworker jobs submit handbook.md              queue a document, print its job id
  ragworker jobs show job-3f2a...                one job with its history
  ragworker dlq list                             what failed for good, newest first
  ragworker dlq requeue job-3f2a...              give it a fresh series of attempts
  ragworker queue stats --json                   the figures that /metrics is made of
  ragworker retry-table                          delays and policies per error code

All settings are environment variables, or lines of the file named by RAG_ENV_FILE; see system/README.md.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        settings = Settings.load(os.environ)
        status: int = arguments.run(settings, arguments)
    except SettingsError as error:
        return _fail(str(error), EXIT_BAD_INPUT)
    except KeyboardInterrupt:
        return _fail("interrupted", EXIT_INTERRUPTED)
    return status


def _api(settings: Settings, _: argparse.Namespace) -> int:
    configure_logging(settings, service="ragworker-api", secrets=settings.secrets)
    status: int = import_module("ragworker.api.server").serve(settings, flag=FlagSource(os.environ))
    return status


def _worker(settings: Settings, _: argparse.Namespace) -> int:
    configure_logging(settings, service="ragworker-worker", secrets=settings.secrets)
    with _unimportable(*UNUSED):
        process = import_module("ragworker.process")
    status: int = process.main(settings)
    return status


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


def _on_queue(verb: str) -> Callable[[Settings, argparse.Namespace], int]:
    def run(settings: Settings, arguments: argparse.Namespace) -> int:
        operator = import_module("ragworker.operator_verbs")
        try:
            return _print(operator.ask(settings, verb, vars(arguments)), arguments)
        except operator.RefusedError as error:
            return _fail(str(error), EXIT_REFUSED)
        except operator.UnreachableError as error:
            return _fail(str(error), EXIT_UNREACHABLE)

    return run


def _retry_table(settings: Settings, arguments: argparse.Namespace) -> int:
    return _print(import_module("ragworker.operator_verbs").show_retry_table(settings), arguments)


def _print(result: Any, arguments: argparse.Namespace) -> int:
    try:
        print(
            json.dumps(result.data, ensure_ascii=False) if arguments.json else "\n".join(result.lines),
            flush=True,
        )
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
    parser = _Parser(
        prog="ragworker",
        description="A durable retrieval-augmented-generation worker on Redis: documents in, embedded chunks out.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"ragworker {__version__}")
    verbs = parser.add_subparsers(metavar="COMMAND", required=True)
    _verb(verbs, "api", _api, "serve the HTTP API until SIGTERM")
    _verb(
        verbs, "worker", _worker, "work on the queue until SIGTERM; jobs in hand are finished or handed back"
    )
    _verb(
        verbs,
        "retry-table",
        _retry_table,
        "print the delays before retries and the policy of each error code",
    )

    jobs = _group(verbs, "jobs", "list, show, cancel and submit jobs of the durable queue")
    _limited(_verb(jobs, "list", _on_queue("jobs list"), "jobs on record, newest first"))
    _with_job(_verb(jobs, "show", _on_queue("jobs show"), "one job with its history"))
    cancel = _with_job(_verb(jobs, "cancel", _on_queue("jobs cancel"), "ask for the end of a job"))
    cancel.add_argument("--reason", default="cancelled by an operator", help="kept with the request")
    _submit_arguments(
        _verb(jobs, "submit", _on_queue("jobs submit"), "queue a document; the same one only once")
    )

    dlq = _group(verbs, "dlq", "look after the dead-letter queue")
    _limited(_verb(dlq, "list", _on_queue("dlq list"), "dead letters, newest first"))
    _with_job(_verb(dlq, "show", _on_queue("dlq show"), "one dead letter with its history"))
    _with_job(_verb(dlq, "requeue", _on_queue("dlq requeue"), "give a dead job a fresh series of attempts"))
    _with_job(_verb(dlq, "purge", _on_queue("dlq purge"), "forget a dead job and its document for good"))

    queue = _group(verbs, "queue", "figures of the queue")
    _verb(queue, "stats", _on_queue("queue stats"), "lengths, workers and counters as of now")
    return parser


Verbs = Any  # argparse does not export the type of a sub-parser collection.


def _group(verbs: Verbs, name: str, text: str) -> Verbs:
    group = verbs.add_parser(name, help=text, description=text)
    return group.add_subparsers(metavar="COMMAND", required=True)


def _verb(verbs: Verbs, name: str, run: Callable[..., int], text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=text)
    parser.add_argument("--json", action="store_true", help="one JSON value on stdout instead of text")
    parser.set_defaults(run=run)
    return parser


def _limited(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--limit", type=_count, default=50, help="at most so many (1 to 1000, default 50)")


def _with_job(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("job_id", metavar="JOB", help="the id that the submission answered, job-...")
    return parser


def _submit_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", metavar="FILE", type=Path, help="text, Markdown, reStructuredText, HTML or PDF"
    )
    parser.add_argument("--media-type", help="when the file's ending does not say it, e.g. text/markdown")
    parser.add_argument("--priority", choices=("normal", "high"), default="normal")
    parser.add_argument("--key", help="names the work; the same key is the same job (default: the content)")
    parser.add_argument("--user", default="anonymous", help="whose job it is (default: anonymous)")


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to 1000, got: {text!r}")
    return int(text)
