"""Play one scenario in a process of its own, for the fault step: `python -m readiness.faults --run-dir ...`.

A process, not a thread: two scenarios play at a time, and the kernel ends a scenario's children with it. Steps go to
stdout, the result to its folder. SIGTERM and Ctrl-C heal the fault and end everything.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from readiness.cli import interrupts
from readiness.errors import BadInput, HarnessFailure, Interrupted
from readiness.faults.capabilities import Machine
from readiness.faults.engine import play_and_shrink
from readiness.faults.scenario import load_scenario
from readiness.stack.base import StackInfo
from readiness.targets import open_target


def main() -> int:
    """0 when a result was written, whatever it says; 3 when there is none."""
    parser = argparse.ArgumentParser(prog="python -m readiness.faults", description=__doc__)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--scenario", type=Path, required=True)
    parser.add_argument("--target", required=True)
    parser.add_argument("--seed", type=int, required=True)
    words = parser.parse_args()
    began = time.monotonic()
    try:
        with interrupts.answered("faults"):
            interrupts.in_order()
            stack = StackInfo.read(words.run_dir)
            play_and_shrink(
                load_scenario(words.scenario),
                target=open_target(words.target, stack),
                stack=stack,
                run_dir=words.run_dir,
                seed=words.seed,
                machine=Machine(),
                tell=lambda step: print(f"{time.monotonic() - began:6.1f} s  {step}", flush=True),
            )
    except (BadInput, HarnessFailure) as error:
        print(error, file=sys.stderr)
        return 3
    except (Interrupted, KeyboardInterrupt):
        print("interrupted: healed, everything ended", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
