"""Read the environment, once and in one place. The only module that does.

`Settings.load(environ)` parses every name, checks it, and returns a frozen value; a wrong value is one line
that says what was expected. One setting is alive: USE_DURABLE_WORKER is read again for each request
(spec A1), by `FlagSource`, from the file named by RAG_ENV_FILE when there is one. That file's lines
(KEY=VALUE) win over the environment in both.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn, TypeVar
from urllib.parse import urlsplit

from ragworker.chunking import ChunkPlan

#: An env file is a handful of lines; a larger one is the wrong file.
ENV_FILE_LIMIT_BYTES: Final = 65_536

Number = TypeVar("Number", int, float)

_TRUE: Final = frozenset({"true", "1", "yes", "on"})
_FALSE: Final = frozenset({"false", "0", "no", "off", ""})


class SettingsError(ValueError):
    """A setting cannot be used; the message is one line for the person who wrote it."""


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """What the queue needs to know."""

    lease_seconds: float = 3.0
    max_deliveries: int = 20
    history_seconds: int = 86_400


@dataclass(frozen=True, slots=True)
class EmbeddingSettings:
    """How to talk to the embedding API, and how much (spec B1 to B4)."""

    url: str = "http://127.0.0.1:9999/v1"
    api_key: str = field(default="", repr=False)
    model: str = "text-embedding-3-small"
    batch_size: int = 32
    rate_limit: int = 1000
    rate_window_seconds: float = 60.0
    token_limit: int = 0
    concurrency: int = 3
    timeout_seconds: float = 30.0
    price_per_million_tokens: float = 0.02


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set, parsed. Secrets and URLs stay out of `repr`."""

    use_durable_worker: bool = False
    redis_url: str = field(default="redis://127.0.0.1:6379/0", repr=False)
    database_url: str = field(default="sqlite:///rag.db", repr=False)
    queue_name: str = "default"
    api_host: str = "127.0.0.1"
    api_port: int = 8000
    worker_concurrency: int = 4
    max_retries: int = 4
    retry_base_seconds: float = 1.0
    queue: QueueSettings = QueueSettings()
    embedding: EmbeddingSettings = EmbeddingSettings()
    memory_token_budget: int = 100_000
    chunk_words: int = 180
    chunk_overlap_words: int = 30
    max_upload_bytes: int = 26_214_400
    temp_dir: Path = Path()
    jwt_secret: str = field(default="", repr=False)
    jwt_audience: str = ""
    jwt_issuer: str = ""
    prometheus_enabled: bool = True
    grafana_dashboard_enabled: bool = False
    alertmanager_webhook_url: str = field(default="", repr=False)
    distributed_tracing_enabled: bool = False
    log_format: str = "json"
    log_level: str = "INFO"

    @classmethod
    def load(cls, environ: Mapping[str, str]) -> Settings:
        """Parse `environ`, overridden by the file RAG_ENV_FILE, if named. SettingsError on a bad value."""
        read = _Reader({**environ, **read_env_file(environ.get("RAG_ENV_FILE", ""))})
        settings = cls(
            use_durable_worker=FlagSource(environ).read().durable,
            redis_url=read.url("REDIS_URL", "redis://127.0.0.1:6379/0", schemes=("redis", "rediss", "unix")),
            database_url=read.text("DATABASE_URL", "sqlite:///rag.db"),
            queue_name=read.name("RAG_QUEUE", "default"),
            api_host=read.text("RAG_API_HOST", "127.0.0.1"),
            api_port=read.integer("RAG_API_PORT", 8000, low=0, high=65_535),
            worker_concurrency=read.integer("RAG_WORKER_CONCURRENCY", 4, low=1, high=256),
            max_retries=read.integer("RAG_MAX_RETRIES", 4, low=0, high=100),
            retry_base_seconds=read.seconds("RAG_RETRY_BASE_SECONDS", 1.0, low=0.001, high=125),
            queue=QueueSettings(
                # Below half a second a busy machine would lose leases that nobody meant to give up.
                lease_seconds=read.seconds("RAG_LEASE_SECONDS", 3.0, low=0.5, high=3600),
                max_deliveries=read.integer("RAG_MAX_DELIVERIES", 20, low=1, high=10_000),
                history_seconds=read.integer("RAG_JOB_HISTORY_SECONDS", 86_400, low=1, high=31_536_000),
            ),
            embedding=_embedding(read),
            memory_token_budget=read.integer("RAG_MEMORY_TOKEN_BUDGET", 100_000, low=1, high=10**9),
            chunk_words=read.integer("RAG_CHUNK_WORDS", 180, low=1, high=100_000),
            chunk_overlap_words=read.integer("RAG_CHUNK_OVERLAP_WORDS", 30, low=0, high=99_999),
            max_upload_bytes=read.integer("RAG_MAX_UPLOAD_BYTES", 26_214_400, low=1, high=536_870_912),
            temp_dir=Path(read.text("RAG_TEMP_DIR", "") or default_temp_dir()),
            jwt_secret=read.text("RAG_JWT_SECRET", ""),
            jwt_audience=read.text("RAG_JWT_AUDIENCE", ""),
            jwt_issuer=read.text("RAG_JWT_ISSUER", ""),
            prometheus_enabled=read.switch("PROMETHEUS_ENABLED", default=True),
            grafana_dashboard_enabled=read.switch("GRAFANA_DASHBOARD_ENABLED", default=False),
            alertmanager_webhook_url=read.text("ALERTMANAGER_WEBHOOK_URL", ""),
            distributed_tracing_enabled=read.switch("DISTRIBUTED_TRACING_ENABLED", default=False),
            log_format=read.choice("LOG_FORMAT", "json", ("json", "text")).lower(),
            log_level=read.choice(
                "LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
            ).upper(),
        )
        settings.check_together()
        return settings

    @property
    def chunk_plan(self) -> ChunkPlan:
        """How documents are cut."""
        return ChunkPlan(words=self.chunk_words, overlap=self.chunk_overlap_words)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Values that no log line may carry."""
        passwords = (_password(url) for url in (self.redis_url, self.database_url))
        known = (self.jwt_secret, self.embedding.api_key, self.alertmanager_webhook_url, *passwords)
        return tuple(value for value in known if value)

    def effective(self) -> dict[str, str]:
        """The deployment settings of spec I1 as they are in force, by their names; URLs only as set or not set."""
        return {
            "USE_DURABLE_WORKER": _word(self.use_durable_worker),
            "RAG_EMBEDDING_BATCH_SIZE": str(self.embedding.batch_size),
            "RAG_EMBEDDING_RATE_LIMIT": str(self.embedding.rate_limit),
            "RAG_EMBEDDING_CONCURRENCY": str(self.embedding.concurrency),
            "RAG_MAX_RETRIES": str(self.max_retries),
            "PROMETHEUS_ENABLED": _word(self.prometheus_enabled),
            "GRAFANA_DASHBOARD_ENABLED": _word(self.grafana_dashboard_enabled),
            "ALERTMANAGER_WEBHOOK_URL": "set" if self.alertmanager_webhook_url else "not set",
            "DISTRIBUTED_TRACING_ENABLED": _word(self.distributed_tracing_enabled),
            "LOG_FORMAT": self.log_format,
            "LOG_LEVEL": self.log_level,
        }

    def check_together(self) -> None:
        """Refuse values that are fine alone but not with each other."""
        if self.chunk_overlap_words >= self.chunk_words:
            raise SettingsError(
                f"RAG_CHUNK_OVERLAP_WORDS: expected fewer than RAG_CHUNK_WORDS ({self.chunk_words}), "
                f"got: {self.chunk_overlap_words}. Lower the overlap, or chunks would never advance."
            )
        largest = self.chunk_plan.tokens(self.chunk_words)
        if 0 < self.embedding.token_limit < largest:
            raise SettingsError(
                f"RAG_EMBEDDING_TOKEN_LIMIT: expected 0 (off) or at least one chunk's tokens ({largest}), "
                f"got: {self.embedding.token_limit}. Raise it, or no chunk could ever leave."
            )


def _word(switch: bool) -> str:
    return "true" if switch else "false"


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
        path = self._environ.get("RAG_ENV_FILE", "")
        warning = None
        if path:
            try:
                # An empty file is one that is being rewritten: what it said a moment ago still holds.
                self._last_file = read_env_file(path) or self._last_file
            except SettingsError as error:
                warning = str(error)
        text = self._last_file.get("USE_DURABLE_WORKER", self._environ.get("USE_DURABLE_WORKER", ""))
        reading = parse_flag(text)
        return FlagReading(reading.durable, reading.warning or warning)


def parse_flag(text: str) -> FlagReading:
    """true/1/yes/on and false/0/no/off in any case; anything else is false, with a warning."""
    word = text.strip().lower()
    if word in _TRUE or word in _FALSE:
        return FlagReading(word in _TRUE)
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
        raise SettingsError(
            f"RAG_ENV_FILE: expected a readable file, got: {path!r} ({error.strerror}). "
            "Create it, or unset the variable."
        ) from None
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


def _embedding(read: _Reader) -> EmbeddingSettings:
    return EmbeddingSettings(
        url=read.url("RAG_EMBEDDING_URL", "http://127.0.0.1:9999/v1", schemes=("http", "https")).rstrip("/"),
        api_key=read.text("RAG_EMBEDDING_API_KEY", ""),
        model=read.text("RAG_EMBEDDING_MODEL", "text-embedding-3-small"),
        batch_size=read.integer("RAG_EMBEDDING_BATCH_SIZE", 32, low=1, high=2048),
        rate_limit=read.integer("RAG_EMBEDDING_RATE_LIMIT", 1000, low=1, high=1_000_000),
        rate_window_seconds=read.seconds("RAG_EMBEDDING_RATE_WINDOW_SECONDS", 60.0, low=0.1, high=86_400),
        token_limit=read.integer("RAG_EMBEDDING_TOKEN_LIMIT", 0, low=0, high=10**12),
        concurrency=read.integer("RAG_EMBEDDING_CONCURRENCY", 3, low=1, high=256),
        timeout_seconds=read.seconds("RAG_EMBEDDING_TIMEOUT_SECONDS", 30.0, low=0.05, high=600),
        price_per_million_tokens=read.seconds(
            "RAG_EMBEDDING_PRICE_PER_MILLION_TOKENS", 0.02, low=0, high=10**6, what="US dollars"
        ),
    )


class _Reader:
    """Typed access to the merged environment; every failure names the variable, the wish and the value."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values

    def text(self, name: str, default: str) -> str:
        """The value without surrounding blanks; the default when unset or blank."""
        return self._values.get(name, "").strip() or default

    def integer(self, name: str, default: int, *, low: int, high: int) -> int:
        """A whole number in a range."""
        wish = f"a whole number {low}..{high}"
        value = self._parsed(name, str(default), int, wish)
        return value if low <= value <= high else self._refuse(name, wish)

    def seconds(self, name: str, default: float, *, low: float, high: float, what: str = "seconds") -> float:
        """A finite decimal number in a range."""
        wish = f"{what} {low:g}..{high:g}"
        value = self._parsed(name, str(default), float, wish)
        return value if math.isfinite(value) and low <= value <= high else self._refuse(name, wish)

    def switch(self, name: str, *, default: bool) -> bool:
        """A yes or no."""
        word = self.text(name, "true" if default else "false").lower()
        return word in _TRUE if word in _TRUE | _FALSE else self._refuse(name, "true or false")

    def choice(self, name: str, default: str, allowed: tuple[str, ...]) -> str:
        """One of a few words, in any case."""
        value = self.text(name, default)
        return (
            value
            if value.lower() in {word.lower() for word in allowed}
            else self._refuse(name, "/".join(allowed))
        )

    def name(self, name: str, default: str) -> str:
        """A name that is safe inside a Redis key."""
        value = self.text(name, default)
        fits = len(value) <= 64 and all(
            char.isascii() and (char.isalnum() or char in "._-") for char in value
        )
        return value if fits else self._refuse(name, "1..64 letters, digits, '.', '_' or '-'")

    def url(self, name: str, default: str, *, schemes: tuple[str, ...]) -> str:
        """A URL of one of the given schemes."""
        value = self.text(name, default)
        return (
            value if urlsplit(value).scheme in schemes else self._refuse(name, f"a URL ({'/'.join(schemes)})")
        )

    def _parsed(self, name: str, default: str, parse: Callable[[str], Number], wish: str) -> Number:
        try:
            return parse(self.text(name, default))
        except ValueError:
            self._refuse(name, wish)

    def _refuse(self, name: str, wish: str) -> NoReturn:
        # The value is shown: none of the checked settings is a secret, except a password inside a URL.
        shown = "a URL of another kind" if name.endswith("_URL") else repr(self._values.get(name, "")[:60])
        raise SettingsError(f"{name}: expected {wish}, got: {shown}. Change it, or unset it for the default.")


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"" else value


def _password(url: str) -> str:
    try:
        return urlsplit(url).password or ""
    except ValueError:
        return ""
