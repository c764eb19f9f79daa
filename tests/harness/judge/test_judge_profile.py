"""The profile parser: what is there, and one clear line for whatever does not fit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from harness.sample_scorecard import ROOT, sample_profile
from hypothesis import given, settings
from hypothesis import strategies as st

from readiness.errors import BadInput
from readiness.judge.model import Group
from readiness.judge.profile import load_profile, profile_names
from readiness.judge.profile_model import Profile
from readiness.judge.profile_parse import parse_profile, parse_profile_file

FILE = "reports/scorecard.yaml"
SOURCE = (ROOT / FILE).read_text(encoding="utf-8")
ONE_LINE = re.compile(r"reports/scorecard\.yaml:\d+: [^\n]+")


def parse(text: str, name: str = "quick") -> Profile:
    return parse_profile(text.encode(), name=name, file=FILE)


def complaint(text: str | bytes) -> str:
    content = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(BadInput) as caught:
        parse_profile(content, name="quick", file=FILE)
    return str(caught.value)


def test_scorecard_has_two_claims_in_each_of_eight_sections() -> None:
    """The first profile has the sections of J1 and J2 with at least two claims each, and the six gates."""
    profile = sample_profile()
    assert [section.group for section in profile.sections] == [Group.RELIABILITY] * 4 + [
        Group.OBSERVABILITY
    ] * 4
    for section in profile.sections:
        assert sum(claim.section == section.id for claim in profile.claims) >= 2
    assert {gate.id for gate in profile.gates} == {
        "acknowledged_job_lost",
        "effect_repeated",
        "fault_not_recovered",
        "auth_bypass",
        "secret_exposed",
        "alert_silent",
    }
    assert {claim.sla for claim in profile.claims if claim.sla} == {f"H{row}" for row in range(1, 11)}


def test_profile_survives_its_way_through_json() -> None:
    """What is kept as profile.json is the profile again, with the same hash."""
    profile = load_profile(ROOT, "release")
    again = Profile.from_json(profile.to_json())
    assert (again, again.content_hash) == (profile, profile.content_hash)


def test_hash_follows_what_a_score_means_and_nothing_else() -> None:
    """Weights, targets and knobs change the hash; contacts, comments and the profile's title do not."""
    base = parse(SOURCE).content_hash
    for old, new in [
        ("weight: 5", "weight: 4"),
        ("max: 0.03", "max: 0.04"),
        ("kills: 20", "kills: 21"),
        ("checks: [durable_worker/test_kill.py]", "checks: [durable_worker/test_flag.py]"),
    ]:
        assert parse(SOURCE.replace(old, new, 1)).content_hash != base
    for old, new in [("#dev-alerts", "#other"), ("Quick: for", "Quick, for"), ("# One block", "# A block")]:
        assert old in SOURCE
        assert parse(SOURCE.replace(old, new, 1)).content_hash == base


