"""The page: one HTML file that needs nothing else, in both languages, complete without JavaScript.

Builds the values that `templates/page.html.j2` prints. Every phrase stands in the file twice, once a
language, and two radio buttons in front of the page decide by CSS which is shown. Everything is autoescaped;
a strict content security policy keeps even a mistake here from running anything or asking anybody.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from readiness.judge.figures import plain
from readiness.judge.model import ClaimResult, GateState, Scorecard, Term, Text
from readiness.render import detection, figures
from readiness.render.claims import ISSUE_ORDER, fault_name, issues_of, sentence, sla_rows
from readiness.render.escape import clip, one_line, visible
from readiness.render.ledger import ledger_rows, ledger_sum
from readiness.render.words import Lang, phrase

#: The scorecard inside the page leaves its series out above this size; the page stays below 2 MB.
EMBEDDED_JSON_MAX_BYTES: Final = 400_000
#: A longer word without a space would widen a table or a phone's page.
LONGEST_WORD: Final = 24
#: Rows of the fault ledger; the rest is in the evidence.
FAULT_ROWS_MAX: Final = 60
#: The parts of the page in the order of the report; the first two are the head and the verdict.
CONTENTS: Final = (
    (3, "changes"),
    (4, "gates"),
    (5, "open"),
    (6, "reliability"),
    (7, "observability"),
    (8, "sla"),
    (9, "figures"),
    (10, "load"),
    (11, "detection"),
    (12, "limits"),
    (13, "deployment"),
    (14, "appendix"),
)
#: Reliability figures of the founding report and the SLA row that measures each.
RELIABILITY_ROWS: Final = (("mttr", "H7"), ("mtbf", "H8"), ("availability", "H9"), ("integrity", "H10"))

_STAMPS: Final = {0: "proven", 1: "failed", 2: "inconclusive", 3: "invalid", 4: "invalid"}
_ICON_COLOURS: Final = {
    "proven": "#009e73",
    "failed": "#d55e00",
    "inconclusive": "#e69f00",
    "invalid": "#cc79a7",
}
_ICON_SHAPES: Final = {
    "proven": "M4.3 8.3l2.5 2.6 5-5.6",
    "failed": "M4.9 4.9l6.2 6.2M11.1 4.9l-6.2 6.2",
    "inconclusive": "M4 8h8",
    "invalid": "M8 3.5v5.5M8 11v1.8",
}


@dataclass(frozen=True, slots=True)
class _Entry:
    number: int
    id: str
    title: str


@dataclass(frozen=True, slots=True)
class _Gate:
    id: str
    title: Text
    state: GateState
    claims: tuple[ClaimResult, ...]


@dataclass(frozen=True, slots=True)
class _Fault:
    name: Text
    begin: str
    finish: str
    lasted: str


@dataclass(frozen=True, slots=True)
class _ReliabilityCard:
    title: str
    claims: tuple[ClaimResult, ...]


def render_html(card: Scorecard, *, lang: Lang) -> str:
    """Return the whole page, shown in `lang` first.

    Deterministic: the same scorecard gives the same bytes.
    """
    # Imported here because matplotlib takes a second that only the page needs.
    from readiness.render.charts import charts_of  # noqa: PLC0415 - matplotlib is slow to import

    script = _asset("page.js")
    values: dict[str, object] = {
        "card": card,
        "lang": lang,
        "title": page_title(card),
        "stamp": _STAMPS.get(card.status, "invalid"),
        "verdict_word": Text(card.verdict_word.en.upper(), card.verdict_word.ko),
        "started": figures.moment(card.run.started_at),
        "duration": figures.duration(card.run.duration_seconds),
        "toc": [_Entry(number, anchor, f"part.{anchor}") for number, anchor in CONTENTS],
        "gates": _gates(card),
        "issues": issues_of(card),
        "verdicts_present": [code for code in ISSUE_ORDER if any(c.verdict == code for c in card.claims)],
        "sla": sla_rows(card),
        "reliability_cards": _reliability_cards(card),
        "charts": charts_of(card),
        "ledger_sum": ledger_sum(card),
        "ledger": ledger_rows(card),
        "detection_sentences": detection.detection_sentences(card),
        "detection_rows": detection.detection_rows(card),
        "unnoticed": detection.unnoticed(card),
        "attempts_sentence": detection.attempts_sentence(card),
        "faults": _faults(card),
        "faults_left_out": max(0, len(card.charts.faults) - FAULT_ROWS_MAX),
        "fault_claims": [claim for claim in card.claims if claim.fault],
        "recommendations": _recommendations(card),
        "operations": (
            ("operations.dashboards", card.operations.dashboards),
            ("operations.runbooks", card.operations.runbooks),
            ("operations.contacts", card.operations.contacts),
        ),
        "environment": _environment(card),
        "scorecard_json": _embedded_json(card),
        "icon": _icon(_STAMPS.get(card.status, "invalid")),
        "css": Markup(_asset("page.css")),  # noqa: S704 - our own file
        "js": Markup(script),  # noqa: S704 - our own file
        "script_hash": _csp_hash(script),
    }
    environment = _environment_of(card)
    return environment.get_template("page.html.j2").render(values)


def page_title(card: Scorecard) -> str:
    """Return "NOT READY · ragworker · quick · 2026-11-23"."""
    words = (card.verdict_word.en.upper(), card.run.target, card.run.profile, card.run.started_at[:10])
    return " · ".join(one_line(word) for word in words)


def bilingual(text: Text) -> Markup:
    """Return both languages of a text, each marked with its language; once when they are the same."""
    english, korean = _breakable(visible(text.en)), _breakable(visible(text.ko))
    if english == korean:
        return english
    return Markup('<span lang="en">{}</span><span lang="ko">{}</span>').format(english, korean)


def foreign(value: object) -> Markup:
    """Return text of somebody else: escaped, nothing invisible in it, not longer than a paragraph."""
    shown, left_out = clip(visible(str(value)))
    if not left_out:
        return _breakable(shown)
    return _breakable(shown) + bilingual(phrase("claim.clipped", count=f"{left_out:,}"))


def _breakable(text: str) -> Markup:
    """Escape `text`; one with a word too long for a phone may break inside words, others only between them."""
    if any(len(word) > LONGEST_WORD for word in text.split()):
        return Markup('<span class="brk">{}</span>').format(text)
    return escape(text)


def link_to(target: str) -> Markup:
    """Return a link for http(s) and e-mail targets, plain text for everything else."""
    shown = foreign(target)
    if target.startswith(("https://", "http://")):
        return Markup('<a href="{}" rel="noreferrer">{}</a>').format(target, shown)
    if "@" in target and " " not in target and ":" not in target:
        return Markup('<a href="mailto:{}">{}</a>').format(target, shown)
    return shown


def _environment_of(card: Scorecard) -> Environment:
    claims = {claim.id: claim for claim in card.claims}
    issues = {claim.id for claim in issues_of(card)}
    gates = {gate.id: gate.title for gate in card.gates}
    sections = {section.id: section.title for section in card.sections}

    def statement(claim_id: str) -> Markup:
        return bilingual(claims[claim_id].statement) if claim_id in claims else Markup("")

    def translate(key: str, **params: object) -> Markup:
        return bilingual(phrase(key, **params))

    def gate_title(gate_id: str) -> Text:
        return gates.get(gate_id, Text(gate_id, gate_id))

    def section_title(section_id: str) -> Markup:
        return bilingual(sections.get(section_id, Text(section_id, section_id)))

    environment = Environment(
        loader=PackageLoader("readiness.render"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.globals.update(
        t=translate,
        b=bilingual,
        v=foreign,
        reason=sentence,
        statement=statement,
        gate_title=gate_title,
        section_title=section_title,
        fault_name=fault_name,
        claims_of=lambda section: [claims[item] for item in section.claims if item in claims],
        is_issue=lambda claim: claim.id in issues,
        split_measured=figures.split_measured,
        claim_detection_words=detection.claim_detection_words,
        chance_words=detection.chance_words,
        failed_claims=detection.failed_claims,
        amount=figures.amount,
        points=figures.points,
        seconds=figures.seconds,
        link_to=link_to,
    )
    return environment


def _gates(card: Scorecard) -> list[_Gate]:
    claims = {claim.id: claim for claim in card.claims}
    worst_first = sorted(
        card.gates, key=lambda gate: (GateState.FAILED, GateState.UNKNOWN, GateState.HELD).index(gate.state)
    )
    return [
        _Gate(gate.id, gate.title, gate.state, tuple(claims[item] for item in gate.claims if item in claims))
        for gate in worst_first
    ]


def _faults(card: Scorecard) -> list[_Fault]:
    return [
        _Fault(
            fault_name(band.name),
            figures.seconds(band.start),
            figures.seconds(band.end),
            plain(band.end - band.start),
        )
        for band in card.charts.faults[:FAULT_ROWS_MAX]
    ]


def _reliability_cards(card: Scorecard) -> list[_ReliabilityCard]:
    return [
        _ReliabilityCard(f"figures.{name}", tuple(claim for claim in card.claims if claim.sla == row))
        for name, row in RELIABILITY_ROWS
    ]


def _recommendations(card: Scorecard) -> list[tuple[str, Sequence[object]]]:
    ordered = sorted(card.recommendations, key=lambda item: -item.points)
    grouped = [(str(term), [item for item in ordered if item.term == term]) for term in Term]
    return [(term, items) for term, items in grouped if items]


def _environment(card: Scorecard) -> list[tuple[str, Markup]]:
    run, evidence = card.run, card.evidence
    commit = Markup("<code>{}</code>").format(visible(run.commit) or "–")
    if run.dirty:
        commit += " " + bilingual(phrase("head.dirty"))
    machine = phrase("env.machine.value", cpus=run.cpu_count, memory=figures.memory(run.memory_bytes))
    records = phrase(
        "env.evidence.value",
        files=evidence.files,
        records=f"{evidence.records:,}",
        bytes=figures.size(evidence.bytes),
    )
    return [
        ("env.command", Markup("<code>{}</code>").format(foreign(" ".join(run.argv)))),
        ("env.seed", Markup("<code>{}</code>").format(run.seed)),
        ("env.started", escape(figures.moment(run.started_at))),
        ("env.finished", escape(figures.moment(run.finished_at))),
        ("env.commit", commit),
        ("env.profile", Markup("<code>{}</code>").format(visible(run.profile_hash) or "–")),
        ("env.harness", escape(f"readiness {visible(run.harness_version)}")),
        ("env.python", foreign(run.python)),
        ("env.platform", foreign(run.platform)),
        ("env.machine", bilingual(machine)),
        ("env.evidence", bilingual(records)),
        ("env.manifest", Markup("<code>{}</code>").format(visible(evidence.manifest_sha256) or "–")),
    ]


def _embedded_json(card: Scorecard) -> Markup:
    """Return the scorecard as JSON that cannot end its script element.

    `<`, `>` and `&` are escaped inside strings.
    """
    value: Mapping[str, object] = card.to_json()
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), sort_keys=True)
    if len(text) > EMBEDDED_JSON_MAX_BYTES:
        text = json.dumps({**value, "charts": None}, ensure_ascii=True, separators=(",", ":"), sort_keys=True)
    if len(text) > EMBEDDED_JSON_MAX_BYTES:
        text = json.dumps({"schema": card.schema, "see": "scorecard.json"})
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704 - no markup character is left


@cache
def _asset(name: str) -> str:
    return (resources.files("readiness.render") / "templates" / name).read_text(encoding="utf-8")


def _csp_hash(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _icon(stamp: str) -> str:
    """Return the favicon as a data URI, so that no browser asks for /favicon.ico."""
    colour, shape = _ICON_COLOURS[stamp], _ICON_SHAPES[stamp]
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">'
        f'<circle cx="8" cy="8" r="8" fill="{colour}"/>'
        f'<path d="{shape}" fill="none" stroke="#fff" stroke-width="2"/></svg>'
    )
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
