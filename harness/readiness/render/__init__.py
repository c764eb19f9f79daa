"""Rendering: the faces of one scorecard. Pure: a scorecard in, text out; writing files is the caller's.

A format is one file in this package and one line in FORMATS. All faces say the same, word for word where words
matter: the judge words the figures, `catalogue` the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from readiness.judge.model import Scorecard
from readiness.render.html import render_html
from readiness.render.json import render_json
from readiness.render.junit import render_junit
from readiness.render.markdown import render_markdown
from readiness.render.terminal import render_terminal
from readiness.render.words import LANGS, Lang, parse_lang


@dataclass(frozen=True, slots=True)
class Format:
    """A file of the run folder and how it is made from the scorecard, in one language where it has one."""

    filename: str
    render: Callable[[Scorecard, Lang], str]


FORMATS: Final[dict[str, Format]] = {
    "json": Format("scorecard.json", lambda card, lang: render_json(card)),
    "html": Format("index.html", lambda card, lang: render_html(card, lang=lang)),
    "markdown": Format("scorecard.md", lambda card, lang: render_markdown(card, lang=lang)),
    "junit": Format("junit.xml", lambda card, lang: render_junit(card)),
}

__all__ = [
    "FORMATS",
    "LANGS",
    "Format",
    "Lang",
    "parse_lang",
    "render_html",
    "render_json",
    "render_junit",
    "render_markdown",
    "render_terminal",
]
