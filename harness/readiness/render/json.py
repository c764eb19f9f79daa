"""scorecard.json: the model itself, for machines and for rendering again later."""

from __future__ import annotations

import json

from readiness.judge.model import Scorecard


def render_json(card: Scorecard) -> str:
    """Return the scorecard as indented JSON with a final newline, always encodable as UTF-8."""
    value = card.to_json()
    text = json.dumps(value, ensure_ascii=False, indent=2)
    if any("\ud800" <= character <= "\udfff" for character in text):  # half a character, from a foreign name
        text = json.dumps(value, ensure_ascii=True, indent=2)
    return text + "\n"
