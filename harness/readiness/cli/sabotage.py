"""`readiness sabotage`: break a copy of the system in known ways and see whether the checks notice."""

from __future__ import annotations

import argparse
import json
import random
import secrets
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from readiness.cli import interrupts
from readiness.errors import BadInput

if TYPE_CHECKING:
    from readiness.judge.profile import Profile
    from readiness.progress import Progress
    from readiness.sabotage.campaign import Campaign
    from readiness.sabotage.catalogue import Sabotage

MOST_JOBS = 8
MOST_CLEAN = 1000

DESCRIPTION = """\
Measure the detection power of the checks: copy the checkout, put one known defect into the copy, run the claim that
must notice it, and compare. First the clean copy must pass, afterwards the mended one. The result goes to
reports/detection.json, which caps what a proven claim is worth. Your working tree is not touched."""

EPILOG = """\
examples:
  readiness sabotage                     the whole catalogue (about an hour on two cores)
  readiness sabotage R1 A3               two of them
  readiness sabotage --claim C1.backoff  all that this claim must notice
  readiness sabotage --sample 10 --seed 7
  readiness sabotage --clean 12 --sample 0   only clean runs of the quick checks, counting false alarms
  readiness sabotage --catalogue ~/mine  defects of your own; written nowhere unless --out names a file

exit status:
  0 all killed   1 missed, wrong check, crashed or a false alarm   2 some not judged   3 interrupted   4 bad input
"""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the words of this verb."""
    parser = verbs.add_parser(
        "sabotage",
        help="break a copy of the system on purpose; do the checks notice?",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("ids", nargs="*", metavar="ID", help="only these sabotages (default: all)")
    add("--sample", type=int, metavar="N", help="N of them, drawn with --seed (0: none)")
    add("--seed", type=int, metavar="S", help="seed of the draw (default: drawn, and printed)")
    add("--claim", default="", metavar="C", help="only sabotages that this claim must notice")
    add("--jobs", type=int, default=2, metavar="N", help="copies that work at a time (default: 2)")
    add("--clean", type=int, default=0, metavar="N", help="also run the quick checks N times unbroken")
    add("--no-whole", action="store_true", help="do not try the whole quick profile on one that was missed")
    add("--catalogue", type=Path, metavar="DIR", help="another folder of sabotages")
    add("--out", type=Path, metavar="FILE", help="where the result goes (default: reports/detection.json)")
    add("--root", type=Path, default=Path(), metavar="DIR", help="the checkout (default: this folder)")
    add("--keep", type=Path, metavar="DIR", help="keep copies and reports in this new folder")
    add("--list", action="store_true", help="list the catalogue and end")
    add("--json", action="store_true", help="the merged result as JSON on stdout, before the verdict")
    parser.set_defaults(main=main)


def main(arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    """Choose, run, merge, print. Returns 0, 1 or 2; see EPILOG."""
    from readiness.judge.profile import load_profile  # noqa: PLC0415 - imported when asked: --help answers at once
    from readiness.progress import Progress  # noqa: PLC0415 - as above
    from readiness.provenance import gather  # noqa: PLC0415 - as above
    from readiness.sabotage.catalogue import CATALOGUE, PROFILES, load_catalogue  # noqa: PLC0415 - as above
    from readiness.sabotage.detection import (  # noqa: PLC0415 - as above
        DETECTION_FILE,
        merged,
        read_detection,
        sentence,
        status_of,
        tree_digest,
        write_detection,
    )
    from readiness.sabotage.digests import claim_digests  # noqa: PLC0415 - as above
    from readiness.sabotage.tree import check_applies, require_checkout  # noqa: PLC0415 - as above

    top = require_checkout(arguments.root)
    catalogue = load_catalogue(arguments.catalogue or top / CATALOGUE)
    if arguments.list:
        for sabotage in catalogue:
            print(f"{sabotage.id:<5} {sabotage.claim:<22} {sabotage.title}")
        return 0
    profiles = {name: load_profile(top, name) for name in PROFILES}
    chosen = _chosen(arguments, catalogue)
    for sabotage in chosen:
        check_applies(sabotage, top)
        claims = {claim.id for claim in profiles[sabotage.profile].claims}
        if not sabotage.of_the_harness and sabotage.claim not in claims:
            raise BadInput(
                f"sabotage {sabotage.id}: expect.claim: the profile {sabotage.profile} has no claim"
                f" {sabotage.claim}. Correct {sabotage.id}.yaml."
            )
    if not chosen and not arguments.clean:
        raise BadInput("expected a sabotage to try or --clean N, got neither")
    out = arguments.out or (None if arguments.catalogue else top / DETECTION_FILE)
    # Of what is copied now: the checkout may be edited while its copies are tried.
    place = gather(top)
    checks = claim_digests(top, [claim for profile in profiles.values() for claim in profile.claims])
    all_checks = tree_digest(top / "checks")
    interrupts.in_order()
    with Progress() as progress:
        campaign = _run(arguments, top, chosen, profiles, progress)
    document = merged(
        read_detection(out),
        campaign,
        commit=place.commit + ("+dirty" if place.dirty else ""),
        known=[sabotage.id for sabotage in catalogue],
        checks=checks,
        all_checks=all_checks,
    )
    if out:
        write_detection(out, document)
    if arguments.json:
        json.dump(document, sys.stdout, indent=2, ensure_ascii=False)
        print()
    print(sentence(campaign))
    return status_of(campaign)


def _chosen(arguments: argparse.Namespace, catalogue: tuple[Sabotage, ...]) -> tuple[Sabotage, ...]:
    from readiness.sabotage.catalogue import choose  # noqa: PLC0415 - as above

    for flag, value, low, high in (
        ("--jobs", arguments.jobs, 1, MOST_JOBS),
        ("--clean", arguments.clean, 0, MOST_CLEAN),
        ("--sample", 0 if arguments.sample is None else arguments.sample, 0, len(catalogue)),
    ):
        if not low <= value <= high:
            raise BadInput(f"{flag} {value}: expected a number from {low} to {high}.")
    chosen = choose(catalogue, arguments.ids, claim=arguments.claim)
    if arguments.sample is None:
        return chosen
    if arguments.sample > len(chosen):
        raise BadInput(f"--sample {arguments.sample}: expected at most {len(chosen)}, which is all of them.")
    seed = secrets.randbelow(2**31) if arguments.seed is None else arguments.seed
    drawn = random.Random(seed).sample(chosen, arguments.sample)  # noqa: S311 - a draw that can be repeated
    print(f"sabotage: sample of {arguments.sample} with --seed {seed}", file=sys.stderr)
    return tuple(sabotage for sabotage in chosen if sabotage in drawn)


def _run(
    arguments: argparse.Namespace,
    top: Path,
    chosen: tuple[Sabotage, ...],
    profiles: Mapping[str, Profile],
    progress: Progress,
) -> Campaign:
    """Copy the checkout as often as there are jobs and work on the copies, which are removed afterwards."""
    from readiness.sabotage.campaign import Bench, run_campaign  # noqa: PLC0415 - as above
    from readiness.sabotage.tree import Tree  # noqa: PLC0415 - as above

    workspace = _workspace(arguments.keep)

    def tell(kind: str, line: str) -> None:
        if kind:
            progress.mark(kind, line)
        else:
            progress.note(line)

    try:
        jobs = max(1, min(arguments.jobs, max(len(chosen), arguments.clean)))
        progress.note(f"{len(chosen)} sabotages, {arguments.clean} further clean runs, {jobs} at a time")
        trees = [Tree.copy(top, workspace / f"copy-{number}") for number in range(1, jobs + 1)]
        bench = Bench(
            workspace=workspace,
            profiles=profiles,
            tell=tell,
            whole_on_miss=not arguments.no_whole,
            keep=arguments.keep is not None,
        )
        return run_campaign(chosen, trees, bench, clean=arguments.clean)
    finally:
        if arguments.keep is None:
            shutil.rmtree(workspace, ignore_errors=True)
        else:
            progress.note(f"copies and reports: {workspace}")


def _workspace(keep: Path | None) -> Path:
    if keep is None:
        return Path(tempfile.mkdtemp(prefix="readiness-sabotage-"))
    try:
        keep.mkdir(parents=True)
    except OSError as error:
        raise BadInput(f"--keep {keep}: expected a new folder, got: {error.strerror or error}.") from None
    return keep.resolve()
