"""Prometheus and Alertmanager run the content root's files, deliver into sinks only, and survive broken files."""

from __future__ import annotations

import http.server
import json
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from readiness.checking.waiting import wait_until
from readiness.stack.alertmanager import Yaml, render_config
from readiness.stack.assembly import Stack
from readiness.stack.base import StackPlan
from readiness.stack.ports import answers_http, free_port
from readiness.stack.prometheus import add_scrape_target, remove_scrape_target
from readiness.stack.sinks import SinksPart

FAST_MS = 100
DISCOVERY_SECONDS = 25.0  # Prometheus hands targets on every 5 s; the rest is for a busy machine

RULES = {
    "groups": [
        {
            "name": "test",
            "rules": [
                {
                    "alert": "Always",
                    "expr": "vector(1)",
                    "labels": {"severity": "critical"},
                    "annotations": {"summary": "항상 켜짐"},
                }
            ],
        }
    ]
}
ROUTING: dict[str, Yaml] = {
    "global": {
        "smtp_smarthost": "mail.example.org:587",
        "smtp_from": "alerts@example.org",
        "smtp_auth_password": "s3cret",
        "slack_api_url_file": "secrets/slack",
        "resolve_timeout": "5m",
    },
    "templates": ["templates/*.tmpl"],
    "route": {
        "receiver": "team",
        "group_wait": "0s",
        "group_interval": "5m",
        "routes": [{"receiver": "pager", "matchers": ["severity=page"], "group_wait": "30s"}],
    },
    "inhibit_rules": [{"source_matchers": ["a=b"], "target_matchers": ["c=d"], "equal": ["e"]}],
    "receivers": [
        {
            "name": "team",
            "email_configs": [
                {"to": "ops@example.org", "auth_password": "s3cret", "smarthost": "mail.example.org:25"}
            ],
            "slack_configs": [
                {
                    "channel": "#ops",
                    "api_url": "https://hooks.example.org/x",
                    "title": '{{ template "ours" . }}',
                }
            ],
            "webhook_configs": [{"url": "https://example.org/hook"}],
        },
        {
            "name": "pager",
            "pagerduty_configs": [{"routing_key": "s3cret"}],
            "slack_configs": [{"channel": "#night", "api_url_file": "secrets/slack"}],
        },
    ],
}
TEMPLATE = '{{ define "ours" }}ours: {{ .CommonLabels.alertname }}{{ end }}'


@pytest.fixture
def sinks(tmp_path: Path) -> SinksPart:
    """Sinks that have addresses and do not run."""
    sinks = SinksPart(tmp_path)
    sinks.url, sinks.smarthost = "http://127.0.0.1:1", "127.0.0.1:2"
    return sinks


@pytest.fixture
def content(tmp_path: Path) -> Path:
    """A content root with a rule that always fires and routing to mail and Slack."""
    root = tmp_path / "content"
    templates = root / "rules" / "alertmanager" / "templates"
    templates.mkdir(parents=True)
    (templates / "ours.tmpl").write_text(TEMPLATE, encoding="utf-8")
    (root / "rules" / "rules.yml").write_text(yaml.safe_dump(RULES, allow_unicode=True), encoding="utf-8")
    (root / "rules" / "alertmanager" / "alertmanager.yml").write_text(
        yaml.safe_dump(ROUTING), encoding="utf-8"
    )
    return root


@pytest.fixture
def exporter() -> Iterator[str]:
    """The URL of something that can be scraped."""

    class Exposition(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"answer 42\n")

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Exposition)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def get(url: str) -> dict[str, object]:
    """The JSON object behind a loopback URL."""
    with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - loopback
        value = json.load(answer)
    assert isinstance(value, dict)
    return value


def values(prometheus_url: str, query: str) -> list[str]:
    """The values of an instant query."""
    answer = get(f"{prometheus_url}/api/v1/query?query={urllib.parse.quote(query)}")
    data = answer["data"]
    assert isinstance(data, dict)
    return [series["value"][1] for series in data["result"]]


def arrivals(url: str, channel: str) -> list[dict[str, object]]:
    """What a sink kept."""
    kept = get(f"{url}/_control/log?channel={channel}")["arrivals"]
    assert isinstance(kept, list)
    return kept


def test_no_address_of_the_configuration_survives(sinks: SinksPart) -> None:
    """The rendered configuration names sinks only: no outside address, no secret, no receiver that calls out."""
    before = json.dumps(ROUTING)
    text = yaml.safe_dump(render_config(ROUTING, sinks=sinks))
    for outside in ("mail.example.org", "hooks.example.org", "https://", "s3cret", "pagerduty", "_file"):
        assert outside not in text
    assert json.dumps(ROUTING) == before


