"""Gauges say what is so at each moment, and come back: after a drain, a closed stream, the death of the only worker."""

from __future__ import annotations

import pytest

from readiness.checking.fates import HELD_PCT, SLOTS, STREAMS, Fates
from readiness.checking.recorder import ClaimEvidence

FAULT = "worker killed with SIGKILL"
TOLERANCE_PCT = 0.02  # rounding

# What each gauge must be at each moment of the scenario.
MOMENTS: dict[str, dict[str, float]] = {
    "start": {"rag_queue_length": 0, "worker_active_jobs": 0, "memory_token_used_pct": 0, "rag_workers": 1},
    "ended": {"rag_queue_length": 0, "worker_active_jobs": 0, "rag_jobs_unfinished": 0, "rag_workers": 1},
    "held": {"rag_queue_length": 0, "worker_active_jobs": SLOTS, "rag_jobs_unfinished": SLOTS},
    "streams": {"sse_connections_open": STREAMS, "worker_active_jobs": SLOTS},
    "closed": {"sse_connections_open": 0, "worker_active_jobs": SLOTS},
    "line": {"rag_queue_length": 9, "worker_active_jobs": SLOTS, "rag_jobs_unfinished": SLOTS + 9},
    # Nobody lives who could lower a gauge: two jobs are unfinished, none is active.
    "killed": {
        "rag_queue_length": 0,
        "worker_active_jobs": 0,
        "memory_token_used_pct": 0,
        "rag_workers": 0,
        "rag_jobs_unfinished": 2,
    },
    "end": {
        "rag_queue_length": 0,
        "worker_active_jobs": 0,
        "rag_jobs_unfinished": 0,
        "memory_token_used_pct": 0,
        "sse_connections_open": 0,
        "rag_workers": 1,
    },
}


@pytest.mark.claim("E1.gauges")
def test_gauges_come_back(fates: Fates, evidence: ClaimEvidence) -> None:
    """Waiting, active and unfinished jobs, tokens held, open streams and live workers, at eight moments."""
    wrong: list[str] = []
    for moment, gauges in MOMENTS.items():
        for name, wanted in gauges.items():
            values = fates.scrapes[moment].values(name)
            if values != [wanted]:
                wrong.append(f"{name} at {moment!r}: expected {wanted:g}, got {values}")
    # While three requests hang, each with a batch of known words, the worker holds just those tokens.
    tokens = fates.scrapes["line"].total("memory_token_used_pct")
    if abs(tokens - HELD_PCT) > TOLERANCE_PCT:
        wrong.append(f"memory_token_used_pct while jobs are held: expected {HELD_PCT:.2f}, got {tokens:g}")
    n = sum(map(len, MOMENTS.values())) + 1
    evidence.cases(n, min(n, len(wrong)), wrong, "gauges at moments whose truth is known", fault=FAULT)
    evidence.facts(token_used_pct=tokens)
    assert not wrong, wrong[0]
