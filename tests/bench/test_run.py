"""The bench's command line, its report, and the lines that jobs write; a whole run on a real Redis for ours alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from bench import environments, report
from bench.figures import Figure, Sample, judge
from bench.peers import stage
from bench.run import choose
from bench.variants import BY_NAME, GROUPS, VARIANTS, Scenario

from readiness.errors import BadInput

TOP = Path(environments.ROOM).parent
RUN_SECONDS = 120


def bench(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the bench as a person would."""
    return subprocess.run(
        [sys.executable, "-m", "bench.run", *arguments],
        cwd=TOP,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )


def test_help_names_every_variant_and_scenario() -> None:
    """Whoever reads --help knows every word that --only takes."""
    shown = bench("--help")
    assert shown.returncode == 0
    words = shown.stdout.split()
    assert [word for word in (*BY_NAME, *GROUPS, *Scenario) if word not in words] == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--only", "sqa"), "got: 'sqa'"),
        (("--rounds", "0"), "expected a number from 1 to 50"),
        (("--redis", "/no/such/redis", "--only", "raw"), "got: /no/such/redis"),
        (("--redis", "true", "--only", "raw"), "no redis-server"),
        (("--rnds", "3"), "unrecognized arguments"),
    ],
)
def test_bad_input_is_one_line_and_status_4(arguments: tuple[str, ...], says: str, tmp_path: Path) -> None:
    """The line says what was expected; nothing is on stdout."""
    done = bench(*arguments, "--results", str(tmp_path))
    assert done.returncode == 4
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_missing_environments_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `make bench` there are no peers, and the message offers what needs none."""
    monkeypatch.setattr(environments, "_folder", lambda name: tmp_path / name)
    with pytest.raises(BadInput, match="--only ours"):
        environments.require(["most", ""], install=False)
    environments.require([""], install=False)


def test_only_takes_variants_and_scenarios_together() -> None:
    """Names choose rows, scenarios choose what is done with them; nothing chosen is everything but the crash."""
    chosen, wanted = choose("saq,ours,submit")
    assert [variant.name for variant in chosen] == ["raw", "ours", "ours-lean", "ours-real", "saq"]
    assert wanted == [Scenario.SUBMIT]
    everything, usual = choose("")
    assert everything == list(VARIANTS)
    assert Scenario.CRASH not in usual
    with pytest.raises(BadInput):
        choose("saq,everything")


def test_every_peer_has_a_module_and_an_environment() -> None:
    """A row of the table without its file would fail only after minutes."""
    for variant in VARIANTS:
        if variant.environment:
            assert (environments.ROOM / "peers" / f"{variant.module}.py").is_file()
            assert (environments.ROOM / f"requirements-{variant.environment}.txt").is_file()


def test_every_peer_of_the_table_is_pinned_with_hashes() -> None:
    """The environments are the same for everybody; no option line points to an index."""
    for lock in sorted(environments.ROOM.glob("requirements-*.txt")):
        lines = lock.read_text(encoding="utf-8").splitlines()
        entries = [line for line in lines if not line.startswith(" ")]
        assert len(entries) > 4
        assert [entry for entry in entries if "==" not in entry] == []
        assert sum("--hash=sha256:" in line for line in lines) >= len(entries)


def test_a_line_has_the_length_that_the_runner_counts_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runner divides file sizes by this."""
    monkeypatch.setattr(stage, "STAGE", stage.Stage(url="", out=str(tmp_path), worker=3))
    monkeypatch.setattr(stage, "_files", {})
    stage.body(17, 5)
    (file,) = tmp_path.glob("3-*.lines")
    assert len(file.read_bytes()) == stage.LINE_BYTES
    assert file.read_bytes().startswith(b"S 00000017 0000000000000000005 ")


def test_the_report_ends_with_the_verdict() -> None:
    """Text for people and JSON for machines say the same."""
    samples = [Sample(1, "ours", Figure.DRAIN_1, 900.0), Sample(1, "saq", Figure.DRAIN_1, 100.0)]
    lines = judge(samples)
    text = report.text(samples, lines, [], ["round 1, drain1, RQ: why"])
    assert text.splitlines()[-1].startswith("REACHED: 1 of 1")
    assert "SAQ, 50 at once" in text
    assert "RQ: why" in text
    told = json.loads(report.as_json(samples, lines, [], [], {"python": "3"}))
    assert told["verdict"] == text.splitlines()[-1]
    assert told["exit_status"] == 0
    assert told["figures"]["ours"][Figure.DRAIN_1]["median"] == 900.0


def test_ctrl_c_ends_everything(tmp_path: Path) -> None:
    """One SIGINT in the middle of a measurement: status 130, and no process of the bench is left."""
    words = ["--only", "ours,latency", "--results", str(tmp_path)]
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.run", *words], cwd=TOP, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        deadline = time.monotonic() + RUN_SECONDS
        children: list[psutil.Process] = []
        while len(children) < 2:  # redis-server and a worker
            assert time.monotonic() < deadline
            assert process.poll() is None
            children = psutil.Process(process.pid).children(recursive=True)
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert process.wait(RUN_SECONDS) == 130
        _, alive = psutil.wait_procs(children, timeout=10)
        assert alive == []
    finally:
        process.kill()
        process.communicate(timeout=10)


def test_a_run_of_ours_alone_needs_no_peer(tmp_path: Path) -> None:
    """`make bench ARGS="--only ours"`: figures, samples and facts are there, and nothing is left running."""
    if shutil.which("redis-server") is None and sys.platform != "linux":
        pytest.skip("redis-server is not on this machine: the bench needs a real one")
    words = "raw,ours,drain1,submit"
    done = bench("--only", words, "--rounds", "1", "--jobs", "200", "--json", "--results", str(tmp_path))
    assert done.returncode in (0, 1), done.stderr
    told = json.loads(done.stdout)
    assert told["not_measured"] == []
    assert told["figures"]["ours"][Figure.DRAIN_1]["median"] > 0
    assert told["figures"]["raw"][Figure.RAW_CONSUME]["median"] > 0
    (folder,) = tmp_path.iterdir()
    kept = [json.loads(line) for line in (folder / "samples.jsonl").read_text("utf-8").splitlines()]
    assert {line["variant"] for line in kept} == {"raw", "ours", "ours-lean"}
    assert json.loads((folder / "facts.json").read_text("utf-8"))["redis_server"]
    assert not (folder / "data").exists()
