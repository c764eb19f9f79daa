"""Find and load a profile: a name in reports/scorecard.yaml, or a person's own file that extends one.

The only module of the judge that reads a file. What a profile is: profile_model.py; its YAML:
profile_parse.py.
"""

from __future__ import annotations

from collections.abc import Callable
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
from readiness.judge.profile_parse import names_of, objective_files, parse_profile, parse_profile_file

__all__ = [
    "Claim",
    "Estimator",
    "EstimatorKind",
    "Gate",
    "Knobs",
    "Profile",
    "Section",
    "load_profile",
    "load_profile_from",
    "profile_names",
]


def load_profile(root: Path, name_or_file: str) -> Profile:
    """Return the profile of that name in `root`/reports/scorecard.yaml, or of a YAML file.

    A file has the shape of one entry of `profiles`, plus `name` and `extends` (a profile's name, default
    quick). BadInput in one line for whatever does not fit; for an unknown name it lists the ones there are.
    """
    return load_profile_from(lambda file: _read(root / file, shown=file), name_or_file)


def load_profile_from(read: Callable[[str], bytes], name_or_file: str) -> Profile:
    """Return that profile where `read` has the files of the root, by their paths in it: a folder or a commit.

    A person's own file is always read from where it is. Raises what `read` raises, and BadInput as `load_profile`.
    """
    content = read(SCORECARD_FILE)
    folder = SCORECARD_FILE.rpartition("/")[0]
    names = [f"{folder}/{name}" for name in objective_files(content, file=SCORECARD_FILE)]
    objectives = {name: read(name) for name in names}
    if not _is_file_name(name_or_file):
        return parse_profile(content, name=name_or_file, file=SCORECARD_FILE, objectives=objectives)
    overlay = _read(Path(name_or_file), shown=name_or_file)
    return parse_profile_file(
        content, overlay, base_file=SCORECARD_FILE, file=name_or_file, objectives=objectives
    )


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
