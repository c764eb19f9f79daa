"""Fire every two alerts together at the running Alertmanager and see which of them keeps the other quiet.

Each pair has an environment of its own, so that no third alert has a part in it. Which pairs should be quiet is the
caller's to say. Messages go to the sinks as always and are not looked at: `delivery.py` does that.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from itertools import combinations

from readiness.rules.delivery import Posted, Wires

SETTLE_SECONDS = 0.3
"""After the answer is as expected: an alert that is muted late would be seen by then."""

POLL_SECONDS = 0.1
FIRING_FOR = timedelta(minutes=1)

Pair = tuple[str, str]
"""Source and target: the first keeps the second quiet."""


def muted_pairs(
    wires: Wires, alerts: Sequence[Posted], *, expected: Collection[Pair], seconds: float
) -> set[Pair]:
    """The pairs in which one mutes the other, as they are when they equal `expected`, or after `seconds`."""
    nonce = f"pair-{uuid.uuid4().hex[:8]}-"
    pairs = {f"{nonce}{place:03d}-": pair for place, pair in enumerate(combinations(alerts, 2))}
    now = datetime.now(UTC)
    wires.post(
        [
            {
                "labels": {**alert.labels, "environment": environment},
                "annotations": dict(alert.annotations),
                "startsAt": now.isoformat(),
                "endsAt": (now + FIRING_FOR).isoformat(),
            }
            for environment, pair in pairs.items()
            for alert in pair
        ]
    )
    deadline = time.monotonic() + seconds
    while True:
        seen = wires.muted_pairs(nonce)
        found = {(_other(pairs[environment], name), name) for environment, name, muted in seen if muted}
        settled = len(seen) == 2 * len(pairs) and found == set(expected)
        if settled:
            time.sleep(SETTLE_SECONDS)
            again = wires.muted_pairs(nonce)
            return {(_other(pairs[environment], name), name) for environment, name, muted in again if muted}
        if time.monotonic() >= deadline:
            return found
        time.sleep(POLL_SECONDS)


def _other(pair: tuple[Posted, Posted], name: str) -> str:
    return pair[1].name if pair[0].name == name else pair[0].name