def test_what_a_check_judges_stays(sinks: SinksPart) -> None:
    """Routes, waits, inhibitions, recipients and templates are those of the content root."""
    rendered = render_config(ROUTING, sinks=sinks)
    for key in ("route", "inhibit_rules", "templates"):
        assert rendered[key] == ROUTING[key]
    receivers = rendered["receivers"]
    assert isinstance(receivers, list)
    team, pager = receivers
    pager_chat = {"channel": "#night", "api_url": "http://127.0.0.1:1/slack/pager"}
    assert pager == {"name": "pager", "slack_configs": [pager_chat]}
    assert isinstance(team, dict)
    assert team["email_configs"] == [
        {"to": "ops@example.org", "smarthost": "127.0.0.1:2", "require_tls": False}
    ]
    assert team["slack_configs"] == [
        {"channel": "#ops", "api_url": "http://127.0.0.1:1/slack/team", "title": '{{ template "ours" . }}'}
    ]
    assert rendered["global"] == {
        "smtp_from": "alerts@example.org",
        "resolve_timeout": "5m",
        "smtp_smarthost": "127.0.0.1:2",
        "smtp_require_tls": False,
        "slack_api_url": "http://127.0.0.1:1/slack",
    }


def test_compressing_keeps_at_once_at_once(sinks: SinksPart) -> None:
    """A drill shortens waits, but a route without wait keeps none and one with a wait keeps some."""
    route = render_config(ROUTING, sinks=sinks, compress=True)["route"]
    assert isinstance(route, dict)
    assert (route["group_wait"], route["group_interval"]) == ("0s", "50ms")
    assert route["routes"] == [{"receiver": "pager", "matchers": ["severity=page"], "group_wait": "200ms"}]


def test_an_alert_goes_all_the_way_and_a_target_is_scraped(
    run_dir: Path, content: Path, exporter: str, require_part: Callable[[str], Path]
) -> None:
    """A rule fires in Prometheus and arrives by mail and Slack with our template; targets come and go by file."""
    require_part("prometheus")
    require_part("prometheus-alertmanager")
    plan = StackPlan(
        redis="fakeredis", root=content, scrape_interval_ms=FAST_MS, evaluation_interval_ms=FAST_MS
    )
    add_scrape_target(run_dir, "lane-a", url=exporter, labels={"lane": "a"})
    with Stack.start(plan, run_dir) as stack:
        prometheus, sink = stack.info.prometheus_url, stack.info.mail_sink
        assert prometheus
        assert sink
        query = 'answer{lane="a",job="ragworker"}'
        wait_until(
            lambda: values(prometheus, query) == ["42"], seconds=DISCOVERY_SECONDS, what="the scraped sample"
        )
        mail = wait_until(lambda: arrivals(sink, "mail"), seconds=DISCOVERY_SECONDS, what="the mail")[0]
        chat = wait_until(
            lambda: arrivals(sink, "slack"), seconds=DISCOVERY_SECONDS, what="the Slack message"
        )[0]
        remove_scrape_target(run_dir, "lane-a")
        wait_until(
            lambda: values(prometheus, query) == [], seconds=DISCOVERY_SECONDS, what="the end of the series"
        )
    assert mail["to"] == ["ops@example.org"]
    assert "Always" in str(mail["subject"])
    assert "항상 켜짐" in str(mail["html"])
    assert chat["path"] == "/slack/team"
    message = chat["json"]
    assert isinstance(message, dict)
    assert (message["channel"], message["attachments"][0]["title"]) == ("#ops", "ours: Always")


def test_the_users_proxy_is_not_asked_for_loopback(exporter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe reaches a part on loopback although the environment names a proxy."""
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    assert answers_http(exporter)
    assert not answers_http(f"http://127.0.0.1:{free_port()}")


def test_broken_rules_and_routing_do_not_stop_a_run(
    run_dir: Path, content: Path, require_part: Callable[[str], Path]
) -> None:
    """Files that Prometheus and Alertmanager refuse are left out, and the parts say so with the reason."""
    require_part("prometheus")
    require_part("prometheus-alertmanager")
    (content / "rules" / "rules.yml").write_text("groups: [{name: x, rules: [{alert: A, expr: 'sum('}]}]")
    (content / "rules" / "alertmanager" / "alertmanager.yml").write_text(
        "route: {receiver: nobody}\nreceivers: []"
    )
    with Stack.start(StackPlan(redis="fakeredis", root=content), run_dir) as stack:
        prometheus, alertmanager = stack.info.part("prometheus"), stack.info.part("alertmanager")
        assert stack.info.prometheus_url
        assert prometheus
        assert alertmanager
    assert "started without rules" in prometheus.note.en
    assert "could not parse expression" in prometheus.note.en
    assert "delivers nothing, because" in alertmanager.note.en
    assert "undefined receiver" in alertmanager.note.en
