"""Alertmanager: routes and delivers alerts for real, into sinks on loopback. From the machine or in a container.

The run uses a copy of the content root's configuration in which every receiver's address is a sink. Routes,
matchers, inhibitions and templates stay as they are, because those are what a check judges.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import yaml

from readiness.judge.model import Part, PartState, Text
from readiness.stack.base import StackPlan, left_out_part, missing_part
from readiness.stack.binaries import at_least, find_program, version_of
from readiness.stack.docker import Image, image_note, require_image
from readiness.stack.ports import LOOPBACK
from readiness.stack.processes import StackError
from readiness.stack.server import HttpServer, ask_version
from readiness.stack.sinks import SinksPart

OLDEST = (0, 25)
"""What the specification asks for (I4)."""

CONFIG_FILES = (Path("rules") / "alertmanager" / "alertmanager.yml", Path("rules") / "alertmanager.yml")
"""Where the configuration may be in a content root, first found first."""

COMPRESSED_GROUP_WAIT = "200ms"
"""For routes that wait at all: above the evaluation skew, or inhibited alerts slip out (measured)."""

COMPRESSED_GROUP_INTERVAL = "50ms"
"""How soon a resolve follows in a drill."""

Yaml: TypeAlias = "bool | int | float | str | list[Yaml] | dict[str, Yaml] | None"

_NAMES = ("prometheus-alertmanager", "alertmanager")
_DATA = Path("data") / "alertmanager"
_MAIL_SECRETS = ("auth_username", "auth_password", "auth_password_file", "auth_secret", "auth_identity")
_MISSING = Text(
    en="would add real routing and delivery of alerts; `apt install prometheus-alertmanager` (0.25 or newer)",
    ko="실제 알림 라우팅과 전달을 추가합니다. `apt install prometheus-alertmanager`로 설치합니다(0.25 이상).",
)
_MISSING_AMTOOL = Text(
    en="would add configuration and route checks; `apt install prometheus-alertmanager` brings it",
    ko="설정과 라우팅 검사를 추가합니다. `apt install prometheus-alertmanager`에 포함되어 있습니다.",
)


class AlertmanagerPart:
    """A running Alertmanager whose receivers are the sinks; `broken_config` says why ours was not used."""

    def __init__(self, run_dir: Path, *, plan: StackPlan, sinks: SinksPart) -> None:
        self._folder = run_dir / _DATA
        self._plan = plan
        self._sinks = sinks
        self.image = require_alertmanager(plan)
        self._server = HttpServer(
            run_dir,
            name="alertmanager",
            program=_program,
            flags=self._flags,
            image=self.image,
            folder=self._folder,
        )
        self.broken_config = ""

    @property
    def url(self) -> str:
        """Base URL."""
        return self._server.url

    @property
    def version(self) -> str:
        """What it says of itself when it runs in a container, what the program says otherwise."""
        if self.image is None:
            return version_of(_program())
        return ask_version(f"{self.url}/api/v2/status", "versionInfo")

    def start(self) -> None:
        """Start and wait until it is ready.

        A configuration that Alertmanager refuses is replaced by one that delivers nothing: that is a finding
        about the configuration, which the delivery check then reports, not a reason to stop.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        source = _config_file(self._plan.root)
        try:
            self._start_with(source)
        except StackError as error:
            if source is None:
                raise
            self.broken_config = str(error)
            self._start_with(None)

    def _start_with(self, source: Path | None) -> None:
        config = _load(source) if source else _FALLBACK
        rendered = render_config(config, sinks=self._sinks, compress=self._plan.compress_notifications)
        if source is not None:
            rendered["templates"] = self._copy_templates(config, source.parent)
        text = yaml.safe_dump(rendered, sort_keys=False, allow_unicode=True)
        (self._folder / "alertmanager.yml").write_text(text, encoding="utf-8")
        self._server.start()

    def terminate(self) -> None:
        """Ask it to end; returns at once."""
        self._server.terminate()

    def await_end(self, deadline: float) -> None:
        """Wait until it ended, insist at the monotonic moment `deadline`."""
        self._server.await_end(deadline)

    def _copy_templates(self, config: Mapping[str, Yaml], base: Path) -> list[Yaml]:
        """Templates are named relative to the configuration; the copy names copies in the run folder."""
        folder = self._folder / "templates"
        folder.mkdir(exist_ok=True)
        patterns = config.get("templates") or []
        assert isinstance(patterns, list)
        found = sorted({path for pattern in patterns for path in base.glob(str(pattern))})
        return [str(shutil.copy(path, folder)) for path in found if path.is_file()]

    def _flags(self, port: int) -> list[str]:
        return [
            f"--config.file={self._folder / 'alertmanager.yml'}",
            f"--storage.path={self._folder / 'storage'}",
            f"--web.listen-address={LOOPBACK}:{port}",
            "--cluster.listen-address=",
        ]


