"""Faults of what the machine grants the workers: too few files, no CPU, no memory, another time of day.

Each is laid on processes of the scenario alone: limits of single processes, control groups of our own, a preloaded
library.
"""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import ClassVar

import psutil

from readiness.faults.act import BaseAct, Capabilities, NotActive, Parameter, Scene
from readiness.faults.capabilities import libfaketime

FELT_SECONDS = 15.0
CGROUPS = Path("/sys/fs/cgroup")


class FewFiles(BaseAct):
    """A worker may open no more files than it has open: no new socket, no new temporary file."""

    harms_any_worker = True

    def missing(self, machine: Capabilities) -> str:
        """prlimit(2)."""
        return machine.missing("prlimit")

    def inject(self, scene: Scene) -> None:
        """Lower the soft limit of every worker; the API keeps its own."""
        self._before: dict[int, tuple[int, int]] = {}
        for worker in scene.live_workers:
            self._before[worker.pid] = resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)
            hard = self._before[worker.pid][1]
            resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (psutil.Process(worker.pid).num_fds(), hard))

    def prove_active(self, scene: Scene) -> str:
        """The workers say that they cannot open any more."""

        def told() -> int:
            return sum(
                "Too many open files" in str(line) or "EMFILE" in str(line) for line in scene.lane.log_lines()
            )

        lines = scene.wait(told, seconds=FELT_SECONDS, what="a worker that could not open a file")
        return f"{len(self._before)} workers have no file left to open, {lines} log lines say so"

    def heal(self, scene: Scene) -> None:
        """The limits of before."""
        for pid, limits in getattr(self, "_before", {}).items():
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)

    def prove_healed(self, scene: Scene) -> str:
        """Read back."""
        alive = [pid for pid in self._before if psutil.pid_exists(pid)]
        if any(resource.prlimit(pid, resource.RLIMIT_NOFILE) != self._before[pid] for pid in alive):
            raise NotActive("a limit is still lowered")
        return f"{len(alive)} workers may open as many files as before"


class ControlGroup:
    """A cgroup (v1) of our own below one controller; removed with its last process moved back."""

    def __init__(self, controller: str, name: str) -> None:
        self._parent = CGROUPS / controller
        self.path = self._parent / f"readiness-{os.getpid()}-{name}"
        self.path.mkdir()

    def write(self, file: str, value: object) -> None:
        """Set one value."""
        (self.path / file).write_text(f"{value}\n", encoding="ascii")

    def read(self, file: str) -> str:
        """One value."""
        return (self.path / file).read_text(encoding="ascii").strip()

    def add(self, pid: int) -> None:
        """Move a process, with all of its threads, into the group."""
        self.write("cgroup.procs", pid)

    def close(self) -> None:
        """Move who is left back and remove the group. Doing it twice is harmless."""
        if not self.path.exists():
            return
        for pid in self.read("cgroup.procs").split():
            with contextlib.suppress(OSError):
                (self._parent / "cgroup.procs").write_text(f"{pid}\n", encoding="ascii")
        deadline = time.monotonic() + 2.0
        while self.path.exists() and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                self.path.rmdir()
            time.sleep(0.01)


class StarvedCpu(BaseAct):
    """The workers together get a few per cent of one core: leases must hold all the same."""

    parameters: ClassVar[Mapping[str, Parameter]] = {"percent": Parameter(8, 1, 100, "% of one core")}
    PERIOD_US = 100_000

    def missing(self, machine: Capabilities) -> str:
        """The cpu controller."""
        return machine.missing("cgroup-cpu")

    def inject(self, scene: Scene) -> None:
        """All workers into one group with a quota."""
        self._group = ControlGroup("cpu", scene.name)
        scene.cleanup.callback(self._group.close)
        self._group.write("cpu.cfs_period_us", self.PERIOD_US)
        self._group.write("cpu.cfs_quota_us", int(self.PERIOD_US * self.params.number("percent") / 100))
        for worker in scene.live_workers:
            self._group.add(worker.pid)

    def prove_active(self, scene: Scene) -> str:
        """The kernel counts the periods in which it held them back."""

        def throttled() -> int:
            figures = dict(line.split() for line in self._group.read("cpu.stat").splitlines())
            return int(figures["nr_throttled"])

        periods = scene.wait(
            throttled, seconds=FELT_SECONDS, what="a period in which the workers were held back"
        )
        return f"the workers have {self.params.number('percent'):g} % of a core, held back in {periods} periods so far"

    def heal(self, scene: Scene) -> None:
        """No quota."""
        if hasattr(self, "_group"):
            self._group.close()

    def prove_healed(self, scene: Scene) -> str:
        """The group is gone."""
        if self._group.path.exists():
            raise NotActive("the control group is still there")
        return "the workers have all of the cores again"


