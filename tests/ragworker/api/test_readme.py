"""The tables of system/README.md are the code's: settings, metrics, events, routes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from api_process import routes_of

from ragworker.api import jobs, operations
from ragworker.settings import Settings
from ragworker.store import metadata
from ragworker.telemetry import METRICS

SYSTEM = Path(__file__).resolve().parents[3] / "system"
README = (SYSTEM / "README.md").read_text("utf-8")

#: What an event's name begins with; a string of this shape in the code is an event (`http.request.method` is a span's).
EVENT = re.compile(
    r"(api|auth|background|embedding|events|exception|job|lease|limit|log|process|queue|redis|settings|store|tempfiles"
    r"|thread|tracing|worker|http\.request(?!\.method))\.[a-z_]+"
)


def first_column(heading: str) -> list[list[str]]:
    """The cells of the table below a heading, row by row."""
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in row] for row in rows]


def strings_of(module: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_metric_table_is_the_code() -> None:
    """Every metric is in the table with its type, labels and help, in the code's order."""
    expected = [
        [f"`{spec.name}`", str(spec.kind), ", ".join(f"`{label}`" for label in spec.labels), spec.help]
        for spec in METRICS
    ]
    assert first_column("Metrics") == expected


def test_settings_table_is_the_code() -> None:
    """Every variable that settings.py reads is in the table, and no other."""
    read = {
        text
        for text in strings_of(SYSTEM / "ragworker/settings.py")
        if re.fullmatch(r"[A-Z]+(_[A-Z]+)+", text)
    }
    assert {row[0].strip("`") for row in first_column("Settings")} == read


def test_defaults_of_the_settings_table_are_accepted() -> None:
    """The defaults as the table shows them parse to the very settings that an empty environment gives."""
    shown = {row[0].strip("`"): row[1].strip("`") for row in first_column("Settings")}
    environ = {name: value for name, value in shown.items() if value and not value.startswith("<")}
    assert len(environ) > 25
    assert Settings.load(environ) == Settings.load({})


def test_event_table_is_the_code() -> None:
    """Every event that the code can log is in the table, and no other."""
    found = {
        text
        for module in (SYSTEM / "ragworker").rglob("*.py")
        for text in strings_of(module)
        if EVENT.fullmatch(text)
    }
    assert {row[0].strip("`") for row in first_column("Logs")} == found


def test_route_table_is_the_code() -> None:
    """Every route is in the table, and no other."""
    served = {
        f"{method} {path}".replace("{job_id}", "{id}")
        for method, path in routes_of(*jobs.routers, operations.router)
    }
    shown = {row[0].strip("`").partition("?")[0] for row in first_column("HTTP API")}
    assert shown == served


def test_stored_tables_are_those_of_the_code() -> None:
    """What an outside observer may count in SQL is documented with its columns, in their order."""
    section = README.split("\n### What is stored\n")[1].split("\n## ")[0]
    written = {
        row.split("|")[1].strip(" `"): re.findall(r"`(\w+)`", row.split("|")[2])
        for row in section.splitlines()
        if row.startswith("| `")
    }
    assert written == {
        table.name: [column.name for column in table.columns] for table in metadata.tables.values()
    }
