"""From the bytes of scorecard.yaml to a Profile. Pure: profile.py reads the file, profile_yaml.py reads YAML.

Each block of the file has one function; each key one line. What a key may hold stands beside it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from readiness.errors import BadInput
from readiness.judge.detection import DetectionRule
from readiness.judge.model import Link, Operations, Text
from readiness.judge.profile_claims import (
    NAME,
    all_ids,
    ids,
    parse_claims,
    parse_exclusions,
    parse_gates,
    parse_sections,
    read_objectives,
)
from readiness.judge.profile_model import (
    EVIDENCE_DAYS,
    KNOB_NAMES,
    CheckLimits,
    Knobs,
    Profile,
)
from readiness.judge.profile_yaml import Cursor, compose, nearest

VERSION = 1
VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{0,60}")
REQUIRED_KEYS = ("version", "target", "sections", "gates", "claims", "profiles")
TOP_KEYS = (*REQUIRED_KEYS, "operations", "objectives", "not_applicable", "evidence_days", "detection")
# A file of objectives, beside scorecard.yaml.
OBJECTIVES_FILE = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_-]*/)*[A-Za-z0-9_][A-Za-z0-9_.-]*\.ya?ml")
OVERLAY_KEYS = ("title", "name", "extends", *KNOB_NAMES)


def parse_profile(
    content: bytes, *, name: str, file: str, objectives: Mapping[str, bytes] | None = None
) -> Profile:
    """Return the profile `name` of a scorecard file.

    `objectives` holds the OpenSLO files that it names (`objective_files`); without them targets are as they stand.
    """
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
    sections = parse_sections(top["sections"])
    slos = read_objectives(objectives or {})
    members = parse_claims(top["claims"], sections, tuple(profiles), slos)
    gates = parse_gates(top["gates"], members)
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
        detection=_detection(top["detection"]) if "detection" in top else None,
        elsewhere=tuple(claim for claim in all_ids(members) if claim not in ids(members[name])),
        exclusions=parse_exclusions(top["not_applicable"], members, gates)[name]
        if "not_applicable" in top
        else (),
        evidence_days=top["evidence_days"].integer(1, 3650) if "evidence_days" in top else EVIDENCE_DAYS,
    )


def objective_files(content: bytes, *, file: str) -> tuple[str, ...]:
    """Return the OpenSLO files that a scorecard file names under `objectives`, relative to its folder."""
    top = _top(content, file)
    return top["objectives"].each(_objectives_file, at_least=1) if "objectives" in top else ()


def parse_profile_file(
    content: bytes,
    overlay: bytes,
    *,
    base_file: str,
    file: str,
    objectives: Mapping[str, bytes] | None = None,
) -> Profile:
    """Return the profile of a person's own file: the base it extends, with its own knobs."""
    cursor = compose(overlay, file=file)
    entries = cursor.fields(OVERLAY_KEYS)
    base_name = "quick"
    if "extends" in entries:
        base_name = entries["extends"].word(names_of(content, file=base_file), what="a profile to extend")
    base = parse_profile(content, name=base_name, file=base_file, objectives=objectives)
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


def _objectives_file(cursor: Cursor) -> str:
    name = cursor.text(longest=200)
    if not OBJECTIVES_FILE.fullmatch(name):
        cursor.fail("a YAML file beside scorecard.yaml, like slo/api.yaml")
    return name


def _top(content: bytes, file: str) -> dict[str, Cursor]:
    root = compose(content, file=file)
    top = root.fields(TOP_KEYS, required=REQUIRED_KEYS)
    if top["version"].integer(0, 1000) != VERSION:
        top["version"].fail(f"version {VERSION}", hint="This readiness reads version 1 only.")
    return top


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


def _detection(cursor: Cursor) -> DetectionRule:
    keys = cursor.fields(("file", "unmapped"), required=("file", "unmapped"))
    return DetectionRule(keys["file"].text(longest=200), keys["unmapped"].number(0, 1))


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
