"""The terminal: bars, what failed, what is open, and the verdict on the last line, at any width and encoding."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from harness.sample_scorecard import empty_scorecard, proven_scorecard, sample_profile
from rich.cells import cell_len
from rich.console import Console

from readiness.judge.model import Reason, Scorecard, Verdict
from readiness.render import Lang, render_terminal
from readiness.render.terminal import OPEN_MAX

CLAIMS = len(sample_profile().claims)


def shown(
    card: Scorecard, *, width: int = 100, lang: Lang = "en", encoding: str = "utf-8", color: bool = False
) -> list[str]:
    """The lines that a console of this width and encoding prints."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    console = Console(
        file=stream, width=width, color_system="standard" if color else None, force_terminal=color
    )
    render_terminal(card, console, lang=lang)
    return raw.getvalue().decode(encoding).splitlines()


def test_the_last_line_is_the_verdict_with_its_figures(card: Scorecard) -> None:
    """Scripts read one line: word, gates, claims, score, letter and seconds."""
    assert re.fullmatch(
        rf"not ready: 1 gate failed, \d+ of {CLAIMS} claims proven, score \d+ \([A-F][+-]?\) in 64 s",
        shown(card)[-1],
    )
    assert re.fullmatch(
        rf"출시 불가: 필수 조건 1건 실패, 항목 {CLAIMS}건 중 \d+건 입증, .*", shown(card, lang="ko")[-1]
    )
    assert (
        f"all 6 gates held, {CLAIMS} of {CLAIMS} claims proven, score 100 (A+)"
        in shown(proven_scorecard())[-1]
    )


def test_what_only_left_out_is_counted_not_listed(card: Scorecard) -> None:
    """A partial run names the claims that were asked for; the others are one line with their number."""
    asked = next(claim for claim in card.claims if claim.verdict is Verdict.INCONCLUSIVE)
    claims = tuple(
        claim if claim.id == asked.id else replace(claim, verdict=Verdict.NOT_RUN, reason=Reason("left_out"))
        for claim in card.claims
    )
    lines = shown(replace(card, claims=claims))
    assert [line for line in lines if line.startswith("  OPEN")] == [
        line for line in lines if line.startswith("  OPEN") and asked.id in line
    ]
    assert sum(line.startswith("  OPEN") for line in lines) == 1
    assert any(f"{len(claims) - 1} claims were left out (--only)" in line for line in lines)


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize("lang", ["en", "ko"])
def test_lines_keep_to_the_width(card: Scorecard, width: int, lang: Lang) -> None:
    """Only commands, paths and the verdict may be longer than the window: they are copied or parsed whole."""
    *lines, verdict = shown(card, width=width, lang=lang)
    whole = re.compile(r"readiness run|evidence/|reports/latest")
    assert [line for line in lines if cell_len(line) > width and not whole.search(line)] == []
    assert verdict.count(str(CLAIMS)) == 1


def test_failed_claims_bring_evidence_and_command(card: Scorecard) -> None:
    """A failed claim is followed by where its evidence is and how to see it again."""
    lines = shown(card)
    at = next(i for i, line in enumerate(lines) if line.startswith("  FAILED  A5.kill"))
    following = "\n".join(lines[at : at + 5])
    assert "evidence/A5.kill.jsonl" in following
    assert re.search(r"repeat: +readiness run --profile quick --only A5\.kill --seed 8231", following)


def test_open_claims_say_what_would_settle_them(card: Scorecard) -> None:
    """An open claim says how many more samples it needs; open claims beyond the bound are counted."""
    text = "\n".join(shown(card))
    assert "18 more jobs settle it" in text
    empty = shown(empty_scorecard())
    assert sum(line.startswith("  OPEN ") for line in empty) == OPEN_MAX
    assert f"{CLAIMS - OPEN_MAX} more open claims are in the report" in "\n".join(empty)


def test_every_section_has_its_bar(card: Scorecard) -> None:
    """Eight bars of fifteen cells, proven first, then unknown, failed last."""
    bars = [line for line in shown(card) if "█" in line or "░" in line]
    assert len(bars) == 8
    assert all(re.search(r" █*░*▒* ", line) for line in bars)
    assert "▒" in bars[0]


def test_without_unicode_everything_is_ascii_and_english(card: Scorecard) -> None:
    """An ASCII console gets ASCII bars, plain signs and English words instead of a crash."""
    lines = shown(card, lang="ko", encoding="ascii")
    assert any("###" in line for line in lines)
    assert any("<= " in line for line in lines)
    assert lines[-1].startswith("not ready:")


def test_colour_only_where_the_console_has_it(card: Scorecard, monkeypatch: pytest.MonkeyPatch) -> None:
    """No escape sequence without colour; with colour and NO_COLOR none that colours."""
    assert "\x1b" not in "\n".join(shown(card))
    assert "\x1b[1;31m" in "\n".join(shown(card, color=True))
    monkeypatch.setenv("NO_COLOR", "1")
    assert not re.search(r"\x1b\[[0-9;]*3\dm", "\n".join(shown(card, color=True)))


def test_hostile_text_reaches_no_terminal(hostile: Scorecard) -> None:
    """Escape sequences, overrides and rich markup of others are printed as text, in bounded length."""
    card = replace(hostile, claims=tuple(replace(c, repeat="[red]x[/red]") for c in hostile.claims))
    lines = shown(card)
    assert not re.search("[\x1b\x07\x00\u202e]", "\n".join(lines))
    assert any("[red]x[/red]" in line for line in lines)
    assert len("\n".join(lines)) < 1_000 * CLAIMS + 20_000
