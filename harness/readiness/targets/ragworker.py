"""The adapter for ragworker: start it, ask it, kill it. The only module of the harness that knows ragworker.

It does not import it: processes, HTTP, SQL, logs and the embedding API's log are all it looks at. A lane is an
API and workers with an environment of their own; nothing of the user's `RAG_*` settings reaches them.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import secrets
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path

import httpx
import redis

from readiness.stack.base import StackInfo
from readiness.stack.processes import ManagedProcess, StackError, clean_environment, spawn, stop_all
from readiness.stack.prometheus import add_scrape_target, remove_scrape_target
from readiness.stack.sql import lane_database_url
from readiness.targets.base import (
    CommittedDocument,
    Effect,
    Guarantee,
    JsonObject,
    JsonValue,
    Lane,
    OlderVersion,
    Sighting,
    StoredChunk,
    Target,
    TargetError,
    Worker,
)
from readiness.targets.ragworker_api import REQUEST_SECONDS, RagworkerApi, expect, json_object
from readiness.targets.ragworker_rows import CommittedRows
from readiness.targets.ragworker_versions import older_version
from readiness.targets.ragworker_witness import files_below, keys_out_of_place, read_sightings

READY_SECONDS = 30.0
"""A Python process with SQL and HTTP libraries is up in about a second; on a machine with busy cores in ten."""

_FLAG = "USE_DURABLE_WORKER"


class RagworkerTarget:
    """ragworker, bound to a started stack."""

    name = "ragworker"
    guarantees = frozenset(Guarantee)

    def __init__(self, stack: StackInfo) -> None:
        self._stack = stack
        self.version = metadata.version("readiness")  # one distribution ships both packages

    def older_version(self, folder: Path) -> OlderVersion:
        """The version before the present one, from git."""
        return older_version(folder)

    @contextlib.contextmanager
    def lane(
        self, name: str, *, settings: Mapping[str, str] | None = None, redis_url: str | None = None
    ) -> Iterator[Lane]:
        """An isolated instance, nothing started yet; all its processes end with the block."""
        lane = RagworkerLane(self._stack, name, settings=settings or {}, redis_url=redis_url)
        try:
            yield lane
        finally:
            lane.close()


def open_target(stack: StackInfo) -> Target:
    """What the table of targets calls."""
    return RagworkerTarget(stack)


class RagworkerWorker:
    """One `ragworker worker` process."""

    def __init__(self, process: ManagedProcess) -> None:
        self._process = process
        self.name = process.name
        self.pid = process.pid

    @property
    def alive(self) -> bool:
        """True while the process exists, frozen or not."""
        return self._process.alive

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()

    def pause(self) -> None:
        """SIGSTOP."""
        self._process.pause()

    def resume(self) -> None:
        """SIGCONT."""
        self._process.resume()

    def stop(self, *, grace_seconds: float = 10.0) -> None:
        """SIGTERM; SIGKILL after the grace, in which a worker may finish or give back what it holds."""
        self._process.stop(grace_seconds)


class RagworkerLane(RagworkerApi):
    """One isolated ragworker: queue, database, temporary folder, API key, flag file and processes of its own."""

    def __init__(
        self, stack: StackInfo, name: str, *, settings: Mapping[str, str], redis_url: str | None
    ) -> None:
        super().__init__()
        self._stack = stack
        self._folder = _own_folder(stack.run_dir / "data" / "lanes", name)
        self.name = self._folder.name
        self.queue = settings.get("RAG_QUEUE", f"{self.name}-{secrets.token_hex(4)}")
        self.settings = self._all_settings(settings, redis_url or stack.redis_url)
        self.redis_url = self.settings["REDIS_URL"]
        self.embedding_key = self.settings["RAG_EMBEDDING_API_KEY"]
        self.database_url = self.settings["DATABASE_URL"]
        self.temp_dir = Path(self.settings["RAG_TEMP_DIR"])
        self.effective_settings: dict[str, str] = {}
        self.workers: list[Worker] = []
        self._worker_numbers = itertools.count(1)  # a number is a log's name: taken once, under the lock
        self._numbering = threading.Lock()
        self._processes: list[ManagedProcess] = []
        self._api: ManagedProcess | None = None
        self._port = 0
        self._front = ""
        self._rows = CommittedRows(self.database_url)
        self._control = httpx.Client(
            base_url=stack.embedding_url.removesuffix("/v1"), timeout=REQUEST_SECONDS, trust_env=False
        )
        self.set_flag(self.settings[_FLAG])

    # Processes

    @property
    def api_url(self) -> str:
        """Base URL; TargetError while no API was started."""
        if not self._port:
            raise TargetError(
                f"lane {self.name}: expected a started API, found none. Call start_api() first."
            )
        return self._front or f"http://127.0.0.1:{self._port}"

    def reach_api_at(self, url: str) -> None:
        """Speak to the API at this address, or at its own ("")."""
        self._front = url.rstrip("/")

    def start_api(self, *, settings: Mapping[str, str] | None = None, prefix: Sequence[str] = ()) -> None:
        """Start the API and wait until it listens, on RAG_API_PORT when the lane's settings name one.

        Started again, it keeps its port if that is still free. `settings` and `prefix` are for this start only.
        """
        if self._api is not None and self._api.alive:
            return
        if not self._port:
            self._start_api(settings or {}, prefix)
        else:
            self._restart_api(settings or {}, prefix)
        if self._stack.prometheus_url is not None:
            labels = {"lane": self.name}
            add_scrape_target(self._stack.run_dir, self.name, url=self.api_url, labels=labels)

    def stop_api(self) -> None:
        """End the API in order; Prometheus forgets it."""
        remove_scrape_target(self._stack.run_dir, self.name)
        if self._api is not None:
            self._api.stop()

    def kill_api(self) -> None:
        """SIGKILL the API; Prometheus goes on asking for it."""
        if self._api is not None:
            self._api.kill()

    def start_worker(
        self, *, settings: Mapping[str, str] | None = None, prefix: Sequence[str] = ()
    ) -> Worker:
        """Start one more worker and wait until it takes jobs. Threads that outlive it may do so at once."""
        with self._numbering:
            number = next(self._worker_numbers)
        process = self._spawn(f"{self.name}-worker-{number}", "worker", settings or {}, prefix)
        worker = RagworkerWorker(process)
        self.workers.append(worker)
        self._await_event(process, "worker.ready")
        return worker

    def close(self) -> None:
        """End every process of the lane, workers and API at once. Doing it twice is harmless."""
        remove_scrape_target(self._stack.run_dir, self.name)
        stop_all(self._processes)
        self.close_clients()
        self._control.close()
        self._rows.close()
        if self._stack.redis_provider == "external" and self.redis_url == self._stack.redis_url:
            self._forget_keys()

    def set_flag(self, value: str) -> None:
        """Rewrite the flag file in one step: a reader sees the old one or the new one."""
        draft = self._folder / f".flag.{secrets.token_hex(4)}"
        draft.write_text(f"{_FLAG}={value}\n", encoding="utf-8")
        draft.replace(self._folder / "flag.env")

    # What an observer sees

    def effects(self) -> list[Effect]:
        """Every committed effect."""
        return self._rows.effects()

    def undone(self) -> list[Effect]:
        """Every effect that was rolled back."""
        return self._rows.undone()

    def sightings(self) -> list[Sighting]:
        """Deliveries in the logs."""
        return read_sightings(self.log_lines())

    def leftovers(self) -> list[str]:
        """Files in the temporary folder; keys out of place."""
        return [f"file {path.name}" for path in files_below(self.temp_dir)] + keys_out_of_place(self)

    def committed(self) -> dict[str, CommittedDocument]:
        """Every committed document by job id."""
        return self._rows.committed()

    def chunks(self, job_id: str) -> list[StoredChunk]:
        """The committed chunks of one document in order."""
        return self._rows.chunks(job_id)

    def log_lines(self) -> list[JsonObject]:
        """Log lines of API and workers, process by process in the order of their first start."""
        paths = dict.fromkeys(process.log for process in self._processes)
        return [line for path in paths for line in _log_lines(path)]

    def embedding_log(self) -> list[JsonObject]:
        """Requests under this lane's key, from the simulator's true log."""
        answer = self._control.get("/_control/log", params={"key": self.embedding_key})
        requests = json_object(expect(answer, httpx.codes.OK)).get("requests")
        assert isinstance(requests, list)
        return [request for request in requests if isinstance(request, dict)]

    def script_embedding(
        self, rules: Sequence[Mapping[str, JsonValue]], *, latency_ms: int | None = None
    ) -> None:
        """Replace the rules for this lane's key; TargetError when the simulator refuses them."""
        script = {
            "key": self.embedding_key,
            "rules": [dict(rule) for rule in rules],
            "latency_ms": latency_ms or 0,
        }
        expect(self._control.post("/_control/script", json=script), httpx.codes.OK)

    # Inside

    def _all_settings(self, given: Mapping[str, str], redis_url: str) -> dict[str, str]:
        run_dir = self._stack.run_dir
        return {
            _FLAG: "true",
            "REDIS_URL": redis_url,
            "DATABASE_URL": lane_database_url(run_dir, self._stack.database_url, self.name),
            "RAG_API_HOST": "127.0.0.1",
            "RAG_EMBEDDING_URL": self._stack.embedding_url,
            "RAG_EMBEDDING_API_KEY": f"sk-readiness-{self.queue}-{secrets.token_hex(8)}",
            "RAG_TEMP_DIR": str(self._folder / "temp"),
            "RAG_ENV_FILE": str(self._folder / "flag.env"),
            **given,
            "RAG_QUEUE": self.queue,
        }

    def _restart_api(self, more: Mapping[str, str], prefix: Sequence[str]) -> None:
        try:
            self._start_api({**more, "RAG_API_PORT": str(self._port)}, prefix)
        except TargetError:  # somebody took the port meanwhile
            self._start_api({**more, "RAG_API_PORT": "0"}, prefix)

    def _start_api(self, more: Mapping[str, str], prefix: Sequence[str]) -> None:
        process = self._spawn(f"{self.name}-api", "api", more, prefix)
        self._api = process
        event = self._await_event(process, "api.ready")
        found = event.get("port")
        if not isinstance(found, int):
            raise TargetError(f"{process.name}: expected api.ready with a port, got: {event}")
        self._port = found
        told = event.get("settings")
        if isinstance(told, dict):
            self.effective_settings = {str(name): str(value) for name, value in told.items()}

    def _spawn(self, name: str, verb: str, more: Mapping[str, str], prefix: Sequence[str]) -> ManagedProcess:
        argv = [*prefix, sys.executable, "-m", "ragworker", verb]
        env = clean_environment({"RAG_API_PORT": "0", **self.settings, **more})
        process = spawn(self._stack.run_dir, name, argv, env=env, cwd=self._folder)
        self._processes.append(process)
        return process

    def _await_event(self, process: ManagedProcess, message: str) -> dict[str, object]:
        try:
            return process.wait_event(message, READY_SECONDS)
        except StackError as error:
            process.kill()
            raise TargetError(str(error)) from None

    def _forget_keys(self) -> None:
        """Leave nothing in a Redis that is somebody else's."""
        with contextlib.suppress(redis.RedisError), redis.Redis.from_url(self.redis_url) as client:
            prefix = f"{{rag:{self.queue}}}:"
            for key in client.scan_iter(match=f"{prefix}*", count=1000):
                client.unlink(key)
                kind, _, job_id = key.decode().removeprefix(prefix).partition(":")
                if kind == "job":
                    client.unlink(f"job:cancel:{job_id}")


def _own_folder(parent: Path, name: str) -> Path:
    """A folder that no other lane of the run has: `name`, or `name-2` and so on."""
    base = (
        "".join(char if char.isalnum() and char.isascii() else "-" for char in name).strip("-")[:40] or "lane"
    )
    parent.mkdir(parents=True, exist_ok=True)
    for number in range(1, 10_000):
        folder = parent / (base if number == 1 else f"{base}-{number}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            return folder
    raise TargetError(f"lane {name}: expected fewer than 10 000 lanes of that name in one run")


def _log_lines(path: Path) -> Iterator[JsonObject]:
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                value = json.loads(line)
            except ValueError:
                value = None
            if line.strip():
                yield value if isinstance(value, dict) else {"_raw": line.rstrip("\n")}
