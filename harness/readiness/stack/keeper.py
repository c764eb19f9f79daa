"""Removes the containers of a process that is gone. `python -m readiness.stack.keeper`, started by `watch`.

Reads `+name` and `-name` lines; the end of its input means that the process ended, in order or not.
"""

from __future__ import annotations

import contextlib
import sys
import time

ATTEMPTS = 3
"""A container that is just being made appears a moment after its maker died."""

PAUSE_SECONDS = 0.5


def main() -> None:
    """Keep the names, and at the end of the input remove what is left of them."""
    names: set[str] = set()
    for line in sys.stdin:
        name = line.strip()
        (names.add if name.startswith("+") else names.discard)(name[1:])
    if not names:
        return
    # Imported here: a keeper that has nothing to do, as nearly all, stays small and ends at once.
    from readiness.stack.container import remove_named  # noqa: PLC0415 - see above

    for _ in range(ATTEMPTS):
        for name in sorted(names):
            with contextlib.suppress(Exception):
                if remove_named(name):
                    names.discard(name)
        if not names:
            return
        time.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    main()
