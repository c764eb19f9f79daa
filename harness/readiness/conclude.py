"""From a run folder to its report: seal the evidence, judge it, render every format, point `latest` to it.

Needs no stack. `readiness run` ends here and `readiness report` starts here.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from readiness.errors import BadInput, HarnessFailure
from readiness.evidence.sealing import seal
from readiness.evidence.verify import judge_run
from readiness.judge.codec import to_json
from readiness.judge.model import Language, RunContext, Scorecard
from readiness.render import FORMATS

CONTEXT_FILE = "context.json"
LATEST = "latest"
PAGE = "index.html"


def write_context(run_dir: Path, context: RunContext) -> None:
    """Write context.json: what the judge needs besides profile and evidence."""
    text = json.dumps(to_json(context), indent=2, ensure_ascii=False) + "\n"
    _replace(run_dir / CONTEXT_FILE, text.encode())


def seal_run(run_dir: Path) -> None:
    """Write the manifest over everything that the judge reads. Once, when the last record is written."""
    seal(run_dir)


def conclude(run_dir: Path, *, lang: Language) -> tuple[Scorecard, Path]:
    """Judge the evidence of ``run_dir`` and write every format. Returns the scorecard and the path of the page."""
    card = judge_run(run_dir)
    # matplotlib keeps a list of fonts; it would write it into the person's home.
    os.environ.setdefault("MPLCONFIGDIR", str(run_dir / "data" / "matplotlib"))
    for face in FORMATS.values():
        _replace(run_dir / face.filename, face.render(card, lang).encode())
    return card, run_dir / PAGE


def point_latest(reports: Path, run_dir: Path) -> None:
    """Let ``reports``/latest point to ``run_dir``; a text file with the run's id where links are not to be had."""
    latest = reports / LATEST
    temporary = reports / f".{LATEST}.{os.getpid()}"
    try:
        temporary.symlink_to(Path("runs") / run_dir.name, target_is_directory=True)
    except OSError:
        temporary.write_text(f"{run_dir.name}\n", encoding="utf-8")
    if latest.is_dir() and not latest.is_symlink():
        temporary.unlink()
        raise HarnessFailure(
            f"{latest}: expected a link that may be replaced, got a folder. Move it away; the report is in {run_dir}."
        )
    temporary.replace(latest)


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        raise BadInput(
            f"{path}: expected a place that can be written, got: {error.strerror or error}."
        ) from None
