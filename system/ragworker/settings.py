"""Read the environment, once and in one place. The only module that does.

Each setting is one line of a frozen dataclass: its type, its variable, its default and the form that its text
must have. To add one, add a line here and a row to the table in system/README.md. `Settings.load(environ)`
reads them all; a wrong value is one line that says what was expected. One setting is alive:
USE_DURABLE_WORKER is read again for each request (spec A1), by `FlagSource`, from the file named by
RAG_ENV_FILE when there is one. That file's lines (KEY=VALUE) win over the environment in both.
"""
# ruff: noqa: RUF009  `_var` makes a dataclass field, which is what that rule asks for

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Generic, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from ragworker.chunking import ChunkPlan

#: An env file is a handful of lines; a larger one is the wrong file.
ENV_FILE_LIMIT_BYTES: Final = 65_536

T = TypeVar("T")

_YES: Final = ("true", "1", "yes", "on")
_WORDS: Final = dict.fromkeys(("false", "0", "no", "off", ""), False) | dict.fromkeys(_YES, True)


class SettingsError(ValueError):
    """A setting cannot be used; the message is one line for the person who wrote it."""


@dataclass(frozen=True, slots=True)
class _Form(Generic[T]):
    """What a text must be: `wish` says it in words, `parse` answers None or raises ValueError otherwise."""

    wish: str
    parse: Callable[[str], T | None]


def _var(name: str, default: T, form: _Form[T], *, secret: bool = False, told: bool = False) -> T:
    """The field that is read from the variable `name`; a `secret` one is never shown, a `told` one at the start."""
    return field(default=default, repr=not secret, metadata={"name": name, "form": form, "told": told})


def _integer(low: int, high: int) -> _Form[int]:
    wish = f"a whole number {low}..{high}"
    return _Form(wish, lambda text: value if low <= (value := int(text)) <= high else None)


def _decimal(low: float, high: float, unit: str = "seconds") -> _Form[float]:
    wish = f"{unit} {low:g}..{high:g}"
    return _Form(wish, lambda text: value if low <= (value := float(text)) <= high else None)


def _choice(*allowed: str) -> _Form[str]:
    return _Form("/".join(allowed), lambda text: {word.lower(): word for word in allowed}.get(text.lower()))


def _url(*schemes: str, cut: str = "", wish: str = "") -> _Form[str]:
    wish = wish or f"a URL ({'/'.join(schemes)})"
    return _Form(wish, lambda text: text.rstrip(cut) if urlsplit(text).scheme in schemes else None)


def _headers(text: str) -> tuple[tuple[str, str], ...] | None:
    # As the OpenTelemetry specification has it: W3C baggage, values percent-encoded.
    pairs = [pair.partition("=") for pair in text.split(",") if pair.strip()]
    read = tuple((name.strip().lower(), unquote(value.strip())) for name, _, value in pairs)
    return read if all(name and value for name, value in read) else None


