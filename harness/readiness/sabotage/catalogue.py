"""Read the catalogue of sabotages: one YAML file a defect, with the check that must notice it and why.

Strict like the profile: a complaint names file, line and key. Whether an edit applies to a tree is `tree.py`'s.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from readiness.errors import BadInput
from readiness.judge.profile_yaml import Cursor, compose, nearest

CATALOGUE: Final = Path("tests") / "sabotage" / "catalogue"

SELF_TEST: Final = "self-test"
"""Stands where a claim does for sabotages of the harness: the run's own self-test must notice them."""

PROFILES: Final = ("quick", "release")

# What the catalogue of the research numbers, family by family (retry, durable, ...): 60 in all.
FAMILIES: Final = {
    "R": 5, "D": 4, "A": 6, "L": 4, "B": 3, "C": 3, "K": 2, "T": 2, "M": 5, "P": 4, "O": 3, "G": 4,
    "X": 3, "J": 4, "S": 4, "H": 4,
}  # fmt: skip
NUMBERED: Final = tuple(
    f"{family}{number}" for family, count in FAMILIES.items() for number in range(1, count + 1)
)

_ID = re.compile(r"[A-Z][A-Z0-9]{0,5}-?[0-9]{1,3}")
_KEYS = ("id", "title", "symptom", "expect", "profile", "edits")
_LONGEST_EDIT = 20_000


@dataclass(frozen=True, slots=True)
class Edit:
    """A replacement in one file (path from the top of the checkout); `old` must occur exactly once."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Sabotage:
    """A defect: which check must notice it (`claim`, or `self-test`), and what its reason must say."""

    id: str
    title: str
    symptom: str
    claim: str
    reason: re.Pattern[str]
    profile: str
    edits: tuple[Edit, ...]

    @property
    def of_the_harness(self) -> bool:
        """True when the harness itself is broken: its self-test has to refuse to judge."""
        return self.claim == SELF_TEST


def load_catalogue(folder: Path) -> tuple[Sabotage, ...]:
    """Return every sabotage below ``folder``, in the catalogue's order. Raises BadInput for the first mistake."""
    found = [parse_sabotage(path.read_bytes(), file=path.name) for path in sorted(folder.glob("*.yaml"))]
    if not found:
        raise BadInput(f"{folder}: expected sabotages (*.yaml), got none. Name a folder that has some.")
    for path, sabotage in zip(sorted(folder.glob("*.yaml")), found, strict=True):
        if path.stem != sabotage.id:
            raise BadInput(
                f"{path.name}: id: expected {path.stem!r} as in the file's name, got {sabotage.id!r}."
                " Rename one."
            )
    return tuple(sorted(found, key=_place))


def parse_sabotage(content: bytes, *, file: str) -> Sabotage:
    """Return the sabotage of one file; BadInput names file, line and key."""
    top = compose(content, file=file).fields(_KEYS, required=("id", "title", "symptom", "expect", "edits"))
    if not _ID.fullmatch(top["id"].text(longest=12)):
        top["id"].fail("an id like R1")
    expect = top["expect"].fields(("claim", "reason"), required=("claim", "reason"))
    return Sabotage(
        id=top["id"].text(),
        title=top["title"].text(longest=200),
        symptom=top["symptom"].text(longest=400),
        claim=expect["claim"].text(longest=80),
        reason=_pattern(expect["reason"]),
        profile=top["profile"].word(PROFILES, what="a profile") if "profile" in top else PROFILES[0],
        edits=top["edits"].each(_edit, at_least=1),
    )


def choose(catalogue: tuple[Sabotage, ...], ids: Collection[str], *, claim: str = "") -> tuple[Sabotage, ...]:
    """Return those that the person named (all when none), kept to one claim if given. Raises BadInput."""
    known = [sabotage.id for sabotage in catalogue]
    for name in ids:
        if name not in known:
            raise BadInput(f"sabotage {name}: the catalogue has no such id. {nearest(name, known)}")
    chosen = tuple(sabotage for sabotage in catalogue if not ids or sabotage.id in ids)
    if claim:
        claims = sorted({sabotage.claim for sabotage in chosen})
        chosen = tuple(sabotage for sabotage in chosen if sabotage.claim == claim)
        if not chosen:
            raise BadInput(f"--claim {claim}: no sabotage expects it. {nearest(claim, claims)}")
    return chosen


def _edit(cursor: Cursor) -> Edit:
    entries = cursor.fields(("file", "old", "new"), required=("file", "old", "new"))
    path = PurePosixPath(entries["file"].text(longest=300))
    if path.is_absolute() or ".." in path.parts:
        entries["file"].fail("a path from the top of the checkout")
    old, new = entries["old"].scalar(), entries["new"].scalar()
    if not old or len(old) > _LONGEST_EDIT or len(new) > _LONGEST_EDIT:
        entries["old"].fail(f"a text of 1 to {_LONGEST_EDIT} characters")
    if old == new:
        entries["new"].fail("another text than 'old'", hint="An edit that changes nothing is no sabotage.")
    return Edit(file=path.as_posix(), old=old, new=new)


def _pattern(cursor: Cursor) -> re.Pattern[str]:
    try:
        pattern = re.compile(cursor.text(longest=500), re.IGNORECASE | re.DOTALL)
    except re.error as error:
        cursor.fail(f"a regular expression ({error})")
    if pattern.search(""):
        cursor.fail("an expression that does not match everything", hint="Say what the reason must name.")
    return pattern


def _place(sabotage: Sabotage) -> tuple[int, str]:
    return (NUMBERED.index(sabotage.id) if sabotage.id in NUMBERED else len(NUMBERED), sabotage.id)
