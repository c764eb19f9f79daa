"""Evidence as written: chained, whole under several writers, honest about what a crash cut off."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from readiness.evidence import EvidenceWriter, read_claim, read_claim_file
from readiness.evidence.records import make_record, read_chain

WRITE_MANY = """
import sys
from pathlib import Path
from readiness.evidence import EvidenceWriter
writer = EvidenceWriter(Path(sys.argv[1]), command="writer " + sys.argv[2])
for n in range(40):
    writer.record("A5.kill", "trials", {"n": n, "failures": 0, "unit": "jobs", "writer": sys.argv[2]})
"""


def test_records_come_back_as_written(tmp_path: Path) -> None:
    """A record is read back with its data, its order and a chain from 64 zeros on."""
    writer = EvidenceWriter(tmp_path, command="readiness run")
    writer.record(
        "H1.job_p95", "samples", {"values": [1.5, 2.25], "unit": "s"}, check="a.py::b", fault="kill"
    )
    writer.record("H1.job_p95", "outcome", {"outcome": "passed", "reason": "한국어 \u2028"})
    first, second = read_claim(tmp_path, "H1.job_p95")
    assert (first.seq, first.prev, first.check, first.fault) == (0, "0" * 64, "a.py::b", "kill")
    assert first.data == {"values": [1.5, 2.25], "unit": "s"}
    assert (second.seq, second.prev, second.command) == (1, first.hash, "readiness run")
    assert second.data["reason"] == "한국어 \u2028"


def test_writers_in_several_processes_share_one_chain(tmp_path: Path) -> None:
    """Four processes that append at once leave one unbroken chain with all their records."""
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITE_MANY, str(tmp_path), str(number)])
        for number in range(4)
    ]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0, 0]
    file = read_claim_file(tmp_path, "A5.kill")
    assert (file.broken, file.torn, len(file.records)) == ("", "", 160)
    assert {record.data["writer"] for record in file.records} == {"0", "1", "2", "3"}


def test_torn_line_is_named_and_finished_records_stay(tmp_path: Path) -> None:
    """A line that a crash cut short is named; the records before it can still be read, at every length of the rest."""
    writer = EvidenceWriter(tmp_path, command="c")
    for n in range(3):
        writer.record("A5.kill", "trials", {"n": n, "failures": 0})
    content = (tmp_path / "evidence" / "A5.kill.jsonl").read_bytes()
    start = content.rfind(b"\n", 0, -1) + 1
    for end in range(start + 1, len(content)):
        file = read_chain("A5.kill", content[:end])
        assert len(file.records) == 2
        assert "line 3: unfinished" in file.torn
        assert not file.broken


def test_next_writer_cuts_the_torn_line_and_says_so(tmp_path: Path) -> None:
    """After a crash the chain goes on, and a record tells how much was cut off."""
    EvidenceWriter(tmp_path, command="c").record("A5.kill", "trials", {"n": 1, "failures": 0})
    path = tmp_path / "evidence" / "A5.kill.jsonl"
    with path.open("ab") as stream:
        stream.write(b'{"claim":"A5.kill","data":{"n":9')
    EvidenceWriter(tmp_path, command="c").record("A5.kill", "trials", {"n": 2, "failures": 0})
    file = read_claim_file(tmp_path, "A5.kill")
    assert (file.broken, file.torn) == ("", "")
    assert [record.data for record in file.records] == [
        {"n": 1, "failures": 0},
        {"torn_line_cut_bytes": 32},
        {"n": 2, "failures": 0},
    ]


def test_every_changed_byte_breaks_the_chain(tmp_path: Path) -> None:
    """Whatever single byte of a claim's file changes, the chain alone tells that it did, without a manifest."""
    writer = EvidenceWriter(tmp_path, command="c")
    for n in range(3):
        writer.record("A5.kill", "trials", {"n": n, "failures": 0, "unit": "jobs"})
    content = (tmp_path / "evidence" / "A5.kill.jsonl").read_bytes()
    draw = random.Random(1)
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= draw.randrange(1, 256)
        file = read_chain("A5.kill", bytes(changed))
        assert file.broken or file.torn, f"byte {position}"


