"""A run in words: the table of medians, the promises with their ratios. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from bench.figures import Figure, Line, Sample, Spread, exit_status, spread, values_of, verdict
from bench.variants import OURS_LEAN, VARIANTS

_RATES = {
    Figure.SUBMIT_ONE: "submit/s",
    Figure.SUBMIT_FIFTY: "50 at once/s",
    Figure.SUBMIT_BULK: "bulk/s",
    Figure.DRAIN_1: "drain 1/s",
    Figure.DRAIN_2: "drain 2/s",
}
_WAITS = {Figure.START_P50: "p50 ms", Figure.START_P99: "p99 ms", Figure.IDLE_RSS: "idle MB"}
_CRASHES = {
    f"crash_{way}_{what}": f"{way}: {text}"
    for way in ("new", "running")
    for what, text in (
        ("s", "s"),
        ("lost", "not done in 20 s"),
        ("again", "run again"),
        ("twice", "effect twice"),
    )
}
_RAW = {Figure.RAW_ENQUEUE: "enqueue/s", Figure.RAW_CONSUME: "read+ack+del/s"}
_TABLES = (
    ("Speed", _RATES, ",.0f"),
    ("Start at 100 jobs/s, memory", _WAITS, ",.1f"),
    ("Crash", _CRASHES, ",.1f"),
    ("Raw limit, batches of 100", _RAW, ",.0f"),
)


def text(
    samples: Sequence[Sample],
    lines: Sequence[Line],
    lean: Sequence[Line],
    notes: Sequence[str],
    busy: str = "",
) -> str:
    """Everything that a run prints; the last line is the verdict."""
    parts = [_table(samples, title, columns, form) for title, columns, form in _TABLES]
    parts.append(
        "\n".join(["Promises (ratio of ours to the best of each round; median, min-max)", *map(_line, lines)])
    )
    measured = [_line(line) for line in lean if line.ratio is not None]
    if measured:
        parts.append("\n".join([f"The same for {_label(OURS_LEAN)}, not judged", *measured]))
    if busy:
        parts.append(busy)
    if notes:
        parts.append("\n".join(["Not measured", *(f"  {note}" for note in notes)]))
    return "\n\n".join([part for part in parts if part] + [verdict(lines)])


def as_json(
    samples: Sequence[Sample],
    lines: Sequence[Line],
    lean: Sequence[Line],
    notes: Sequence[str],
    facts: dict[str, Any],
) -> str:
    """The same as one JSON object on one line."""
    medians: dict[str, dict[str, dict[str, float]]] = {}
    for sample in samples:
        found = spread(list(values_of(samples, sample.variant, sample.figure).values()))
        if found is not None:
            medians.setdefault(sample.variant, {})[sample.figure] = _numbers(found)
    told = {
        "verdict": verdict(lines),
        "exit_status": exit_status(lines),
        "promises": [_told(line) for line in lines],
        "promises_without_records": [_told(line) for line in lean if line.ratio is not None],
        "figures": medians,
        "not_measured": list(notes),
        **facts,
    }
    return json.dumps(told, ensure_ascii=False)


def _table(samples: Sequence[Sample], title: str, columns: dict[Any, str], form: str) -> str:
    rows = []
    for variant in VARIANTS:
        cells = [_cell(samples, variant.name, figure, form) for figure in columns]
        if any(cell != "-" for cell in cells):
            rows.append([variant.text, variant.delivery.value, *cells])
    if not rows:
        return ""
    head = [title, "delivery", *columns.values()]
    widths = [max(len(row[at]) for row in (head, *rows)) for at in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if at < 2 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in (head, *rows)
    )


def _cell(samples: Sequence[Sample], variant: str, figure: str, form: str) -> str:
    found = spread(list(values_of(samples, variant, figure).values()))
    if found is None:
        return "-"
    if found.low == found.high:
        return f"{found.middle:{form}}"
    return f"{found.middle:{form}} ({found.low:{form}}-{found.high:{form}})"


def _line(line: Line) -> str:
    mark = {None: "not measured", True: "reached", False: "NOT REACHED"}[line.reached]
    if line.reached is None:
        return f"  {mark:<12}  {line.text}: {line.needed}"
    if line.ratio is None:
        return f"  {mark:<12}  {line.text}: {line.ours:,.1f}, {line.needed}"
    ratio = f"{line.ratio.middle:.2f} ({line.ratio.low:.2f}-{line.ratio.high:.2f})"
    return (
        f"  {mark:<12}  {line.text}: {ratio}, {line.needed}; "
        f"{line.ours:,.1f} beside {line.rivals:,.1f} of {_label(line.rival)}, {line.rounds} rounds"
    )


def _told(line: Line) -> dict[str, Any]:
    if line.reached is None:
        return {"text": line.text, "needed": line.needed, "reached": None}
    told = {
        "text": line.text,
        "needed": line.needed,
        "reached": line.reached,
        "figure": line.figure,
        "ours": line.ours,
    }
    if line.ratio is None:
        return told
    return {**told, "ratio": _numbers(line.ratio), "best_rival": line.rival, "best_rival_median": line.rivals}


def _numbers(found: Spread) -> dict[str, float]:
    return {"median": found.middle, "min": found.low, "max": found.high}


def _label(name: str) -> str:
    return next((variant.text for variant in VARIANTS if variant.name == name), name)
