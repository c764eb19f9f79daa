"""Faults of disks: full under Redis, full under the workers' temporary files, slow to sync.

A full disk is a small tmpfs in a private mount of the process that shall meet it; the machine's disks are not touched.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import psutil

from readiness.faults.act import BaseAct, Capabilities, NotActive, Parameter, Scene
from readiness.faults.acts.redis import BACK_SECONDS, OwnRedis, refusal

FELT_SECONDS = 15.0
COMMAND_SECONDS = 20.0
TMPFS = 'mount -t tmpfs -o size="$1",mode=0700 none "$2" && shift 2 && exec "$@"'


def on_small_disk(folder: Path, size: str) -> list[str]:
    """Words before a command that shall see a tmpfs of `size` at `folder`, in a private mount namespace."""
    folder.mkdir(parents=True, exist_ok=True)
    return ["unshare", "--mount", "sh", "-c", TMPFS, "sh", size, str(folder)]


def fill(pid: int, file: Path) -> str:
    """Fill the disk that the process sees, to its last byte; what the filler said."""
    command = ["nsenter", "-t", str(pid), "-m", "dd", "if=/dev/zero", f"of={file}", "bs=4k"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
    return " ".join(done.stderr.split())


def unfill(pid: int, file: Path) -> None:
    """Remove the filler."""
    command = ["nsenter", "-t", str(pid), "-m", "rm", "-f", str(file)]
    subprocess.run(command, capture_output=True, timeout=COMMAND_SECONDS, check=False)


class RedisDiskFull(OwnRedis):
    """The disk under Redis' append-only file is full: Redis must refuse writes, loudly."""

    SIZE = "24m"

    def missing(self, machine: Capabilities) -> str:
        """A private tmpfs."""
        return machine.missing("redis-server") or machine.missing("mount")

    def prepare(self, scene: Scene) -> None:
        """Redis' folder is a small tmpfs."""
        self._folder = scene.folder / "disk"
        scene.redis_prefix = on_small_disk(self._folder, self.SIZE)
        scene.redis_options["dir"] = str(self._folder)
        scene.redis_options["auto-aof-rewrite-percentage"] = "0"

    def inject(self, scene: Scene) -> None:
        """Fill it."""
        self._said = fill(scene.own_redis.pid, self._folder / "filler")

    def prove_active(self, scene: Scene) -> str:
        """The filler met the end, and Redis refuses a write because of it."""
        if "No space left" not in self._said:
            raise NotActive(f"the filler did not meet the end of the disk: {self._said[:200]}")
        said = scene.wait(
            lambda: _with(refusal(scene), "MISCONF"),
            seconds=FELT_SECONDS,
            what="a write refused",
        )
        return f"the disk is full and a write is refused: {said[:120]}"

    def heal(self, scene: Scene) -> None:
        """Remove the filler."""
        if scene.redis is not None and hasattr(self, "_folder"):
            unfill(scene.redis.pid, self._folder / "filler")


class TempDiskFull(BaseAct):
    """The disk under the workers' temporary folder is full: jobs fail with
    RESOURCE_EXHAUSTED, wait, and succeed later."""

    harms_any_worker = False
    SIZE = "8m"

    def missing(self, machine: Capabilities) -> str:
        """A private tmpfs."""
        return machine.missing("mount")

    def prepare(self, scene: Scene) -> None:
        """Each worker sees a small disk of its own there."""
        self._folder = scene.folder / "temp"
        scene.worker_prefix = on_small_disk(self._folder, self.SIZE)
        scene.settings["RAG_TEMP_DIR"] = str(self._folder)

    def inject(self, scene: Scene) -> None:
        """Fill all of them."""
        self._said = {worker.pid: fill(worker.pid, self._folder / "filler") for worker in scene.live_workers}

    def prove_active(self, scene: Scene) -> str:
        """The fillers met the end, and a job failed because of it."""
        if not all("No space left" in said for said in self._said.values()):
            raise NotActive(f"a filler did not meet the end of the disk: {self._said}")

        def failed() -> list[str]:
            lines = scene.lane.log_lines()
            return [
                str(line.get("job_id"))
                for line in lines
                if "RESOURCE_EXHAUSTED" in str(line) and line.get("job_id")
            ]

        jobs = scene.wait(failed, seconds=FELT_SECONDS, what="a job that failed with RESOURCE_EXHAUSTED")
        count = len(set(jobs))
        return f"the disks of {len(self._said)} workers are full, {count} jobs failed with RESOURCE_EXHAUSTED so far"

    def heal(self, scene: Scene) -> None:
        """Remove the fillers."""
        for pid in getattr(self, "_said", {}):
            with contextlib.suppress(subprocess.SubprocessError):
                unfill(pid, self._folder / "filler")

    def prove_healed(self, scene: Scene) -> str:
        """Asked in a worker's own view of the disk."""
        left = [pid for pid in self._said if psutil.pid_exists(pid) and self._is_full(pid)]
        if left:
            raise NotActive(f"the disks of {len(left)} workers are still full")
        return f"the disks of {len(self._said)} workers have room"

    def _is_full(self, pid: int) -> bool:
        return Path(f"/proc/{pid}/root{self._folder}/filler").exists()