def render_config(config: Mapping[str, Yaml], *, sinks: SinksPart, compress: bool = False) -> dict[str, Yaml]:
    """The same configuration with sinks as the only addresses. Pure; `config` is not changed.

    Receivers of kinds that no sink takes (pagers) are emptied, so that nothing leaves the machine.
    """
    top = _copy(config)
    given = top.get("global")
    kept = {
        key: value
        for key, value in (given.items() if isinstance(given, dict) else ())
        if key in ("resolve_timeout", "smtp_from", "smtp_hello")
    }
    top["global"] = {
        "smtp_from": "readiness@localhost",
        **kept,
        "smtp_smarthost": sinks.smarthost,
        "smtp_require_tls": False,
        "slack_api_url": sinks.slack_url,
    }
    receivers = top.get("receivers")
    top["receivers"] = [
        _redirect(receiver, sinks) for receiver in (receivers if isinstance(receivers, list) else [])
    ]
    if compress:
        for route in _routes(top.get("route")):
            _compress(route)
    return top


def alertmanager_part(started: AlertmanagerPart | None) -> Part:
    """The part as the report shows it."""
    if started is None:
        program = find_program(*_NAMES)
        if program is None or not alertmanager_is_here():
            return missing_part("alertmanager", _MISSING)
        return left_out_part("alertmanager", version_of(program))
    note = Text(
        en="alertmanager of this machine, delivering into sinks",
        ko="이 장비의 alertmanager이며 수신기로 전달합니다.",
    )
    if started.image is not None:
        note = image_note(started.image)
    if started.broken_config:
        why = started.broken_config
        note = Text(en=f"delivers nothing, because {why}", ko=f"아무것도 전달하지 않습니다: {why}")
    provider = "local" if started.image is None else "docker"
    return Part("alertmanager", PartState.REAL, provider, started.version, note)


def amtool_part() -> Part:
    """amtool is not started; the checks call it."""
    program = find_program("amtool")
    if program is None:
        return missing_part("amtool", _MISSING_AMTOOL)
    note = Text(en="amtool of this machine", ko="이 장비의 amtool입니다.")
    return Part("amtool", PartState.REAL, "local", version_of(program), note)


def require_alertmanager(plan: StackPlan) -> Image | None:
    """The image when the plan wants a container. BadInput when there is none."""
    if plan.monitoring_in != "docker":
        return None
    return require_image("alertmanager", flag="--monitoring docker")


def _program() -> Path:
    program = find_program(*_NAMES)
    if program is None:
        raise StackError("alertmanager: expected the program on PATH, found none")
    return program


def alertmanager_is_here() -> bool:
    """True when this machine has a new enough alertmanager."""
    program = find_program(*_NAMES)
    return program is not None and at_least(version_of(program), OLDEST)


_FALLBACK: dict[str, Yaml] = {"route": {"receiver": "none"}, "receivers": [{"name": "none"}]}


def _config_file(root: Path | None) -> Path | None:
    if root is None:
        return None
    return next((root / path for path in CONFIG_FILES if (root / path).is_file()), None)


def _load(path: Path) -> dict[str, Yaml]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        why = " ".join(str(error).split())
        raise StackError(f"{path}: expected Alertmanager's YAML, got: {why}. Correct the file.") from None
    if not isinstance(content, dict):
        raise StackError(f"{path}: expected a mapping with route and receivers. Correct the file.")
    return content


def _redirect(receiver: Yaml, sinks: SinksPart) -> Yaml:
    """One receiver with every address replaced."""
    if not isinstance(receiver, dict):
        return receiver
    name = str(receiver.get("name", ""))
    redirected: dict[str, Yaml] = {"name": name}
    for mail in _entries(receiver, "email_configs"):
        kept = {key: value for key, value in mail.items() if key not in (*_MAIL_SECRETS, "tls_config")}
        mail_entry: Yaml = {**kept, "smarthost": sinks.smarthost, "require_tls": False}
        _append(redirected, "email_configs", mail_entry)
    for slack in _entries(receiver, "slack_configs"):
        kept = {key: value for key, value in slack.items() if key not in ("api_url_file", "http_config")}
        _append(redirected, "slack_configs", {**kept, "api_url": f"{sinks.slack_url}/{name}"})
    for hook in _entries(receiver, "webhook_configs"):
        kept = {key: value for key, value in hook.items() if key not in ("url_file", "http_config")}
        _append(redirected, "webhook_configs", {**kept, "url": f"{sinks.webhook_url}/{name}"})
    return redirected


def _entries(receiver: Mapping[str, Yaml], kind: str) -> Iterator[dict[str, Yaml]]:
    entries = receiver.get(kind)
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict):
            yield entry


def _append(receiver: dict[str, Yaml], kind: str, entry: Yaml) -> None:
    entries = receiver.setdefault(kind, [])
    assert isinstance(entries, list)
    entries.append(entry)


def _routes(route: Yaml) -> Iterator[dict[str, Yaml]]:
    """A route and everything below it."""
    if not isinstance(route, dict):
        return
    yield route
    children = route.get("routes")
    for child in children if isinstance(children, list) else []:
        yield from _routes(child)


def _compress(route: dict[str, Yaml]) -> None:
    if "group_wait" in route and route["group_wait"] != "0s":
        route["group_wait"] = COMPRESSED_GROUP_WAIT
    if "group_interval" in route:
        route["group_interval"] = COMPRESSED_GROUP_INTERVAL


def _copy(value: Mapping[str, Yaml]) -> dict[str, Yaml]:
    return {key: _copy_value(item) for key, item in value.items()}


def _copy_value(value: Yaml) -> Yaml:
    if isinstance(value, dict):
        return _copy(value)
    return [_copy_value(item) for item in value] if isinstance(value, list) else value
