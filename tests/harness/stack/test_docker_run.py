"""The same checks give the same verdicts on parts in containers as on those of this machine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CLAIMS = ("A5.redis_restart", "A5.kill", "C1.backoff", "E1.scraped", "F10.delivery")
SEED = 7
RUN_SECONDS = 300.0

READINESS = (sys.executable, "-m", "readiness")
REPOSITORY = Path(__file__).resolve().parents[3]


def run(reports: Path, *words: str) -> dict[str, Any]:
    """The scorecard of `readiness run` with these words and the claims above."""
    only = [word for claim in CLAIMS for word in ("--only", claim)]
    common = ["--root", str(REPOSITORY), "--reports", str(reports), "--seed", str(SEED), "--json"]
    done = subprocess.run(
        [*READINESS, "run", *common, *only, *words],
        cwd=reports.parent,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    assert done.returncode in (0, 1, 2), done.stderr[-2000:]
    card = json.loads(done.stdout)
    assert isinstance(card, dict)
    return card


def verdicts(card: dict[str, Any]) -> dict[str, str]:
    """Claim -> verdict of those that were asked for."""
    return {claim["id"]: claim["verdict"] for claim in card["claims"] if claim["id"] in CLAIMS}


def providers(card: dict[str, Any]) -> dict[str, str]:
    """Part -> provider."""
    return {part["name"]: part["provider"] for part in card["parts"]}


def test_same_checks_same_verdicts(
    tmp_path: Path, docker: str, require_part: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills of workers and Redis, retries, scraping and delivery of alerts: all proven, whoever runs the parts."""
    for name in ("redis-server", "prometheus", "prometheus-alertmanager"):
        require_part(name)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    contained = run(tmp_path / "docker", "--redis", "docker", "--sql", "docker", "--monitoring", "docker")
    local = run(tmp_path / "local", "--redis", "local")
    parts = ("redis", "sql", "prometheus", "alertmanager")
    assert [providers(contained)[name] for name in parts] == ["docker"] * 4
    assert "docker" not in providers(local).values()
    assert verdicts(contained) == verdicts(local)
    assert verdicts(local) == dict.fromkeys(CLAIMS, "PROVEN")
    listed = ["docker", "ps", "--all", "--quiet", "--filter", "label=readiness.run"]
    assert subprocess.run(listed, capture_output=True, text=True, check=True).stdout == ""
