"""What a check writes down: measurements bound to the claims of one test.

Refuses figures that cannot be true (more failures than cases, NaN samples) before they reach the evidence
file. Leaves the file, its hash chain and its lock to readiness.evidence, and every judgement to the judge.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from readiness.evidence import EvidenceWriter

EXAMPLES = 10  # as many failing cases as a reader looks at; the count says how many there were


class Writer(Protocol):
    """The part of EvidenceWriter that a recorder needs."""

    def record(
        self, claim: str, kind: str, data: Any, *, fault: str | None = None, check: str | None = None
    ) -> None: ...

    def attach(self, claim: str, path: Path, *, name: str | None = None) -> None: ...


class Nowhere:
    """The writer of a marked test outside of a run: figures are still checked, and kept by nobody."""

    def record(
        self, claim: str, kind: str, data: Any, *, fault: str | None = None, check: str | None = None
    ) -> None:
        """Write nothing."""

    def attach(self, claim: str, path: Path, *, name: str | None = None) -> None:
        """Copy nothing."""


class ClaimEvidence:
    """Evidence of one test. With one claim on the test ``claim`` may be left out; with several it must be
    named.
    """

    def __init__(self, writer: Writer | EvidenceWriter, *, claims: Sequence[str], check: str) -> None:
        self._writer = writer
        self._claims = tuple(claims)
        self._check = check
        self.measured: set[str] = set()

    def cases(
        self,
        n: int,
        failures: int = 0,
        examples: Iterable[object] = (),
        what: str = "cases",
        *,
        claim: str | None = None,
        fault: str | None = None,
    ) -> None:
        """``n`` deterministic cases were checked, ``failures`` of them were wrong; ``examples`` names some
        of those.
        """
        _require_counts(n, failures, "cases")
        shown = [str(example) for example in examples][:EXAMPLES]
        data = {"n": n, "failures": failures, "examples": shown, "what": what}
        self._measure(claim, "cases", data, n, fault)

    def trials(
        self,
        n: int,
        failures: int = 0,
        unit: str = "trials",
        *,
        examples: Iterable[object] = (),
        claim: str | None = None,
        fault: str | None = None,
    ) -> None:
        """``n`` independent trials of one kind (jobs, windows, lines), ``failures`` of them violations."""
        _require_counts(n, failures, "trials")
        data: dict[str, Any] = {"n": n, "failures": failures, "unit": unit}
        if shown := [str(example) for example in examples][:EXAMPLES]:
            data["examples"] = shown
        self._measure(claim, "trials", data, n, fault)

    def samples(
        self,
        values: Iterable[float],
        unit: str,
        what: str,
        *,
        ordered: bool = False,
        claim: str | None = None,
        fault: str | None = None,
    ) -> None:
        """Every measured value, none left out; ``unit`` is one of s, ms, %, jobs and the like.

        ``ordered`` says that they stand in the order of time and come one after the other from one system: the judge
        then counts neighbours that are alike for fewer.
        """
        figures = [float(value) for value in values]
        if not all(math.isfinite(value) for value in figures):
            raise ValueError(f"expected finite samples of {what}, got: {figures}")
        data: dict[str, Any] = {
            "values": figures,
            "unit": unit,
            "what": what,
            **({"ordered": True} if ordered else {}),
        }
        self._measure(claim, "samples", data, len(figures), fault)

    @contextmanager
    def duration(self, what: str, *, claim: str | None = None, fault: str | None = None) -> Iterator[None]:
        """Measure the block on the monotonic clock and keep it as one sample in seconds, unless it raises."""
        began = time.monotonic()
        yield
        self.samples([time.monotonic() - began], "s", what, claim=claim, fault=fault)

    def exposure(
        self,
        seconds: float,
        failures: int = 0,
        replicas: int = 1,
        *,
        claim: str | None = None,
        fault: str | None = None,
    ) -> None:
        """The system was under observation for ``seconds`` and failed ``failures`` times by itself."""
        data = {"seconds": float(seconds), "failures": failures, "replicas": replicas}
        self._measure(claim, "exposure", data, int(seconds > 0), fault)

    def facts(self, *, claim: str | None = None, **facts: Any) -> None:
        """Anything worth showing, not judged."""
        for one in [self._which(claim)] if claim is not None else self._claims:
            self._writer.record(one, "facts", facts, check=self._check)

    def timeline(
        self,
        *,
        faults: Iterable[tuple[str, float, float]] = (),
        curves: Mapping[tuple[str, str], Sequence[tuple[float, float]]] | None = None,
        claim: str | None = None,
    ) -> None:
        """What belongs on the report's time axis, in milliseconds since the epoch.

        ``faults`` are (name, injected, recovered); ``curves`` are (name, unit) -> points of (moment, value).
        """
        windows = [{"name": name, "start_ms": start, "end_ms": end} for name, start, end in faults]
        series = [
            {"name": name, "unit": unit, "points": [list(point) for point in points]}
            for (name, unit), points in (curves or {}).items()
        ]
        one = self._which(claim)
        self._writer.record(
            one, "facts", {"timeline": {"faults": windows, "series": series}}, check=self._check
        )

    def attach(self, path: Path, *, claim: str | None = None, name: str | None = None) -> None:
        """Keep a copy of ``path`` with the evidence, with its digest."""
        for one in [self._which(claim)] if claim is not None else self._claims:
            self._writer.attach(one, path, name=name)

    def _measure(self, claim: str | None, kind: str, data: Any, n: int, fault: str | None) -> None:
        one = self._which(claim)
        self._writer.record(one, kind, data, fault=fault, check=self._check)
        if n > 0:
            self.measured.add(one)

    def _which(self, claim: str | None) -> str:
        if claim is None and len(self._claims) == 1:
            return self._claims[0]
        if claim is None:
            raise ValueError(
                f"expected claim=… because {self._check} carries {len(self._claims)} claims: {self._claims}"
            )
        if claim not in self._claims:
            raise ValueError(
                f"expected one of the claims that {self._check} is marked with {self._claims}, got: {claim!r}"
            )
        return claim


def _require_counts(n: int, failures: int, what: str) -> None:
    if not 0 <= failures <= n:
        raise ValueError(f"expected 0 <= failures <= n {what}, got: failures={failures}, n={n}")
