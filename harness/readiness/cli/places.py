"""Turn what a person names a run by into its folder."""

from __future__ import annotations

from pathlib import Path

from readiness.errors import BadInput
from readiness.root import find_root

PLAN_FILE = "plan.json"


def run_folder(named: Path) -> Path:
    """Return the folder of a run given by path, by id, or through `reports/latest`. Raises BadInput."""
    root = find_root()
    candidates = [named, root.runs / named, *_pointed_to(named)]
    for candidate in candidates:
        if (candidate / PLAN_FILE).is_file():
            return candidate.resolve()
    if named.exists():
        raise BadInput(
            f"{named}: expected a run's folder (it holds {PLAN_FILE}), but there is no {PLAN_FILE} in it."
        )
    known = sorted(path.parent.name for path in root.runs.glob(f"*/{PLAN_FILE}"))
    hint = (
        f"The newest run here is {root.runs / known[-1]}."
        if known
        else "There is no run yet: `readiness run` makes one."
    )
    raise BadInput(f"{named}: expected a run's folder or id, found nothing there. {hint}")


def _pointed_to(named: Path) -> list[Path]:
    # Where symbolic links are not to be had, `reports/latest` is a text file that holds the run's id.
    if not named.is_file():
        return []
    try:
        return [named.parent / "runs" / named.read_text(encoding="utf-8").strip()[:200]]
    except (OSError, UnicodeDecodeError):
        return []


def shown(path: Path) -> str:
    """The path as the person would type it: relative where it is below the working folder."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
