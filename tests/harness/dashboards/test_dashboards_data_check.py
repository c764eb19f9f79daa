"""The check of E2.data counts finite points only: a panel full of NaN is an empty panel."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import httpx
import pytest

from readiness.checking.prometheus import Curve, Prometheus, held_seconds

CHECK = "checks/dashboard/test_panels_have_data.py"


@pytest.mark.parametrize(
    ("rows", "count"),
    [
        ([], 0),
        ([{"metric": {}, "values": []}], 0),
        ([{"metric": {}, "values": [[1, "NaN"], [2, "+Inf"]]}], 0),
        ([{"metric": {}, "values": [[1, "NaN"], [2, "0"]]}, {"metric": {}, "values": [[2, "3.5"]]}], 2),
    ],
)
def test_only_finite_points_are_data(
    rows: list[dict[str, object]], count: int, load_check: Callable[[str], ModuleType]
) -> None:
    """No series, no points and 0/0 are no data; zeros are."""
    answer = {"status": "success", "data": {"resultType": "matrix", "result": rows}}
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json=answer))
    with Prometheus("http://prometheus", transport=transport) as prometheus:
        assert load_check(CHECK).points(prometheus, "x", since=0.0) == count


def test_a_query_that_prometheus_refuses_is_an_error(load_check: Callable[[str], ModuleType]) -> None:
    """A refused query is not taken for an empty one."""
    transport = httpx.MockTransport(lambda request: httpx.Response(400, json={"status": "error"}))
    with (
        Prometheus("http://prometheus", transport=transport) as prometheus,
        pytest.raises(httpx.HTTPStatusError),
    ):
        load_check(CHECK).points(prometheus, "x(", since=0.0)


@pytest.mark.parametrize(
    ("moments", "seconds"),
    [([], 0.0), ([1.0], 0.0), ([1.0, 1.5, 2.0], 1.0), ([1.0, 1.5, 4.0, 4.5, 5.0, 5.5], 1.5)],
)
def test_a_condition_holds_as_long_as_it_has_no_gap(moments: list[float], seconds: float) -> None:
    """What an alert's `for` would see: the longest stretch without a missing point."""
    curve = Curve({}, [(moment, 1.0) for moment in moments])
    assert held_seconds(curve, step=0.5) == seconds
