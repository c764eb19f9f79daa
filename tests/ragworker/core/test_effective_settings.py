"""What the API says of its settings at its start: all of spec I1, as they are in force, and no secret."""

from __future__ import annotations

from ragworker.settings import Settings

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
