"""The catalogue: both languages complete, nothing missing, nothing left over."""

from __future__ import annotations

import re
from pathlib import Path
from string import Formatter

import pytest

from readiness.errors import BadInput
from readiness.judge.detection import CapState, Noticed
from readiness.judge.ledger import OUTCOMES
from readiness.judge.model import GateState, PartState, Status, Term, Verdict
from readiness.judge.profile_model import EstimatorKind
from readiness.render import parse_lang
from readiness.render.catalogue import PHRASES
from readiness.render.charts import KNOWN_SERIES, PANEL_ORDER
from readiness.render.html import CONTENTS, RELIABILITY_ROWS
from readiness.render.words import phrase, word

PACKAGE = Path(__file__).resolve().parents[3] / "harness" / "readiness" / "render"
#: Phrases that are names, symbols or abbreviations in Korean too.
SAME = {
    "chart.dead", "chart.p95", "col.digest", "env.python", "series.p50", "series.p95", "series.p99"
}  # fmt: skip
HANGUL = re.compile("[가-힣]")


def slots(text: str) -> set[str]:
    """The names of the slots in a phrase."""
    return {name for _, name, _, _ in Formatter().parse(text) if name}


def computed_keys() -> set[str]:
    """Keys that the code puts together from an enum or a table."""
    keys = {f"verdict.{item.lower()}" for item in [*Verdict, *GateState]}
    keys |= {f"part.{item}" for item in PartState} | {f"step.{item}" for item in Status}
    keys |= {f"term.{item}" for item in Term} | {f"estimator.{item}" for item in EstimatorKind}
    keys |= {f"part.{anchor}" for _, anchor in CONTENTS} | {f"figures.{name}" for name, _ in RELIABILITY_ROWS}
    keys |= {f"chart.{panel}" for panel in PANEL_ORDER}
    keys |= {f"series.{label}" for _, label, _, _ in KNOWN_SERIES.values()}
    keys |= {f"ledger.{outcome}" for outcome in OUTCOMES}
    keys |= {f"claim.detection.{state}" for state in CapState}
    keys |= {f"detection.{outcome}" for outcome in Noticed if outcome != Noticed.NOT_JUDGED}
    return keys | {f"band.{name}" for name in ("proven", "unknown", "failed")}


def written_keys() -> set[str]:
    """Every string in the package's code and templates that looks like a key of the catalogue."""
    files = [*PACKAGE.glob("*.py"), *PACKAGE.glob("templates/*.j2")]
    sources = [path.read_text(encoding="utf-8") for path in files if not path.name.startswith("catalogue")]
    return {key for source in sources for key in re.findall(r'"([a-z_]+(?:\.[a-z0-9_]+)*)"', source)}


@pytest.mark.parametrize("key", sorted(PHRASES))
def test_every_phrase_is_there_in_both_languages(key: str) -> None:
    """A phrase has an English and a Korean side with the same slots; the Korean one is Korean."""
    text = PHRASES[key]
    assert text.en.strip()
    assert text.ko.strip()
    assert slots(text.en) == slots(text.ko)
    assert not HANGUL.search(text.en)
    assert HANGUL.search(text.ko) or key in SAME


def test_every_key_that_the_code_computes_is_in_the_catalogue() -> None:
    """An enum member or table row without its phrase would break the page of exactly that run."""
    assert sorted(computed_keys() - PHRASES.keys()) == []


def test_no_phrase_is_left_over() -> None:
    """Every phrase is used by the code or a template; faults and symbols are looked up by foreign names."""
    looked_up = {key for key in PHRASES if key.startswith(("fault.", "symbol."))}
    assert sorted(PHRASES.keys() - computed_keys() - written_keys() - looked_up) == []


def test_an_unknown_key_is_an_error() -> None:
    """A misspelt key fails at once instead of printing itself."""
    with pytest.raises(KeyError):
        phrase("verdict.maybe")


def test_a_text_fills_a_slot_in_its_own_language() -> None:
    """A parameter that is itself a Text takes the language of the phrase around it."""
    unit = phrase("symbol.s")
    assert word("chart.durations.axis", "ko", unit=unit).endswith("초")
    assert word("chart.durations.axis", "en", unit=unit).endswith(", s")


def test_a_language_that_does_not_exist_is_bad_input() -> None:
    """--lang names the languages there are."""
    assert parse_lang("ko") == "ko"
    with pytest.raises(BadInput, match=r"expected one of en, ko, got: 'fr'"):
        parse_lang("fr")
