"""The digest of a claim's check files: detection power was measured with these checks and holds for no others.

Used where detection.json is written and where a run compares it with the checks that it has. Judges nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from readiness.judge.profile_model import Claim

STEP_FILES: Final[Mapping[str, tuple[str, ...]]] = {
    "load": ("loadtests/locustfile.py",),
    "faults": ("checks/faults/*.yaml",),
}
"""What stands for a step of the run among a claim's checks: patterns from the content root."""


def claim_digests(root: Path, claims: Iterable[Claim]) -> dict[str, str]:
    """Return claim -> SHA-256 over names and contents of its check files, for claims that name any."""
    return {claim.id: check_digest(root, claim.checks) for claim in claims if claim.checks}


def check_digest(root: Path, checks: Iterable[str]) -> str:
    """Return the SHA-256 of the check files ``checks`` (below checks/, or a step); a missing file counts as empty."""
    total = hashlib.sha256()
    for name in sorted(checks):
        patterns = STEP_FILES.get(name, (f"checks/{name}",))
        files = sorted(file for pattern in patterns for file in root.glob(pattern) if file.is_file())
        total.update(f"{name}\0".encode())
        for file in files:
            total.update(hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()