_TEXT: Final = _Form("text", str)
_PATH: Final = _Form("a path", Path)
_SWITCH: Final = _Form("true or false", lambda text: _WORDS.get(text.lower()))
_FLAG: Final = _Form("true or false", lambda text: parse_flag(text).durable)
#: Safe inside a Redis key.
_NAME: Final = _Form(
    "1..64 letters, digits, '.', '_' or '-'", lambda text: re.fullmatch(r"[\w.-]{1,64}", text, re.A) and text
)
_HTTP: Final = _url("http", "https", cut="/")
_REDIS: Final = _url("redis", "rediss", "unix", "sentinel", "sentinels")
_KEY_SET: Final = _url("", "http", "https", "file", wish="an http(s) or file URL, or a path")
_LEVEL: Final = _choice("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_DOLLARS: Final = _decimal(0, 10**6, "US dollars")
_HEADERS: Final = _Form("key=value pairs, separated by commas", _headers)


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """What the queue needs to know.

    `history_count` and `history_seconds` bound the record of finished jobs (0: none is kept). A submit is
    acknowledged when `wait_replicas` replicas of Redis have it.
    """

    # Below half a second a busy machine would lose leases that nobody meant to give up.
    lease_seconds: float = _var("RAG_LEASE_SECONDS", 3.0, _decimal(0.5, 3600))
    max_deliveries: int = _var("RAG_MAX_DELIVERIES", 20, _integer(1, 10_000))
    history_seconds: int = _var("RAG_JOB_HISTORY_SECONDS", 86_400, _integer(0, 31_536_000))
    history_count: int = _var("RAG_JOB_HISTORY_COUNT", 10_000, _integer(0, 10**7))
    wait_replicas: int = _var("RAG_REDIS_WAIT_REPLICAS", 0, _integer(0, 10))


@dataclass(frozen=True, slots=True)
class EmbeddingSettings:
    """How to talk to the embedding API, and how much (spec B1 to B4)."""

    url: str = _var("RAG_EMBEDDING_URL", "http://127.0.0.1:9999/v1", _HTTP)
    api_key: str = _var("RAG_EMBEDDING_API_KEY", "", _TEXT, secret=True)
    model: str = _var("RAG_EMBEDDING_MODEL", "text-embedding-3-small", _TEXT)
    batch_size: int = _var("RAG_EMBEDDING_BATCH_SIZE", 32, _integer(1, 2048), told=True)
    rate_limit: int = _var("RAG_EMBEDDING_RATE_LIMIT", 1000, _integer(1, 1_000_000), told=True)
    rate_window_seconds: float = _var("RAG_EMBEDDING_RATE_WINDOW_SECONDS", 60.0, _decimal(0.1, 86_400))
    token_limit: int = _var("RAG_EMBEDDING_TOKEN_LIMIT", 0, _integer(0, 10**12))
    concurrency: int = _var("RAG_EMBEDDING_CONCURRENCY", 3, _integer(1, 256), told=True)
    timeout_seconds: float = _var("RAG_EMBEDDING_TIMEOUT_SECONDS", 30.0, _decimal(0.05, 600))
    price_per_million_tokens: float = _var("RAG_EMBEDDING_PRICE_PER_MILLION_TOKENS", 0.02, _DOLLARS)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set, parsed. Secrets and URLs stay out of `repr`."""

    use_durable_worker: bool = _var("USE_DURABLE_WORKER", False, _FLAG, told=True)
    redis_url: str = _var("REDIS_URL", "redis://127.0.0.1:6379/0", _REDIS, secret=True)
    database_url: str = _var("DATABASE_URL", "sqlite:///rag.db", _TEXT, secret=True)
    queue_name: str = _var("RAG_QUEUE", "default", _NAME)
    api_host: str = _var("RAG_API_HOST", "127.0.0.1", _TEXT)
    api_port: int = _var("RAG_API_PORT", 8000, _integer(0, 65_535))
    worker_concurrency: int = _var("RAG_WORKER_CONCURRENCY", 4, _integer(1, 1024))
    max_retries: int = _var("RAG_MAX_RETRIES", 4, _integer(0, 100), told=True)
    retry_base_seconds: float = _var("RAG_RETRY_BASE_SECONDS", 1.0, _decimal(0.001, 125))
    rollback_seconds: float = _var("RAG_ROLLBACK_SECONDS", 60.0, _decimal(0, 86_400))
    queue: QueueSettings = QueueSettings()
    embedding: EmbeddingSettings = EmbeddingSettings()
    memory_token_budget: int = _var("RAG_MEMORY_TOKEN_BUDGET", 100_000, _integer(1, 10**9))
    chunk_words: int = _var("RAG_CHUNK_WORDS", 180, _integer(1, 100_000))
    chunk_overlap_words: int = _var("RAG_CHUNK_OVERLAP_WORDS", 30, _integer(0, 99_999))
    max_upload_bytes: int = _var("RAG_MAX_UPLOAD_BYTES", 26_214_400, _integer(1, 536_870_912))
    temp_dir: Path = _var("RAG_TEMP_DIR", Path(), _PATH)
    jwt_secret: str = _var("RAG_JWT_SECRET", "", _TEXT, secret=True)
    jwt_jwks_url: str = _var("RAG_JWT_JWKS_URL", "", _KEY_SET)
    jwt_keys_max_age_seconds: float = _var("RAG_JWT_KEYS_MAX_AGE_SECONDS", 300.0, _decimal(1, 86_400))
    jwt_audience: str = _var("RAG_JWT_AUDIENCE", "", _TEXT)
    jwt_issuer: str = _var("RAG_JWT_ISSUER", "", _TEXT)
    user_rate_limit: int = _var("RAG_USER_RATE_LIMIT", 0, _integer(0, 100_000))
    prometheus_enabled: bool = _var("PROMETHEUS_ENABLED", True, _SWITCH, told=True)
    grafana_dashboard_enabled: bool = _var("GRAFANA_DASHBOARD_ENABLED", False, _SWITCH, told=True)
    alertmanager_webhook_url: str = _var("ALERTMANAGER_WEBHOOK_URL", "", _TEXT, secret=True, told=True)
    distributed_tracing_enabled: bool = _var("DISTRIBUTED_TRACING_ENABLED", False, _SWITCH, told=True)
    otlp_endpoint: str = _var("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318", _HTTP)
    otlp_headers: tuple[tuple[str, str], ...] = _var("OTEL_EXPORTER_OTLP_HEADERS", (), _HEADERS, secret=True)
    log_format: str = _var("LOG_FORMAT", "json", _choice("json", "text"), told=True)
    log_level: str = _var("LOG_LEVEL", "INFO", _LEVEL, told=True)

    @classmethod
    def load(cls, environ: Mapping[str, str]) -> Settings:
        """Parse `environ`, overridden by the file RAG_ENV_FILE, if named. SettingsError on a bad value."""
        texts = {**environ, **read_env_file(environ.get("RAG_ENV_FILE", ""))}
        # Set to nothing is not set: compose files and shells write empty values for absent ones.
        found = {name: text.strip() for name, text in texts.items() if text.strip()}
        settings = _read(cls, {"RAG_TEMP_DIR": default_temp_dir(), **found})
        settings.check_together()
        return settings

    @property
    def chunk_plan(self) -> ChunkPlan:
        """How documents are cut."""
        return ChunkPlan(words=self.chunk_words, overlap=self.chunk_overlap_words)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Values that no log line may carry."""
        passwords = (word for url in (self.redis_url, self.database_url) for word in _passwords(url))
        headers = (value for _, value in self.otlp_headers)
        known = (self.jwt_secret, self.embedding.api_key, self.alertmanager_webhook_url, *headers, *passwords)
        return tuple(value for value in known if value)

    def effective(self) -> dict[str, str]:
        """The deployment settings of spec I1 as they are in force, by their names; secrets as set or not set."""
        told: dict[str, str] = {}
        for owner in (self, self.embedding):
            for one in (one for one in fields(owner) if one.metadata.get("told")):
                told[one.metadata["name"]] = _shown(getattr(owner, one.name), hidden=not one.repr)
        return told

    def check_together(self) -> None:
        """Refuse values that are fine alone but not with each other."""
        overlap, limit = self.chunk_overlap_words, self.embedding.token_limit
        if overlap >= self.chunk_words:
            wish = f"fewer than RAG_CHUNK_WORDS ({self.chunk_words})"
            raise _refusal("RAG_CHUNK_OVERLAP_WORDS", wish, overlap, "Lower it: chunks would never advance.")
        largest = self.chunk_plan.tokens(self.chunk_words)
        if 0 < limit < largest:
            wish = f"0 (off) or at least one chunk's tokens ({largest})"
            raise _refusal("RAG_EMBEDDING_TOKEN_LIMIT", wish, limit, "Raise it: no chunk could ever leave.")


def _refusal(name: str, wish: str, got: object, remedy: str) -> SettingsError:
    return SettingsError(f"{name}: expected {wish}, got: {got}. {remedy}")


def _read(cls: type[T], texts: Mapping[str, str]) -> T:
    """A settings class filled from the variables that are set."""
    values: dict[str, Any] = {}
    for one in fields(cls):  # type: ignore[arg-type]  # the three classes above
        if not one.metadata:
            values[one.name] = _read(type(one.default), texts)
        elif one.metadata["name"] in texts:
            text = texts[one.metadata["name"]]
            values[one.name] = _parsed(text, one.metadata["name"], one.metadata["form"], secret=not one.repr)
    return cls(**values)


def _parsed(text: str, name: str, form: _Form[T], *, secret: bool) -> T:
    value = None
    with suppress(ValueError):
        value = form.parse(text)
    if value is None:
        got = "what may hold a secret (not shown)" if secret or "://" in text else repr(text[:60])
        raise _refusal(name, form.wish, got, "Change it, or unset it for the default.")
    return value


def _shown(value: object, *, hidden: bool) -> str:
    if hidden:
        return "set" if value else "not set"
    return str(value).lower() if isinstance(value, bool) else str(value)


@dataclass(frozen=True, slots=True)
class FlagReading:
    """One reading of the flag; `warning` is set when its text was not understood."""

    durable: bool
    warning: str | None = None


class FlagSource:
    """Reads USE_DURABLE_WORKER anew at each call (spec A1). One reading per request keeps a request whole."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._last_file: dict[str, str] = {}

    def read(self) -> FlagReading:
        """The flag as it stands now. Never raises: an unreadable file leaves what it last said."""
        warning = None
        try:
            # An empty file is one that is being rewritten: what it said a moment ago still holds.
            self._last_file = read_env_file(self._environ.get("RAG_ENV_FILE", "")) or self._last_file
        except SettingsError as error:
            warning = str(error)
        reading = parse_flag({**self._environ, **self._last_file}.get("USE_DURABLE_WORKER", ""))
        return FlagReading(reading.durable, reading.warning or warning)


def parse_flag(text: str) -> FlagReading:
    """true/1/yes/on and false/0/no/off in any case; anything else is false, with a warning."""
    durable = _WORDS.get(text.strip().lower())
    if durable is not None:
        return FlagReading(durable)
    expected = "true/1/yes/on or false/0/no/off"
    return FlagReading(False, f"USE_DURABLE_WORKER: expected {expected}, got: {text[:40]!r}. Taken as false.")


def read_env_file(path: str) -> dict[str, str]:
    """The KEY=VALUE lines of a file; blank lines and # comments are skipped, quotes around a value dropped.

    An empty `path` gives nothing. SettingsError when the file cannot be read or has another shape.
    """
    if not path:
        return {}
    try:
        with Path(path).open("rb") as file:
            raw = file.read(ENV_FILE_LIMIT_BYTES + 1)
    except OSError as error:
        got = f"{path!r} ({error.strerror})"
        raise _refusal("RAG_ENV_FILE", "a readable file", got, "Create it, or unset the variable.") from None
    if len(raw) > ENV_FILE_LIMIT_BYTES:
        raise SettingsError(f"RAG_ENV_FILE: expected at most {ENV_FILE_LIMIT_BYTES} bytes in {path!r}.")
    values: dict[str, str] = {}
    for number, line in enumerate(raw.decode("utf-8", "replace").splitlines(), start=1):
        text = line.strip().removeprefix("export ")
        if not text or text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        if not equals or not name.strip().isidentifier():
            raise SettingsError(f"{path}:{number}: expected KEY=VALUE. Fix the line or start it with #.")
        values[name.strip()] = _unquoted(value.strip())
    return values


def default_temp_dir() -> str:
    """A folder of this user's own below the system's temporary folder."""
    uid = os.getuid() if hasattr(os, "getuid") else "user"
    return str(Path(tempfile.gettempdir()) / f"ragworker-{uid}")


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"" else value


def _passwords(url: str) -> set[str]:
    """The passwords of a URL, as written and decoded; drivers also take them as options after the `?`."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return set()
    options = {value for name, value in parse_qsl(parts.query) if "password" in name}
    return options | ({parts.password, unquote(parts.password)} if parts.password else set())
