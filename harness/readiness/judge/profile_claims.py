"""Sections, claims, gates and exclusions of scorecard.yaml, and which profile has which. Pure.

A claim belongs to every profile unless its block says otherwise; a section and a gate need a claim in each. A claim's
target stands in its block or in the OpenSLO file that names it; where it stands in both they must agree.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from datetime import date

from readiness.errors import BadInput
from readiness.judge.model import Group
from readiness.judge.profile_estimators import parse_estimator, refuse_target
from readiness.judge.profile_model import (
    CHECK_STEPS,
    SCORECARD_FILE,
    Claim,
    Estimator,
    Exclusion,
    Gate,
    Section,
)
from readiness.judge.profile_objectives import Objective, parse_objectives
from readiness.judge.profile_yaml import Cursor
from readiness.judge.targets import target_text

# Parts of the stack that a claim may need to be real.
PARTS = ("redis", "sql", "prometheus", "promtool", "alertmanager", "amtool", "grafana", "embedding")
CLAIM_ID = re.compile(r"[A-Z][A-Z0-9]*\.[a-z][a-z0-9_]*")
# A pytest file or a scenario of the fault step, below checks/.
CHECK_FILE = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_-]*/)*[A-Za-z0-9_][A-Za-z0-9_-]*\.(py|yaml)")
CLAIM_KEYS = (
    "section", "spec", "statement", "estimator", "weight", "checks", "profiles", "fault", "needs", "sla",
    "founding",
)  # fmt: skip
EXCLUSION_KEYS = ("claim", "reason", "owner", "until")
EXCLUSION_HINTS = {
    "reason": "Say why the claim is not applicable: it stands in the report.",
    "owner": "Name who answers for leaving the claim out.",
    "until": "Say until which day: an exclusion without an end is a claim given up.",
}
NAME = re.compile(r"[a-z][a-z0-9_-]{0,40}")


def parse_sections(cursor: Cursor) -> tuple[Section, ...]:
    sections = tuple(_section(name, entry) for name, entry in cursor.mapping().items())
    for group in Group:
        if not any(section.group == group for section in sections):
            cursor.fail(f"at least one section of the group {group}")
    return sections


def _section(name: str, entry: Cursor) -> Section:
    keys = entry.fields(("group", "title", "weight"), required=("group", "title", "weight"))
    group = Group(keys["group"].word([str(group) for group in Group], what="reliability or observability"))
    return Section(_name(name, entry), group, keys["title"].bilingual(), keys["weight"].integer(1, 100))


def read_objectives(files: Mapping[str, bytes]) -> dict[str, Objective]:
    """Return the objectives of all files by the claim that they name."""
    slos: dict[str, Objective] = {}
    for file, content in files.items():
        for slo in parse_objectives(content, file=file):
            if slo.claim in slos:
                raise BadInput(
                    f"{slo.place}: expected one SLO for the claim {slo.claim}, got a second beside"
                    f" {slos[slo.claim].place}. Remove one."
                )
            slos[slo.claim] = slo
    return slos


def parse_claims(
    cursor: Cursor,
    sections: tuple[Section, ...],
    profiles: tuple[str, ...],
    slos: Mapping[str, Objective],
) -> dict[str, tuple[Claim, ...]]:
    """Return the claims of each profile; every section must have one in each."""
    blocks = [_claim(name, entry, sections, profiles, slos) for name, entry in cursor.mapping().items()]
    there = [claim.id for claim, _ in blocks]
    blocks += [(_claim_of(slo, sections), profiles) for slo in slos.values() if slo.claim not in there]
    members = {name: tuple(claim for claim, chosen in blocks if name in chosen) for name in profiles}
    for name, claims in members.items():
        for section in sections:
            if not any(claim.section == section.id for claim in claims):
                expected = f"at least one claim of the section {section.id} in the profile {name}"
                cursor.fail(expected, hint="Add one, or drop it.")
    return members


def _claim_of(slo: Objective, sections: tuple[Section, ...]) -> Claim:
    """Return the claim that an SLO makes by itself: its annotations must say what a block would."""
    known = [section.id for section in sections]
    for word, given in (("section", slo.section), ("weight", slo.weight)):
        if given is None:
            raise BadInput(
                f"{slo.place}: expected the annotation readiness/{word} on an SLO whose claim {slo.claim} has no block"
                f" in {SCORECARD_FILE}, got none. Add it, or correct the claim's id."
            )
    if not CLAIM_ID.fullmatch(slo.claim) or slo.section not in known:
        raise BadInput(
            f"{slo.place}: expected a claim id like A5.kill and a section of {', '.join(known)}, got {slo.claim!r} and"
            f" {slo.section!r}. Correct the annotations."
        )
    return Claim(
        id=slo.claim,
        section=str(slo.section),
        spec=slo.spec or (slo.claim.partition(".")[0],),
        statement=slo.statement,
        estimator=slo.estimator,
        weight=int(slo.weight or 1),
        checks=slo.checks,
    )


def _claim(
    name: str,
    entry: Cursor,
    sections: tuple[Section, ...],
    profiles: tuple[str, ...],
    slos: Mapping[str, Objective],
) -> tuple[Claim, tuple[str, ...]]:
    """Return a claim and the names of the profiles that have it (default: all)."""
    if not CLAIM_ID.fullmatch(name):
        entry.fail(f"a claim id like A5.kill (got {name!r}) as the key of a block")
    if "target" in (given := entry.mapping()):
        refuse_target(given["target"])
    required = ("section", "spec", "statement", "weight", *(() if name in slos else ("estimator",)))
    keys = entry.fields(CLAIM_KEYS, required=required)
    chosen = profiles
    if "profiles" in keys:
        chosen = keys["profiles"].each(
            lambda item: item.word(profiles, what="a profile of this file"), at_least=1
        )
    claim = Claim(
        id=name,
        section=keys["section"].word([section.id for section in sections], what="a section of this file"),
        spec=keys["spec"].each(lambda item: item.text(longest=20), at_least=1),
        statement=keys["statement"].bilingual(),
        estimator=_target(keys.get("estimator"), slos.get(name)),
        weight=keys["weight"].integer(1, 10),
        fault=keys["fault"].text(longest=200) if "fault" in keys else None,
        needs=keys["needs"].each(_part) if "needs" in keys else (),
        checks=keys["checks"].each(_check_name, at_least=1) if "checks" in keys else (),
        sla=keys["sla"].text(longest=20) if "sla" in keys else None,
        founding=keys["founding"].text(longest=60) if "founding" in keys else None,
    )
    return claim, chosen


def _target(cursor: Cursor | None, slo: Objective | None) -> Estimator:
    """Return the claim's target: its own, or its SLO's; where both are written they must agree."""
    if cursor is None:
        assert slo is not None
        return slo.estimator
    own = parse_estimator(cursor)
    if slo is not None and own != slo.estimator:
        cursor.fail(
            f"the target of {slo.place}, {target_text(slo.estimator).en} of {slo.estimator.noun.en}",
            hint=f"This block says {target_text(own).en} of {own.noun.en}. Make them agree, or leave one out.",
        )
    return own


def all_ids(members: Mapping[str, tuple[Claim, ...]]) -> list[str]:
    """Return the ids of all claims of the file, in its order."""
    return list(dict.fromkeys(claim.id for claims in members.values() for claim in claims))


def parse_exclusions(
    cursor: Cursor, members: Mapping[str, tuple[Claim, ...]], gates: Mapping[str, tuple[Gate, ...]]
) -> dict[str, tuple[Exclusion, ...]]:
    """Return each profile's exclusions. What a gate holds cannot be excluded: nothing buys that back."""
    found: list[Exclusion] = []
    held = {claim for each in gates.values() for gate in each for claim in gate.claims}
    for entry in cursor.items():
        keys = entry.fields(EXCLUSION_KEYS, required=EXCLUSION_KEYS, hints=EXCLUSION_HINTS)
        claim = keys["claim"].word(all_ids(members), what="a claim of this file")
        if claim in held:
            keys["claim"].fail("a claim of no gate", hint="A gate is a condition that nothing buys back.")
        if claim in [exclusion.claim for exclusion in found]:
            keys["claim"].fail("each claim once")
        found.append(
            Exclusion(claim, keys["reason"].bilingual(), keys["owner"].text(longest=100), _day(keys["until"]))
        )
    return {
        name: tuple(exclusion for exclusion in found if exclusion.claim in ids(claims))
        for name, claims in members.items()
    }


