"""Whether the harness may be believed: the one place of the rules that make a claim INVALID.

A generator that was late, starved or lighter than planned measured something else than the claim says, and a fault that
was never active proves nothing. The steps write down what they saw of themselves (`facts` records with the key
`validity`, and the fault ledger); each rule here names its own reason. What a rule needs and was not recorded breaks
none: steps that put no load on anything have nothing to say about arrivals.

A target that is slow, silent or loses jobs breaks no rule: that is the target's, and a matter of figures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from readiness.evidence.records import Record
from readiness.judge.figures import plain
from readiness.judge.ledger import LEDGER
from readiness.judge.model import Reason
from readiness.judge.profile_model import Claim, EstimatorKind

VALIDITY = "validity"
"""Key of the `facts` that a step records about itself."""

LEAST_ARRIVED = 0.98
MOST_LAG_OF_TARGET = 0.05
MOST_WAKE_LAG_OF_TARGET = 0.2
MOST_CPU_SHARE = 0.8
MOST_GAP_INTERVALS = 2.0
NO_TIME_TARGET_MS = 5_000.0
"""What lag is compared with where the target is no time (rates, counts): later than 250 ms is another load."""

IN_MS = {"ms": 1.0, "s": 1e3, "min": 6e4, "h": 3.6e6}
TIMED = (EstimatorKind.PERCENTILE, EstimatorKind.WORST)

Facts = Mapping[str, object]
Params = dict[str, str | int | float]


def broken_rule(claim: Claim, records: Sequence[Record]) -> Reason | None:
    """Return the first rule that the harness broke while it measured `claim`; None when all hold."""
    for record in records:
        if record.kind != "facts":
            continue
        facts, ledger = record.data.get(VALIDITY), record.data.get(LEDGER)
        for code, rule in RULES:
            params = rule(facts, claim) if isinstance(facts, Mapping) else None
            if params is not None:
                return Reason(code, params)
        for line in ledger if isinstance(ledger, list) else ():
            if isinstance(line, Mapping) and (code := _unproven_fault(line)):
                return Reason(code, {"fault": str(line.get("name", ""))})
    return None


def _arrivals(facts: Facts, _: Claim) -> Params | None:
    planned, made = _number(facts, "planned"), _number(facts, "made")
    if planned is None or made is None or made >= LEAST_ARRIVED * planned:
        return None
    return {"made": int(made), "planned": int(planned), "least": f"{LEAST_ARRIVED:.0%}"}


def _schedule(facts: Facts, claim: Claim) -> Params | None:
    target = _target_ms(claim)
    for key, share in (("late_ms_p99", MOST_LAG_OF_TARGET), ("wake_late_ms_p95", MOST_WAKE_LAG_OF_TARGET)):
        lag = _number(facts, key)
        if lag is not None and lag >= share * target:
            return {"lag": f"{plain(lag, away=1)} ms", "limit": f"{plain(share * target)} ms"}
    return None


def _cpu(facts: Facts, _: Claim) -> Params | None:
    share = _number(facts, "cpu_share")
    if share is None or share < MOST_CPU_SHARE:
        return None
    return {"share": f"{share:.0%}", "most": f"{MOST_CPU_SHARE:.0%}"}


def _scrapes(facts: Facts, _: Claim) -> Params | None:
    gap = _number(facts, "scrape_gap_intervals")
    if gap is None or gap <= MOST_GAP_INTERVALS:
        return None
    return {"gap": plain(gap, away=1), "most": plain(MOST_GAP_INTERVALS)}


def _counts(facts: Facts, _: Claim) -> Params | None:
    made, server = _number(facts, "made"), _number(facts, "server_jobs")
    if made is None or server is None or server <= made:
        return None
    return {"client": int(made), "server": int(server)}


def _clocks(facts: Facts, _: Claim) -> Params | None:
    backwards = _number(facts, "clock_backwards")
    return {"count": int(backwards)} if backwards else None


RULES: Sequence[tuple[str, Callable[[Facts, Claim], Params | None]]] = (
    ("harness_clock", _clocks),
    ("harness_arrivals", _arrivals),
    ("harness_cpu", _cpu),
    ("harness_schedule", _schedule),
    ("harness_scrapes", _scrapes),
    ("harness_counts", _counts),
)


def _unproven_fault(line: Facts) -> str:
    """A fault whose outcome counts must have been proven active, and one that was survived proven healed."""
    outcome = line.get("outcome")
    if outcome in ("survived", "failed") and not line.get("active"):
        return "harness_fault_idle"
    return "harness_fault_stays" if outcome == "survived" and not line.get("healed") else ""


def _target_ms(claim: Claim) -> float:
    estimator = claim.estimator
    if estimator.kind in TIMED and estimator.unit in IN_MS:
        return estimator.limit * IN_MS[estimator.unit]
    return NO_TIME_TARGET_MS


def _number(facts: Facts, key: str) -> float | None:
    value = facts.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
