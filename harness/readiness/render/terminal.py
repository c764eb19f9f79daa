"""The end of a run in the terminal: a bar a section, what failed and what is open, the report, the verdict last.

Keeps to the width it is given, down to 40 columns; colours are rich's (NO_COLOR and CI logs have none), and bars are
ASCII where the encoding knows no others. Commands and the verdict are never broken over lines, so that they can be
copied and parsed.
"""

from __future__ import annotations

from typing import Final

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text as Line

from readiness.judge.model import Band, ClaimResult, GateState, Scorecard, Verdict
from readiness.render.claims import issues_of, sentence
from readiness.render.detection import detection_line
from readiness.render.escape import clip, one_line
from readiness.render.figures import split_measured
from readiness.render.words import VERDICT_WORDS, Lang, in_lang, word

#: Open claims that are listed; the rest are counted and stand in the report.
OPEN_MAX: Final = 14
#: The reason of claims that the person left out with --only: counted, because nobody asked for them.
LEFT_OUT: Final = "left_out"
#: What one claim may say in the terminal; all of it is in the report.
_WORDS_MAX: Final = 300
_DETAIL_MAX: Final = 110
_BAR: Final = 15
_BAR_SHORT: Final = 4
#: From this width on, claim lines have columns; below, they wrap under a short indent.
_COLUMNS_FROM: Final = 72

_STYLES: Final = {
    Verdict.FAILED: "bold red",
    Verdict.INVALID: "bold magenta",
    Verdict.INCONCLUSIVE: "yellow",
    Verdict.NOT_RUN: "cyan",
}
_STATUS_STYLES: Final = {0: "bold green", 1: "bold red", 2: "bold yellow"}
_ASCII: Final = str.maketrans(
    {
        "≤": "<=",
        "≥": ">=",
        "–": "-",
        "—": "-",
        "−": "-",
        "×": "x",
        "·": "-",
        "…": "...",
        "“": '"',
        "”": '"',
        "’": "'",
    }
)


def render_terminal(
    card: Scorecard, console: Console, *, lang: Lang, report: str = "reports/latest/index.html"
) -> None:
    """Print the result. The last line is the verdict with its figures, on one line whatever the width."""
    shown_lang: Lang = "en" if _ascii_only(console) else lang  # no Korean without Unicode
    _Printer(card, console, shown_lang).print_all(report)


def verdict_line(card: Scorecard, *, lang: Lang) -> str:
    """Return "not ready: 1 gate failed, 38 of 41 claims proven, score 71 (C) in 64 s"."""
    return word(
        "terminal.verdict",
        lang,
        word=in_lang(card.verdict_word, lang),
        gates=_gates(card, lang),
        proven=sum(claim.verdict is Verdict.PROVEN for claim in card.claims),
        claims=len(card.claims),
        score=card.score.overall,
        letter=card.score.letter,
        seconds=round(card.run.duration_seconds),
    )


def _gates(card: Scorecard, lang: Lang) -> str:
    failed = sum(gate.state is GateState.FAILED for gate in card.gates)
    held = sum(gate.state is GateState.HELD for gate in card.gates)
    if not card.gates:
        return word("terminal.gates.none", lang)
    if failed:
        return word(
            "terminal.gates.failed" if failed == 1 else "terminal.gates.failed.many", lang, count=failed
        )
    if held < len(card.gates):
        return word("terminal.gates.open", lang, held=held, count=len(card.gates))
    return word("terminal.gates.held", lang, count=held)


def _ascii_only(console: Console) -> bool:
    return not console.encoding.lower().replace("-", "").startswith("utf")


