"""The words of the scorecard: complete in both languages, honest in their rounding, one schema for all."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness.sample_scorecard import ROOT, empty_scorecard, proven_scorecard, sample_scorecard
from jsonschema import Draft202012Validator

from readiness.judge import reasons, schema
from readiness.judge.codec import JsonValue
from readiness.judge.figures import NOUNS, SECONDS, count, figure, plain, span
from readiness.judge.model import Scorecard, Text, Verdict

JUDGE = ROOT / "harness" / "readiness" / "judge"
SCHEMA_FILE = ROOT / "harness" / "readiness" / "schemas" / "scorecard-1.json"
CARDS: tuple[Callable[[], Scorecard], ...] = (sample_scorecard, proven_scorecard, empty_scorecard)


def texts(value: JsonValue) -> Iterator[dict[str, str]]:
    """Yield every {en, ko} of a scorecard's JSON."""
    if isinstance(value, dict):
        if set(value) == {"en", "ko"}:
            yield {lang: str(words) for lang, words in value.items()}
        for item in value.values():
            yield from texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)


@pytest.mark.parametrize("make", CARDS)
def test_every_sentence_is_there_in_both_languages(make: Callable[[], Scorecard]) -> None:
    """No text of a scorecard is empty in one language, has an unfilled slot, or is a copied English sentence."""
    found = list(texts(make().to_json()))
    assert len(found) > 100
    for text in found:
        assert bool(text["en"].strip()) == bool(text["ko"].strip())
        assert not re.search(r"\{\w+\}", text["en"] + text["ko"])
        if len(text["en"].split()) > 6:
            assert re.search("[가-힣]", text["ko"]), text["ko"]


def test_korean_sentences_are_formal_and_need_no_choice_of_particle() -> None:
    """Korean prose ends in the formal style and never shows "이(가)" for the reader to choose from."""
    card = sample_scorecard()
    prose = [card.sentence, card.conclusion, *card.not_shown, *(item.text for item in card.recommendations)]
    for text in (*prose, *reasons.REASONS.values()):
        assert not re.search(r"[은이을와으]\([는가를과로]\)", text.ko), text.ko
    for text in (card.sentence, card.conclusion, *card.not_shown):
        for sentence in re.split(r"(?<=다)\.\s", text.ko.rstrip(".")):
            assert sentence.endswith(("니다", "다")), sentence
            assert re.search(r"(습니다|합니다|됩니다|입니다|습니다|ㅂ니다|니다)$", sentence), sentence


def test_the_verdict_is_said_as_a_person_would() -> None:
    """The sample's verdict sentence is the one that the report design asks for."""
    card = sample_scorecard()
    n, gates = len(card.claims), len(card.gates)
    verdicts = [claim.verdict for claim in card.claims]
    open_ = n - verdicts.count(Verdict.PROVEN) - verdicts.count(Verdict.FAILED)
    assert card.sentence == Text(
        f"Not ready: 1 of {gates} gates failed; 1 of {n} claims failed; {open_} of {n} claims are open, 28 more jobs "
        "would settle two of them.",
        f"출시 불가: 필수 조건 {gates}건 중 1건이 충족되지 않았습니다. 항목 {n}건 중 1건이 실패하였습니다. "
        f"항목 {n}건 중 {open_}건이 미확정입니다. 작업 28건을 더 관측하면 그중 2건을 판정할 수 있습니다.",
    )
    assert proven_scorecard().sentence.en == f"Ready: all {n} claims are proven and all {gates} gates hold."


def test_every_reason_code_has_its_sentence_and_every_sentence_its_code() -> None:
    """Codes used in the judge and sentences of REASONS are the same set; both languages have the same slots."""
    used: set[str] = set()
    for path in JUDGE.glob("*.py"):
        if path.name != "reasons.py":
            used |= {
                node.value
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                if isinstance(node, ast.Constant) and node.value in reasons.REASONS
            }
    assert used == set(reasons.REASONS)
    for code, text in reasons.REASONS.items():
        slots = [sorted(re.findall(r"\{(\w+)\}", words)) for words in (text.en, text.ko)]
        neutral = [sorted(slot.removesuffix("_en").removesuffix("_ko") for slot in each) for each in slots]
        assert neutral[0] == neutral[1], code


