"""Faults of name resolution: the name of the embedding API is gone, or leads to a wrong address."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from typing import ClassVar
from urllib.parse import urlsplit

from readiness.errors import HarnessFailure
from readiness.faults.act import BaseAct, Capabilities, NotActive, Parameter, Scene
from readiness.faults.proxy import start_proxy

ASK_SECONDS = 10.0
NAME = "embedding.readiness.test"
RIGHT, WRONG = "127.0.0.1", "127.99.99.99"


class LostName(BaseAct):
    """The name cannot be resolved any more, or resolves to an address where nobody listens; open connections end.

    Workers see a hosts file and a resolver configuration of their own (a private mount over /etc); the machine's files
    are not touched.
    """

    parameters: ClassVar[Mapping[str, Parameter]] = {"answer": Parameter("none", words=("none", "wrong"))}
    harms_any_worker = False

    def missing(self, machine: Capabilities) -> str:
        """A private mount namespace."""
        return machine.missing("mount")

    def prepare(self, scene: Scene) -> None:
        """The workers know the API by its name, and nobody but the file can resolve it."""
        scene.folder.mkdir(parents=True, exist_ok=True)
        self._hosts, resolver = scene.folder / "hosts", scene.folder / "resolv.conf"
        self._write(RIGHT)
        resolver.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n", encoding="utf-8")
        mounts = 'mount --bind "$1" /etc/hosts && mount --bind "$2" /etc/resolv.conf && shift 2 && exec "$@"'
        scene.worker_prefix = [
            "unshare",
            "--mount",
            "sh",
            "-c",
            mounts,
            "sh",
            str(self._hosts),
            str(resolver),
        ]
        there = urlsplit(scene.stack.embedding_url)
        if there.hostname is None or there.port is None:
            raise HarnessFailure(f"fault scenario {scene.name}: expected host and port of the embedding API")
        self._proxy = start_proxy((there.hostname, there.port), seed=scene.rng.getrandbits(31))
        scene.cleanup.callback(self._proxy.close)
        scene.settings["RAG_EMBEDDING_URL"] = f"http://{NAME}:{self._proxy.port}{there.path}"

    def inject(self, scene: Scene) -> None:
        """Take the name away, then end every connection, so that it is asked for again."""
        self._write(WRONG if self.params.word("answer") == "wrong" else "")
        self._ended = self._proxy.reset_all()

    def prove_active(self, scene: Scene) -> str:
        """What a worker's own resolver says, and no connection reaches the API any more."""
        seen = self._resolved(scene)
        if seen == RIGHT:
            raise NotActive(f"{NAME} still resolves to {seen}")
        if not self._proxy.counts().connections:
            raise NotActive("the workers never asked the API by its name")
        return f"{NAME} resolves to {seen or 'nothing'} for a worker; {self._ended} connections ended"

    def heal(self, scene: Scene) -> None:
        """The name is back."""
        if hasattr(self, "_hosts"):
            self._write(RIGHT)

    def prove_healed(self, scene: Scene) -> str:
        """The worker's resolver, and a new connection."""
        seen = self._resolved(scene)
        if seen != RIGHT:
            raise NotActive(f"{NAME} resolves to {seen or 'nothing'}")
        return f"{NAME} resolves to {seen}"

    def _resolved(self, scene: Scene) -> str:
        """The address that a live worker gets for the name; "" for none."""
        workers = scene.live_workers
        if not workers:
            raise NotActive("no worker lives that could be asked")
        command = ["nsenter", "-t", str(workers[0].pid), "-m", "getent", "ahostsv4", NAME]
        done = subprocess.run(command, capture_output=True, text=True, timeout=ASK_SECONDS, check=False)
        return done.stdout.split()[0] if done.returncode == 0 and done.stdout else ""

    def _write(self, address: str) -> None:
        """In place: the mount holds on to the file, not to its name."""
        with self._hosts.open("w", encoding="utf-8") as file:
            file.write("127.0.0.1 localhost\n" + (f"{address} {NAME}\n" if address else ""))
