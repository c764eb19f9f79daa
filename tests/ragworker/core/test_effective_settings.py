"""Settings are read as the table promises, and told at the start as they are in force, without any secret."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ragworker.settings import Settings, SettingsError

SPEC_I1 = {
    "USE_DURABLE_WORKER",
    "RAG_EMBEDDING_BATCH_SIZE",
    "RAG_EMBEDDING_RATE_LIMIT",
    "RAG_EMBEDDING_CONCURRENCY",
    "RAG_MAX_RETRIES",
    "PROMETHEUS_ENABLED",
    "GRAFANA_DASHBOARD_ENABLED",
    "ALERTMANAGER_WEBHOOK_URL",
    "DISTRIBUTED_TRACING_ENABLED",
    "LOG_FORMAT",
    "LOG_LEVEL",
}


def test_every_setting_of_the_specification_is_told() -> None:
    """The names are those of spec I1, the values the defaults of the contract."""
    told = Settings.load({}).effective()
    assert set(told) == SPEC_I1
    assert (told["RAG_EMBEDDING_BATCH_SIZE"], told["RAG_EMBEDDING_RATE_LIMIT"]) == ("32", "1000")


def test_what_was_set_is_what_is_told() -> None:
    """A value from the environment shows, in the form in which it is in force."""
    told = Settings.load(
        {"RAG_MAX_RETRIES": "2", "PROMETHEUS_ENABLED": "no", "LOG_LEVEL": "debug"}
    ).effective()
    assert (told["RAG_MAX_RETRIES"], told["PROMETHEUS_ENABLED"], told["LOG_LEVEL"]) == ("2", "false", "DEBUG")


def test_a_webhook_with_its_token_is_not_told() -> None:
    """A webhook's URL is a secret: only that it is set is said."""
    told = Settings.load({"ALERTMANAGER_WEBHOOK_URL": "https://hooks.example/T0/very-secret"}).effective()
    assert told["ALERTMANAGER_WEBHOOK_URL"] == "set"
    assert "very-secret" not in str(told)


@pytest.mark.parametrize(
    ("name", "text", "read"),
    [
        ("REDIS_URL", "sentinel://u:p@10.0.0.1:26379,10.0.0.2:26379/main/0", lambda s: s.redis_url),
        ("REDIS_URL", "sentinels://10.0.0.1:26379/main", lambda s: s.redis_url),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4318", lambda s: s.otlp_endpoint),
        ("RAG_JOB_HISTORY_SECONDS", "0", lambda s: str(s.queue.history_seconds)),
        ("RAG_JOB_HISTORY_COUNT", "0", lambda s: str(s.queue.history_count)),
        ("RAG_REDIS_WAIT_REPLICAS", "10", lambda s: str(s.queue.wait_replicas)),
        ("RAG_ROLLBACK_SECONDS", "0.5", lambda s: str(s.rollback_seconds)),
        ("RAG_WORKER_CONCURRENCY", "1024", lambda s: str(s.worker_concurrency)),
    ],
)
def test_value_at_the_edge_is_accepted(name: str, text: str, read: Callable[[Settings], str]) -> None:
    """What the table promises is taken as it is written."""
    assert read(Settings.load({name: f"  {text} "})) == text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("RAG_JOB_HISTORY_COUNT", "10000001"),
        ("RAG_REDIS_WAIT_REPLICAS", "11"),
        ("RAG_WORKER_CONCURRENCY", "1025"),
        ("RAG_EMBEDDING_URL", "http://[::1"),
        ("REDIS_URL", "sentinel+tls://:hush@h/main"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "grpc://u:hush@collector:4317"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization hush"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=1,=hush"),
    ],
)
def test_value_beyond_the_edge_is_refused_without_being_a_leak(name: str, text: str) -> None:
    """One line with the name; what may hold a password or key is not repeated in it."""
    with pytest.raises(SettingsError) as caught:
        Settings.load({name: text})
    message = str(caught.value)
    assert message.startswith(f"{name}: expected ")
    assert "hush" not in message
    assert "\n" not in message


def test_collector_headers_are_read_as_specified_and_kept_secret() -> None:
    """Pairs with percent-encoded values, names in any case; the values are secrets of the log."""
    settings = Settings.load({"OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Basic%20aHVzaA==, X-Scope=team"})
    assert settings.otlp_headers == (("authorization", "Basic aHVzaA=="), ("x-scope", "team"))
    assert {"Basic aHVzaA==", "team"} <= set(settings.secrets)
    assert "aHVzaA" not in repr(settings)


def test_passwords_are_secrets_however_they_are_written() -> None:
    """Encoded in a URL, decoded by its driver, or as an option behind the question mark."""
    settings = Settings.load(
        {"REDIS_URL": "redis://:a%2Fhush@h/0", "DATABASE_URL": "postgresql://u@h/d?password=b-hush"}
    )
    assert set(settings.secrets) == {"a%2Fhush", "a/hush", "b-hush"}
