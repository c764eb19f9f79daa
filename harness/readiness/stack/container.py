"""One container with the manners of a child process: start, SIGKILL, freeze, go on, end, and always be ended.

Four nets catch it: `stop` on the way out; `keeper`, a small process that outlives us and removes what we left
(testcontainers' own Ryuk would be one more image to pull, so it is switched off); `stray_containers` at the next
start; and no restart policy, so that nothing comes back after a reboot. Needs the extra `docker`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import requests
from docker.errors import DockerException, ImageNotFound, NotFound
from docker.models.containers import Container as DockersContainer
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.docker_client import DockerClient

from readiness.stack.ports import LOOPBACK
from readiness.stack.processes import (
    KILL_WAIT_SECONDS,
    STOP_GRACE_SECONDS,
    TAIL_LINES,
    Probe,
    StackError,
    await_ready,
    tail_words,
)
from readiness.stack.stray_containers import note_container, note_end
from readiness.stack.watch import Watch

testcontainers_config.ryuk_disabled = True
logging.getLogger("testcontainers.core.container").setLevel(logging.WARNING)  # it says "Pulling" and does not

RUN_LABEL = "readiness.run"
OWNER_LABEL = "readiness.owner"

_WATCH = Watch()
_FAILURES = (DockerException, requests.RequestException)


class DockerFailure(Exception):
    """The daemon cannot be reached or refused; the message is one line."""


@dataclass(frozen=True, slots=True)
class Daemon:
    """`at`: the address by which we reach it; `system`: what it says it runs on; `rootless`: under our own user."""

    at: str
    system: str
    rootless: bool


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a container is made of. Equal recipes may go on in the container that is there.

    `inner_port` is published on `port` of loopback; without one the container shares the host's network and must
    bind loopback itself. `folders` are seen in it under the same paths. `as_us`: under our own user, so that files
    in `folders` are ours.
    """

    image: str
    command: tuple[str, ...]
    port: int
    inner_port: int | None = None
    entrypoint: str | None = None
    folders: tuple[Path, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    as_us: bool = True


class Container:
    """A part of a run in a container. Ending it twice is harmless, whoever ended it first."""

    def __init__(self, run_dir: Path, name: str) -> None:
        self.name = name
        self.pid = 0
        self._run_dir = run_dir
        self._own_name = f"readiness-{run_dir.name}-{name}-{secrets.token_hex(4)}"
        self._recipe: Recipe | None = None
        self._started: DockersContainer | None = None
        self._refusal = ""

    def start(self, recipe: Recipe) -> None:
        """Start it: the container that is there when it was made by the same recipe, a new one otherwise.

        StackError when Docker refuses; a port that is taken says "address already in use" in `tail`.
        """
        self._refusal = ""
        try:
            with _one_line():
                if self._started is not None and recipe == self._recipe:
                    self._started.start()
                else:
                    self.remove()
                    self._create(recipe)
        except DockerFailure as failure:
            taken = "port is already allocated" in str(failure) or "address already in use" in str(failure)
            self._refusal = "address already in use" if taken else ""
            raise StackError(f"{self.name}: {recipe.image} could not be started: {failure}") from None
        self.pid = int(self._state().get("Pid", 0))

    @property
    def alive(self) -> bool:
        """True while its process runs (or is frozen)."""
        return bool(self._state().get("Running"))

    @property
    def address(self) -> str:
        """Where other containers reach it; loopback when it shares the host's network."""
        if self._started is None or self._recipe is None or self._recipe.inner_port is None:
            return LOOPBACK
        return str(self._started.attrs["NetworkSettings"]["IPAddress"])

    def holds(self, port: int) -> bool:
        """True when the answer on `port` is ours: Docker keeps a published port; a bound one we look up."""
        if self._recipe is not None and self._recipe.inner_port is not None:
            return self.alive
        try:
            connections = psutil.Process(self.pid).net_connections(kind="tcp")
        except psutil.Error:
            return self.alive  # another user's process: we may not look
        return any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in connections)

    def poll(self) -> int | None:
        """Exit status; None while it runs."""
        state = self._state()
        return None if state.get("Running") else int(state.get("ExitCode", -1))

    def terminate(self) -> None:
        """Ask it to end; returns at once. A frozen one is thawed so that it can hear."""
        if self._started is not None:
            self.resume()
            self._tell("SIGTERM")

    def await_end(self, deadline: float) -> None:
        """Wait until the monotonic moment `deadline`, then end it; it is removed, its log and folders stay."""
        if self._started is not None and self.alive:
            self._await_exit(max(0.1, deadline - time.monotonic()))
        self.remove()

    def stop(self, grace: float = STOP_GRACE_SECONDS) -> None:
        """SIGTERM, up to `grace` seconds, then SIGKILL; the container is removed, its log and folders stay."""
        self.terminate()
        self.await_end(time.monotonic() + grace)

    def kill(self) -> None:
        """SIGKILL; returns when it ended. The container stays, and `start` goes on in it."""
        if self._started is None:
            return
        self._tell("SIGKILL")
        self._await_exit(KILL_WAIT_SECONDS)
        if self.alive:
            raise StackError(f"{self.name} (container) is still there {KILL_WAIT_SECONDS:g} s after SIGKILL")

    def pause(self) -> None:
        """Freeze it: connections stay open, nobody answers."""
        if self._started is not None:
            with contextlib.suppress(*_FAILURES):
                self._started.pause()

    def resume(self) -> None:
        """Thaw it."""
        if self._started is not None and self._state().get("Paused"):
            with contextlib.suppress(*_FAILURES):
                self._started.unpause()

    def wait_ready(self, probe: Probe, seconds: float) -> None:
        """Ask `probe` until it is true. StackError as `processes.await_ready`."""
        await_ready(self, probe, seconds)

    def tail(self, lines: int = TAIL_LINES) -> list[str]:
        """The last lines of its log."""
        output = self._log(lines)
        return [line for line in [*output.decode("utf-8", "replace").splitlines(), self._refusal] if line]

    def tail_note(self) -> str:
        """The log's tail as the end of an error message."""
        return tail_words(f"{self.name} (container)", self.tail())

    def remove(self) -> None:
        """Remove container and volumes; keep its log as `logs/<name>.log`. By name: a half-made one is found too."""
        started, self._started = self._started, None
        if self._recipe is None:
            return
        self._keep_log(started)
        with contextlib.suppress(*_FAILURES):
            remove_named(self._own_name)
        self._recipe = None
        _WATCH.forget(self._own_name)
        note_end(self._run_dir, self._own_name)

    def _create(self, recipe: Recipe) -> None:
        self._recipe = recipe
        note_container(self._run_dir, self._own_name)
        _WATCH.remember(self._own_name)
        made = DockerContainer(recipe.image, name=self._own_name, env=dict(recipe.environment))
        made.image = recipe.image
        made.with_command(list(recipe.command))
        for folder in recipe.folders:
            made.with_volume_mapping(folder, str(folder), "rw,z")
        options: dict[str, Any] = {"labels": self._labels(), "detach": True}
        if recipe.inner_port is None:
            options["network_mode"] = "host"
            options["network"] = None
        else:
            options["network"] = "bridge"
            # testcontainers' own way to publish takes any address; Docker's takes one.
            made.ports = {f"{recipe.inner_port}/tcp": (LOOPBACK, recipe.port)}  # type: ignore[dict-item]  # see above
        if recipe.entrypoint is not None:
            options["entrypoint"] = [recipe.entrypoint]
        if recipe.as_us:
            options["user"] = _our_user()
        made.with_kwargs(**options)
        made.start()
        self._started = made.get_wrapped_container()

    def _labels(self) -> dict[str, str]:
        return {RUN_LABEL: self._run_dir.name, OWNER_LABEL: str(os.getpid())}

    def _state(self) -> Mapping[str, Any]:
        """What Docker says of it now; empty when there is none."""
        if self._started is None:
            return {}
        try:
            with _one_line():
                self._started.reload()
        except DockerFailure:
            return {}
        state: Mapping[str, Any] = self._started.attrs.get("State", {})
        return state

    def _tell(self, number: str) -> None:
        """Send a signal; one that ended meanwhile does not hear it, and that is well."""
        assert self._started is not None
        with contextlib.suppress(*_FAILURES):
            self._started.kill(signal=number)

    def _await_exit(self, seconds: float) -> None:
        assert self._started is not None
        with contextlib.suppress(*_FAILURES):
            self._started.wait(timeout=seconds)

    def _log(self, lines: int | str) -> bytes:
        if self._started is None:
            return b""
        with contextlib.suppress(*_FAILURES):
            return bytes(self._started.logs(tail=lines))  # type: ignore[arg-type]  # the stubs know no "all"
        return b""

    def _keep_log(self, started: DockersContainer | None) -> None:
        if started is None:
            return
        folder = self._run_dir / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(*_FAILURES), (folder / f"{self.name}.log").open("ab") as kept:
            kept.write(bytes(started.logs()))


