"""Every phrase that the report's faces share, in English and Korean, and how to look one up.

The catalogue is the only place where a renderer takes words from; sentences about a claim come with the
claim. Korean is written as a Korean engineer would write it (formal style); verdict codes, metric names and
setting names stay as they are in both languages.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, get_args

from readiness.errors import BadInput
from readiness.judge.model import Text, Verdict
from readiness.render.catalogue import PHRASES

Lang = Literal["en", "ko"]
LANGS: Final[tuple[Lang, ...]] = get_args(Lang)

#: One word for each verdict code; the code itself is shown beside it.
VERDICT_WORDS: Final[Mapping[Verdict, str]] = {
    Verdict.PROVEN: "verdict.proven",
    Verdict.FAILED: "verdict.failed",
    Verdict.INCONCLUSIVE: "verdict.inconclusive",
    Verdict.NOT_RUN: "verdict.not_run",
    Verdict.INVALID: "verdict.invalid",
    Verdict.NOT_APPLICABLE: "verdict.not_applicable",
}


def parse_lang(value: str) -> Lang:
    """Return the language named by `value`; raise BadInput when the report does not exist in it."""
    for lang in LANGS:
        if lang == value:
            return lang
    raise BadInput(f"--lang: expected one of {', '.join(LANGS)}, got: {value!r}. Run again with --lang en.")


def phrase(key: str, **params: object) -> Text:
    """Return a catalogue phrase in both languages with its `{slots}` filled; an unknown key is a KeyError."""
    text = PHRASES[key]
    if not params:
        return text
    english = {name: pick(value, "en") for name, value in params.items()}
    korean = {name: pick(value, "ko") for name, value in params.items()}
    return Text(en=text.en.format(**english), ko=text.ko.format(**korean))


def word(key: str, lang: Lang, **params: object) -> str:
    """Return a catalogue phrase in one language."""
    return in_lang(phrase(key, **params), lang)


def in_lang(text: Text, lang: Lang) -> str:
    """Return one language of a text."""
    return text.ko if lang == "ko" else text.en


def pick(value: object, lang: Lang) -> object:
    """Return `value`, or its side in `lang` when it is a Text."""
    return in_lang(value, lang) if isinstance(value, Text) else value
