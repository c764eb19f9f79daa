"""Every scrape is text as Prometheus wants it, and what may only rise never falls, whoever dies in between."""

from __future__ import annotations

from itertools import pairwise

import pytest

from readiness.checking.exposition_faults import fallen, faults
from readiness.checking.fates import Fates
from readiness.checking.recorder import ClaimEvidence

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
FAULT = "worker killed with SIGKILL"


@pytest.mark.claim("E1.format")
def test_every_scrape_is_sound(fates: Fates, evidence: ClaimEvidence) -> None:
    """Names, types, help, units, order, buckets and sums of all scrapes; counters across two killed workers."""
    wrong = [f"{moment}: {fault}" for moment, text in fates.texts.items() for fault in faults(text)]
    for before, after in pairwise(fates.scrapes):
        wrong += [
            f"from {before!r} to {after!r}: {fault}"
            for fault in fallen(fates.scrapes[before], fates.scrapes[after])
        ]
    kind = fates.lane.http().get("/metrics").headers.get("content-type", "")
    if kind != CONTENT_TYPE:
        wrong.append(f"/metrics: expected content type {CONTENT_TYPE}, got {kind}")
    n = max(2 * len(fates.texts), len(wrong))
    evidence.cases(n, len(wrong), wrong, "scrapes as texts, and each beside the one before", fault=FAULT)
    evidence.facts(series={moment: len(scrape.series) for moment, scrape in fates.scrapes.items()})
    assert not wrong, wrong[0]
