"""Detection power and attempts on every face: what is known, what was missed, and what it costs."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from bs4 import BeautifulSoup
from harness.sample_scorecard import SAMPLE_ATTEMPTS, empty_scorecard, proven_scorecard, sample_scorecard
from rich.console import Console

from readiness.judge.detection import Noticed
from readiness.judge.model import Scorecard
from readiness.render import Lang, render_html, render_json, render_markdown, render_terminal
from readiness.render.detection import detection_rows, detection_sentences, unnoticed
from readiness.render.words import in_lang

CARD = sample_scorecard()


def part(card: Scorecard, anchor: str, lang: Lang = "en") -> BeautifulSoup:
    """Return one part of the page in one language."""
    tree = BeautifulSoup(render_html(card, lang=lang), "html.parser")
    for dropped in tree.select(f'span[lang="{"ko" if lang == "en" else "en"}"]'):
        dropped.decompose()
    found = tree.select_one(anchor)
    assert found is not None
    return BeautifulSoup(str(found), "html.parser")


@pytest.mark.parametrize(
    ("lang", "words"),
    [
        (
            "en",
            (
                "planted defects were noticed by the check",
                "0 false alarms in 59 clean runs",
                "by hand at commit 9c1f",
            ),
        ),
        ("ko", ("심어 둔 결함", "오경보 0건", "커밋 9c1f")),
    ],
)
def test_part_eleven_says_how_many_were_noticed_with_the_bound(lang: Lang, words: tuple[str, ...]) -> None:
    """Totals, lower bound, false alarms, and that it was measured apart from this run."""
    text = " ".join(part(CARD, "#detection", lang).get_text(" ").split())
    for piece in words:
        assert piece in text
    assert CARD.detection is not None
    assert CARD.detection.power_bound is not None
    assert f"≥ {int(1000 * CARD.detection.power_bound) / 10:g} %" in text


def test_defects_that_were_not_noticed_are_named_with_the_reason() -> None:
    """The missed one first, then the one that another check noticed; a killed one is in the fold only."""
    rows = [
        row.get_text(" ", strip=True)
        for row in part(CARD, "#detection").select("table")[0].select("tbody tr")
    ]
    assert [row.split()[0] for row in rows] == ["S5", "S9"]
    assert "missed" in rows[0]
    assert "wrong check" in rows[1]
    assert "PROVEN all the same" in rows[0]


def test_every_tried_claim_has_its_line_worst_first() -> None:
    """A claim whose defect was missed comes first, with the share of its points that is left."""
    rows = detection_rows(CARD)
    assert len(rows) == len(CARD.claims) - 1  # one defect could not be judged
    assert {row.share for row in rows[:2]} == {"0 %"}
    assert {row.share for row in rows} == {"0 %", "50 %", "100 %"}
    assert [row.claim for row in rows if row.changed] == ["C1.backoff"]
    shown = part(CARD, "#detection").select("details tbody tr")
    assert len(shown) == len(rows)
    assert "checks changed since" in shown[2].get_text(" ")


def test_json_and_markdown_carry_the_same_figures() -> None:
    """The machine's face has the whole object, the pull request's the sentences and what was missed."""
    found = json.loads(render_json(CARD))["detection"]
    assert (found["missed"], found["wrong_check"], found["not_judged"]) == (1, 1, 1)
    for lang in ("en", "ko"):
        text = render_markdown(CARD, lang=lang)
        assert in_lang(detection_sentences(CARD)[0], lang).partition("(")[0] in text
        assert "`S5`" in text
        assert "`S1`" not in text


@pytest.mark.parametrize(("lang", "words"), [("en", "planted defects noticed (≥"), ("ko", "발견(≥")])
def test_the_terminal_has_one_line(lang: Lang, words: str) -> None:
    """Between the open claims and the verdict; none where the profile asks for none."""

    def lines(card: Scorecard) -> list[str]:
        raw = io.BytesIO()
        out = io.TextIOWrapper(raw, encoding="utf-8", write_through=True)
        render_terminal(card, Console(file=out, width=100), lang=lang)
        return raw.getvalue().decode().splitlines()

    assert sum(words in line for line in lines(CARD)) == 1
    assert not any("≥" in line and words in line for line in lines(replace(CARD, detection=None)))


def test_nothing_measured_is_said_and_not_passed_over() -> None:
    """No rule and no file are two different sentences, both beside NOT RUN."""
    without_rule = part(replace(CARD, detection=None), "#detection").get_text(" ")
    assert "NOT RUN" in without_rule
    assert "points are not capped" in without_rule
    assert CARD.detection is not None
    empty = replace(CARD.detection, measured_at="", sabotages=(), judged=0, power_bound=None)
    without_file = part(replace(CARD, detection=empty), "#detection").get_text(" ")
    assert "reports/detection.json is not there" in without_file
    assert "points are not capped" in render_markdown(replace(CARD, detection=None), lang="en")


def test_all_noticed_says_so() -> None:
    """Without a miss there is no table of misses."""
    assert unnoticed(proven_scorecard()) == []
    assert "Every planted defect was noticed" in part(proven_scorecard(), "#detection").get_text(" ")


def test_a_claim_says_what_caps_it_and_how_likely_its_proof_was() -> None:
    """Behind each claim: detection of its checks, and the chance that a run of this size proves it."""
    missed = next(one.expected for one in unnoticed(CARD) if one.outcome == Noticed.MISSED)
    tree = BeautifulSoup(render_html(CARD, lang="en"), "html.parser")
    article = tree.find(id=f"claim-{missed}")
    assert article is not None
    assert "caught 0 of 1 planted defects" in article.get_text(" ")
    rate = tree.find(id="claim-H3.failure_rate")
    assert rate is not None
    assert "when the truth is half of what the target allows" in rate.get_text(" ")


def test_the_appendix_lists_every_attempt() -> None:
    """A failed one with its claims, one that was ended, and on which claims it was."""
    rows = [
        row.get_text(" ", strip=True)
        for row in part(CARD, "#appendix").select("#attempts ~ table")[0].select("tbody tr")
    ]
    assert len(rows) == len(SAMPLE_ATTEMPTS)
    assert "exit status 1" in rows[0]
    assert "C1.backoff" in rows[0]
    assert "ended before its report" in rows[1]
    assert "A5.kill" in rows[1]
    assert SAMPLE_ATTEMPTS[0].run in render_markdown(CARD, lang="ko")
    none = part(empty_scorecard(), "#appendix").get_text(" ")
    assert "Nothing is pooled" in none or "No earlier run" in none
