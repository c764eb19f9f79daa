"""PostgreSQL in a container: one server a run, one database a lane. Needs the extra `docker`."""

from __future__ import annotations

import time
from pathlib import Path

import psycopg
from psycopg import errors, sql

from readiness.judge.model import Text
from readiness.stack.container import Container, Recipe
from readiness.stack.docker import Image, short
from readiness.stack.ports import LOOPBACK, PROBE_SECONDS, free_port
from readiness.stack.processes import Probe, StackError

INNER_PORT = 5432
USER = "readiness"

READY_SECONDS = 60.0
"""The first start makes a cluster: 2 s on a quiet machine."""

PORT_ATTEMPTS = 5
MAKE_SECONDS = 20.0
"""How long a database may take that several lanes ask for at once."""


class PostgresServer:
    """`kill` is `docker kill`, `start` after it goes on with the same data; ending it removes the data with it."""

    provider = "docker"

    def __init__(self, run_dir: Path, *, image: Image) -> None:
        self.image = image
        self.version = ""
        self._container = Container(run_dir, "postgres")
        self._port = 0

    @property
    def url(self) -> str:
        """SQLAlchemy URL of the server's first database."""
        return f"postgresql+psycopg://{USER}@{LOOPBACK}:{self._port}/postgres"

    @property
    def note(self) -> Text:
        """The image, as the report shows it."""
        name, digest = self.image.name, short(self.image.digest)
        return Text(
            en=f"PostgreSQL in a container of {name} ({digest}) on a port of loopback, one database a lane",
            ko=f"{name}({digest}) 컨테이너의 PostgreSQL이며 루프백 포트를 쓰고 레인마다 데이터베이스가 하나입니다.",
        )

    @property
    def alive(self) -> bool:
        """True while its process runs."""
        return self._container.alive

    def start(self) -> None:
        """Start and wait until it answers; the first start takes a free port. StackError when it does not."""
        if self._port:
            self._start_on(self._port)
            return
        for attempt in range(1, PORT_ATTEMPTS + 1):
            try:
                self._start_on(free_port())
                return
            except StackError:
                if (
                    "ddress already in use" not in " ".join(self._container.tail())
                    or attempt == PORT_ATTEMPTS
                ):
                    raise

    def kill(self) -> None:
        """End it as a power cut would (SIGKILL)."""
        self._container.kill()

    def pause(self) -> None:
        """Freeze it: connections stay open, nobody answers."""
        self._container.pause()

    def resume(self) -> None:
        """Let it go on."""
        self._container.resume()

    def stop(self) -> None:
        """End it and remove its data. Doing it twice is harmless."""
        self._container.stop()

    def terminate(self) -> None:
        """Ask it to end; returns at once."""
        self._container.terminate()

    def await_end(self, deadline: float) -> None:
        """Wait until it ended, insist at the monotonic moment `deadline`; its data goes with it."""
        self._container.await_end(deadline)

    def _start_on(self, port: int) -> None:
        recipe = Recipe(
            image=self.image.name,
            command=(),
            port=port,
            inner_port=INNER_PORT,
            environment={
                "POSTGRES_USER": USER,
                "POSTGRES_DB": "postgres",
                "POSTGRES_HOST_AUTH_METHOD": "trust",
            },
            as_us=False,  # its data is in a volume of its own, and it refuses to be root
        )
        try:
            self._container.start(recipe)
            self._container.wait_ready(
                Probe(f"SELECT on port {port}", lambda: self._answers(port)), READY_SECONDS
            )
        except BaseException:
            if not self._port:
                self._container.kill()
            raise
        self._port = port

    def _answers(self, port: int) -> bool:
        try:
            with _connect(port) as connection:
                self.version = str(connection.info.parameter_status("server_version") or "").partition(" ")[0]
                return connection.execute("SELECT 1").fetchone() == (1,)
        except psycopg.Error:
            return False


def make_database(url: str, name: str) -> str:
    """Make the database on the server of this SQLAlchemy URL unless it is there; its URL. StackError if refused."""
    server, _, _ = url.rpartition("/")
    deadline = time.monotonic() + MAKE_SECONDS
    while True:
        try:
            with psycopg.connect(url.replace("+psycopg", "", 1), autocommit=True) as connection:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        except (errors.DuplicateDatabase, errors.UniqueViolation):
            pass
        except errors.ObjectInUse as busy:  # two lanes copy the template at once
            if time.monotonic() > deadline:
                raise StackError(f"sql: expected the database {name}, got: {busy}") from None
            time.sleep(0.1)
            continue
        except psycopg.Error as error:
            raise StackError(f"sql: expected the database {name}, got: {error}") from None
        return f"{server}/{name}"


def _connect(port: int) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(
        host=LOOPBACK, port=port, user=USER, dbname="postgres", connect_timeout=max(2, int(PROBE_SECONDS))
    )
