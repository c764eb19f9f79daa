"""`readiness fault list|run`: which faults there are; one of them played by itself, with its steps as they happen."""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from readiness.cli import interrupts
from readiness.errors import BadInput, HarnessFailure

if TYPE_CHECKING:
    from readiness.faults.result import Played
    from readiness.faults.scenario import Scenario

SEED_MAX: Final = 2**31 - 1
FOLDER: Final = "faults"
"""Below the reports folder: one folder a play, with logs, history and result."""

STATUSES: Final = {"survived": 0, "failed": 1, "not_run": 2, "unproven": 2, "error": 3}

DESCRIPTION = """\
Break the system on purpose and see whether it keeps its promises. A fault is proven active from outside, held, healed,
and proven healed; then every acknowledged job must end and a new one be done in time. What was seen from outside is
judged: no job lost, no effect repeated, no stale owner, nothing left behind. A fault that this machine cannot do is
"not run", one that could not be proven is "unproven"; neither is ever "survived"."""

EPILOG = """\
examples:
  readiness fault list                        every fault, and whether this machine can do it
  readiness fault run freeze_worker           play one, with a stack of its own; the last line is the verdict
  readiness fault run two_at_once --seed 8231 the same draw again, as the report names it
  readiness run --profile release             all of them, with the evidence and the ledger in a report

A fault is one file of checks/faults/. Copy one, change what is built and broken, and run it by its file's name; the
top of harness/readiness/faults/act.py says what the keys mean and how to write a new act.

exit status:
  0 survived   1 a promise was broken   2 not run, or not proven   3 the harness itself failed   4 bad input
"""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the words of this verb."""
    parser = verbs.add_parser(
        "fault",
        help="list the faults, or play one by itself",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    words = parser.add_subparsers(dest="what", metavar="list|run", required=True)
    listed = words.add_parser("list", help="every fault, and whether this machine can do it")
    run = words.add_parser(
        "run",
        help="play one fault",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument("name", metavar="NAME", help="a name of `readiness fault list`")
    run.add_argument("--seed", type=int, metavar="N", help="seed of every draw (default: drawn, and printed)")
    run.add_argument("--redis", default="auto", metavar="WHICH", help="as in readiness run (default: auto)")
    run.add_argument("--reports", type=Path, metavar="DIR", help="where the folder of the play goes")
    for one in (listed, run):
        one.add_argument("--root", type=Path, metavar="DIR", help="folder with checks, loadtests, rules ...")
        one.add_argument("--json", action="store_true", help="the result as JSON on stdout")
    parser.set_defaults(main=main)


def main(arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    """List or play. Returns 0 to 3; BadInput for an unknown name."""
    return _list(arguments) if arguments.what == "list" else _run(arguments)


def _list(arguments: argparse.Namespace) -> int:
    from readiness.faults.capabilities import Machine  # noqa: PLC0415 - --help answers at once
    from readiness.faults.scenario import load_scenarios  # noqa: PLC0415 - as above
    from readiness.root import find_root  # noqa: PLC0415 - as above

    scenarios = load_scenarios(find_root(arguments.root).path)
    machine = Machine()
    rows = [(one, why_not(one, machine)) for one in scenarios]
    if arguments.json:
        told = [
            {"name": one.name, "row": one.row, "title": asdict(one.title), "can": not why, "why_not": why}
            for one, why in rows
        ]
        json.dump(told, sys.stdout, indent=2, ensure_ascii=False)
        print()
        return 0
    width = max((len(one.name) for one, _ in rows), default=0)
    for one, why in rows:
        row = f"{one.row:3d}" if one.row else "  -"
        print(f"{row}  {one.name:{width}}  {one.title.en}{f'  (not here: {why})' if why else ''}")
    can = sum(not why for _, why in rows)
    covered = len({one.row for one, why in rows if one.row and not why})
    print(f"fault: this machine can do {can} of {len(rows)} faults, {covered} rows of the catalogue")
    return 0


def why_not(scenario: Scenario, machine: object) -> str:
    """Why this machine cannot play the scenario; "" when it can."""
    from readiness.faults.engine import why_missing  # noqa: PLC0415 - as above

    return why_missing(scenario, machine)  # type: ignore[arg-type]  # a Capabilities, imported when asked


def _run(arguments: argparse.Namespace) -> int:
    from readiness.faults.capabilities import Machine  # noqa: PLC0415 - as above
    from readiness.faults.engine import play_and_shrink  # noqa: PLC0415 - as above
    from readiness.faults.scenario import find_scenario  # noqa: PLC0415 - as above
    from readiness.root import find_root  # noqa: PLC0415 - as above
    from readiness.stack import Stack, StackPlan, sweep_containers, sweep_stray  # noqa: PLC0415 - as above
    from readiness.stack.redis import require_redis  # noqa: PLC0415 - as above
    from readiness.targets import TARGETS, open_target  # noqa: PLC0415 - as above

    if arguments.seed is not None and not 0 <= arguments.seed <= SEED_MAX:
        raise BadInput(f"--seed {arguments.seed}: expected a whole number from 0 to {SEED_MAX}")
    root = find_root(arguments.root, reports=arguments.reports)
    scenario = find_scenario(root.path, arguments.name)
    require_redis(arguments.redis)
    seed = secrets.randbelow(SEED_MAX) if arguments.seed is None else arguments.seed
    folder = root.reports / FOLDER
    run_dir = _own_folder(folder, scenario.name)
    began = time.monotonic()

    def tell(words: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {words}", file=sys.stderr, flush=True)

    tell(f"{scenario.name} (row {scenario.row or '-'}): {scenario.title.en}; seed {seed}")
    interrupts.in_order()
    if removed := sweep_containers(folder):
        tell(f"removed {removed} containers that a crashed earlier play had left")
    if ended := sweep_stray(folder):
        tell(f"ended {ended} processes that a crashed earlier play had left")
    with Stack.start(StackPlan(redis=arguments.redis, monitoring=False), run_dir, notify=tell) as stack:
        played = play_and_shrink(
            scenario,
            target=open_target(next(iter(TARGETS)), stack.info),
            stack=stack.info,
            run_dir=run_dir,
            seed=seed,
            machine=Machine(),
            tell=tell,
        )
    return _tell_result(played, run_dir, as_json=arguments.json)


def _tell_result(played: Played, run_dir: Path, *, as_json: bool) -> int:
    if as_json:
        json.dump(asdict(played), sys.stdout, indent=2, ensure_ascii=False)
        print()
        return STATUSES[played.outcome]
    for act in played.acts:
        settings = ", ".join(f"{name} {value}" for name, value in act.items() if name != "act")
        print(f"act       {act['act']}{f' ({settings})' if settings else ''}")
    for words in played.active:
        print(f"active    {words}")
    for words in played.healed:
        print(f"healed    {words}")
    for violation in played.violations:
        print(f"violation {violation}")
    for name, why in played.unjudged.items():
        print(f"unjudged  {name}: {why}")
    if played.shrunk_to:
        print(f"smallest failing set: {' and '.join(played.shrunk_to)}")
    print(f"again:    readiness fault run {played.name} --seed {played.seed}")
    print(f"folder:   {run_dir}")
    print(f"fault {played.verdict}")
    if played.outcome == "error":
        raise HarnessFailure(f"{played.name} could not be played: {played.reason}")
    return STATUSES[played.outcome]


def _own_folder(folder: Path, name: str) -> Path:
    stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{name}-{secrets.token_hex(2)}"
    run_dir = folder / stamp
    try:
        (run_dir / "logs").mkdir(parents=True)
    except OSError as error:
        raise BadInput(
            f"{folder}: expected a folder that can be written, got: {error.strerror or error}."
            " Make it writable or name another one with --reports."
        ) from None
    return run_dir