class MemoryLimit(BaseAct):
    """A busy worker may use no more memory than it does: the kernel kills it (OOM), others take its jobs over."""

    harms_any_worker = True
    LIMIT_BYTES = 1_000_000

    def missing(self, machine: Capabilities) -> str:
        """The memory controller."""
        return machine.missing("cgroup-memory")

    def inject(self, scene: Scene) -> None:
        """One worker, into a group where only what it takes from now on counts."""
        self._wanted = len(scene.live_workers)
        self._victim = scene.rng.choice(scene.live_workers)
        self._group = ControlGroup("memory", scene.name)
        scene.cleanup.callback(self._group.close)
        self._group.write("memory.limit_in_bytes", self.LIMIT_BYTES)
        self._group.add(self._victim.pid)

    def prove_active(self, scene: Scene) -> str:
        """The process is gone, and the kernel counts the kill."""
        scene.wait(
            lambda: not self._victim.alive, seconds=FELT_SECONDS, what="the worker killed for its memory"
        )
        figures = dict(line.split() for line in self._group.read("memory.oom_control").splitlines())
        if not int(figures.get("oom_kill", "0")):
            raise NotActive(f"the worker ended, but not for its memory: {figures}")
        return f"worker {self._victim.pid} was killed by the kernel for its memory"

    def heal(self, scene: Scene) -> None:
        """The group goes; a new worker comes."""
        if hasattr(self, "_group"):
            self._group.close()
            for _ in range(self._wanted - len(scene.live_workers)):
                scene.lane.start_worker(prefix=scene.worker_prefix)

    def prove_healed(self, scene: Scene) -> str:
        """Counted by processes."""
        return f"{len(scene.live_workers)} workers are up"


class ClockJump(BaseAct):
    """The wall clock of the workers jumps; the monotonic clock goes on (libfaketime, one file for all workers)."""

    parameters: ClassVar[Mapping[str, Parameter]] = {"seconds": Parameter(3600, -86_400, 86_400, "seconds")}
    harms_any_worker = False
    HALF_A_MINUTE = 30.0

    def missing(self, machine: Capabilities) -> str:
        """libfaketime."""
        return machine.missing("libfaketime")

    def prepare(self, scene: Scene) -> None:
        """The library in every process of the lane; its file says no change."""
        scene.folder.mkdir(parents=True, exist_ok=True)
        self._file = scene.folder / "faketime"
        self._write(0)
        env = {"LD_PRELOAD": str(libfaketime()), "FAKETIME_TIMESTAMP_FILE": str(self._file)}
        env |= {"FAKETIME_NO_CACHE": "1", "DONT_FAKE_MONOTONIC": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        scene.worker_prefix = ["env", *(f"{name}={value}" for name, value in env.items())]

    def inject(self, scene: Scene) -> None:
        """The jump."""
        self._write(self.params.number("seconds"))

    def prove_active(self, scene: Scene) -> str:
        """By the time of day in the workers' log lines."""
        jump = self.params.number("seconds")

        def seen() -> float:
            return next((off for off in self._offsets(scene) if abs(off - jump) < self.HALF_A_MINUTE), 0.0)

        off = scene.wait(seen, seconds=FELT_SECONDS, what=f"a worker's log line {jump:g} s off")
        return f"the workers' log lines are {off:.0f} s off"

    def heal(self, scene: Scene) -> None:
        """Back."""
        if hasattr(self, "_file"):
            self._write(0)

    def prove_healed(self, scene: Scene) -> str:
        """The file says no change; every new line is of now."""
        if "+0" not in self._file.read_text(encoding="ascii"):
            raise NotActive("the clock is still shifted")
        return "the workers' clock is the machine's again"

    def _offsets(self, scene: Scene) -> list[float]:
        """How far the latest log lines of workers are from now, in seconds."""
        now, found = time.time(), []
        for line in reversed(scene.lane.log_lines()):
            stamp = str(line.get("timestamp", ""))
            if line.get("service") == "ragworker" or "worker" in str(line.get("service", "")) or stamp:
                with contextlib.suppress(ValueError):
                    found.append(datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp() - now)
            if len(found) >= 200:
                break
        return found

    def _write(self, seconds: float) -> None:
        self._file.write_text(f"{seconds:+.0f}\n", encoding="ascii")
