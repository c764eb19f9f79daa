"""scorecard.md: the page in short, for a pull request or a chat: verdict, what changed, what is open, a folded table.

Text of others is escaped, so that no job's name becomes a link, a table column, a tag or a mention.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape as escape_html
from typing import Final

from readiness.judge.model import ClaimResult, Scorecard, Text, Verdict
from readiness.judge.pooling import Attempt
from readiness.render import detection, figures
from readiness.render.claims import issues_of, sentence
from readiness.render.escape import clip, one_line
from readiness.render.ledger import ledger_rows, ledger_sum
from readiness.render.words import VERDICT_WORDS, Lang, in_lang, word

_ICONS: Final = {
    Verdict.PROVEN: "✔",
    Verdict.FAILED: "✘",
    Verdict.INCONCLUSIVE: "◐",
    Verdict.NOT_RUN: "○",
    Verdict.INVALID: "⚠",
    Verdict.NOT_APPLICABLE: "–",
}
_GATE_ICONS: Final = {"HELD": "✔", "FAILED": "✘", "UNKNOWN": "○"}
_SPECIAL: Final = re.compile(r"([\\`*_{}\[\]()#+!|~-])")
#: Longest piece of foreign text in a table cell.
_CELL_MAX: Final = 240


def render_markdown(card: Scorecard, *, lang: Lang) -> str:
    """Return the report in Markdown (GitHub flavour), in one language."""
    parts = [
        _verdict(card, lang),
        _changes(card, lang),
        _gates(card, lang),
        _sections(card, lang),
        _ledger(card, lang),
        _open(card, lang),
        _all_claims(card, lang),
        _closing(card, lang),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _verdict(card: Scorecard, lang: Lang) -> str:
    run, score = card.run, card.score
    overall = f"{score.overall} {score.letter}"
    overall = f"~~{overall}~~" if score.struck else overall
    scores = (
        f"{word('score.overall', lang)} **{overall}** · {word('score.reliability', lang)} {score.reliability} · "
        f"{word('score.observability', lang)} {score.observability} · "
        f"{score.band.proven} {word('band.proven', lang)}, {score.band.unknown} {word('band.unknown', lang)}, "
        f"{score.band.failed} {word('band.failed', lang)}"
    )
    facts = [
        f"{_safe(run.target)} {_safe(run.target_version)}",
        _code(run.commit[:12]) + (f" {word('head.dirty', lang)}" if run.dirty else ""),
        _safe(run.profile),
        figures.moment(run.started_at),
        in_lang(figures.duration(run.duration_seconds), lang),
    ]
    stack = " · ".join(
        f"{_safe(part.name)}: {word(f'part.{part.state}', lang)} {_safe(part.provider)} {_safe(part.version)}".strip()
        for part in card.parts
    )
    lines = [f"## {_safe(in_lang(card.sentence, lang))}", scores]
    lines += [word("score.struck", lang)] if score.struck else []
    return "\n\n".join([*lines, " · ".join(facts), *([stack] if stack else [])])


def _changes(card: Scorecard, lang: Lang) -> str:
    heading = f"### {word('part.changes', lang)}\n\n"
    if not card.changes:
        if card.previous_run is None:
            return heading + word("changes.first", lang)
        return heading + _safe(word("changes.none", lang, run=card.previous_run))
    rows = [
        (
            _code(change.claim),
            _mark(change.before, lang) if change.before else word("changes.new", lang),
            _mark(change.after, lang),
        )
        for change in card.changes
    ]
    return heading + _table([word(f"col.{name}", lang) for name in ("claim", "before", "after")], rows)


def _gates(card: Scorecard, lang: Lang) -> str:
    if not card.gates:
        return ""
    rows = [
        (
            _safe(in_lang(gate.title, lang)),
            f"{_GATE_ICONS[gate.state]} {word(f'verdict.{gate.state.lower()}', lang)}",
            ", ".join(_code(claim) for claim in gate.claims),
        )
        for gate in card.gates
    ]
    head = [word(f"col.{name}", lang) for name in ("gate", "state", "behind")]
    return f"### {word('part.gates', lang)}\n\n" + _table(head, rows)


def _ledger(card: Scorecard, lang: Lang) -> str:
    """The faults of the run; nothing when no fault step ran."""
    if not card.ledger:
        return ""
    rows = [
        (
            _safe(in_lang(row.title, lang)),
            f"{_ICONS[row.verdict]} {word(row.outcome, lang)}",
            row.jobs,
            row.lost,
            row.repeated,
            in_lang(row.recovered, lang),
        )
        for row in ledger_rows(card)
    ]
    names = ("fault", "outcome", "jobs", "lost", "repeated", "recovered")
    summed = in_lang(ledger_sum(card), lang)
    table = _table([word(f"ledger.{name}", lang) for name in names], rows)
    title = f"{word('ledger.title', lang)}: {summed}"
    return f"<details><summary>{title}</summary>\n\n{table}\n\n</details>"


def _sections(card: Scorecard, lang: Lang) -> str:
    rows = [
        (
            _safe(in_lang(section.title, lang)),
            str(section.score),
            str(section.band.proven),
            str(section.band.unknown),
            str(section.band.failed),
        )
        for section in card.sections
    ]
    head = [word("markdown.section", lang), word("markdown.score", lang)]
    head += [word(f"band.{name}", lang) for name in ("proven", "unknown", "failed")]
    return _table(head, rows)


def _open(card: Scorecard, lang: Lang) -> str:
    heading = f"### {word('part.open', lang)}\n\n"
    issues = issues_of(card)
    if not issues:
        return heading + word("open.none", lang)
    return heading + "\n".join(_issue(claim, lang) for claim in issues)


def _issue(claim: ClaimResult, lang: Lang) -> str:
    lines = [
        f"- {_mark(claim.verdict, lang)} {_code(claim.id)} {_say(claim.statement, lang)}",
        f"  {word('claim.target', lang)}: {_say(claim.target, lang)} · {_say(claim.measured, lang)}",
    ]
    if claim.reason:
        detail = f" {_safe(claim.reason.detail)}" if claim.reason.detail else ""
        lines.append(f"  {_say(sentence(claim.reason), lang)}{detail}")
    if claim.needed:
        lines.append(f"  {_say(claim.needed, lang)}")
    if claim.repeat:
        lines.append(f"  {word('claim.repeat', lang)}: {_code(claim.repeat)}")
    return "<br>\n".join(lines)


def _all_claims(card: Scorecard, lang: Lang) -> str:
    rows = [
        (
            _code(claim.id),
            _mark(claim.verdict, lang),
            _say(claim.statement, lang),
            _say(claim.target, lang),
            _say(claim.measured, lang),
        )
        for claim in card.claims
    ]
    head = [word(f"col.{name}", lang) for name in ("claim", "verdict", "statement", "target", "measured")]
    summary = word("markdown.all_claims", lang, count=len(card.claims))
    return f"<details><summary>{summary}</summary>\n\n{_table(head, rows)}\n\n</details>"


def _closing(card: Scorecard, lang: Lang) -> str:
    limits = "\n".join(f"- {_say(text, lang)}" for text in card.not_shown) or word("limits.none", lang)
    advice = "\n".join(
        f"- {_say(item.text, lang)} ({figures.points(item.points)})"
        for item in sorted(card.recommendations, key=lambda item: -item.points)
    )
    return "\n\n".join(
        [
            f"### {word('part.limits', lang)}\n\n{limits}",
            _detection(card, lang),
            f"### {word('recommendations', lang)}\n\n{advice or word('recommendations.none', lang)}",
            f"### {word('conclusion', lang)}\n\n{_say(card.conclusion, lang)}",
            *_loosened(card, lang),
            f"{word('appendix.verify', lang)}: {_code(f'readiness verify {card.run.id}')}",
        ]
    )


def _detection(card: Scorecard, lang: Lang) -> str:
    """What the checks can notice, and each planted defect that they did not notice as they should."""
    said = [_say(text, lang) for text in detection.detection_sentences(card)]
    rows = [
        (f"{_code(one.id)} {_safe(one.title)}", _code(one.expected), word(f"detection.{one.outcome}", lang))
        for one in detection.unnoticed(card)
    ]
    head = [word(f"col.{name}", lang) for name in ("defect", "expected", "outcome")]
    parts = [f"### {word('part.detection', lang)}", " ".join(said), *([_table(head, rows)] if rows else [])]
    if card.attempts:
        parts += [f"### {word('attempts', lang)}", _say(detection.attempts_sentence(card), lang)]
        parts.append("\n".join(f"- {_attempt(one, lang)}" for one in card.attempts))
    return "\n\n".join(parts)


def _attempt(attempt: Attempt, lang: Lang) -> str:
    ended = word("attempts.unfinished", lang)
    if attempt.status is not None:
        ended = word("attempts.ended", lang, status=attempt.status)
    failed = ", ".join(_code(claim) for claim in detection.failed_claims(attempt))
    tail = f", {word('attempts.failed', lang)}: {failed}" if failed else ""
    return f"{_code(attempt.run)}: {_safe(ended)}{tail}"


def _loosened(card: Scorecard, lang: Lang) -> list[str]:
    """What the profile asks less of than its base; nothing where it asks for nothing less."""
    found = card.baseline.loosened
    if not found:
        return []
    items = "\n".join(f"- {_code(item.subject)} {_say(item.what, lang)}" for item in found)
    said = word("appendix.loosened.some", lang, base=card.baseline.base, count=len(found))
    return [f"### {word('appendix.loosened', lang)}\n\n{said}\n\n{items}"]


def _mark(verdict: Verdict, lang: Lang) -> str:
    return f"{_ICONS[verdict]} {word(VERDICT_WORDS[verdict], lang)}"


def _say(text: Text, lang: Lang) -> str:
    return _safe(in_lang(text, lang))


def _safe(text: str) -> str:
    """Escape for running text and table cells: no tag, no markup, no mention, one line, bounded."""
    shown, left_out = clip(one_line(text), _CELL_MAX)
    escaped = _SPECIAL.sub(r"\\\1", escape_html(shown, quote=False)).replace("@", "&#64;")
    return escaped + (f"… (+{left_out:,})" if left_out else "")


def _code(text: str) -> str:
    """Return a code span: nothing in it is markup. The fence is longer than any run of backticks inside."""
    shown = clip(one_line(text), _CELL_MAX)[0].replace("|", r"\|")
    if not shown:
        return "–"
    fence = "`" * (max((len(run) for run in re.findall("`+", shown)), default=0) + 1)
    space = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{fence}{space}{shown}{space}{fence}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
