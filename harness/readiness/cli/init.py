"""`readiness init`: a scorecard to start from, in a repository that has none."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from readiness.errors import BadInput
from readiness.root import PROFILE_FILE

DESCRIPTION = """\
Write reports/scorecard.yaml and reports/.gitignore into a repository of yours, so that its own pytest suite can earn
a scorecard: mark a test with a claim, record what it saw through the `evidence` fixture, run `pytest --readiness`.
Nothing that exists is overwritten."""

EPILOG = """\
the marked test:
  @pytest.mark.claim("A.done")
  def test_every_job_is_done(evidence):
      lost = [job for job in run_jobs(100) if not job.done]
      evidence.trials(100, len(lost), "jobs", examples=lost)
      assert not lost
"""

SCORECARD = """\
# What has to be proven. `pytest --readiness` judges the marked tests of this repository by it.
# Points are earned only by PROVEN: the one-sided 95 % bound of what was measured meets the target.
#   checks          {min_cases}              every deterministic case holds, and there were enough of them
#   zero_violations {min_trials, unit}       none in n trials; what n trials can show is printed (about 3/n)
#   rate            {max, unit}              Clopper-Pearson upper bound
#   percentile      {q, max, unit, of}       order statistic; P95 needs 59 samples, the median 5
version: 1
target: my-system

sections:
  durability: {group: reliability, title: Durability, weight: 50}
  visibility: {group: observability, title: Visibility, weight: 50}

gates:
  job_lost: {title: No accepted job is lost, claims: [A.done]}

claims:
  A.done:
    section: durability
    spec: [A]
    statement: Every job that was accepted is done.
    estimator: {kind: zero_violations, min_trials: 59, unit: jobs}
    weight: 5
  A.p95:
    section: durability
    spec: [A]
    statement: 95 % of jobs are done within 10 s.
    estimator: {kind: percentile, q: 0.95, max: 10, unit: s, of: jobs}
    weight: 3
  E.metrics:
    section: visibility
    spec: [E]
    statement: The metrics equal what an outside observer counted.
    estimator: {kind: checks, min_cases: 1}
    weight: 3

profiles:
  quick: {title: For every change}
"""

IGNORE = "runs/\nlatest\n"


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the words of this verb."""
    parser = verbs.add_parser(
        "init",
        help="write a scorecard to start from into your own repository",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, nargs="?", default=Path(), metavar="DIR", help="default: here")
    parser.add_argument("--dry-run", action="store_true", help="say what would be written, write nothing")
    parser.set_defaults(main=main)


def main(arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    """Write what is not there yet. Raises BadInput when the scorecard is, or the folder is not."""
    folder: Path = arguments.folder
    if not folder.is_dir():
        raise BadInput(f"{folder}: expected a folder to write {PROFILE_FILE.as_posix()} into, found none.")
    if (folder / PROFILE_FILE).exists():
        raise BadInput(f"{folder / PROFILE_FILE}: there is a scorecard already; it was left as it is.")
    files = {PROFILE_FILE: SCORECARD, PROFILE_FILE.with_name(".gitignore"): IGNORE}
    written = [name for name in files if not (folder / name).exists()]
    for name in written:
        if not arguments.dry_run:
            _write(folder / name, files[name])
        print(f"{'would write' if arguments.dry_run else 'wrote'} {folder / name}")
    print("init: mark a test with @pytest.mark.claim(...) and run pytest --readiness")
    return 0


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInput(
            f"{path}: expected a place that can be written, got: {error.strerror or error}."
        ) from None
