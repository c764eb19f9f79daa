"""Which alerts have a promtool unit test, and of which kind. Runs nothing; `tools.promtool_test` does.

Source of the format: https://prometheus.io/docs/prometheus/latest/configuration/unit_testing_rules/
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

from readiness.errors import BadInput

_LOADER: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class AlertCoverage:
    """How often the tests expect this alert to fire, and how often to keep silent."""

    name: str
    firing: int
    silent: int
    files: tuple[Path, ...]


def unit_test_files(folder: Path) -> list[Path]:
    """The unit test files of a folder; none when there is no such folder."""
    return sorted(path for pattern in ("*.yml", "*.yaml") for path in folder.glob(pattern))


def alert_coverage(files: Iterable[Path]) -> dict[str, AlertCoverage]:
    """What the files expect, by alert. BadInput, with file and line, when one is no unit test file."""
    found: dict[str, AlertCoverage] = {}
    for file in files:
        for name, fires in _expectations(file):
            known = found.get(name, AlertCoverage(name, 0, 0, ()))
            found[name] = AlertCoverage(
                name=name,
                firing=known.firing + int(fires),
                silent=known.silent + int(not fires),
                files=known.files if file in known.files else (*known.files, file),
            )
    return found


def _expectations(file: Path) -> list[tuple[str, bool]]:
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=_LOADER)  # noqa: S506 - a safe loader
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{file}: expected a readable unit test file, got: {error}.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark is not None else 1
        why = getattr(error, "problem", None) or "something else"
        raise BadInput(f"{file}:{line}: expected YAML, got: {why}. Correct that line.") from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{file}:1: expected a promtool unit test file, got: {error}.") from None
    tests = content.get("tests") if isinstance(content, dict) else None
    if not isinstance(tests, list):
        raise BadInput(f"{file}:1: expected a promtool unit test file with a list `tests`. Add it.")
    cases = [
        case
        for test in tests
        if isinstance(test, dict)
        for case in test.get("alert_rule_test") or []
        if isinstance(case, dict)
    ]
    return [(str(case.get("alertname", "")), bool(case.get("exp_alerts"))) for case in cases]
