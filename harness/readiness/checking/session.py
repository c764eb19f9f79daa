"""What a pytest session knows about the run it belongs to: run folder, plan, profile snapshot, and how to
repeat it.

Reads plan.json and profile.json, which `readiness run` writes before anything starts. Starts nothing.
"""

from __future__ import annotations

import difflib
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from readiness.errors import HarnessFailure

RUN_VARIABLE = "READINESS_RUN"
CHECKS_FILE = "checks.json"  # the checks that pytest collected, with their claims
RESUME_FILE = "resume.json"  # written by `readiness run --resume`: the checks that are finished
DOCUMENTS_VARIABLE = "READINESS_DOCUMENTS"
ROOT_VARIABLE = "READINESS_ROOT"
NOT_IN_A_RUN = "run them through readiness run: checks need the stack of a run (READINESS_RUN is not set)"


@dataclass(frozen=True, slots=True)
class RunSession:
    """The run that the checks belong to. ``claims`` is None when the folder has no profile snapshot;
    ``elsewhere`` are the claims that only other profiles of the file have, ``finished`` the checks (node ids) that an
    earlier part of a resumed run brought to their end.
    """

    run_dir: Path
    plan: Mapping[str, Any]
    claims: frozenset[str] | None
    elsewhere: frozenset[str] = frozenset()
    finished: frozenset[str] = frozenset()

    @classmethod
    def load(cls, run_dir: Path) -> RunSession:
        """Read the run folder; raises HarnessFailure when the plan is missing or unreadable."""
        if not run_dir.is_dir():
            raise HarnessFailure(
                f"{RUN_VARIABLE}: expected a run folder, got: {run_dir}. Use `readiness run`."
            )
        profile_file = run_dir / "profile.json"
        profile = _read(profile_file) if profile_file.exists() else None
        return cls(
            run_dir=run_dir,
            plan=_read(run_dir / "plan.json"),
            claims=None if profile is None else claim_ids(profile),
            elsewhere=frozenset(map(str, (profile or {}).get("elsewhere", ()))),
            finished=_finished(run_dir / RESUME_FILE),
        )

    @property
    def seed(self) -> int:
        """The run's seed; every random choice of a check is drawn from it."""
        return int(self.plan.get("seed", 0))

    @property
    def knobs(self) -> dict[str, Any]:
        """The plan with the profile's knobs beside the rest: ``plan["kills"]``."""
        return {**self.plan, **self.plan.get("knobs", {})}

    @property
    def target(self) -> str:
        """The name of the system under examination, as the plan has it."""
        return str(self.plan.get("target", "ragworker"))

    def repeat_command(self, claims: Sequence[str]) -> str:
        """The command that repeats the checks of ``claims`` with the same seed."""
        if self.plan.get("suite"):
            chosen = [word for claim in claims for word in ("--claim", claim)]
            return shlex.join(["pytest", "--readiness", f"--readiness-seed={self.seed}", *chosen])
        words = ["readiness", "run"]
        if profile := self.plan.get("profile"):
            words += ["--profile", str(profile)]
        for claim in claims:
            words += ["--only", claim]
        return shlex.join([*words, "--seed", str(self.seed)])

    def is_elsewhere(self, marked: Sequence[str]) -> bool:
        """Whether a check is for claims of other profiles only, and has nothing to do in this run."""
        return bool(marked) and self.elsewhere.issuperset(marked)

    def own(self, marked: Iterable[str]) -> list[str]:
        """Those of ``marked`` that the run's profile has: the claims that get an outcome."""
        return [claim for claim in marked if self.claims is None or claim in self.claims]

    def unknown_claims(self, marked: Iterable[str]) -> list[str]:
        """One sentence for each marked claim that the profile does not have; empty without a snapshot."""
        known = self.claims
        if known is None:
            return []
        return [_unknown(claim, known) for claim in marked if claim not in known | self.elsewhere]


def _unknown(claim: str, known: frozenset[str]) -> str:
    near = difflib.get_close_matches(claim, sorted(known), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return (
        f"claim {claim!r}: expected a claim of the run's profile (profile.json), but it has no such id{hint}"
        " Add it to reports/scorecard.yaml or correct the mark."
    )


def claim_ids(profile: Mapping[str, Any]) -> frozenset[str]:
    """The ids in a profile snapshot: ``claims`` is a mapping by id or a list of blocks with an ``id``."""
    claims = profile.get("claims", {})
    if isinstance(claims, Mapping):
        return frozenset(str(claim) for claim in claims)
    return frozenset(str(claim["id"]) for claim in claims)


def _finished(path: Path) -> frozenset[str]:
    return frozenset(map(str, _read(path).get("finished", ()))) if path.exists() else frozenset()


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise HarnessFailure(
            f"{path}: expected the JSON that `readiness run` writes, got: {problem}"
        ) from problem
    if not isinstance(content, dict):
        raise HarnessFailure(f"{path}: expected a JSON object, got: {type(content).__name__}")
    return content
