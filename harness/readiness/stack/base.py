"""What a run needs beside the target, and what it got: the plan of a stack and the facts about a started one.

Values only. Starting the parts in the right order is left to `stack.assembly`, each part to its own file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from readiness.errors import BadInput, HarnessFailure
from readiness.judge.codec import from_json, to_json
from readiness.judge.model import Part, PartState, Text

STACK_FILE = "stack.json"

REDIS_URL_VARIABLE = "READINESS_REDIS_URL"
"""Hands a Redis URL with its password to the steps of a run, which are processes of their own."""

MASK = "***"

DEFAULT_SCRAPE_MS = 1000
"""Short enough that a 12 s load phase has a shape, long enough to cost a busy machine nothing."""


@dataclass(frozen=True, slots=True)
class StackPlan:
    """What to start.

    `redis` is "auto", "local", "embedded", "fakeredis", "docker" or a `redis://` URL, `sql` is "sqlite" or "docker"
    (PostgreSQL). `root` is the content root whose `rules/` Prometheus and Alertmanager read; without one, or with
    `monitoring` off, they are not started. `monitoring_in` is "local" or "docker"; `images` are `PART=IMAGE` words.
    """

    redis: str = "auto"
    monitoring: bool = True
    monitoring_in: str = "local"
    sql: str = "sqlite"
    images: tuple[str, ...] = ()
    root: Path | None = None
    scrape_interval_ms: int = DEFAULT_SCRAPE_MS
    evaluation_interval_ms: int = DEFAULT_SCRAPE_MS
    compress_notifications: bool = False


@dataclass(frozen=True, slots=True)
class StackInfo:
    """Where everything is.

    URLs are without a slash at the end; None means that the part is missing. `stack.json` has no password: a
    given Redis URL with one travels in the environment, as `READINESS_REDIS_URL`.
    """

    run_dir: Path
    redis_url: str
    redis_provider: str  # "local", "embedded", "fakeredis", "docker" or "external"
    redis_version: str
    database_url: str
    embedding_url: str  # base URL as an OpenAI client wants it: ends in /v1
    prometheus_url: str | None
    alertmanager_url: str | None
    mail_sink: str | None  # base URL of the sinks: GET /_control/log
    slack_sink: str | None
    parts: tuple[Part, ...]

    def part(self, name: str) -> Part | None:
        """The part of that name, or None when the stack never looked for it."""
        return next((part for part in self.parts if part.name == name), None)

    def to_json(self) -> str:
        """The text of `stack.json`."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        shown = {"run_dir": str(self.run_dir), "redis_url": mask_password(self.redis_url)}
        return json.dumps(to_json({**values, **shown}), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> StackInfo:
        """The inverse of `to_json`. HarnessFailure when a field is missing or of another kind."""
        try:
            raw = json.loads(text)
            return cls(
                run_dir=Path(_text(raw, "run_dir")),
                redis_url=_unmasked(_text(raw, "redis_url")),
                redis_provider=_text(raw, "redis_provider"),
                redis_version=_text(raw, "redis_version"),
                database_url=_text(raw, "database_url"),
                embedding_url=_text(raw, "embedding_url"),
                prometheus_url=_optional(raw, "prometheus_url"),
                alertmanager_url=_optional(raw, "alertmanager_url"),
                mail_sink=_optional(raw, "mail_sink"),
                slack_sink=_optional(raw, "slack_sink"),
                parts=tuple(from_json(Part, part) for part in raw["parts"]),
            )
        except (ValueError, KeyError, TypeError, BadInput) as error:
            raise HarnessFailure(
                f"{STACK_FILE}: expected a stack description, got: {error!r}. Run again."
            ) from None

    def write(self) -> None:
        """Keep it as `stack.json` in the run folder: what the steps of a run find the stack by."""
        (self.run_dir / STACK_FILE).write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def read(cls, run_dir: Path) -> StackInfo:
        """The stack of a run. HarnessFailure when the file is absent or no stack description."""
        path = run_dir / STACK_FILE
        try:
            return cls.from_json(path.read_text(encoding="utf-8"))
        except OSError:
            raise HarnessFailure(
                f"{path}: expected {STACK_FILE}, found none: this run started no stack"
            ) from None


def missing_part(name: str, note: Text) -> Part:
    """A part that this run does not have; `note` says what it would add and how to get it."""
    return Part(name=name, state=PartState.MISSING, provider="", version="", note=note)


def left_out_part(name: str, version: str) -> Part:
    """A part that is on this machine and that the plan did not want."""
    note = Text(
        en=f"{name} {version} is on this machine; the plan of this run left it out",
        ko=f"{name} {version}이(가) 이 장비에 있으나 이 실행의 계획에서 제외되었습니다.",
    )
    return missing_part(name, note)


def mask_password(url: str) -> str:
    """The URL as it may be shown and kept."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    user, _, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}:{MASK}@{host}"))


def _unmasked(url: str) -> str:
    """The URL with its password back, when the environment has the one that was masked."""
    given = os.environ.get(REDIS_URL_VARIABLE, "")
    return given if given and mask_password(given) == url else url


def _text(raw: Mapping[str, object], key: str) -> str:
    value = raw[key]
    if not isinstance(value, str):
        raise TypeError(f"{key} is {type(value).__name__}, not text")
    return value


def _optional(raw: Mapping[str, object], key: str) -> str | None:
    return None if raw[key] is None else _text(raw, key)