class SlowFsync(OwnRedis):
    """Every fsync of Redis takes `ms` longer: a disk that is busy or dying (a preloaded library, made with `cc`)."""

    parameters: ClassVar[Mapping[str, Parameter]] = {"ms": Parameter(400, 1, 10_000, "ms")}
    SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
static void wait_as_told(void) {
  const char *name = getenv("READINESS_SLOW_FSYNC");
  FILE *file = name ? fopen(name, "r") : 0;
  long ms = 0, count = 0;
  if (!file) return;
  if (fscanf(file, "%ld", &ms) != 1) ms = 0;
  fclose(file);
  if (ms <= 0) return;
  usleep(1000 * ms);
  char counts[4096];
  snprintf(counts, sizeof counts, "%s.count", name);
  if ((file = fopen(counts, "r"))) { if (fscanf(file, "%ld", &count) != 1) count = 0; fclose(file); }
  if ((file = fopen(counts, "w"))) { fprintf(file, "%ld\n", count + 1); fclose(file); }
}
int fsync(int fd) { wait_as_told(); return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd); }
int fdatasync(int fd) { wait_as_told(); return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd); }
"""

    def missing(self, machine: Capabilities) -> str:
        """A C compiler."""
        return machine.missing("redis-server") or machine.missing("cc")

    def prepare(self, scene: Scene) -> None:
        """Make the library, and put it under Redis; every write is synced, so that every write feels it."""
        scene.folder.mkdir(parents=True, exist_ok=True)
        source, library = scene.folder / "slow_fsync.c", scene.folder / "slow_fsync.so"
        self._file = scene.folder / "slow-fsync-ms"
        source.write_text(self.SOURCE, encoding="ascii")
        self._write(0)
        command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
        subprocess.run(command, check=True, capture_output=True, timeout=COMMAND_SECONDS)
        scene.redis_prefix = ["env", f"LD_PRELOAD={library}", f"READINESS_SLOW_FSYNC={self._file}"]
        scene.redis_options["appendfsync"] = "always"

    def inject(self, scene: Scene) -> None:
        """From now on."""
        self._write(self.params.number("ms"))

    def prove_active(self, scene: Scene) -> str:
        """A write takes as long as its fsync, and the library counts."""
        began = time.monotonic()
        said = refusal(scene)
        took = time.monotonic() - began
        if said or took < self.params.number("ms") / 1000:
            raise NotActive(f"a write took {took:.3f} s{': ' + said if said else ''}")
        slowed = int(self._file.with_name(f"{self._file.name}.count").read_text(encoding="ascii"))
        return f"two writes took {took:.2f} s, {slowed} fsyncs were slowed by {self.params.number('ms'):g} ms so far"

    def heal(self, scene: Scene) -> None:
        """As fast as the disk."""
        if hasattr(self, "_file"):
            self._write(0)

    def prove_healed(self, scene: Scene) -> str:
        """A write is fast again."""

        def fast() -> bool:
            began = time.monotonic()
            return not refusal(scene) and time.monotonic() - began < self.params.number("ms") / 1000

        scene.wait(fast, seconds=BACK_SECONDS, what="a fast write")
        return "a write is as fast as the disk"

    def _write(self, ms: float) -> None:
        self._file.write_text(f"{ms:.0f}\n", encoding="ascii")


def _with(said: str, word: str) -> str:
    return said if word in said else ""