def _day(cursor: Cursor) -> str:
    expected = "a day like 2026-12-31"
    try:
        day = date.fromisoformat(cursor.scalar())
    except ValueError:
        cursor.fail(expected, hint="The exclusion ends after that day (UTC), and the claim is NOT_RUN again.")
    return day.isoformat()


def ids(claims: tuple[Claim, ...]) -> list[str]:
    return [claim.id for claim in claims]


def _check_name(cursor: Cursor) -> str:
    name = cursor.text(longest=200)
    if name not in CHECK_STEPS and not CHECK_FILE.fullmatch(name):
        expected = (
            f"a file below checks/ like durable_worker/test_kill.py, or one of {', '.join(CHECK_STEPS)}"
        )
        near = difflib.get_close_matches(name, CHECK_STEPS, n=1)
        cursor.fail(expected, hint=f"Did you mean {near[0]!r}?" if near else "")
    return name


def _part(cursor: Cursor) -> str:
    return cursor.word(PARTS, what="a part of the stack")


def parse_gates(cursor: Cursor, members: Mapping[str, tuple[Claim, ...]]) -> dict[str, tuple[Gate, ...]]:
    """Return the gates of each profile. A gate that has no claim in one of them would hold nothing there."""
    known = all_ids(members)
    gates: dict[str, tuple[Gate, ...]] = dict.fromkeys(members, ())
    for name, entry in cursor.mapping().items():
        keys = entry.fields(("title", "claims"), required=("title", "claims"))
        named = keys["claims"].each(lambda item: item.word(known, what="a claim of this file"), at_least=1)
        for profile, claims in members.items():
            there = tuple(claim for claim in named if claim in ids(claims))
            if not there:
                keys["claims"].fail(f"at least one claim that is in the profile {profile}", hint="Add one.")
            gates[profile] += (Gate(_name(name, entry), keys["title"].bilingual(), there),)
    return gates


def _name(name: str, entry: Cursor) -> str:
    if not NAME.fullmatch(name):
        entry.fail(f"a name of small letters, digits, '-' and '_' (got {name!r}) as the key of a block")
    return name
