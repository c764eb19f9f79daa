"""`readiness verify RUN`: recompute every figure from raw evidence and check every digest. Needs no stack."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from readiness.cli.places import run_folder

if TYPE_CHECKING:
    from readiness.evidence.verify import Finding

# The last line stays one line: more places than this are in the lines above it.
NAMED_IN_SENTENCE = 4

DESCRIPTION = """\
Check an earlier run without running anything: the hash chain of each evidence file, the digest of every file against
the sealed manifest, and every figure, verdict and score recomputed from the raw records. Exit status 1 names what
differs."""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the words of this verb."""
    parser = verbs.add_parser(
        "verify", help="recompute a run's figures and check its digests", description=DESCRIPTION
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run's folder or id, or reports/latest")
    parser.add_argument("--json", action="store_true", help="the findings as JSON on stdout")
    parser.set_defaults(main=main)


def main(arguments: argparse.Namespace, argv: Sequence[str]) -> int:
    """Print findings and the verdict line; 0 when everything holds, 1 otherwise."""
    from readiness.evidence.verify import verify_run  # noqa: PLC0415 - the judge's statistics are slow to import

    run_dir = run_folder(arguments.run)
    findings = verify_run(run_dir)
    if arguments.json:
        found = [{"where": finding.where, "what": finding.what} for finding in findings]
        json.dump({"run": run_dir.name, "findings": found}, sys.stdout, indent=2, ensure_ascii=False)
        print()
    else:
        for finding in findings:
            print(f"  {finding}")
    print(_sentence(run_dir, findings))
    return 1 if findings else 0


def _sentence(run_dir: Path, findings: Sequence[Finding]) -> str:
    if findings:
        where = sorted({finding.where for finding in findings})
        named = ", ".join(where[:NAMED_IN_SENTENCE]) + (" ..." if len(where) > NAMED_IN_SENTENCE else "")
        return f"verify: {run_dir.name} does not hold: {len(findings)} findings in {named}"
    from readiness.evidence.sealing import summary  # noqa: PLC0415 - as above

    sealed = summary(run_dir)
    return (
        f"verify: {run_dir.name} holds: {sealed.files} files and {sealed.records} records unchanged,"
        " every figure, verdict and score recomputed alike"
    )
