"""Reading PromQL and /metrics texts: names, windows, comparisons."""

from __future__ import annotations

import pytest

from readiness.rules import Comparison, PromqlError, duration_seconds, exposed_names, parse_query


@pytest.mark.parametrize(
    ("expr", "metrics"),
    [
        ("up", {"up"}),
        ('sum by (a) (rate(x_total{b="c"}[5m])) / on() y', {"x_total", "y"}),
        ('{__name__="z", job="q"}', {"z"}),
        ("max_over_time(rate(x[1m])[10m:1m])", {"x"}),
        ("vector(1)", set()),
    ],
)
def test_selected_metrics_are_found(expr: str, metrics: set[str]) -> None:
    """Every metric that an expression selects is found, however deep, and nothing else."""
    assert parse_query(expr).metrics == metrics


def test_windows_are_found_in_order() -> None:
    """Ranges and subqueries are windows, in seconds; offsets are not."""
    assert parse_query("rate(a[5m]) + max_over_time(b[1h:1m]) - c offset 2d").windows_seconds == (
        300.0,
        3600.0,
    )


@pytest.mark.parametrize(
    ("expr", "expected"),
    [
        ("max(a)  >  5", Comparison("max(a)", ">", 5.0)),
        ("(sum(a) / sum(b)) >= (0.03)", Comparison("sum(a) / sum(b)", ">=", 0.03)),
        ("a > b", None),
        ("a + 1", None),
        ("a > 1 and b > 2", None),
    ],
)
def test_the_comparison_at_the_top_is_read(expr: str, expected: Comparison | None) -> None:
    """Only a comparison with a number at the very top counts, brackets aside."""
    assert parse_query(expr).comparison == expected


@pytest.mark.parametrize(
    ("expr", "compares"),
    [
        ("a > 5", True),
        ("absent(a)", True),
        ("a > 0 and b == 0", True),
        ("a unless b > 0", True),
        ("rate(a[5m])", False),
        ("a >bool 5", False),
        ("a > 5 or b", True),
    ],
)
def test_an_alert_without_a_condition_is_told_apart(expr: str, compares: bool) -> None:
    """An expression that is there whenever its series are is no condition."""
    assert parse_query(expr).compares is compares


@pytest.mark.parametrize("expr", ["", "a >", "sum(", "av_over_time(a[5m])", "rate(a)", "x" * 100_001])
def test_what_is_no_promql_is_refused(expr: str) -> None:
    """Broken, mistyped, ill-typed and endless expressions are refused with a reason."""
    with pytest.raises(PromqlError, match=r"\w"):
        parse_query(expr)


def test_durations() -> None:
    """Prometheus durations become seconds; anything else is refused."""
    assert [duration_seconds(text) for text in ("1m30s", "0s", "500ms", "1d")] == [90.0, 0.0, 0.5, 86400.0]
    with pytest.raises(PromqlError):
        duration_seconds("5 minutes")


def test_exposed_names_come_from_types_and_samples() -> None:
    """A declared family counts before its first series; histograms count by the names that PromQL selects."""
    text = (
        "# HELP h_ms Help about y_total.\n# TYPE h_ms histogram\n# TYPE c_total counter\n"
        '# TYPE s summary\ng{a="b c"} 1\nbare 2 1700000000\n'
    )
    assert exposed_names(text) == {
        "h_ms_bucket", "h_ms_sum", "h_ms_count", "c_total", "s", "s_sum", "s_count", "g", "bare"
    }  # fmt: skip
