"""What the tests of the renderers share: scorecards, a hostile one among them, and the pages made from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from harness.sample_scorecard import sample_scorecard

from readiness.judge.charts import Charts, FaultBand, Series
from readiness.judge.model import Reason, Scorecard, Text, Verdict
from readiness.render import Lang, render_html

TOP_CONFTEST = Path(__file__).resolve().parents[2] / "conftest.py"

#: Everything that a job's name or an error text may try: markup, style end, quotes, right-to-left override,
#: control characters, half a surrogate pair, Markdown, and sheer length.
NASTY = (
    "<script>window.pwned = 1</script></style><img src=x onerror='window.pwned=1'>\"'`{{7*7}}${x}"
    "\u202egnp.exe\u2066 \x1b[31m\x07\x00 ]]> | @everyone [a](javascript:alert(1)) # \ud800 한국어 &lt;"
)
LONG = "very-long-word-" * 700


@pytest.fixture
def require_part(pytestconfig: pytest.Config) -> Callable[[str], Path]:
    """`require_part` of tests/conftest.py, by its plugin: several files of that name cannot be imported."""
    found: Callable[[str], Path] = pytestconfig.pluginmanager.get_plugin(str(TOP_CONFTEST)).require_part
    return found


@pytest.fixture(scope="session")
def card() -> Scorecard:
    """The mixed sample run: not ready, one gate failed."""
    return sample_scorecard()


@pytest.fixture(scope="session")
def hostile() -> Scorecard:
    """The sample run with hostile text in every place that others write."""
    return hostile_scorecard(sample_scorecard())


@pytest.fixture(scope="session")
def pages(card: Scorecard) -> dict[Lang, str]:
    """The page of the sample run, opened in each language."""
    return {"en": render_html(card, lang="en"), "ko": render_html(card, lang="ko")}


def hostile_scorecard(card: Scorecard) -> Scorecard:
    """Put NASTY and LONG into every string that does not come from us or from the profile."""
    claims = tuple(
        replace(
            claim,
            verdict=Verdict.FAILED,
            reason=Reason("check_failed", {"count": 1, "total": 2, "word_en": "x"}, detail=NASTY + LONG),
            measured=Text(NASTY, NASTY),
            fault=NASTY,
            repeat=f"readiness run --only '{NASTY}'",
            checks=(f"checks/test_x.py::test_{NASTY}",),
            evidence=(f"evidence/{NASTY}.jsonl",),
        )
        for claim in card.claims
    )
    points = tuple((float(t), float(t % 7)) for t in range(30))
    charts = Charts(series=(Series(NASTY, NASTY, points),), faults=(FaultBand(NASTY, 3.0, 4.0),))
    run = replace(card.run, argv=("readiness", NASTY, LONG), platform=NASTY, target=NASTY, commit=NASTY)
    parts = tuple(
        replace(part, provider=NASTY, version=NASTY, note=Text(NASTY, NASTY)) for part in card.parts
    )
    steps = tuple(replace(step, detail=NASTY + LONG) for step in card.steps)
    settings = tuple(replace(setting, used=NASTY) for setting in card.settings)
    return replace(card, claims=claims, charts=charts, run=run, parts=parts, steps=steps, settings=settings)