@pytest.mark.parametrize(
    ("value", "away", "shown"),
    [
        (0.034561, 1, "0.0346"),
        (0.034561, -1, "0.0345"),
        (0.3, 1, "0.3"),
        (0.3, -1, "0.3"),
        (99.91, 1, "100"),
        (1234.5, 0, "1,234"),
        (1234.5, 1, "1,235"),
        (0.0, 1, "0"),
        (2.0, 0, "2"),
        (1e-12, 1, "0.000000001"),
    ],
)
def test_bounds_are_rounded_away_from_the_target(value: float, away: int, shown: str) -> None:
    """An upper bound is rounded up and a lower one down, to three significant digits, and round numbers stay."""
    assert plain(value, away=away) == shown


def test_figures_and_counts_read_well() -> None:
    """Units, plurals and spans of time as people write them."""
    assert figure(0.0346, "fraction") == "3.46 %"
    assert figure(38.41, "s") == "38.4 s"
    assert count(1, NOUNS["recoveries"]) == Text("1 recovery", "복구 1건")
    assert count(1, NOUNS["accesses"]).en == "1 access"
    assert count(2_312, NOUNS["jobs"]) == Text("2,312 jobs", "작업 2,312건")
    assert count(24, SECONDS) == Text("24 s", "24초")
    assert [span(s).en for s in (24, 630, 258_840)] == ["24 s", "10.5 min", "71.9 h"]


@pytest.mark.parametrize("make", CARDS)
def test_scorecards_are_what_the_schema_says(make: Callable[[], Scorecard]) -> None:
    """Real scorecards validate against the shipped JSON Schema (draft 2020-12)."""
    shipped = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(shipped)
    assert [error.message for error in Draft202012Validator(shipped).iter_errors(make().to_json())] == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("status",), 5),
        (("score", "overall"), 101),
        (("claims", 0, "verdict"), "PASSED"),
        (("claims", 0, "n"), -1),
        (("claims", 0, "statement"), {"en": "only English"}),
        (("run", "started_at"), "yesterday"),
        (("evidence", "manifest_sha256"), "AB"),
        (("charts", "series", 0, "points"), [[1.0]]),
        (("surprise",), True),
    ],
)
def test_schema_refuses_what_is_no_scorecard(path: tuple[str | int, ...], value: object) -> None:
    """The schema is no rubber stamp: each of these is refused."""
    card = json.loads(json.dumps(sample_scorecard().to_json()))
    place = card
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    shipped = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    assert list(Draft202012Validator(shipped).iter_errors(card))


def test_shipped_schema_is_made_from_the_model() -> None:
    """The committed schema is fresh. Otherwise: python -m readiness.judge.schema > the file."""
    assert SCHEMA_FILE.read_text(encoding="utf-8") == schema.schema_text()


# Modules of the judge that read a file or write to a stream, and why they may.
RIMS = {"profile.py": "reads scorecard.yaml", "schema.py": "prints the schema"}
PURE = {
    "__future__", "ast", "collections", "collections.abc", "dataclasses", "datetime", "difflib", "enum", "fractions",
    "functools", "hashlib", "json", "math", "numpy", "numpy.typing", "re", "types", "typing", "scipy.special", "yaml",
}  # fmt: skip
# What of datetime would read a clock; its arithmetic does not.
CLOCKS = {"now", "today", "utcnow"}
ACTS = {"open", "print", "input", "exec", "eval", "__import__"}


@pytest.mark.parametrize("path", sorted(JUDGE.glob("*.py")), ids=lambda path: path.name)
def test_judge_is_pure(path: Path) -> None:
    """No module of the judge imports a clock, randomness, files, processes or a client, its rims apart."""
    if path.name in RIMS:
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            ours = name.startswith("readiness.judge") or name in (
                "readiness.errors",
                "readiness.evidence.records",
            )
            assert ours or name in PURE, f"{path.name} imports {name}"
        called = node.func if isinstance(node, ast.Call) else None
        assert not (isinstance(called, ast.Name) and called.id in ACTS), (
            f"{path.name} calls {ast.dump(called)}"
        )
        assert not (isinstance(called, ast.Attribute) and called.attr in CLOCKS), f"{path.name} reads a clock"
