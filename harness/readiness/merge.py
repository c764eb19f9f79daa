"""Join partial runs of one commit and profile into the run that they are together.

Each claim's records are chained anew in the order in which the runs began; what two runs recorded for one claim is
pooled, a failure in either is a failure. Nothing is measured here, and the runs that are joined stay as they are:
plan.json of the new one names them with the digests of their manifests.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from readiness.attempts import earlier_attempts
from readiness.conclude import seal_run, write_context
from readiness.deployment import NOT_TOLD
from readiness.errors import BadInput
from readiness.evidence import Record, read_all
from readiness.evidence.records import FIRST_PREV, make_record, plain, standing
from readiness.evidence.sealing import read_manifest, summary
from readiness.evidence.verify import verify_run
from readiness.evidence.writer import EVIDENCE, RAW, claim_path, file_digest, free_name
from readiness.judge.charts import Charts
from readiness.judge.codec import JsonValue, from_json, to_json
from readiness.judge.model import RunContext, RunFacts, Setting
from readiness.judge.profile_model import Profile
from readiness.load.series import SERIES_FILE, Fault, Series, merge_series
from readiness.previous import previous_run

T = TypeVar("T")

# What must agree, or the parts are no parts of one run.
SAME = ("commit", "profile_hash", "target", "harness_version")


@dataclass(frozen=True, slots=True)
class Source:
    """One run that is joined."""

    folder: Path
    plan: Mapping[str, JsonValue]
    context: RunContext

    @property
    def facts(self) -> RunFacts:
        """What identifies the run."""
        return self.context.run


def merge_runs(folders: Sequence[Path], runs: Path, *, argv: Sequence[str]) -> Path:
    """Write the run that ``folders`` are together below ``runs`` and seal it; return its folder.

    Raises BadInput for fewer than two runs, for one that does not verify, and for runs that differ in commit,
    profile, target, version or parts.
    """
    if len({folder.resolve() for folder in folders}) < 2:
        raise BadInput("merge: expected at least two different runs.")
    sources = sorted((_source(folder) for folder in folders), key=lambda source: source.facts.started_at)
    first = sources[0]
    for other in sources[1:]:
        _require_alike(first, other)
    profile = _read(first.folder / "profile.json", Profile)
    run_dir = runs / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{profile.name}-{secrets.token_hex(2)}"
    (run_dir / EVIDENCE / RAW).mkdir(parents=True)
    only = _only(sources, profile)
    facts = _facts(sources, run_id=run_dir.name, argv=tuple(argv))
    plan: dict[str, object] = {
        **first.plan,
        "run_id": facts.id,
        "argv": list(argv),
        "only": list(only),
        "dirty": facts.dirty,
    }
    plan["merged_from"] = [
        {"run": source.facts.id, "manifest_sha256": summary(source.folder).manifest_sha256}
        for source in sources
    ]
    _write(run_dir / "plan.json", plan)
    shutil.copyfile(first.folder / "profile.json", run_dir / "profile.json")
    for source in sources:
        _add_series(source.folder, run_dir)
    _join_evidence(sources, run_dir)
    context = replace(
        first.context,
        run=facts,
        steps=tuple(
            replace(step, detail=step.detail or source.facts.id)
            for source in sources
            for step in source.context.steps
        ),
        settings=max((source.context.settings for source in sources), key=_told),
        previous=None if only else previous_run(runs, profile, before=facts.id),
        only=only,
        attempts=earlier_attempts(
            runs,
            profile,
            commit=facts.commit,
            dirty=facts.dirty,
            started_at=facts.finished_at,
            leave_out=[source.facts.id for source in sources],
        ),
    )
    write_context(run_dir, context)
    seal_run(run_dir)
    return run_dir


def _source(folder: Path) -> Source:
    read_manifest(folder)
    if findings := verify_run(folder):
        raise BadInput(
            f"{folder.name}: expected a run that verifies, but {findings[0]}. Leave it out or run it again."
        )
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    return Source(folder, plan, _read(folder / "context.json", RunContext))


def _require_alike(first: Source, other: Source) -> None:
    for name in SAME:
        before, after = getattr(first.facts, name), getattr(other.facts, name)
        if before != after:
            raise BadInput(
                f"{other.facts.id}: expected {name} {before} as in {first.facts.id}, got {after}."
                " Only parts of one examination can be joined."
            )
    differing = sorted({part.name for part in set(first.context.parts) ^ set(other.context.parts)})
    if differing:
        raise BadInput(
            f"{other.facts.id}: expected the same parts as in {first.facts.id}, but {', '.join(differing)} differ."
        )


def _only(sources: Sequence[Source], profile: Profile) -> tuple[str, ...]:
    """The claims that the parts were for together; empty when that is all of them."""
    if not all(source.context.only for source in sources):
        return ()
    named = {claim for source in sources for claim in source.context.only}
    claims = tuple(claim.id for claim in profile.claims)
    return () if named.issuperset(claims) else tuple(claim for claim in claims if claim in named)


def _facts(sources: Sequence[Source], *, run_id: str, argv: tuple[str, ...]) -> RunFacts:
    every = [source.facts for source in sources]
    return replace(
        every[0],
        id=run_id,
        argv=argv,
        finished_at=max(one.finished_at for one in every),
        duration_seconds=round(sum(one.duration_seconds for one in every), 3),
        dirty=any(one.dirty for one in every),
    )


def _join_evidence(sources: Sequence[Source], run_dir: Path) -> None:
    chains: dict[str, list[Record]] = {}
    for source in sources:
        names = _copy_raw(source.folder, run_dir)
        for claim, file in read_all(source.folder).items():
            chains.setdefault(claim, []).extend(_renamed(record, names) for record in standing(file.records))
    for claim, records in chains.items():
        claim_path(run_dir, claim).write_bytes(_chained(records))


def _copy_raw(source: Path, run_dir: Path) -> dict[str, str]:
    """Copy a run's raw files; their paths there and here, which differ where two files have one name."""
    names = {}
    for path in sorted((source / EVIDENCE / RAW).rglob("*")):
        relative = path.relative_to(source)
        if path.is_file() and relative != SERIES_FILE:
            copy = free_name(run_dir / EVIDENCE / RAW, path.name, file_digest(path)[0])
            shutil.copyfile(path, copy)
            names[relative.as_posix()] = copy.relative_to(run_dir).as_posix()
    return names


