"""Prometheus: scrapes the lanes' APIs and evaluates the content root's alert rules. From the machine or in a container.

Targets come from files (`data/prometheus/targets/*.json`), so that a lane's API can be added and taken away
while it runs. Prometheus' service discovery hands changes on every 5 s, so the first scrape of a target can
take that long; wait for the sample you need, not for a time.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from readiness.judge.model import Part, PartState, Text
from readiness.stack.base import StackPlan, left_out_part, missing_part
from readiness.stack.binaries import at_least, find_program, version_of
from readiness.stack.docker import Image, image_note, require_image
from readiness.stack.ports import LOOPBACK
from readiness.stack.processes import StackError
from readiness.stack.server import HttpServer, ask_version

OLDEST = (2, 40)
"""What the specification asks for (I4)."""

JOB = "ragworker"
"""The `job` label of every lane's series."""

RESEND_DELAY = "2s"
"""Instead of 1 m: what fires in the first seconds, before Alertmanager was discovered, is lost until resent."""

_DATA = Path("data") / "prometheus"
_MISSING = Text(
    en="would add real scraping and rule evaluation; `apt install prometheus` (2.40 or newer)",
    ko="실제 수집과 규칙 평가를 추가합니다. `apt install prometheus` (2.40 이상)로 설치합니다.",
)
_MISSING_PROMTOOL = Text(
    en="would add rule syntax checks and unit tests; `apt install prometheus` brings it",
    ko="규칙 구문 검사와 단위 테스트를 추가합니다. `apt install prometheus`에 포함되어 있습니다.",
)


class PrometheusPart:
    """A running Prometheus; `broken_rules` says why the rules were left out, "" when they were loaded."""

    def __init__(self, run_dir: Path, *, plan: StackPlan, alertmanager_url: str | None) -> None:
        self._folder = run_dir / _DATA
        self._plan = plan
        self._alertmanager_url = alertmanager_url
        self.image = require_prometheus(plan)
        self._server = HttpServer(
            run_dir,
            name="prometheus",
            program=_program,
            flags=self._flags,
            image=self.image,
            folder=self._folder,
        )
        self.broken_rules = ""

    @property
    def url(self) -> str:
        """Base URL."""
        return self._server.url

    @property
    def version(self) -> str:
        """What it says of itself when it runs in a container, what the program says otherwise."""
        if self.image is None:
            return version_of(_program())
        return ask_version(f"{self.url}/api/v1/status/buildinfo", "data")

    def start(self) -> None:
        """Start and wait until it is ready.

        Rules that Prometheus refuses are left out: that is a finding about the rules, not a reason to stop.
        """
        (self._folder / "targets").mkdir(parents=True, exist_ok=True)
        rules = self._copy_rules()
        self._write_config(rules)
        try:
            self._server.start()
        except StackError as error:
            if not rules:
                raise
            self.broken_rules = str(error)
            self._write_config([])
            self._server.start()

    def terminate(self) -> None:
        """Ask it to end; returns at once."""
        self._server.terminate()

    def await_end(self, deadline: float) -> None:
        """Wait until it ended, insist at the monotonic moment `deadline`."""
        self._server.await_end(deadline)

    def _copy_rules(self) -> list[str]:
        """The rule files of the content root, copied so that the run folder says what was evaluated."""
        folder = self._folder / "rules"
        folder.mkdir(parents=True, exist_ok=True)
        if self._plan.root is None:
            return []
        sources = sorted(
            path for pattern in ("*.yml", "*.yaml") for path in (self._plan.root / "rules").glob(pattern)
        )
        return [str(shutil.copy(path, folder)) for path in sources if _has_groups(path)]

    def _write_config(self, rules: Sequence[str]) -> None:
        managers = [self._alertmanager_url.removeprefix("http://")] if self._alertmanager_url else []
        config = {
            "global": {
                "scrape_interval": f"{self._plan.scrape_interval_ms}ms",
                "scrape_timeout": f"{self._plan.scrape_interval_ms}ms",
                "evaluation_interval": f"{self._plan.evaluation_interval_ms}ms",
            },
            "rule_files": list(rules),
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": managers}]}] if managers else []},
            "scrape_configs": [
                {"job_name": JOB, "file_sd_configs": [{"files": [str(self._folder / "targets" / "*.json")]}]}
            ],
        }
        text = yaml.safe_dump(config, sort_keys=False)
        (self._folder / "prometheus.yml").write_text(text, encoding="utf-8")

    def _flags(self, port: int) -> list[str]:
        return [
            f"--config.file={self._folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self._folder / 'tsdb'}",
            f"--web.listen-address={LOOPBACK}:{port}",
            "--web.enable-lifecycle",
            f"--rules.alert.resend-delay={RESEND_DELAY}",
            "--log.level=warn",  # so that the end of the log is the reason when it does not start
        ]


def add_scrape_target(run_dir: Path, name: str, *, url: str, labels: Mapping[str, str]) -> None:
    """Have `url` (http://host:port) scraped from now on; the same name again replaces it."""
    folder = run_dir / _DATA / "targets"
    folder.mkdir(parents=True, exist_ok=True)
    groups = [{"targets": [url.removeprefix("http://")], "labels": dict(labels)}]
    draft = folder / f".{name}.{os.getpid()}.draft"
    draft.write_text(json.dumps(groups), encoding="utf-8")
    draft.replace(folder / f"{name}.json")


def remove_scrape_target(run_dir: Path, name: str) -> None:
    """Stop scraping it; harmless when it was not scraped."""
    with contextlib.suppress(OSError):
        (run_dir / _DATA / "targets" / f"{name}.json").unlink()


def prometheus_part(started: PrometheusPart | None) -> Part:
    """The part as the report shows it."""
    if started is None:
        program = find_program("prometheus")
        if program is None or not prometheus_is_here():
            return missing_part("prometheus", _MISSING)
        return left_out_part("prometheus", version_of(program))
    note = Text(en="prometheus of this machine", ko="이 장비의 prometheus입니다.")
    if started.image is not None:
        note = image_note(started.image)
    if started.broken_rules:
        why = started.broken_rules
        note = Text(en=f"started without rules: {why}", ko=f"규칙 없이 시작했습니다: {why}")
    provider = "local" if started.image is None else "docker"
    return Part("prometheus", PartState.REAL, provider, started.version, note)


def promtool_part() -> Part:
    """promtool is not started; the checks call it."""
    program = find_program("promtool")
    if program is None:
        return missing_part("promtool", _MISSING_PROMTOOL)
    note = Text(en="promtool of this machine", ko="이 장비의 promtool입니다.")
    return Part("promtool", PartState.REAL, "local", version_of(program), note)


def require_prometheus(plan: StackPlan) -> Image | None:
    """The image when the plan wants a container. BadInput when there is none."""
    if plan.monitoring_in != "docker":
        return None
    return require_image("prometheus", flag="--monitoring docker")


def _program() -> Path:
    program = find_program("prometheus")
    if program is None:
        raise StackError("prometheus: expected the program on PATH, found none")
    return program


def prometheus_is_here() -> bool:
    """True when this machine has a new enough prometheus."""
    program = find_program("prometheus")
    return program is not None and at_least(version_of(program), OLDEST)


def _has_groups(path: Path) -> bool:
    """A rule file has `groups`; other YAML beside it (a configuration) is not one. Broken YAML may be one."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return True
    return isinstance(content, dict) and "groups" in content
