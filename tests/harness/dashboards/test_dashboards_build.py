"""The committed dashboard is what its source builds, and the source needs nothing but itself."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

BUILD_SECONDS = 30.0


def build(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the builder of a folder, isolated from this environment's packages."""
    return subprocess.run(
        [sys.executable, "-I", str(folder / "build.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )


def test_the_committed_dashboard_is_fresh(repository: Path) -> None:
    """`python dashboards/build.py` would write what is committed, byte for byte."""
    done = build(repository / "dashboards", "--check")
    assert (done.returncode, done.stdout) == (0, "ragworker.json is fresh\n"), done


def test_the_builder_stands_alone_and_is_deterministic(repository: Path, tmp_path: Path) -> None:
    """Copied alone to another folder it writes the same bytes, twice; a stale file is said to be stale."""
    shutil.copy(repository / "dashboards" / "build.py", tmp_path)
    built = tmp_path / "ragworker.json"
    assert build(tmp_path, "--check").returncode == 1
    for _ in range(2):
        assert build(tmp_path).returncode == 0
        assert built.read_bytes() == (repository / "dashboards" / "ragworker.json").read_bytes()
    built.write_text(built.read_text(encoding="utf-8").replace('"30s"', '"31s"', 1), encoding="utf-8")
    stale = build(tmp_path, "--check")
    assert stale.returncode == 1
    assert "stale" in stale.stdout


def test_grafana_9_finds_what_it_needs(repository: Path) -> None:
    """What Grafana 9.0 reads on import is there: uid, no id, schema 36, unique panel ids, targets with refId."""
    board = json.loads((repository / "dashboards" / "ragworker.json").read_text(encoding="utf-8"))
    assert board["id"] is None
    assert (board["uid"], board["schemaVersion"]) == ("ragworker-core", 36)
    assert len(board["uid"]) <= 40
    assert [panel["id"] for panel in board["panels"]] == list(range(1, 11))
    (variable,) = board["templating"]["list"]
    assert (variable["name"], variable["type"], variable["query"]) == (
        "datasource",
        "datasource",
        "prometheus",
    )
    for panel in board["panels"]:
        assert panel["type"] == "timeseries"
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["fieldConfig"]["defaults"]["thresholds"]["mode"] == "absolute"
        for target in panel["targets"]:
            assert target["refId"]
            assert target["expr"]
            assert target["datasource"] == panel["datasource"]