@pytest.mark.parametrize(
    ("old", "new", "line_of", "words"),
    [
        ("    weight: 5\n", "    weight: three\n", "weight: three",
         "claims.A5.kill.weight: expected a whole number from 1 to 10, got 'three' (str)."),
        ("    weight: 5\n", "    weight: 11\n", "weight: 11", "expected a whole number from 1 to 10, got 11 (int)."),
        ("    weight: 5\n", "    weight: yes\n", "weight: yes", "got yes (bool)."),
        ("    weight: 5\n", "    weight: 1:30\n", "weight: 1:30", "got 1:30 (int)."),
        ("    weight: 5\n", "    wieght: 5\n", "wieght", "unknown key 'wieght'. Did you mean 'weight'?"),
        ("    weight: 5\n", "\tweight: 5\n", "\tweight", "expected spaces for indentation, got a tab."),
        ("    weight: 5\n", "    weight: 5\n    weight: 4\n", "weight: 4", "expected each key once"),
        ("    weight: 5\n", "", None, "claims.A5.kill: expected the key 'weight', got none."),
        ("    section: durable_worker", "    section: durable_wroker", "durable_wroker",
         "expected a section of this file, got 'durable_wroker' (str). Did you mean 'durable_worker'?"),
        ("claims: [A5.kill", "claims: [A5.kil", "[A5.kil", "Did you mean 'A5.kill'?"),
        ("gates:\n", "gates:\n  none:\n    title: {en: a, ko: b}\n    claims: []\n", "claims: []",
         "gates.none.claims: expected at least 1 item, got a list of 0."),
        ("kind: zero_violations", "kind: zero_violation", "zero_violation,", "Did you mean 'zero_violations'?"),
        ("kind: zero_violations, ", "", None, "expected an estimator with a `kind`"),
        ("min_trials: 100", "min_trials: 0", "min_trials: 0", "expected a whole number from 1 to 100000000, got 0"),
        ("unit: jobs", "unit: jobz", "jobz", "expected what is counted, got 'jobz' (str). Did you mean 'jobs'?"),
        ("q: 0.5, ", "", None, "H7.recovery.estimator: expected the key 'q', got none."),
        ("q: 0.5, ", "q: 50, ", "q: 50", "expected a fraction between 0 and 1 (3 % is 0.03), got 50 (int)."),
        ("max: 0.03, ", "max: 3 %, ", "max: 3 %", "expected a fraction between 0 and 1 (3 % is 0.03), got '3 %'"),
        ("max: 0.03, ", "max: .nan, ", "max: .nan", "expected a fraction"),
        ("window: 500, ", "", None, "H2.dlq.estimator: expected the key 'window', got none."),
        ("unit: ms, ", "", None, "H6.api_p95.estimator: expected the key 'unit', got none."),
        ("needs: [redis]", "needs: redis", "needs: redis", "expected a list [a, b], got 'redis' (str)."),
        ("needs: [redis]", "needs: [rediss]", "rediss", "Did you mean 'redis'?"),
        ("kills: 20", "kills: '20'", "'20'", "profiles.quick.kills: expected a whole number from 0 to 10000, got '20'"),
        ("kills: 20", "kills: -1", "kills: -1", "got -1 (int)."),
        ("load_seconds: 10", "load_seconds: 1e9", "1e9", "expected a number from 1 to 604800"),
        ("load_seconds: 10", "load_second: 12", "load_second:", "Did you mean 'load_seconds'?"),
        ("version: 1\n", "version: 2\n", "version: 2", "expected version 1, got 2 (int)."),
        ("version: 1\n", "version: [1\n", None, "expected YAML, got"),
        ("version: 1\n", "version: &v 1\nx: *v\n", "x: *v", "expected no alias, got *v."),
        ("group: reliability", "group: relaibility", "relaibility", "Did you mean 'reliability'?"),
        ("      ko: 임의의", "      ja: 임의의", "ja:", "statement.ja: unknown key 'ja'."),
        ("  A5.kill:\n", "  a5.kill:\n", None, "expected a claim id like A5.kill (got 'a5.kill')"),
    ],
)  # fmt: skip
def test_each_mistake_is_one_line_with_its_place(old: str, new: str, line_of: str | None, words: str) -> None:
    """File, line, key, what was expected and what came stand in one line."""
    assert old in SOURCE
    changed = SOURCE.replace(old, new, 1)
    said = complaint(changed)
    assert ONE_LINE.fullmatch(said), said
    assert words in said
    if line_of is not None:
        number = next(n for n, line in enumerate(changed.splitlines(), start=1) if line_of in line)
        assert said.startswith(f"{FILE}:{number}:"), said


@pytest.mark.parametrize(
    "content",
    [b"", b"# nothing\n", b"[]", b"3", b"--- 1\n--- 2\n", b"\xff\xfe\x00", b"a: \x00", b"{" * 3_000, b"- " * 3_000,
     b"!!python/object/apply:os.system ['true']", b"? [a]\n: 1\n", b"x" * 1_000_001, "a: \u202e".encode()],
)  # fmt: skip
def test_what_is_no_profile_is_one_line(content: bytes) -> None:
    """Empty, binary, deep, huge and dangerous files are refused in one line, quickly."""
    said = complaint(content)
    assert "\n" not in said
    assert said.startswith(FILE)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(st.data())
