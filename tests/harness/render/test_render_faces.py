"""JSON, JUnit and Markdown: the same verdicts as the page, safe against what others wrote."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET

import pytest
from harness.sample_scorecard import empty_scorecard

from readiness.judge.model import Scorecard, Text, Verdict
from readiness.render import FORMATS, Lang, render_json, render_junit, render_markdown
from readiness.render.escape import clip, one_line, visible
from readiness.render.figures import duration, memory, moment, points, size, split_measured


def test_json_is_the_scorecard(card: Scorecard, hostile: Scorecard) -> None:
    """scorecard.json reads back as the same scorecard, hostile text included, and is UTF-8."""
    for one in (card, hostile):
        text = render_json(one)
        assert Scorecard.from_json(json.loads(text.encode("utf-8"))) == one
        assert text.endswith("}\n")


def test_junit_has_a_case_a_claim(card: Scorecard) -> None:
    """Failures fail, invalid ones are errors, all else that is not proven is skipped with its reason."""
    root = ET.fromstring(render_junit(card))  # noqa: S314 - our own text
    cases = {case.get("name"): case for case in root.iter("testcase")}
    assert set(cases) == {claim.id for claim in card.claims}
    for claim in card.claims:
        (child,) = [*cases[claim.id]] or [None]
        expected = {Verdict.PROVEN: None, Verdict.FAILED: "failure", Verdict.INVALID: "error"}
        assert (child.tag if child is not None else None) == expected.get(claim.verdict, "skipped")
        if child is not None:
            assert str(claim.verdict) in (child.get("message") or "")
    counted = [sum(1 for _ in root.iter(tag)) for tag in ("testcase", "failure", "error", "skipped")]
    assert counted == [int(root.get(name) or -1) for name in ("tests", "failures", "errors", "skipped")]
    assert counted[1] > 0
    assert counted[3] > 0


def test_junit_is_xml_whatever_was_written(hostile: Scorecard) -> None:
    """Control characters, surrogates and markup in messages leave the document well-formed and bounded."""
    text = render_junit(hostile)
    root = ET.fromstring(text.encode("utf-8"))  # noqa: S314 - our own text
    assert all(len(failure.text or "") <= 8000 for failure in root.iter("failure"))
    assert "\\u{1b}" in text


@pytest.mark.parametrize("lang", ["en", "ko"])
def test_markdown_says_what_the_page_says(card: Scorecard, lang: Lang) -> None:
    """Sentence first, then what changed, gates, open claims with their command, and all claims folded."""
    text = render_markdown(card, lang=lang)
    assert text.startswith("## ")
    assert text.count("<details>") == text.count("</details>") == 1
    for claim in card.claims:
        assert f"`{claim.id}`" in text
    assert text.count("--only A5.kill") == 1
    assert bool(re.search("[가-힣]", text.replace("한국어", ""))) is (lang == "ko")


def test_markdown_keeps_hostile_text_harmless(hostile: Scorecard) -> None:
    """No tag, no link, no mention, no table column and no heading comes from others."""
    text = re.sub(
        r"(?<!\\)(`+)(?!`).*?(?<!`)\1(?!`)", "", render_markdown(hostile, lang="en")
    )  # without code spans
    assert "pwned" in text
    assert not re.search(r"<(?!/?(?:details|summary|br)\b)", text)
    assert not re.search(r"(?<!\\)\]\(", text)
    assert "@everyone" not in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    tables = {len(re.findall(r"(?<!\\)\|", row)) for row in rows}
    assert tables <= {4, 5, 6}
    assert not re.search("[\u202e\x1b\x00\ud800]", text)


def test_every_format_renders_a_run_without_evidence() -> None:
    """A run that recorded nothing has all of its files, in both languages."""
    card = empty_scorecard()
    for name, form in FORMATS.items():
        for lang in ("en", "ko"):
            assert form.render(card, lang).encode("utf-8"), name
    assert [form.filename for form in FORMATS.values()] == [
        "scorecard.json",
        "index.html",
        "scorecard.md",
        "junit.xml",
    ]


def test_what_cannot_be_seen_is_written_out() -> None:
    """Overrides, escapes and separators become codes; Korean, Arabic, emoji, tabs and line ends stay."""
    assert visible("a\u202eb\x1b[0m\ufeff") == "a\\u{202e}b\\u{1b}[0m\\u{feff}"
    assert visible("작업\tعربي 🙂\n") == "작업\tعربي 🙂\n"
    assert one_line("a\n b\r\nc") == "a b c"
    assert clip("abcdef", 4) == ("abcd", 2)
    assert clip("abcd", 4) == ("abcd", 0)


def test_figures_read_well() -> None:
    """Lead and rest of a figure, lengths of time, sizes and points, none with digits that flatter."""
    measured = Text("38.4 s (P95 ≤ 41.2 s at 95 %, n = 312)", "38.4초 (P95 ≤ 41.2초)")
    assert split_measured(measured) == (
        Text("38.4 s", "38.4초"),
        Text("P95 ≤ 41.2 s at 95 %, n = 312", "P95 ≤ 41.2초"),
    )
    assert split_measured(Text("not measured", "측정되지 않음"))[1] is None
    assert [duration(value).en for value in (64.4, 724, 9000)] == ["64 s", "12 min 4 s", "2 h 30 min"]
    assert duration(724).ko == "12분 4초"
    assert (size(999), size(812_344), memory(8_321_499_136)) == ("999 B", "812 kB", "7.75 GiB")
    assert (points(1.99), points(0.04), points(0.3)) == ("+1.9", "–", "+0.3")
    assert moment("2026-11-23T16:22:33.120Z") == "2026-11-23 16:22:33 UTC"
    assert moment("yesterday") == "yesterday"
