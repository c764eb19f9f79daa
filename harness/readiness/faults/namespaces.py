"""A network namespace of our own, joined to ours by a virtual cable: where packets can be lost for real.

The namespace lives as long as a sleeping process in it, which the kernel ends together with the harness; with it go the
cable, the addresses and every rule. Nothing of the machine's own network is touched but one cable end with an address
of 10.213.0.0/16. Needs root, `ip`, `nsenter` and `iptables`; needs no netem.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from readiness.errors import HarnessFailure
from readiness.stack.processes import ManagedProcess, clean_environment, spawn

COMMAND_SECONDS = 10.0
READY_SECONDS = 5.0
POLL_SECONDS = 0.01
SUBNETS = 16_000
"""Blocks of four addresses in 10.213.0.0/16."""

_numbers = itertools.count()
_choosing = threading.Lock()


class Namespace:
    """One namespace. `prefix` are the words before a command that shall run in it (it execs the command)."""

    def __init__(self, run_dir: Path, name: str) -> None:
        self._keeper: ManagedProcess = spawn(
            run_dir, f"{name}-namespace", ["unshare", "--net", "sleep", "infinity"], env=clean_environment()
        )
        try:
            self._await_namespace()
            self.here, self.there = self._cable()
        except BaseException:
            self.close()
            raise

    @property
    def prefix(self) -> list[str]:
        """`nsenter ... --`."""
        return ["nsenter", "-t", str(self._keeper.pid), "-n", "--"]

    def drop(self, *, incoming: bool, outgoing: bool) -> None:
        """Lose every packet into the namespace, out of it, or both. Replaces what was lost before."""
        self.calm()
        for chain, wanted in (("INPUT", incoming), ("OUTPUT", outgoing)):
            if wanted:
                self._inside(
                    ["iptables", "-A", chain, "!", "-i" if chain == "INPUT" else "-o", "lo", "-j", "DROP"]
                )

    def lose(self, share: float) -> None:
        """Lose this share (0 to 1) of the packets in each direction, at random."""
        self.calm()
        chance = ["-m", "statistic", "--mode", "random", "--probability", f"{share:.4f}"]
        for chain in ("INPUT", "OUTPUT"):
            self._inside(["iptables", "-A", chain, *chance, "-j", "DROP"])

    def calm(self) -> None:
        """Lose nothing any more."""
        self._inside(["iptables", "-F"])

    def dropped(self) -> int:
        """Packets that the rules of now have lost."""
        listing = self._inside(["iptables", "-nvxL"])
        return sum(int(count) for count in re.findall(r"^\s*(\d+)\s+\d+\s+DROP\s", listing, re.MULTILINE))

    def close(self) -> None:
        """End it with everything in it. Doing it twice is harmless."""
        self._keeper.kill()

    def _await_namespace(self) -> None:
        own = os.stat("/proc/self/ns/net").st_ino
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{self._keeper.pid}/ns/net").st_ino != own:
                    return
            time.sleep(POLL_SECONDS)
        raise HarnessFailure(
            f"network namespace: expected one within {READY_SECONDS:g} s; is this process root?"
        )

    def _cable(self) -> tuple[str, str]:
        """Join both sides; our address and the one inside."""
        number, pid = next(_numbers), self._keeper.pid
        near, far = f"rd{os.getpid() % 1_000_000}n{number % 1000}", "cable0"
        with _choosing:
            here, there = _free_addresses(number)
            _run(["ip", "link", "add", near, "type", "veth", "peer", "name", far, "netns", str(pid)])
            _run(["ip", "addr", "add", f"{here}/30", "dev", near])
        _run(["ip", "link", "set", near, "up"])
        self._inside(["ip", "addr", "add", f"{there}/30", "dev", far])
        self._inside(["ip", "link", "set", far, "up"])
        self._inside(["ip", "link", "set", "lo", "up"])
        return here, there

    def _inside(self, command: Sequence[str]) -> str:
        return _run([*self.prefix, *command])


def _free_addresses(number: int) -> tuple[str, str]:
    taken = _run(["ip", "-o", "addr"])
    for attempt in range(SUBNETS):
        block = (os.getpid() * 7 + number + attempt) % SUBNETS
        base = f"10.213.{block // 64}.{block % 64 * 4}"
        first, second = (f"{base.rpartition('.')[0]}.{block % 64 * 4 + end}" for end in (1, 2))
        if f" {first}/" not in taken:
            return first, second
    raise HarnessFailure("network namespace: expected a free block of 10.213.0.0/16, found none")


def _run(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HarnessFailure(f"{command[0]}: {error}") from None
    if done.returncode != 0:
        raise HarnessFailure(f"{' '.join(command)}: {' '.join(done.stderr.split())[:200]}")
    return done.stdout