def daemon_facts() -> Daemon:
    """The daemon that the environment names. DockerFailure when none answers."""
    with _one_line():
        client = DockerClient().client
        facts = client.info()
        options = facts.get("SecurityOptions") or ()
        return Daemon(
            at=str(client.api.base_url) if "://" in str(client.api.base_url) else "",
            system=str(facts.get("OperatingSystem", "")),
            rootless=any("rootless" in str(option) for option in options),
        )


def daemon_version() -> str:
    """Its version. DockerFailure when none answers."""
    with _one_line():
        return str(DockerClient().client.version().get("Version", ""))


def image_digest(name: str) -> str | None:
    """The registry's digest of an image of this machine, else its id; None when it is not here."""
    with _one_line():
        try:
            image = DockerClient().client.images.get(name)
        except ImageNotFound:
            return None
        digests = image.attrs.get("RepoDigests") or ()
        return str(digests[0]).rpartition("@")[2] if digests else str(image.id)


def remove_named(name: str) -> bool:
    """Remove a container with its volumes, running or not; False when there is none. Raises what Docker raises."""
    try:
        DockerClient().client.containers.get(name).remove(force=True, v=True)
    except NotFound:
        return False
    return True


def _our_user() -> str:
    """User and group; under a rootless daemon we are root inside."""
    return "0:0" if daemon_facts().rootless else f"{os.getuid()}:{os.getgid()}"


@contextmanager
def _one_line() -> Iterator[None]:
    """Docker's errors as one line."""
    try:
        yield
    except _FAILURES as error:
        raise DockerFailure(" ".join(str(error).split())) from error
