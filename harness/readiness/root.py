"""Find the content rooms (checks, loadtests, rules, dashboards, reports) and the place where runs go.

A checkout or a user's own repository has the rooms at its top; the wheel carries them under ``readiness/content``.
Nothing here reads what the rooms hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from readiness.errors import BadInput

ROOMS = ("checks", "loadtests", "rules", "dashboards")
PROFILE_FILE = Path("reports") / "scorecard.yaml"

_PACKAGE = Path(__file__).resolve().parent
_PACKAGED_CONTENT = _PACKAGE / "content"
_CHECKOUT = _PACKAGE.parent.parent


@dataclass(frozen=True, slots=True)
class Root:
    """Where the content is, where it came from, and where reports are written."""

    path: Path
    origin: Literal["given", "folder", "packaged"]
    reports: Path

    @property
    def runs(self) -> Path:
        """The folder that holds one folder a run."""
        return self.reports / "runs"

    @property
    def profile_file(self) -> Path:
        """The profile: sections, claims, weights, gates."""
        return self.path / PROFILE_FILE

    @property
    def samples(self) -> Path:
        """The sample documents that the default corpus starts from."""
        return self.path / "loadtests" / "samples"


def find_root(given: Path | None = None, *, reports: Path | None = None, folder: Path | None = None) -> Root:
    """Return the content root: ``given``, else the working folder if it has the rooms, else what is packaged.

    ``folder`` stands in for the working folder in tests. Raises BadInput when ``given`` lacks a room.
    """
    here = (folder or Path.cwd()).resolve()
    if given is not None:
        path = given.resolve()
        missing = _missing_rooms(path)
        if missing:
            raise BadInput(
                f"--root {given}: expected a folder with {', '.join(ROOMS)} and {PROFILE_FILE.as_posix()},"
                f" but {', '.join(missing)} is missing. Name the folder that holds them, or leave --root out."
            )
        return Root(path=path, origin="given", reports=(reports or path / "reports").resolve())
    if not _missing_rooms(here):
        return Root(path=here, origin="folder", reports=(reports or here / "reports").resolve())
    packaged = _PACKAGED_CONTENT if _PACKAGED_CONTENT.is_dir() else _CHECKOUT
    return Root(path=packaged, origin="packaged", reports=(reports or here / "reports").resolve())


def _missing_rooms(path: Path) -> list[str]:
    missing = [room for room in ROOMS if not (path / room).is_dir()]
    if not (path / PROFILE_FILE).is_file():
        missing.append(PROFILE_FILE.as_posix())
    return missing