class _Printer:
    """One printing: the scorecard, where it goes, and what that can show."""

    def __init__(self, card: Scorecard, console: Console, lang: Lang) -> None:
        self.card, self.console, self.lang = card, console, lang
        self.ascii = _ascii_only(console)
        self.width = max(24, console.width)

    def print_all(self, report: str) -> None:
        for section in self.card.sections:
            self._section(in_lang(section.title, self.lang), section.band)
        if self.card.sections:
            self._line(Line())
        issues = issues_of(self.card)
        failed = [claim for claim in issues if claim.verdict is Verdict.FAILED]
        left_out = [claim for claim in issues if claim.reason and claim.reason.code == LEFT_OUT]
        rest = [claim for claim in issues if claim.verdict is not Verdict.FAILED and claim not in left_out]
        for claim in [*failed, *rest[:OPEN_MAX]]:
            self._claim(claim)
        if len(rest) > OPEN_MAX:
            self._line(Line("  " + word("terminal.more", self.lang, count=len(rest) - OPEN_MAX), style="dim"))
        if left_out:
            self._line(Line("  " + word("terminal.left_out", self.lang, count=len(left_out)), style="dim"))
        if detected := detection_line(self.card):
            self._wrapped(in_lang(detected, self.lang), indent=2)
        label = word("terminal.report", self.lang)
        self._whole(Line(f"  {label} {one_line(report)}"))
        style = _STATUS_STYLES.get(self.card.status, "bold magenta")
        self._whole(Line(verdict_line(self.card, lang=self.lang), style=style))

    def _section(self, title: str, band: Band) -> None:
        widest = max(cell_len(in_lang(section.title, self.lang)) for section in self.card.sections)
        columns = (
            ("proven", band.proven, "green"),
            ("unknown", band.unknown, "dim"),
            ("failed", band.failed, "red"),
        )
        wide = [(f"{points:>3} {word(f'band.{name}', self.lang)}", style) for name, points, style in columns]
        counts = [Line(words, style=style if words[:3].strip() != "0" else "dim") for words, style in wide]
        beside, below = Line("  ").join(counts), Line(" ").join(counts)
        name = Line("  " + one_line(title))
        if 2 + widest + 2 + _BAR + 2 + beside.cell_len <= self.width:
            name.append(" " * (widest - cell_len(one_line(title)) + 2))
            self._line(name + self._bar(band, _BAR) + Line("  ") + beside)
            return
        self._line(name)
        self._line(Line("  ") + self._bar(band, _BAR_SHORT) + Line(" ") + below)

    def _bar(self, band: Band, width: int) -> Line:
        proven = band.proven * width // 100
        failed = min(width - proven, -(-band.failed * width // 100))
        signs = "#.x" if self.ascii else "█░▒"
        return Line.assemble(
            (signs[0] * proven, "green"),
            (signs[1] * (width - proven - failed), "dim"),
            (signs[2] * failed, "red"),
        )

    def _claim(self, claim: ClaimResult) -> None:
        label = word(VERDICT_WORDS[claim.verdict], self.lang)
        if claim.verdict in (Verdict.INCONCLUSIVE, Verdict.NOT_RUN):
            label = word("terminal.open", self.lang)
        style = _STYLES.get(claim.verdict, "")
        aside = self._aside(claim)
        if self.width < _COLUMNS_FROM:
            self._line(Line.assemble("  ", (label, style), " ", (one_line(claim.id), "bold")))
            for text in (self._words(claim), aside):
                self._wrapped(text, indent=4)
            self._repeat(claim, indent=4)
            return
        labels = max(
            8,
            *(
                cell_len(word(key, self.lang)) + 1
                for key in ("terminal.open", "verdict.failed", "verdict.invalid")
            ),
        )
        ids = min(20, max((cell_len(item.id) for item in self.card.claims), default=8) + 2)
        head = Line.assemble("  ", (_pad(label, labels), style), (_pad(one_line(claim.id), ids), "bold"))
        self._columns(head, self._words(claim), aside)
        self._repeat(claim, indent=2 + labels, column=ids)

    def _aside(self, claim: ClaimResult) -> str:
        """What stands at the right: what would settle an open claim, the evidence of a failed one."""
        if claim.verdict is Verdict.FAILED:
            return one_line(claim.evidence[0]) if claim.evidence else ""
        return one_line(in_lang(claim.needed, self.lang)) if claim.needed else ""

    def _words(self, claim: ClaimResult) -> str:
        """What was measured and why it is not enough, with the beginning of the check's own words."""
        lead = in_lang(split_measured(claim.measured)[0], self.lang) + "." if claim.n else ""
        why = in_lang(sentence(claim.reason), self.lang) if claim.reason else ""
        detail, left_out = clip(
            one_line(claim.reason.detail.partition("\n")[0]) if claim.reason else "", _DETAIL_MAX
        )
        why += ":" if detail and not why.endswith(".") else ""
        said = clip(one_line(" ".join(part for part in (lead, why, detail) if part)), _WORDS_MAX)
        return said[0] + (" …" if left_out or said[1] else "")

    def _columns(self, head: Line, words: str, aside: str) -> None:
        """Print head, words and aside on one line when they fit, else the words wrapped, the aside below them."""
        room = self.width - head.cell_len
        beside = aside and cell_len(words) + 2 + cell_len(aside) <= room
        rows = Line(self._plain(words)).wrap(self.console, max(10, room))
        for index, row in enumerate(rows):
            row.rstrip()
            line = (head if index == 0 else Line(" " * head.cell_len)) + row
            if beside and index == len(rows) - 1:
                line.append(" " * (self.width - line.cell_len - cell_len(aside)))
                line.append(self._plain(aside), style="dim")
            self._line(line)
        if aside and not beside:
            self._whole(Line(" " * head.cell_len + self._plain(aside), style="dim"))

    def _wrapped(self, text: str, *, indent: int) -> None:
        for row in Line(self._plain(text)).wrap(self.console, max(10, self.width - indent)) if text else []:
            row.rstrip()
            self._line(Line(" " * indent) + row)

    def _repeat(self, claim: ClaimResult, *, indent: int, column: int = 0) -> None:
        if claim.verdict is Verdict.FAILED and claim.repeat:
            label = word("terminal.repeat", self.lang)
            self._whole(
                Line(" " * indent + _pad(label, max(column, cell_len(label) + 1)) + one_line(claim.repeat))
            )

    def _line(self, line: Line) -> None:
        self.console.print(self._safe(line), soft_wrap=True, highlight=False)

    _whole = _line

    def _safe(self, line: Line) -> Line:
        if not self.ascii:
            return line
        safe = line.copy()
        safe.plain = self._plain(line.plain)
        return safe

    def _plain(self, text: str) -> str:
        return text.translate(_ASCII).encode("ascii", "backslashreplace").decode() if self.ascii else text


def _pad(text: str, width: int) -> str:
    return text + " " * max(1, width - cell_len(text))
