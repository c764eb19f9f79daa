"""What is sent to a sink is kept, whole, and told."""

from __future__ import annotations

import json
import smtplib
import subprocess
import sys
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import httpx
import pytest


class Sinks:
    """Running sinks."""

    def __init__(self, log: Path) -> None:
        argv = [sys.executable, "-m", "readiness.simulators.sinks", "--mail-port", "0", "--http-port", "0"]
        self.process = subprocess.Popen([*argv, "--log", str(log)], stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        ready = json.loads(self.process.stdout.readline())
        self.mail_port = int(ready["mail_port"])
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{ready['http_port']}", trust_env=False)

    def kept(self, channel: str | None = None) -> list[dict[str, Any]]:
        """What arrived."""
        params = {} if channel is None else {"channel": channel}
        return list(self.client.get("/_control/log", params=params).json()["arrivals"])


@pytest.fixture
def log_file(tmp_path: Path) -> Path:
    """Where the sinks keep their log."""
    return tmp_path / "arrivals.jsonl"


@pytest.fixture
def sinks(log_file: Path) -> Iterator[Sinks]:
    """Fresh sinks."""
    running = Sinks(log_file)
    yield running
    running.client.close()
    running.process.terminate()
    running.process.communicate(timeout=5)


def test_a_mail_is_kept_with_its_envelope_and_both_bodies(sinks: Sinks, log_file: Path) -> None:
    """Sender, recipients, Korean subject, text and HTML of a mail are in the log and in the file."""
    message = EmailMessage()
    message["Subject"] = "[위험] DLQEntriesIncreasing"
    message["From"] = "alerts@example.org"
    message["To"] = "ops@example.org"
    message.set_content("본문")
    message.add_alternative("<b>본문</b>", subtype="html")
    with smtplib.SMTP("127.0.0.1", sinks.mail_port, timeout=5) as client:
        client.send_message(message, to_addrs=["ops@example.org", "cc@example.org"])
    (mail,) = sinks.kept("mail")
    assert (mail["from"], mail["to"]) == ("alerts@example.org", ["ops@example.org", "cc@example.org"])
    assert mail["subject"] == "[위험] DLQEntriesIncreasing"
    assert (mail["text"].strip(), mail["html"].strip()) == ("본문", "<b>본문</b>")
    assert mail["wall"].endswith("Z")
    assert [json.loads(line) for line in log_file.read_text().splitlines()] == [mail]


def test_chat_and_webhooks_are_kept_apart(sinks: Sinks) -> None:
    """Slack messages, webhooks and anything else are told by channel, in order of arrival."""
    assert sinks.client.post("/slack/team", json={"channel": "#ops"}).text == "ok"
    sinks.client.post("/webhook/x", json={"status": "firing"})
    sinks.client.post("/other", content=b"\xff plain")
    assert [arrival["channel"] for arrival in sinks.kept()] == ["slack", "webhook", "http"]
    assert sinks.kept("slack")[0]["json"] == {"channel": "#ops"}
    assert sinks.kept("webhook")[0]["path"] == "/webhook/x"
    assert sinks.kept("http")[0]["text"] == "� plain"
    times = [arrival["at"] for arrival in sinks.kept()]
    assert times == sorted(times)


def test_reading_is_not_an_arrival(sinks: Sinks) -> None:
    """A GET of a webhook's address is refused and not kept."""
    assert sinks.client.get("/slack/team").status_code == 405
    assert sinks.kept() == []