def test_any_edit_gives_a_profile_or_one_line(data: st.DataObject) -> None:
    """However a line of the file is edited, the answer is a profile or one line; never a traceback."""
    lines = SOURCE.splitlines(keepends=True)
    index = data.draw(st.integers(0, len(lines) - 1))
    line = lines[index]
    cut = data.draw(st.integers(0, len(line)))
    put = data.draw(
        st.sampled_from(["", "\t", ":", "- ", "{", "]", "'", "#", "&a ", "1", "null", "é", "\x00", "\n"])
    )
    lines[index] = line[:cut] + put + line[cut + data.draw(st.integers(0, 3)) :]
    said = ""
    try:
        parse("".join(lines))
    except BadInput as error:
        said = str(error)
    assert "\n" not in said


@pytest.mark.parametrize(
    ("name", "advice"), [("nosuch", "Known: quick, release."), ("quik", "Did you mean 'quick'?")]
)
def test_unknown_profile_names_those_there_are(name: str, advice: str) -> None:
    """`--profile nosuch` lists the profiles of the file, or the one that was meant."""
    with pytest.raises(BadInput) as caught:
        load_profile(ROOT, name)
    assert str(caught.value) == (
        f"--profile {name}: expected one of quick, release (reports/scorecard.yaml) or a YAML file, "
        f"got {name!r}. {advice}"
    )
    assert profile_names(ROOT) == ("quick", "release")


def test_own_file_extends_a_profile(tmp_path: Path) -> None:
    """A person's file changes knobs of the profile that it extends, and with them the hash."""
    path = tmp_path / "mine.yaml"
    path.write_text(
        "extends: release\nname: nightly\nkills: 99\nsystem_settings: {RAG_MAX_RETRIES: 2, LOG_LEVEL: off}\n"
    )
    profile, base = load_profile(ROOT, str(path)), load_profile(ROOT, "release")
    assert (profile.name, profile.knobs.kills, profile.knobs.load_seconds) == (
        "nightly",
        99,
        base.knobs.load_seconds,
    )
    assert profile.knobs.system_settings == {"LOG_LEVEL": "off", "RAG_MAX_RETRIES": "2"}
    assert profile.claims == base.claims
    assert profile.content_hash != base.content_hash


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "extends: relaese\n",
            "mine.yaml:1: extends: expected a profile to extend, got 'relaese' (str). Did you mean",
        ),
        ("kils: 3\n", "mine.yaml:1: kils: unknown key 'kils'. Did you mean 'kills'?"),
        ("claims: {}\n", "mine.yaml:1: claims: unknown key 'claims'."),
        ("name: ../../x\n", "mine.yaml:1: name: expected a name of small letters"),
        (
            "kills: 3\nsystem_settings: {path: 1}\n",
            "mine.yaml:2: system_settings.path: expected an environment",
        ),
    ],
)
def test_mistakes_in_an_own_file_name_that_file(text: str, words: str) -> None:
    """A complaint about a person's own file points into that file."""
    with pytest.raises(BadInput) as caught:
        parse_profile_file(SOURCE.encode(), text.encode(), base_file=FILE, file="mine.yaml")
    assert str(caught.value).startswith(words)


def test_missing_files_are_named(tmp_path: Path) -> None:
    """A profile file or a root that is not there is one line."""
    for root, name in ((ROOT, str(tmp_path / "no.yaml")), (tmp_path, "quick"), (ROOT, str(tmp_path) + "/")):
        with pytest.raises(BadInput, match="expected a readable profile file, got: ") as caught:
            load_profile(root, name)
        assert "\n" not in str(caught.value)