@pytest.mark.parametrize("order", [(1, 0, 2), (0, 2), (0, 1, 1, 2), (1, 2)])
def test_moved_dropped_and_doubled_lines_break_the_chain(tmp_path: Path, order: tuple[int, ...]) -> None:
    """Whole lines that are good in themselves are refused in another place."""
    writer = EvidenceWriter(tmp_path, command="c")
    for n in range(3):
        writer.record("A5.kill", "trials", {"n": n, "failures": 0})
    lines = (tmp_path / "evidence" / "A5.kill.jsonl").read_bytes().splitlines(keepends=True)
    assert read_chain("A5.kill", b"".join(lines[index] for index in order)).broken


def test_rewritten_record_breaks_the_chain_at_its_successor(tmp_path: Path) -> None:
    """A record that was rewritten with a good hash of its own no longer fits the record after it."""
    writer = EvidenceWriter(tmp_path, command="c")
    for _ in range(3):
        writer.record("A5.kill", "trials", {"n": 100, "failures": 2})
    lines = (tmp_path / "evidence" / "A5.kill.jsonl").read_bytes().splitlines(keepends=True)
    body = json.loads(lines[1])
    del body["hash"]
    _, lines[1] = make_record({**body, "data": {"n": 100, "failures": 0}})
    file = read_chain("A5.kill", b"".join(lines))
    assert file.broken.startswith("line 3: expected prev ")
    assert len(file.records) == 2


def test_another_spelling_of_a_record_is_refused(tmp_path: Path) -> None:
    """A line has one spelling: the same values with other spaces or key order are not what was written."""
    EvidenceWriter(tmp_path, command="c").record("A5.kill", "trials", {"n": 100, "failures": 0})
    line = (tmp_path / "evidence" / "A5.kill.jsonl").read_bytes()
    spaced = json.dumps(json.loads(line)).encode() + b"\n"
    assert spaced != line
    assert "expected canonical JSON" in read_chain("A5.kill", spaced).broken


def test_evidence_of_another_claim_is_refused(tmp_path: Path) -> None:
    """A claim cannot be proven with a copy of another claim's file."""
    EvidenceWriter(tmp_path, command="c").record("A5.once", "trials", {"n": 500, "failures": 0})
    content = (tmp_path / "evidence" / "A5.once.jsonl").read_bytes()
    file = read_chain("A5.kill", content)
    assert not file.records
    assert "expected claim A5.kill, got A5.once" in file.broken


def test_nan_is_kept_as_what_it_is(tmp_path: Path) -> None:
    """A value that is no number is recorded in strict JSON, for the judge to refuse."""
    EvidenceWriter(tmp_path, command="c").record(
        "H1.job_p95", "samples", {"values": [float("nan"), float("inf")]}
    )
    line = (tmp_path / "evidence" / "H1.job_p95.jsonl").read_text(encoding="utf-8")
    assert json.loads(line, parse_constant=pytest.fail)["data"] == {"values": ["nan", "inf"]}


@pytest.mark.parametrize("claim", ["../x", "a/b", "", ".", "A5..kill", "A5.kill\n", "..", "A5.kill/../../x"])
def test_claim_id_cannot_leave_the_folder(tmp_path: Path, claim: str) -> None:
    """An id that is more than a file name is refused before anything is written."""
    with pytest.raises(ValueError, match="claim id: expected"):
        EvidenceWriter(tmp_path, command="c").record(claim, "facts", {})
    assert not list(tmp_path.rglob("*.jsonl"))


def test_attachments_of_one_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    """Two files of the same name both stay, each under the digest that its record carries."""
    writer = EvidenceWriter(tmp_path / "run", command="c")
    for number in range(2):
        source = tmp_path / str(number) / "worker.log"
        source.parent.mkdir()
        source.write_text(f"run {number}\n", encoding="utf-8")
        writer.attach("A5.kill", source)
        writer.attach("A5.kill", source)
    paths = [str(record.data["path"]) for record in read_claim(tmp_path / "run", "A5.kill")]
    assert paths == ["evidence/raw/worker.log"] * 2 + ["evidence/raw/worker-2.log"] * 2
    assert [(tmp_path / "run" / path).read_text(encoding="utf-8") for path in paths[1:3]] == [
        "run 0\n",
        "run 1\n",
    ]
