"""What is wrong with a Prometheus exposition text, line by line; and what fell between two scrapes that may only rise.

Pure. Source: https://prometheus.io/docs/instrumenting/exposition_formats/ (text format 0.0.4). promtool's own linter
(`promtool check metrics`) refuses names that the specification gives, and looks at neither buckets nor order.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from readiness.checking.exposition import Exposition, Series, parse

_FAMILY = re.compile(r"^# (HELP|TYPE) ([A-Za-z_:][A-Za-z0-9_:]*) (.+)$")
_SAMPLE = re.compile(
    r"^([A-Za-z_:][A-Za-z0-9_:]*)(?:\{([A-Za-z_][A-Za-z0-9_]*=\"(?:[^\"\\\n]|\\[\\\"n])*\",?)*\})? (\S+)$"
)
_SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("", "_sum", "_count")}
_TYPES = ("counter", "gauge", "histogram", "summary", "untyped")

#: The unit that a name ends in, and the word that its help must have.
_UNIT_WORDS = {
    "_ms": (" ms",),
    "_seconds": ("second", " s"),
    "_pct": ("percent", "%"),
    "_usd": ("dollar", "USD"),
}

#: A label of such a name holds something that every request or job has of its own.
_OWN_IDS = ("job_id", "request_id", "trace_id", "correlation_id", "user_id", "span_id")


def faults(text: str) -> list[str]:
    """One sentence for each thing that a scraper may stumble over; none when the text is as the format wants it."""
    found = [*_lines(text)]
    if found:
        return found  # what follows needs a text that can be read
    scrape = parse(text)
    return [
        *_doubles(scrape),
        *_values(scrape),
        *_histograms(scrape),
        *_names(scrape, text),
        *_labels(scrape),
    ]


def fallen(before: Exposition, after: Exposition) -> list[str]:
    """Counters and buckets that are lower in the later scrape of the same process, or have vanished from it."""
    later = {_key(one): one.value for one in after.series}
    return [
        f"{_shown(one)}: expected at least {one.value:g}, got {later.get(_key(one), 'no series')}"
        for one in before.series
        if rises(one, before.types) and later.get(_key(one), -math.inf) < one.value
    ]


def rises(series: Series, types: Mapping[str, str]) -> bool:
    """Whether a series may only rise: a counter, or any part of a histogram of values that are not negative."""
    return types.get(_family_of(series.name, types)) in ("counter", "histogram")


def _lines(text: str) -> Iterator[str]:
    if not text.endswith("\n"):
        yield "the last line does not end"
    family, kind, said, closed = "", "", set[str](), set[str]()
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or (line.startswith("#") and not line.startswith(("# HELP ", "# TYPE "))):
            continue
        meta = _FAMILY.match(line)
        if meta is None:
            yield from (f"line {number}: {sentence}" for sentence in _sample(line, family, kind, said))
            continue
        if meta[2] != family:
            closed.add(family)
            family, kind, said = meta[2], "", set()
        if family in closed or meta[1] in said:
            yield f"line {number}: {family} stands in two places"
        said.add(meta[1])
        if meta[1] == "TYPE":
            kind = meta[3].strip()
            if kind not in _TYPES:
                yield f"line {number}: {family} has the type {kind!r}"


def _sample(line: str, family: str, kind: str, said: set[str]) -> Iterator[str]:
    """What is wrong with one sample that stands below the given family."""
    sample = _SAMPLE.match(line)
    if sample is None:
        yield f"neither comment nor sample: {line[:80]!r}"
        return
    if sample[1] not in [family + suffix for suffix in _SUFFIXES.get(kind, ("",))]:
        yield f"{sample[1]} stands below {family or 'nothing'} ({kind or 'no type'})"
    elif said != {"HELP", "TYPE"}:
        yield f"{sample[1]} comes without HELP and TYPE before it"
    try:
        float(sample[3])
    except ValueError:
        yield f"{sample[3]!r} is no number"


def _doubles(scrape: Exposition) -> Iterator[str]:
    seen: set[tuple[str, frozenset[tuple[str, str]]]] = set()
    for one in scrape.series:
        if _key(one) in seen:
            yield f"{_shown(one)} is there twice"
        seen.add(_key(one))


def _values(scrape: Exposition) -> Iterator[str]:
    for one in scrape.series:
        if rises(one, scrape.types) and not 0 <= one.value < math.inf:
            yield f"{_shown(one)}: a counter of {one.value:g}"
        if math.isnan(one.value):
            yield f"{_shown(one)} is NaN"
        if one.name.endswith("_pct") and one.value < 0:
            yield f"{_shown(one)}: a share of {one.value:g}"


def _histograms(scrape: Exposition) -> Iterator[str]:
    for family in (name for name, kind in scrape.types.items() if kind == "histogram"):
        groups: dict[frozenset[tuple[str, str]], list[Series]] = {}
        for one in scrape.series:
            if one.name == f"{family}_bucket":
                groups.setdefault(frozenset((k, v) for k, v in one.labels.items() if k != "le"), []).append(
                    one
                )
        for labels, buckets in groups.items():
            borders = [float(one.labels.get("le", "nan")) for one in buckets]
            counts = [one.value for one in buckets]
            name = f"{family}{dict(labels) or ''}"
            if not all(low < high for low, high in pairwise(borders)) or borders[-1] != math.inf:
                yield f"{name}: expected rising borders up to +Inf, got {borders}"
            if any(low > high for low, high in pairwise(counts)):
                yield f"{name}: expected buckets that count all below their border, got {counts}"
            for suffix in ("_count", "_sum"):
                values = _with(scrape, family + suffix, labels)
                if len(values) != 1:
                    yield f"{name}: expected one {family}{suffix}, got {len(values)}"
                elif suffix == "_count" and values[0] != counts[-1]:
                    yield f"{name}: expected a count of {counts[-1]:g} as in +Inf, got {values[0]:g}"
                elif suffix == "_sum" and not _plausible(values[0], borders, counts):
                    yield f"{name}: a sum of {values[0]:g} does not fit its buckets {counts}"


def _plausible(total: float, borders: Sequence[float], counts: Sequence[float]) -> bool:
    """Whether the sum lies between all observations at their lower and all at their upper border."""
    alone = [counts[0], *(high - low for low, high in pairwise(counts))]
    least = sum(count * border for count, border in zip(alone[1:], borders[:-1], strict=True))
    most = sum(count * border for count, border in zip(alone, borders, strict=True) if count)
    return least - 0.5 * sum(alone) - 1 <= total <= most + 0.5 * sum(alone) + 1  # sums are of rounded values


def _names(scrape: Exposition, text: str) -> Iterator[str]:
    helps = {
        found[2]: found[3]
        for line in text.splitlines()
        if (found := _FAMILY.match(line)) and found[1] == "HELP"
    }
    for family, kind in scrape.types.items():
        if family.endswith("_total") and kind != "counter":
            yield f"{family}: a {kind} whose name says counter"
        if len(helps.get(family, "").split()) < 2:
            yield f"{family}: expected a sentence of help, got {helps.get(family, '')!r}"
        for suffix, words in _UNIT_WORDS.items():
            if family.removesuffix("_total").endswith(suffix) and not any(
                w in helps.get(family, "") for w in words
            ):
                yield f"{family}: its help does not say {words[0].strip()}"


def _labels(scrape: Exposition) -> Iterator[str]:
    for one in scrape.series:
        for label in one.labels:
            if label in _OWN_IDS:
                yield f"{_shown(one)}: a label that every job or request has of its own"


def _family_of(name: str, types: Mapping[str, str]) -> str:
    if name in types:
        return name
    return next(
        (name.removesuffix(s) for s in ("_bucket", "_sum", "_count") if name.removesuffix(s) in types), name
    )


def _with(scrape: Exposition, name: str, labels: frozenset[tuple[str, str]]) -> list[float]:
    return [
        one.value for one in scrape.series if one.name == name and frozenset(one.labels.items()) == labels
    ]


def _key(one: Series) -> tuple[str, frozenset[tuple[str, str]]]:
    return one.name, frozenset(one.labels.items())


def _shown(one: Series) -> str:
    return one.name + (
        "{" + ",".join(f'{k}="{v}"' for k, v in one.labels.items()) + "}" if one.labels else ""
    )
