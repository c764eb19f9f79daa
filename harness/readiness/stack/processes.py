"""Start processes so that they can always be ended again. Knows nothing of what the processes are for.

Three nets catch a child: `ManagedProcess.stop` on the way out, the kernel when the harness is killed (Linux,
PR_SET_PDEATHSIG), and `strays.sweep_stray` at the next start, for machines without the second and for
grandchildren. Every child has its own session, its output in `logs/<name>.log`, and a line in the ledger.

Beware: the kernel sends the death signal when the *thread* that spawned ends, not when the process does. So
spawn only from threads that live as long as the child should: the main thread, or one that outlives the run.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from readiness.errors import HarnessFailure
from readiness.stack.ports import listens
from readiness.stack.strays import MARK, group_survives, note_child

STOP_GRACE_SECONDS = 3.0
"""How long a child may take to end by itself: Redis fsyncs within it, and Ctrl-C still feels quick."""

KILL_WAIT_SECONDS = 5.0
"""How long the kernel may take to reap a killed child on a loaded machine."""

POLL_SECONDS = 0.02
"""How often a probe is asked again: well below what anybody notices, above what a busy core minds."""

TAIL_LINES = 5
"""How much of a log an error message shows."""

TAIL_LINE_CHARS = 400
"""How much of one of these lines: structured logs put whole tracebacks on one line."""

_PR_SET_PDEATHSIG = 1
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH")
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class StackError(HarnessFailure):
    """A part did not come up or went away; the message names the probe and ends with the log's tail."""


class Stoppable(Protocol):
    """What `stop_all` can end."""

    def terminate(self) -> None: ...
    def await_end(self, deadline: float) -> None: ...


