"""Find the profile that a run's thresholds are compared with: reports/scorecard.yaml where the branch began.

Reads git only, and never fails a run: where there is no base, or it cannot be read, the report says so. The comparison
itself is judge/loosened.py.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from readiness.errors import BadInput
from readiness.judge.loosened import loosened
from readiness.judge.model import Baseline, Text
from readiness.judge.profile import Profile, load_profile_from

GIT_DEADLINE_SECONDS = 10
UPSTREAM = ("origin/main", "main")
SHORT = 12
NO_BASE = Text(
    "There is no base to compare the thresholds with: no git history, or no earlier commit.",
    "임계값을 비교할 기준이 없습니다. git 이력이 없거나 이전 커밋이 없습니다.",
)


def find_baseline(root: Path, name_or_file: str, profile: Profile, *, ref: str | None = None) -> Baseline:
    """Return what `profile` loosened since the base: `ref`, else the merge-base with main, else main's parent.

    BadInput only for a `ref` that the person named and git does not know.
    """
    commit = _named(root, ref) if ref is not None else _base(root)
    if commit is None:
        return Baseline(note=NO_BASE)
    try:
        before = load_profile_from(lambda file: _show(root, commit, file), name_or_file)
    except BadInput as error:
        return Baseline(
            base=commit[:SHORT],
            note=Text(
                f"The base's profile cannot be compared with: {error}",
                f"기준 커밋의 프로파일과 비교할 수 없습니다: {error}",
            ),
        )
    return Baseline(base=commit[:SHORT], loosened=loosened(before, profile))


def _named(root: Path, ref: str) -> str:
    commit = (
        None if ref.startswith("-") else _git(root, "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")
    )
    if commit is None:
        raise BadInput(
            f"--base {ref}: expected a commit, branch or tag that git knows here, got {ref!r}."
            " Name another, or leave --base out."
        )
    return commit


def _base(root: Path) -> str | None:
    """The commit where this branch left main; on main itself the parent, so that the last change is seen."""
    head = _git(root, "rev-parse", "HEAD")
    for upstream in UPSTREAM:
        base = _git(root, "merge-base", "HEAD", upstream)
        if base is not None and base != head:
            return base
    return _git(root, "rev-parse", "--verify", "--quiet", "HEAD^")


def _show(root: Path, commit: str, file: str) -> bytes:
    shown = _run(root, "show", f"{commit}:./{file}")
    if shown is None:
        raise BadInput(f"{file}: expected it in the base {commit[:SHORT]}, got nothing.")
    return shown


def _git(root: Path, *words: str) -> str | None:
    said = _run(root, *words)
    return said.decode().strip() or None if said is not None else None


def _run(root: Path, *words: str) -> bytes | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *words],
            capture_output=True,
            timeout=GIT_DEADLINE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
