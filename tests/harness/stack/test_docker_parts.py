"""Parts in containers start, answer on loopback only, survive SIGKILL with their data, and are gone afterwards."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
import redis
from sqlalchemy import create_engine, text
from test_stack_monitoring import DISCOVERY_SECONDS, arrivals, content, exporter, values  # noqa: F401 - two are fixtures
from test_stack_redis import port_of

from readiness.checking.waiting import wait_until
from readiness.judge.model import PartState
from readiness.stack.assembly import Stack
from readiness.stack.base import StackPlan
from readiness.stack.processes import StackError
from readiness.stack.prometheus import add_scrape_target
from readiness.stack.redis import start_private_redis
from readiness.stack.redis_container import ContainedRedis
from readiness.stack.sql import lane_database_url, new_postgres
from readiness.stack.stray_containers import LEDGER, sweep_containers

END_SECONDS = 30.0
SHORT_MS = 200


def names() -> list[str]:
    """Every container that carries our label, running or not."""
    listed = ["docker", "ps", "--all", "--filter", "label=readiness.run", "--format", "{{.Names}}"]
    return subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split()


def of(run_dir: Path) -> list[str]:
    """The containers that the ledger of a run folder names and Docker still has."""
    ledger = run_dir / LEDGER
    noted = (
        {json.loads(line)["name"] for line in ledger.read_text().splitlines()} if ledger.exists() else set()
    )
    return sorted(noted.intersection(names()))


def volumes_of(run_dir: Path) -> set[str]:
    """The volumes of the containers of a run folder."""
    wanted = ["docker", "inspect", "--format", "{{range .Mounts}}{{.Name}} {{end}}", *of(run_dir)]
    return set(subprocess.run(wanted, capture_output=True, text=True, check=True).stdout.split())


def listeners(port: int) -> set[str]:
    """Addresses of this machine on which the port takes a connection."""
    found = set()
    hosts = {
        "127.0.0.1",
        *(one[4][0] for one in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)),
    }
    route = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=False).stdout.split()
    for host in {str(one) for one in (*hosts, *route) if ":" not in str(one)}:
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex((host, port)) == 0:
                found.add(host)
    return found


def test_redis_keeps_what_it_acknowledged(run_dir: Path, docker: str) -> None:
    """Killed and started again it has its data on the same address; frozen it is silent; stopped it is gone."""
    server = start_private_redis(run_dir, "redis", wanted="docker")
    assert isinstance(server, ContainedRedis)
    url, made = server.url, of(run_dir)
    assert len(made) == 1
    assert {one for one in listeners(port_of(url)) if not one.startswith("127.")} == set()
    assert server.version[0].isdigit()
    assert server.image.digest[:12] in server.note.en.replace("sha256:", "") or "sha256:" in server.note.en
    with redis.Redis.from_url(url, socket_timeout=1, protocol=2) as client:
        client.set("kept", "yes")
        server.kill()
        assert not server.alive
        assert of(run_dir) == made
        server.start()
        assert (server.url, of(run_dir), client.get("kept")) == (url, made, b"yes")
        server.pause()
        with pytest.raises(redis.TimeoutError):
            client.ping()
        server.resume()
        assert wait_until(client.ping, seconds=10, what="an answer after the pause")
    assert list(server.data_dir.rglob("*.aof"))
    server.pause()
    server.stop()
    server.stop()
    assert of(run_dir) == []
    assert "Ready to accept connections" in (run_dir / "logs" / "redis.log").read_text()
    server.start()
    with redis.Redis.from_url(server.url) as client:
        assert client.get("kept") == b"yes"
    server.stop()


def test_changed_options_make_a_new_container_on_the_same_data(run_dir: Path, docker: str) -> None:
    """Options are part of the command: with other ones `start` makes a container anew, with port and data of before."""
    server = start_private_redis(run_dir, "redis", wanted="docker")
    url = server.url
    with redis.Redis.from_url(url) as client:
        client.set("kept", "yes")
        server.kill()
        server.options["maxmemory"] = "64mb"
        server.start()
        assert (server.url, client.get("kept")) == (url, b"yes")
        assert client.config_get("maxmemory") == {"maxmemory": str(64 * 1024 * 1024)}
    assert len(of(run_dir)) == 1
    server.stop()


def test_two_servers_replicate(run_dir: Path, docker: str) -> None:
    """A server reaches another one by its `peer` address: loopback would be its own."""
    one, two = (start_private_redis(run_dir, name, wanted="docker") for name in ("one", "two"))
    with redis.Redis.from_url(one.url) as first, redis.Redis.from_url(two.url) as second:
        first.set("kept", "yes")
        second.execute_command("REPLICAOF", *one.peer)
        wait_until(lambda: second.get("kept") == b"yes", seconds=20, what="the replica's copy")
    one.stop()
    two.stop()


def test_a_server_that_refuses_leaves_its_last_words_and_no_container(run_dir: Path, docker: str) -> None:
    """An option that Redis does not know is a StackError with the reason; a prefix is refused."""
    with pytest.raises(StackError, match=r"(?s)ended with status 1 before PONG.*nonsense"):
        start_private_redis(run_dir, "redis", wanted="docker", options={"nonsense": "yes"})
    with pytest.raises(StackError, match="expected a Redis of this machine for faketime"):
        start_private_redis(run_dir, "redis", wanted="docker", prefix=["faketime"])
    assert of(run_dir) == []


def test_a_taken_port_costs_another_try(run_dir: Path, docker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker's refusal of a port that somebody took meanwhile is not the end."""
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        taken = stranger.getsockname()[1]
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            free = other.getsockname()[1]
        ports = iter([taken, free])
        monkeypatch.setattr("readiness.stack.redis.free_port", lambda: next(ports))
        server = start_private_redis(run_dir, "redis", wanted="docker")
        assert port_of(server.url) == free
        server.stop()
    assert of(run_dir) == []


