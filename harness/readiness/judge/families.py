"""Many tests at once: Holm's step-down adjustment, so that a family of them has one level.

For the sections and gates of a scorecard it is not used and not needed: "all claims hold" is an intersection-union
test, in which each claim at 5 % keeps the whole at 5 %. It is for the other question, "does any of these differ?": 20
metrics at 5 % each raise a false alarm in 64 % of comparisons. Comparing two runs asks that question.

Source: Holm, Scandinavian Journal of Statistics 6 (1979).
"""

from __future__ import annotations

from collections.abc import Sequence

from readiness.judge.bounds import ALPHA


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return the adjusted p-values in the order given: the smallest family level at which each is rejected.

    ValueError for a p-value outside 0 to 1.
    """
    for p in p_values:
        if not 0 <= p <= 1:
            raise ValueError(f"expected p-values from 0 to 1, got {p}")
    count, highest = len(p_values), 0.0
    adjusted = [0.0] * count
    for step, place in enumerate(sorted(range(count), key=lambda place: p_values[place])):
        highest = max(highest, min(1.0, (count - step) * p_values[place]))
        adjusted[place] = highest
    return tuple(adjusted)


def rejected(p_values: Sequence[float], *, level: float = ALPHA) -> tuple[bool, ...]:
    """Return which null hypotheses of the family fall at `level`."""
    return tuple(p <= level for p in holm(p_values))