class Child(Stoppable, Protocol):
    """What a part does with its process, whether that is ours or in a container."""

    @property
    def name(self) -> str: ...
    @property
    def pid(self) -> int: ...
    @property
    def alive(self) -> bool: ...
    def poll(self) -> int | None: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def holds(self, port: int) -> bool: ...
    def wait_ready(self, probe: Probe, seconds: float) -> None: ...
    def tail(self) -> list[str]: ...
    def tail_note(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Probe:
    """A question that is true once a part is ready. An `OSError` while asking means "not yet"."""

    name: str
    ask: Callable[[], bool]


def clean_environment(settings: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a child needs of our environment to run at all, plus `settings`. Nothing else leaks in."""
    kept = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return {**kept, "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1", **(settings or {})}


class ManagedProcess:
    """A child that was started by `spawn`. Ending it twice is harmless, whoever ended it first."""

    def __init__(
        self, process: subprocess.Popen[bytes], *, name: str, log: Path, log_start: int, mark: str
    ) -> None:
        self._process = process
        self._mark = mark
        self.name = name
        self.log = log
        self.pid = process.pid
        self._log_start = log_start

    @property
    def alive(self) -> bool:
        """True while the process runs (or is frozen)."""
        return self._process.poll() is None

    def poll(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        return self._process.poll()

    def terminate(self) -> None:
        """Ask the whole group to end; returns at once. A frozen process is thawed so that it can hear."""
        if self.alive:
            self._signal(signal.SIGTERM)
            self._signal(signal.SIGCONT)

    def await_end(self, deadline: float) -> None:
        """Wait until the monotonic moment `deadline`, then SIGKILL whatever of the group is left."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=max(0.0, deadline - time.monotonic()))
        self.kill()

    def stop(self, grace: float = STOP_GRACE_SECONDS) -> None:
        """SIGTERM, up to `grace` seconds, then SIGKILL to the group."""
        self.terminate()
        self.await_end(time.monotonic() + grace)

    def kill(self) -> None:
        """SIGKILL the whole group; returns when the child is gone, StackError if the kernel keeps it."""
        self._signal(signal.SIGKILL)
        try:
            self._process.wait(timeout=KILL_WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            late = f"{self.name} (pid {self.pid}) is still there {KILL_WAIT_SECONDS:g} s after SIGKILL"
            raise StackError(late) from None

    def pause(self) -> None:
        """Freeze the group (SIGSTOP)."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Thaw the group (SIGCONT)."""
        self._signal(signal.SIGCONT)

    def wait_ready(self, probe: Probe, seconds: float) -> None:
        """Ask `probe` until it is true.

        Raises StackError, naming the probe and with the log's tail, when the time is over or the child ended.
        """
        await_ready(self, probe, seconds)

    def find_event(self, message: str) -> dict[str, object] | None:
        """The first JSON line of its own output whose `message` is this; None while there is none."""
        with self.log.open("rb") as output:
            output.seek(self._log_start)
            for line in output:
                if message.encode() in line:
                    event = _json_object(line)
                    if event is not None and event.get("message") == message:
                        return event
        return None

    def wait_event(self, message: str, seconds: float) -> dict[str, object]:
        """Wait for a JSON line with this `message`; StackError as `wait_ready`."""
        self.wait_ready(Probe(f"log event {message}", lambda: self.find_event(message) is not None), seconds)
        event = self.find_event(message)
        assert event is not None
        return event

    def holds(self, port: int) -> bool:
        """True when it is this process, and not a stranger that was faster, who listens on `port`."""
        return listens(self.pid, port)

    def tail(self, lines: int = TAIL_LINES) -> list[str]:
        """The last lines of its log."""
        return read_tail(self.log, lines)

    def tail_note(self) -> str:
        """The log's tail as the end of an error message."""
        return tail_words(f"logs/{self.log.name}", self.tail())

    def _signal(self, number: signal.Signals) -> None:
        """Signal the group, which outlives its leader while a grandchild is in it.

        Once the leader was reaped its number may be a stranger's: then our mark is asked for first.
        """
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self._process.returncode is None or group_survives(self.pid, self._mark):
                os.killpg(self.pid, number)


def spawn(
    run_dir: Path,
    name: str,
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path | None = None,
) -> ManagedProcess:
    """Start `argv` with exactly `env`, output appended to `logs/<name>.log`, and write it into the ledger.

    Call it from a thread that lives as long as the child should. Raises StackError when it cannot be started.
    """
    log = run_dir / "logs" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    mark = secrets.token_hex(8)
    try:
        with log.open("ab") as output:
            log_start = output.tell()
            process = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**env, MARK: mark},
                cwd=cwd or run_dir,
                start_new_session=True,
                preexec_fn=_die_with_parent(os.getpid()),  # noqa: PLW1509 - two system calls, no lock taken
            )
    except OSError as error:
        raise StackError(f"{name}: {argv[0]} could not be started: {error.strerror or error}") from None
    note_child(run_dir, process.pid, name=name, mark=mark)
    return ManagedProcess(process, name=name, log=log, log_start=log_start, mark=mark)


def die_with_parent() -> None:
    """Ask the kernel to end this process as soon as its parent is gone (Linux; elsewhere nothing happens).

    For children that somebody else started, like the processes of pytest-xdist. Source: prctl(2), PR_SET_PDEATHSIG.
    """
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def stop_all(processes: Iterable[Stoppable], *, grace: float = STOP_GRACE_SECONDS) -> None:
    """End many at once: everybody is asked first, then all share one grace period."""
    everybody = list(processes)
    for process in everybody:
        process.terminate()
    deadline = time.monotonic() + grace
    interrupted: KeyboardInterrupt | None = None
    for process in everybody:
        try:
            process.await_end(deadline)
        except KeyboardInterrupt as again:  # a second Ctrl-C: no more grace, but nobody is left behind
            interrupted, deadline = again, 0.0
            process.await_end(deadline)
    if interrupted is not None:
        raise interrupted


def await_ready(child: Child, probe: Probe, seconds: float) -> None:
    """Ask `probe` until it is true.

    Raises StackError, naming the probe and with the log's tail, when the time is over or the child ended.
    """
    deadline = time.monotonic() + seconds
    while not _answers(probe):
        status = child.poll()
        if status is not None:
            raise StackError(
                f"{child.name}: ended with status {status} before {probe.name}. {child.tail_note()}"
            )
        if time.monotonic() >= deadline:
            raise StackError(f"{child.name}: no {probe.name} within {seconds:g} s. {child.tail_note()}")
        time.sleep(POLL_SECONDS)


def tail_words(log: str, tail: Sequence[str]) -> str:
    """The last lines of a log as the end of an error message."""
    if not tail:
        return f"{log} is empty."
    return f"Last lines of {log}: {' | '.join(map(_shortened, tail))}"


def read_tail(path: Path, lines: int = TAIL_LINES) -> list[str]:
    """The last non-empty lines of a text file; empty when there is none."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return list(deque((line.rstrip() for line in file if line.strip()), maxlen=lines))
    except OSError:
        return []


def _shortened(line: str) -> str:
    """A line that fits a message: the end of a traceback says more than its middle."""
    half = TAIL_LINE_CHARS // 2
    return line if len(line) <= TAIL_LINE_CHARS else f"{line[:half]} ... {line[-half:]}"


def _json_object(line: bytes) -> dict[str, object] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None  # not JSON, or not all of it has been written yet
    return value if isinstance(value, dict) else None


def _answers(probe: Probe) -> bool:
    try:
        return probe.ask()
    except OSError:
        return False


def _die_with_parent(parent: int) -> Callable[[], None] | None:
    """What the child does between fork and exec; if its parent died before the request, it ends here."""
    if _LIBC is None:
        return None
    prctl, kill_signal = _LIBC.prctl, int(signal.SIGKILL)

    def request() -> None:
        prctl(_PR_SET_PDEATHSIG, kill_signal, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return request
