"""Find and load a profile: a name in reports/scorecard.yaml, or a person's own file that extends one.

The only module of the judge that reads a file. What a profile is: profile_model.py; its YAML:
profile_parse.py.
"""

from __future__ import annotations

from pathlib import Path

from readiness.errors import BadInput
from readiness.judge.profile_model import (
    SCORECARD_FILE,
    Claim,
    Estimator,
    EstimatorKind,
    Gate,
    Knobs,
    Profile,
    Section,
)
from readiness.judge.profile_parse import names_of, parse_profile, parse_profile_file

__all__ = [
    "Claim",
    "Estimator",
    "EstimatorKind",
    "Gate",
    "Knobs",
    "Profile",
    "Section",
    "load_profile",
    "profile_names",
]


def load_profile(root: Path, name_or_file: str) -> Profile:
    """Return the profile of that name in `root`/reports/scorecard.yaml, or of a YAML file.

    A file has the shape of one entry of `profiles`, plus `name` and `extends` (a profile's name, default
    quick). BadInput in one line for whatever does not fit; for an unknown name it lists the ones there are.
    """
    content = _read(root / SCORECARD_FILE, shown=SCORECARD_FILE)
    if not _is_file_name(name_or_file):
        return parse_profile(content, name=name_or_file, file=SCORECARD_FILE)
    path = Path(name_or_file)
    overlay = _read(path, shown=name_or_file)
    return parse_profile_file(content, overlay, base_file=SCORECARD_FILE, file=name_or_file)


def profile_names(root: Path) -> tuple[str, ...]:
    """Return the names of the profiles in `root`/reports/scorecard.yaml."""
    return names_of(_read(root / SCORECARD_FILE, shown=SCORECARD_FILE), file=SCORECARD_FILE)


def _is_file_name(name_or_file: str) -> bool:
    return name_or_file.endswith((".yaml", ".yml")) or "/" in name_or_file or "\\" in name_or_file


def _read(path: Path, *, shown: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        what = (error.strerror or type(error).__name__).lower()
        raise BadInput(
            f"{shown}: expected a readable profile file, got: {what}. Give its path or run `readiness init`."
        ) from None
