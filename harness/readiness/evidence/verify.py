"""Judge a sealed run folder again, and find whatever in it was changed since it was sealed.

`judge_run` is the way from a folder to a scorecard, for a run that just ended and for one a year old: it reads the
profile and the context that were recorded, never today's. `verify_run` compares digests, chains and every figure of
scorecard.json with that, and names each file or claim that does not agree.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from readiness.errors import BadInput
from readiness.evidence.records import ClaimFile
from readiness.evidence.sealing import INPUTS, MANIFEST, Manifest, evidence_files, read_manifest, summary
from readiness.evidence.writer import EVIDENCE, RAW, file_digest, read_all
from readiness.judge.charts import Charts
from readiness.judge.codec import JsonValue, from_json
from readiness.judge.judging import judge
from readiness.judge.model import RunContext, Scorecard
from readiness.judge.profile_model import Profile, content_hash

SCORECARD = "scorecard.json"
SERIES = "series.json"
# Enough to see what happened to a folder; a report of thousands of lines is read by nobody.
MOST_FINDINGS = 200

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something in the folder that does not agree: the file or claim, and what is wrong with it."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def judge_run(run_dir: Path) -> Scorecard:
    """Return the scorecard of a sealed run folder, from the evidence that is there now.

    A claim file that is gone makes its claim NOT_RUN, one that was changed or added after sealing makes it INVALID.
    BadInput when manifest, profile.json or context.json is missing, unreadable or changed.
    """
    folder = Path(run_dir)
    manifest, _ = read_manifest(folder)
    for name in INPUTS:
        problem = _problem(folder, f"../{name}", manifest)
        if problem:
            raise BadInput(
                f"{name}: expected the file that was sealed, got: {problem}. Run `readiness run` again."
            )
    profile = _read(folder / "profile.json", Profile)
    context = _read(folder / "context.json", RunContext)
    charts = Charts()
    if (folder / EVIDENCE / RAW / SERIES).is_file():
        charts = _read(folder / EVIDENCE / RAW / SERIES, Charts)
    evidence = {name: _trusted(folder, file, manifest) for name, file in read_all(folder).items()}
    return judge(profile, evidence, context, sealed=summary(folder), charts=charts)


def verify_run(run_dir: Path) -> list[Finding]:
    """Return what does not agree in a run folder; empty when every figure follows from untouched evidence.

    BadInput when the folder is no finished run at all.
    """
    folder = Path(run_dir)
    if not (folder / EVIDENCE).is_dir() or not (folder / SCORECARD).is_file():
        raise BadInput(
            f"{folder.name}: expected a run folder with {EVIDENCE}/ and {SCORECARD}, got another folder. "
            "Give one of reports/runs/."
        )
    findings = list(_seal_findings(folder))
    findings.extend(_registration_findings(folder))
    findings.extend(_chain_findings(folder))
    findings.extend(_figure_findings(folder))
    return list(dict.fromkeys(findings))[:MOST_FINDINGS]


def _seal_findings(folder: Path) -> Iterator[Finding]:
    name = f"{EVIDENCE}/{MANIFEST}"
    try:
        manifest, content = read_manifest(folder)
    except BadInput as error:
        yield Finding(name, f"cannot be read ({error})")
        return
    recorded = _recorded_digest(folder)
    if recorded != hashlib.sha256(content).hexdigest():
        yield Finding(name, f"changed: its SHA-256 is not the one in {SCORECARD}")
    sealed = [entry.path for entry in manifest.files]
    inputs = [f"../{name}" for name in INPUTS if (folder / name).is_file()]
    for path in dict.fromkeys([*sealed, *evidence_files(folder), *inputs]):
        problem = _problem(folder, path, manifest)
        if problem:
            yield Finding(_shown(path), problem)


def _registration_findings(folder: Path) -> Iterator[Finding]:
    """The profile was fixed before anything was measured: plan.json, context.json and profile.json name one hash."""
    try:
        plan, profile, context = (
            json.loads((folder / name).read_bytes()) for name in ("plan.json", "profile.json", "context.json")
        )
        given, recorded = content_hash(profile), context["run"]["profile_hash"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return  # missing or unreadable inputs are named by the seal
    for name, registered in (("plan.json", plan.get("profile_hash")), ("context.json", recorded)):
        if registered != given:
            yield Finding(
                "profile.json",
                f"is not the profile that was registered before the run: its hash is {given[:12]}, {name} says"
                f" {str(registered)[:12]}",
            )


def _chain_findings(folder: Path) -> Iterator[Finding]:
    for claim, file in read_all(folder).items():
        name = f"{EVIDENCE}/{claim}.jsonl"
        if file.broken:
            yield Finding(name, f"the chain breaks at {file.broken}")
        if file.torn:
            yield Finding(name, f"torn: {file.torn}")
        for record in file.records:
            if record.kind == "attachment":
                yield from _attachment_findings(folder, name, record.data)


def _attachment_findings(folder: Path, claim_file: str, data: Mapping[str, object]) -> Iterator[Finding]:
    path = folder / str(data.get("path"))
    if (folder / EVIDENCE).resolve() not in path.resolve().parents:
        yield Finding(claim_file, f"names an attachment outside {EVIDENCE}/: {data.get('path')!r}")
    elif not path.is_file():
        yield Finding(str(data.get("path")), f"missing, though {claim_file} names it")
    elif file_digest(path)[0] != data.get("sha256"):
        yield Finding(str(data.get("path")), f"changed: its SHA-256 is not the one in {claim_file}")


def _figure_findings(folder: Path) -> Iterator[Finding]:
    try:
        recorded = json.loads((folder / SCORECARD).read_bytes())
        Scorecard.from_json(recorded)
    except (ValueError, RecursionError):
        yield Finding(SCORECARD, "is no JSON any more")
        return
    except BadInput as error:
        yield Finding(SCORECARD, f"is no scorecard any more ({error})")
        return
    try:
        judged = judge_run(folder).to_json()
    except BadInput as error:
        yield Finding(SCORECARD, f"cannot be judged again ({error})")
        return
    yield from _differences(SCORECARD, recorded, judged)


def _differences(where: str, recorded: JsonValue, judged: JsonValue) -> Iterator[Finding]:
    if isinstance(recorded, dict) and isinstance(judged, dict):
        for key in dict.fromkeys([*recorded, *judged]):
            yield from _differences(f"{where} {key}", recorded.get(key), judged.get(key))
    elif isinstance(recorded, list) and isinstance(judged, list) and len(recorded) == len(judged):
        for index, (old, new) in enumerate(zip(recorded, judged, strict=True)):
            name = old.get("id") if isinstance(old, dict) else None
            yield from _differences(f"{where}[{name or index}]", old, new)
    elif recorded != judged:
        yield Finding(where, f"{_brief(recorded)} is recorded, the evidence gives {_brief(judged)}")


def _problem(folder: Path, path: str, manifest: Manifest) -> str:
    """Return what is wrong with a file under seal (relative to evidence/), or nothing."""
    entry, file = manifest.file(path), folder / EVIDENCE / path
    if file.is_symlink():
        return "a symbolic link; evidence is plain files"
    if entry is None:
        return "added after the evidence was sealed" if file.exists() else ""
    if not file.is_file():
        return "missing since the evidence was sealed"
    digest, size = file_digest(file)
    if digest != entry.sha256 or size != entry.bytes:
        return "changed since the evidence was sealed (its SHA-256 differs from the manifest)"
    return ""


def _trusted(folder: Path, file: ClaimFile, manifest: Manifest) -> ClaimFile:
    problem = _problem(folder, f"{file.claim}.jsonl", manifest)
    return replace(file, broken=file.broken or problem)


def _recorded_digest(folder: Path) -> str | None:
    try:
        return str(json.loads((folder / SCORECARD).read_bytes())["evidence"]["manifest_sha256"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _read(path: Path, kind: type[T]) -> T:
    try:
        return from_json(kind, json.loads(path.read_bytes()), where=path.name)
    except OSError as error:
        what = (error.strerror or type(error).__name__).lower()
        raise BadInput(f"{path.name}: expected the run's recorded input, got: {what}.") from None
    except (ValueError, RecursionError):
        raise BadInput(f"{path.name}: expected JSON, got something else.") from None


def _shown(path: str) -> str:
    return path.removeprefix("../") if path.startswith("../") else f"{EVIDENCE}/{path}"


def _brief(value: JsonValue) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."
