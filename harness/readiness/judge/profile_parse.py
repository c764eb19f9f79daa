"""From the bytes of scorecard.yaml to a Profile. Pure: profile.py reads the file, profile_yaml.py reads YAML.

Each block of the file has one function; each key one line. What a key may hold stands beside it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import replace

from readiness.errors import BadInput
from readiness.judge.model import Group, Link, Operations, Text
from readiness.judge.profile_estimators import parse_estimator, refuse_target
from readiness.judge.profile_model import (
    CHECK_STEPS,
    KNOB_NAMES,
    CheckLimits,
    Claim,
    Gate,
    Knobs,
    Profile,
    Section,
)
from readiness.judge.profile_yaml import Cursor, compose, nearest

VERSION = 1
# Parts of the stack that a claim may need to be real.
PARTS = ("redis", "sql", "prometheus", "promtool", "alertmanager", "amtool", "grafana", "embedding")
NAME = re.compile(r"[a-z][a-z0-9_-]{0,40}")
CLAIM_ID = re.compile(r"[A-Z][A-Z0-9]*\.[a-z][a-z0-9_]*")
VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{0,60}")
# A pytest file or a scenario of the fault step, below checks/.
CHECK_FILE = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_-]*/)*[A-Za-z0-9_][A-Za-z0-9_-]*\.(py|yaml)")
TOP_KEYS = ("version", "target", "sections", "gates", "claims", "profiles", "operations")
CLAIM_KEYS = (
    "section", "spec", "statement", "estimator", "weight", "checks", "profiles", "fault", "needs", "sla",
    "founding",
)  # fmt: skip
OVERLAY_KEYS = ("title", "name", "extends", *KNOB_NAMES)


def parse_profile(content: bytes, *, name: str, file: str) -> Profile:
    """Return the profile `name` of a scorecard file."""
    top = _top(content, file)
    profiles = top["profiles"].mapping()
    if name not in profiles:
        there = ", ".join(profiles) or "none"
        raise BadInput(
            f"--profile {name}: expected one of {there} ({file}) or a YAML file, got {name!r}. "
            f"{nearest(name, tuple(profiles))}"
        )
    # Every entry is parsed, so that a mistake in one profile does not wait for its first use.
    parsed = {entry: _profile_entry(cursor, Knobs()) for entry, cursor in profiles.items()}
    title, knobs = parsed[name]
    sections = _sections(top["sections"])
    members = _claims(top["claims"], sections, tuple(profiles))
    gates = _gates(top["gates"], members)
    return Profile(
        name=name,
        title=title,
        target=top["target"].text(longest=60),
        sections=sections,
        gates=gates[name],
        claims=members[name],
        knobs=knobs,
        operations=_operations(top["operations"]) if "operations" in top else Operations(),
        origin=file,
        elsewhere=tuple(claim for claim in top["claims"].mapping() if claim not in _ids(members[name])),
    )


def parse_profile_file(content: bytes, overlay: bytes, *, base_file: str, file: str) -> Profile:
    """Return the profile of a person's own file: the base it extends, with its own knobs."""
    cursor = compose(overlay, file=file)
    entries = cursor.fields(OVERLAY_KEYS)
    base_name = "quick"
    if "extends" in entries:
        base_name = entries["extends"].word(names_of(content, file=base_file), what="a profile to extend")
    base = parse_profile(content, name=base_name, file=base_file)
    name = base_name + "-custom"
    if "name" in entries:
        name = entries["name"].text(longest=40)
        if not NAME.fullmatch(name):
            entries["name"].fail("a name of small letters, digits, '-' and '_'")
    title = entries["title"].bilingual() if "title" in entries else base.title
    return replace(base, name=name, title=title, knobs=_knobs(entries, base.knobs), origin=file)


def names_of(content: bytes, *, file: str) -> tuple[str, ...]:
    """Return the names of the profiles in a scorecard file."""
    return tuple(_top(content, file)["profiles"].mapping())


def _top(content: bytes, file: str) -> dict[str, Cursor]:
    root = compose(content, file=file)
    top = root.fields(TOP_KEYS, required=[key for key in TOP_KEYS if key != "operations"])
    if top["version"].integer(0, 1000) != VERSION:
        top["version"].fail(f"version {VERSION}", hint="This readiness reads version 1 only.")
    return top


def _sections(cursor: Cursor) -> tuple[Section, ...]:
    sections = tuple(_section(name, entry) for name, entry in cursor.mapping().items())
    for group in Group:
        if not any(section.group == group for section in sections):
            cursor.fail(f"at least one section of the group {group}")
    return sections


def _section(name: str, entry: Cursor) -> Section:
    keys = entry.fields(("group", "title", "weight"), required=("group", "title", "weight"))
    group = Group(keys["group"].word([str(group) for group in Group], what="reliability or observability"))
    return Section(_name(name, entry), group, keys["title"].bilingual(), keys["weight"].integer(1, 100))


