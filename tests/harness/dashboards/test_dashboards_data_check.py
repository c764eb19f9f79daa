"""The check of E2.data counts finite points only: a panel full of NaN is an empty panel."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import httpx
import pytest


@pytest.mark.parametrize(
    ("rows", "count"),
    [
        ([], 0),
        ([{"values": []}], 0),
        ([{"values": [[1, "NaN"], [2, "+Inf"]]}], 0),
        ([{"values": [[1, "NaN"], [2, "0"]]}, {"values": [[2, "3.5"]]}], 2),
    ],
)
def test_only_finite_points_are_data(
    rows: list[dict[str, object]], count: int, load_check: Callable[[str], ModuleType]
) -> None:
    """No series, no points and 0/0 are no data; zeros are."""
    answer = {"status": "success", "data": {"resultType": "matrix", "result": rows}}
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json=answer))
    check = load_check("checks/dashboard/test_panels_have_data.py")
    with httpx.Client(base_url="http://prometheus", transport=transport) as client:
        assert check.points(client, "x", since=0.0) == count


def test_a_query_that_prometheus_refuses_is_an_error(load_check: Callable[[str], ModuleType]) -> None:
    """A refused query is not taken for an empty one."""
    transport = httpx.MockTransport(lambda request: httpx.Response(400, json={"status": "error"}))
    check = load_check("checks/dashboard/test_panels_have_data.py")
    with (
        httpx.Client(base_url="http://prometheus", transport=transport) as client,
        pytest.raises(httpx.HTTPStatusError),
    ):
        check.points(client, "x(", since=0.0)
