"""What cannot be had from Docker is one line with the flag, what came and what to do, before anything starts."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path

import pytest

from readiness.errors import BadInput
from readiness.stack import docker
from readiness.stack.assembly import require_parts
from readiness.stack.base import REDIS_URL_VARIABLE, StackPlan
from readiness.stack.docker import DEFAULT_IMAGES, IMAGE_VARIABLES, image_of, step_environment
from readiness.stack.stray_containers import LEDGER, note_container, note_end, sweep_containers

container = pytest.importorskip("readiness.stack.container", reason="the extra `docker` is not installed")

LOCAL = "http+docker://localhost"


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon on Linux that answers and has one image."""
    facts = container.Daemon(at=LOCAL, system="Debian GNU/Linux 12", rootless=False)
    monkeypatch.setattr(container, "daemon_facts", lambda: facts)
    monkeypatch.setattr(
        container, "image_digest", lambda name: "sha256:" + "a" * 64 if name == "redis:7" else None
    )
    for variable in IMAGE_VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)


def refusal(plan: StackPlan) -> str:
    """The line that a plan is refused with."""
    with pytest.raises(BadInput) as caught:
        require_parts(plan)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("plan", "flag"),
    [
        (StackPlan(redis="docker"), "--redis docker"),
        (StackPlan(redis="fakeredis", sql="docker"), "--sql docker"),
        (StackPlan(redis="fakeredis", monitoring_in="docker"), "--monitoring docker"),
    ],
)
def test_no_daemon_is_said(
    plan: StackPlan, flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no daemon listens, every flag says so and names DOCKER_HOST."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path / 'none'}")
    told = refusal(plan)
    assert told.startswith(f"{flag}: expected a Docker daemon that answers, got: ")
    assert "set DOCKER_HOST" in told


def test_a_daemon_that_keeps_silent_is_no_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket that hangs up is refused as one that nobody listens on."""
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "sock"))
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path / 'sock'}")
        assert "expected a Docker daemon that answers" in refusal(StackPlan(redis="docker"))


def test_a_missing_image_is_said_and_not_pulled(daemon: None) -> None:
    """The line has the command that gets the image, and the flag for another one."""
    require_parts(StackPlan(redis="docker"))
    told = refusal(StackPlan(redis="docker", sql="docker"))
    assert told.startswith("--sql docker: expected the image postgres:16 on this machine, found none")
    assert "docker pull postgres:16" in told
    assert "--image postgres=IMAGE" in told


def test_a_daemon_elsewhere_is_refused(daemon: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ports of another machine's daemon are not on our loopback."""
    facts = container.Daemon(at="http://10.0.0.5:2375", system="", rootless=False)
    monkeypatch.setattr(container, "daemon_facts", lambda: facts)
    assert "a unix:// socket), got: http://10.0.0.5:2375" in refusal(StackPlan(redis="docker"))


def test_monitoring_needs_the_hosts_network(daemon: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a virtual machine's container nothing of our loopback can be scraped: refused for these two only."""
    facts = container.Daemon(at=LOCAL, system="Docker Desktop", rootless=False)
    monkeypatch.setattr(container, "daemon_facts", lambda: facts)
    require_parts(StackPlan(redis="docker"))
    told = refusal(StackPlan(redis="docker", monitoring_in="docker"))
    assert "--monitoring docker: expected a Docker daemon on Linux itself, got: Docker Desktop" in told


def test_without_the_package_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """testcontainers is an extra: without it the line names the extra."""
    monkeypatch.setattr(docker, "find_spec", lambda _: None)
    assert "pip install 'readiness[docker]'" in refusal(StackPlan(redis="docker"))


@pytest.mark.parametrize("word", ["redis", "redis=", "mysql=x", "=x"])
def test_an_image_that_is_no_pair_is_refused(word: str) -> None:
    """--image wants PART=IMAGE with a part that is known."""
    assert "--image: expected one of redis=IMAGE" in refusal(StackPlan(images=(word,)))


def test_words_that_are_no_provider_are_refused() -> None:
    """Unknown words name the known ones; a contradiction is no choice."""
    assert "--sql: expected sqlite or docker, got: 'tape'" in refusal(StackPlan(sql="tape"))
    assert "--monitoring: expected local or docker" in refusal(StackPlan(monitoring_in="tape"))
    assert "Leave one of the two out" in refusal(StackPlan(monitoring=False, monitoring_in="docker"))


def test_a_chosen_image_reaches_the_steps(daemon: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of the run, a process of its own, starts its private Redis from the image that the person named."""
    monkeypatch.setenv(REDIS_URL_VARIABLE, "redis://:s3cret@h/0")
    monkeypatch.setenv(IMAGE_VARIABLES["redis"], "before")
    require_parts(StackPlan(redis="fakeredis", images=("redis=registry.example/valkey:8",)))
    assert image_of("redis") == "registry.example/valkey:8"
    assert step_environment()[IMAGE_VARIABLES["redis"]] == "registry.example/valkey:8"
    assert step_environment()[REDIS_URL_VARIABLE] == "redis://:s3cret@h/0"
    assert image_of("postgres") == DEFAULT_IMAGES["postgres"]


def test_a_run_without_docker_never_imports_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is only looked for when a part is asked from it."""
    monkeypatch.setitem(sys.modules, "readiness.stack.container", None)
    require_parts(StackPlan(redis="fakeredis"))


def test_docker_is_not_asked_about_containers_that_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweep asks Docker for an orphan only: not for one that ended, of a living owner, or on a torn line."""
    asked: list[str] = []
    monkeypatch.setattr(container, "remove_named", lambda name: asked.append(name) or True)
    run = tmp_path / "one"
    run.mkdir()
    note_container(run, "living")
    note_container(run, "ended")
    note_end(run, "ended")
    dead = json.dumps({"name": "orphan", "owner_pid": os.getpid(), "owner_create_time": 1.0})
    with (run / LEDGER).open("a", encoding="utf-8") as ledger:
        ledger.write(dead + '\n{"name": "torn", "owner')
    assert sweep_containers(tmp_path) == 1
    assert asked == ["orphan"]