def _claims(
    cursor: Cursor, sections: tuple[Section, ...], profiles: tuple[str, ...]
) -> dict[str, tuple[Claim, ...]]:
    """Return the claims of each profile; every section must have one in each."""
    blocks = [_claim(name, entry, sections, profiles) for name, entry in cursor.mapping().items()]
    members = {name: tuple(claim for claim, chosen in blocks if name in chosen) for name in profiles}
    for name, claims in members.items():
        for section in sections:
            if not any(claim.section == section.id for claim in claims):
                expected = f"at least one claim of the section {section.id} in the profile {name}"
                cursor.fail(expected, hint="Add one, or drop it.")
    return members


def _claim(
    name: str, entry: Cursor, sections: tuple[Section, ...], profiles: tuple[str, ...]
) -> tuple[Claim, tuple[str, ...]]:
    """Return a claim and the names of the profiles that have it (default: all)."""
    if not CLAIM_ID.fullmatch(name):
        entry.fail(f"a claim id like A5.kill (got {name!r}) as the key of a block")
    if "target" in (given := entry.mapping()):
        refuse_target(given["target"])
    keys = entry.fields(CLAIM_KEYS, required=("section", "spec", "statement", "estimator", "weight"))
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
        estimator=parse_estimator(keys["estimator"]),
        weight=keys["weight"].integer(1, 10),
        fault=keys["fault"].text(longest=200) if "fault" in keys else None,
        needs=keys["needs"].each(_part) if "needs" in keys else (),
        checks=keys["checks"].each(_check_name, at_least=1) if "checks" in keys else (),
        sla=keys["sla"].text(longest=20) if "sla" in keys else None,
        founding=keys["founding"].text(longest=60) if "founding" in keys else None,
    )
    return claim, chosen


def _ids(claims: tuple[Claim, ...]) -> list[str]:
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


def _gates(cursor: Cursor, members: Mapping[str, tuple[Claim, ...]]) -> dict[str, tuple[Gate, ...]]:
    """Return the gates of each profile. A gate that has no claim in one of them would hold nothing there."""
    known = list(dict.fromkeys(claim.id for claims in members.values() for claim in claims))
    gates: dict[str, tuple[Gate, ...]] = dict.fromkeys(members, ())
    for name, entry in cursor.mapping().items():
        keys = entry.fields(("title", "claims"), required=("title", "claims"))
        named = keys["claims"].each(lambda item: item.word(known, what="a claim of this file"), at_least=1)
        for profile, claims in members.items():
            there = tuple(claim for claim in named if claim in _ids(claims))
            if not there:
                keys["claims"].fail(f"at least one claim that is in the profile {profile}", hint="Add one.")
            gates[profile] += (Gate(_name(name, entry), keys["title"].bilingual(), there),)
    return gates


def _profile_entry(cursor: Cursor, base: Knobs) -> tuple[Text, Knobs]:
    entries = cursor.fields(("title", *KNOB_NAMES), required=("title",))
    return entries["title"].bilingual(), _knobs(entries, base)


def _knobs(entries: Mapping[str, Cursor], base: Knobs) -> Knobs:
    def integer(key: str, default: int, low: int, high: int) -> int:
        return entries[key].integer(low, high) if key in entries else default

    settings = dict(base.system_settings)
    if "system_settings" in entries:
        settings.update(_settings(entries["system_settings"]))
    return Knobs(
        kills=integer("kills", base.kills, 0, 10_000),
        load_seconds=entries["load_seconds"].number(1, 604_800)
        if "load_seconds" in entries
        else base.load_seconds,
        load_users=integer("load_users", base.load_users, 1, 10_000),
        sse_streams=integer("sse_streams", base.sse_streams, 0, 100_000),
        documents_min=integer("documents_min", base.documents_min, 1, 10_000_000),
        system_settings=dict(sorted(settings.items())),
        seed=entries["seed"].integer(0, 2**31 - 1) if "seed" in entries else base.seed,
        checks=_check_limits(entries["checks"], base.checks) if "checks" in entries else base.checks,
    )


def _check_limits(cursor: Cursor, base: CheckLimits) -> CheckLimits:
    keys = cursor.fields(("timeout_seconds", "test_timeout_seconds"))
    return CheckLimits(
        keys["timeout_seconds"].number(1, 604_800) if "timeout_seconds" in keys else base.timeout_seconds,
        keys["test_timeout_seconds"].number(1, 86_400)
        if "test_timeout_seconds" in keys
        else base.test_timeout_seconds,
    )


def _settings(cursor: Cursor) -> dict[str, str]:
    settings = {}
    for name, entry in cursor.mapping().items():
        if not VARIABLE.fullmatch(name):
            entry.fail(f"an environment variable in capitals (got {name!r}) as the key of a value")
        settings[name] = entry.scalar()
    return settings


def _operations(cursor: Cursor) -> Operations:
    keys = cursor.fields(("dashboards", "runbooks", "contacts"))

    def links(key: str) -> tuple[Link, ...]:
        return keys[key].each(_link) if key in keys else ()

    return Operations(links("dashboards"), links("runbooks"), links("contacts"))


def _link(cursor: Cursor) -> Link:
    keys = cursor.fields(("name", "target"), required=("name", "target"))
    return Link(keys["name"].bilingual(), keys["target"].text(longest=300))


def _name(name: str, entry: Cursor) -> str:
    if not NAME.fullmatch(name):
        entry.fail(f"a name of small letters, digits, '-' and '_' (got {name!r}) as the key of a block")
    return name