def test_postgresql_keeps_what_it_committed(run_dir: Path, docker: str) -> None:
    """Each lane has a database; killed and started again PostgreSQL has every commit; its end takes the data along."""
    server = new_postgres(run_dir)
    server.start()
    assert server.version.split(".")[0].isdigit()
    url = lane_database_url(run_dir, server.url, "main-gw0")
    assert lane_database_url(run_dir, server.url, "main-gw0") == url
    assert lane_database_url(run_dir, server.url, "other") != url
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("create table kept (word text)"))
        connection.execute(text("insert into kept values ('yes')"))
    server.kill()
    assert not server.alive
    engine.dispose()
    server.start()
    with engine.connect() as connection:
        assert connection.execute(text("select word from kept")).scalar() == "yes"
    engine.dispose()
    volumes = volumes_of(run_dir)
    assert len(volumes) == 1
    server.stop()
    assert of(run_dir) == []
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(server.url.replace("+psycopg", ""), connect_timeout=2)
    left = subprocess.run(["docker", "volume", "ls", "-q"], capture_output=True, text=True, check=True)
    assert volumes.isdisjoint(left.stdout.split())


def test_an_alert_goes_all_the_way_through_containers(
    run_dir: Path,
    content: Path,  # noqa: F811 - the fixture of test_stack_monitoring
    exporter: str,  # noqa: F811 - as above
    docker: str,
) -> None:
    """Prometheus in a container scrapes loopback, its alert reaches Alertmanager in another, and that our sinks."""
    plan = StackPlan(
        redis="docker",
        sql="docker",
        monitoring_in="docker",
        root=content,
        scrape_interval_ms=SHORT_MS,
        evaluation_interval_ms=SHORT_MS,
    )
    add_scrape_target(run_dir, "lane-a", url=exporter, labels={"lane": "a"})
    with Stack.start(plan, run_dir) as stack:
        prometheus, manager, sink = (
            stack.info.prometheus_url,
            stack.info.alertmanager_url,
            stack.info.mail_sink,
        )
        assert prometheus
        assert manager
        assert sink
        assert len(of(run_dir)) == 4
        for url in (prometheus, manager):
            assert {one for one in listeners(port_of(url)) if not one.startswith("127.")} == set()
        wait_until(
            lambda: values(prometheus, 'answer{lane="a"}') == ["42"],
            seconds=DISCOVERY_SECONDS,
            what="the scraped sample",
        )
        mail = wait_until(lambda: arrivals(sink, "mail"), seconds=DISCOVERY_SECONDS, what="the mail")[0]
        assert "Always" in str(mail["subject"])
        for name in ("redis", "sql", "prometheus", "alertmanager"):
            part = stack.info.part(name)
            assert part
            assert (part.state, part.provider) == (PartState.REAL, "docker")
            assert part.version[0].isdigit()
            assert "readiness-test/" in part.note.en
            assert "sha256:" in part.note.ko
    assert of(run_dir) == []
    assert (run_dir / "data" / "prometheus" / "tsdb").is_dir()


