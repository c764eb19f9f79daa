"""Seal a run folder: manifest.json lists every file of evidence/ with its digest, and the inputs of the judge beside.

The manifest's own digest stands in scorecard.json, and every figure of scorecard.json follows from the sealed files,
so one changed byte anywhere is noticed. Who rewrites all of it together is not stopped by hashes that they can compute
as well: that takes a signature kept elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from readiness.errors import BadInput, HarnessFailure
from readiness.evidence.records import CLAIM_ID, read_chain
from readiness.evidence.writer import EVIDENCE
from readiness.judge.codec import from_json, to_json
from readiness.judge.model import EvidenceSummary

MANIFEST = "manifest.json"
MANIFEST_SCHEMA = "readiness/manifest/1"
# What the judge reads besides evidence/; listed as ../name and only when there.
INPUTS = ("plan.json", "profile.json", "context.json", "stack.json")


@dataclass(frozen=True, slots=True)
class SealedFile:
    """One file under seal. `path` is relative to evidence/; `records` and `head` belong to claim files."""

    path: str
    sha256: str
    bytes: int
    records: int | None = None
    head: str | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    schema: str
    files: tuple[SealedFile, ...]

    def file(self, path: str) -> SealedFile | None:
        """Return the entry of that path."""
        return next((entry for entry in self.files if entry.path == path), None)


def seal(run_dir: Path) -> EvidenceSummary:
    """Write evidence/manifest.json over what is there now and return its summary."""
    folder = Path(run_dir) / EVIDENCE
    if not folder.is_dir():
        raise HarnessFailure(
            f"{EVIDENCE}/: expected the run's evidence folder, got none. Run the checks first."
        )
    files = [_sealed(folder, name) for name in evidence_files(run_dir)]
    files.extend(_sealed(folder, f"../{name}") for name in INPUTS if (Path(run_dir) / name).is_file())
    text = json.dumps(to_json(Manifest(MANIFEST_SCHEMA, tuple(files))), indent=1, ensure_ascii=False) + "\n"
    temporary = folder / f".{MANIFEST}.{os.getpid()}"
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(folder / MANIFEST)
    return summary(run_dir)


def read_manifest(run_dir: Path) -> tuple[Manifest, bytes]:
    """Return the manifest and its bytes; BadInput in one line when it is missing or no manifest."""
    path = Path(run_dir) / EVIDENCE / MANIFEST
    try:
        content = path.read_bytes()
    except OSError as error:
        what = (error.strerror or type(error).__name__).lower()
        raise BadInput(
            f"{EVIDENCE}/{MANIFEST}: expected the manifest of a sealed run, got: {what}. Run `readiness run`."
        ) from None
    try:
        manifest = from_json(Manifest, json.loads(content), where=f"{EVIDENCE}/{MANIFEST}")
    except (ValueError, RecursionError):
        raise BadInput(f"{EVIDENCE}/{MANIFEST}: expected JSON, got something else. It was changed.") from None
    return manifest, content


def summary(run_dir: Path) -> EvidenceSummary:
    """Return the figures of the sealed evidence that stand in the scorecard."""
    manifest, content = read_manifest(run_dir)
    return EvidenceSummary(
        files=len(manifest.files),
        records=sum(entry.records or 0 for entry in manifest.files),
        bytes=sum(entry.bytes for entry in manifest.files),
        manifest_sha256=hashlib.sha256(content).hexdigest(),
    )


def evidence_files(run_dir: Path) -> list[str]:
    """Return the paths of all files under evidence/ but the manifest, relative to it and sorted."""
    folder = Path(run_dir) / EVIDENCE
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    return sorted(name for name in found if name != MANIFEST)


def _sealed(folder: Path, name: str) -> SealedFile:
    content = (folder / name).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    claim = name.removesuffix(".jsonl")
    if claim == name or not CLAIM_ID.fullmatch(claim):
        return SealedFile(name, digest, len(content))
    chain = read_chain(claim, content)
    return SealedFile(name, digest, len(content), len(chain.records), chain.head)