def _renamed(record: Record, names: Mapping[str, str]) -> Record:
    path = str(record.data.get("path", ""))
    if record.kind != "attachment" or path not in names:
        return record
    return replace(record, data={**record.data, "path": names[path]})


def _chained(records: Sequence[Record]) -> bytes:
    lines, prev = [], FIRST_PREV
    for seq, record in enumerate(records):
        fields = {key: plain(value) for key, value in _fields(record).items() if key != "hash"}
        made, line = make_record({**fields, "seq": seq, "prev": prev})
        lines.append(line)
        prev = made.hash
    return b"".join(lines)


def _fields(record: Record) -> Mapping[str, object]:
    encoded = to_json(record)
    assert isinstance(encoded, dict)
    return encoded


def _add_series(source: Path, run_dir: Path) -> None:
    if not (source / SERIES_FILE).is_file():
        return
    charts = _read(source / SERIES_FILE, Charts)
    merge_series(
        run_dir,
        [Series(one.name, one.unit, one.points) for one in charts.series],
        t0=datetime.fromisoformat(charts.t0),
        faults=[Fault(band.name, band.start, band.end) for band in charts.faults],
    )


def _told(settings: Sequence[Setting]) -> int:
    return sum(setting.used != NOT_TOLD for setting in settings)


def _read(path: Path, kind: type[T]) -> T:
    return from_json(kind, json.loads(path.read_text(encoding="utf-8")), where=path.name)


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
