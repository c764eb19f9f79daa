"""Turn flags and YAML into a Plan: everything that a run will do, decided before anything starts.

Parsing only. What the parts of a plan mean is left to the steps; running them to `run.py`.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from readiness import __version__
from readiness.baseline import find_baseline
from readiness.documents import Corpus, load_documents
from readiness.errors import BadInput
from readiness.judge.codec import to_json
from readiness.judge.model import Baseline, Language
from readiness.judge.profile import Profile, load_profile
from readiness.provenance import Provenance, gather
from readiness.root import Root, find_root
from readiness.stack.assembly import require_parts
from readiness.stack.base import MASK, StackPlan
from readiness.targets import check_target

SEED_MAX = 2**31 - 1
_PASSWORD = re.compile(r"(://[^/@\s:]*):[^/@\s]*@")


@dataclass(frozen=True, slots=True)
class Choices:
    """What the person typed after `readiness run`, not yet checked."""

    profile: str = "quick"
    documents: Path | None = None
    redis: str = "auto"
    monitoring: bool = True
    monitoring_in: str = "local"
    sql: str = "sqlite"
    images: tuple[str, ...] = ()
    api_port: int = 0
    only: tuple[str, ...] = ()
    seed: int | None = None
    lang: Language = "en"
    root: Path | None = None
    reports: Path | None = None
    resume: Path | None = None
    base: str | None = None

    def stack(self, root: Path) -> StackPlan:
        """The stack that these choices ask for; `root` is the content root."""
        return StackPlan(
            redis=self.redis,
            monitoring=self.monitoring,
            monitoring_in=self.monitoring_in,
            sql=self.sql,
            images=self.images,
            root=root,
            # The routes are examined, not the patience of their waits: 20 s shorter, same routing and inhibition.
            compress_notifications=True,
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """A run, decided: which profile on which documents against which parts, with which seed."""

    run_id: str
    created_at: str
    argv: tuple[str, ...]
    choices: Choices
    seed: int
    root: Root
    profile: Profile
    corpus: Corpus
    provenance: Provenance
    baseline: Baseline = field(default_factory=Baseline)
    resumes: bool = False

    @property
    def run_dir(self) -> Path:
        """The folder of this run."""
        return self.root.runs / self.run_id

    def to_json(self) -> dict[str, object]:
        """Return the content of plan.json: what a check or an auditor needs to know of the run."""
        return {
            "run_id": self.run_id,
            "created_at": self.created_at,
            "argv": list(self.argv),
            "seed": self.seed,
            "target": self.profile.target,
            "profile": self.profile.name,
            "profile_hash": self.profile.content_hash,
            "root_origin": self.root.origin,
            "redis": _without_passwords(self.choices.redis),
            "monitoring": self.choices.monitoring,
            "monitoring_in": self.choices.monitoring_in,
            "sql": self.choices.sql,
            "images": list(self.choices.images),
            "api_port": self.choices.api_port,
            "only": list(self.choices.only),
            "lang": self.choices.lang,
            "documents": {
                "origin": self.corpus.origin,
                "count": len(self.corpus.documents),
                "bytes": sum(len(document.content) for document in self.corpus.documents),
                "skipped": [{"path": str(path), "reason": reason} for path, reason in self.corpus.skipped],
            },
            "knobs": to_json(self.profile.knobs),
            "base": self.baseline.base,
            "commit": self.provenance.commit,
            "dirty": self.provenance.dirty,
            "harness_version": __version__,
            "python": self.provenance.python,
            "platform": self.provenance.platform,
        }


def make_plan(choices: Choices, *, argv: Sequence[str]) -> Plan:
    """Check every choice and return the plan. Raises BadInput; starts nothing and writes nothing."""
    root = find_root(choices.root, reports=choices.reports)
    profile = load_profile(root.path, choices.profile)
    check_target(profile.target)
    known = {claim.id for claim in profile.claims}
    for claim in choices.only:
        if claim in profile.elsewhere:
            raise BadInput(
                f"--only {claim}: the profile {profile.name} leaves this claim out. Choose one that has it with"
                " --profile (`profiles` of its block in reports/scorecard.yaml)."
            )
        if claim not in known:
            raise BadInput(
                f"--only {claim}: the profile has no such claim. It has: {', '.join(sorted(known))}."
            )
    require_parts(choices.stack(root.path))
    if choices.api_port:
        _require_free_port(choices.api_port, flag="--api-port")
    now = datetime.now(UTC)
    plan = Plan(
        run_id=f"{now:%Y%m%dT%H%M%SZ}-{profile.name}-{secrets.token_hex(2)}",
        created_at=now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        argv=tuple(_without_passwords(word) for word in argv),
        choices=choices,
        seed=_seed(choices, profile),
        root=root,
        profile=profile,
        corpus=load_documents(choices.documents, samples=root.samples),
        provenance=gather(root.path),
        baseline=find_baseline(root.path, choices.profile, profile, ref=choices.base),
    )
    return plan if choices.resume is None else _resumed(plan, choices.resume)


def _resumed(plan: Plan, run_dir: Path) -> Plan:
    """The plan of the run in ``run_dir``, after a check that it would be decided the same way today.

    Raises BadInput for what changed since: another part of the run would not belong to the first.
    """
    earlier = json.loads((run_dir / "plan.json").read_text(encoding="utf-8"))
    seed, created_at = int(earlier["seed"]), str(earlier["created_at"])
    root = replace(plan.root, reports=run_dir.parent.parent)
    again = replace(
        plan,
        run_id=run_dir.name,
        root=root,
        seed=seed,
        created_at=created_at,
        argv=tuple(earlier["argv"]),
        resumes=True,
    )
    now = again.to_json()
    for key in ("commit", "profile_hash", "documents", "target", "harness_version"):
        if earlier.get(key) != now[key]:
            raise BadInput(
                f"--resume {run_dir.name}: expected {key} {earlier.get(key)} as when the run began, got {now[key]}."
                " Start a new run, or go back to what it was."
            )
    return again


def create_run_dir(plan: Plan) -> Path:
    """Make the run folder and write plan.json and profile.json into it. Raises BadInput when it cannot be written."""
    try:
        plan.run_dir.mkdir(parents=True)
        (plan.run_dir / "logs").mkdir()
        (plan.run_dir / "evidence").mkdir()
        _write_json(plan.run_dir / "plan.json", plan.to_json())
        _write_json(plan.run_dir / "profile.json", to_json(plan.profile))
    except OSError as error:
        raise BadInput(
            f"{plan.root.reports}: expected a folder that can be written, got: {error.strerror or error}"
            f" ({error.filename}). Make it writable or name another one with --reports."
        ) from None
    return plan.run_dir


def _seed(choices: Choices, profile: Profile) -> int:
    if choices.seed is not None:
        return choices.seed
    return profile.knobs.seed if profile.knobs.seed is not None else secrets.randbelow(SEED_MAX)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")


def _require_free_port(port: int, *, flag: str) -> None:
    if not 0 < port < 65536:
        raise BadInput(f"{flag} {port}: expected a port from 1 to 65535. Leave it out for any free one.")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        if os.name == "posix":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise BadInput(
                f"{flag} {port}: expected a free port on 127.0.0.1, got: {error.strerror or error}."
                " End what listens there, name another port, or leave the flag out for any free one."
            ) from None


def _without_passwords(word: str) -> str:
    """A word of the command line as it may be kept: what stands between ``user:`` and ``@`` of a URL is masked."""
    return _PASSWORD.sub(rf"\1:{MASK}@", word)