def test_broken_files_do_not_stop_a_run(
    run_dir: Path,
    content: Path,  # noqa: F811 - the fixture of test_stack_monitoring
    docker: str,
) -> None:
    """Rules that Prometheus in a container refuses are left out, and the part says so with its reason."""
    (content / "rules" / "rules.yml").write_text("groups: [{name: x, rules: [{alert: A, expr: 'sum('}]}]")
    with Stack.start(StackPlan(redis="fakeredis", monitoring_in="docker", root=content), run_dir) as stack:
        part = stack.info.part("prometheus")
        assert stack.info.prometheus_url
        assert part
        assert "started without rules" in part.note.en
        assert "could not parse expression" in part.note.en
    assert of(run_dir) == []


PROGRAM = """
import time
from pathlib import Path
from readiness.stack import Stack, StackPlan
with Stack.start(StackPlan(redis="docker", monitoring=False), Path({run_dir!r})):
    print("up", flush=True)
    time.sleep(120)
"""


def harness(run_dir: Path) -> subprocess.Popen[bytes]:
    """A process with a Redis in a container, up."""
    program = PROGRAM.format(run_dir=str(run_dir))
    started = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert started.stdout is not None
    assert started.stdout.readline() == b"up\n"
    return started


def test_ctrl_c_removes_the_containers(run_dir: Path, docker: str) -> None:
    """SIGINT to the group, as a terminal sends it, ends with no container."""
    with harness(run_dir) as started:
        assert of(run_dir)
        os.killpg(started.pid, signal.SIGINT)
        assert started.wait(timeout=END_SECONDS) == -signal.SIGINT
    assert of(run_dir) == []


def test_a_crash_of_the_harness_removes_the_containers(run_dir: Path, docker: str) -> None:
    """After SIGKILL of the harness its keeper removes the container, without anybody starting anything."""
    with harness(run_dir) as started:
        assert of(run_dir)
        os.killpg(started.pid, signal.SIGKILL)
        started.wait(timeout=END_SECONDS)
    wait_until(lambda: of(run_dir) == [], seconds=END_SECONDS, what="the keeper's work")


def test_the_next_start_removes_what_a_dead_keeper_left(
    run_dir: Path, docker: str, find_keeper: Callable[[int], int]
) -> None:
    """Harness and keeper killed: the sweep removes the container, once, and leaves those of the living alone."""
    with harness(run_dir) as started:
        assert sweep_containers(run_dir.parent) == 0
        os.kill(find_keeper(started.pid), signal.SIGKILL)
        os.killpg(started.pid, signal.SIGKILL)
        started.wait(timeout=END_SECONDS)
    time.sleep(1)
    assert len(of(run_dir)) == 1
    assert sweep_containers(run_dir.parent) == 1
    assert of(run_dir) == []
    assert sweep_containers(run_dir.parent) == 0


@pytest.fixture
def find_keeper() -> Callable[[int], int]:
    """The pid of the keeper that a process started."""
    import psutil  # noqa: PLC0415 - only here

    def find(owner: int) -> int:
        children = psutil.Process(owner).children()
        return next(child.pid for child in children if "readiness.stack.keeper" in " ".join(child.cmdline()))

    return find
