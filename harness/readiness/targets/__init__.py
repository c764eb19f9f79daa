"""The systems that the harness can examine: one line each in `TARGETS`, one file each beside this one."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import cast

from readiness.errors import BadInput
from readiness.stack.base import StackInfo
from readiness.targets.base import Target

# Name on the command line and in the profile -> module that has `open(stack) -> Target`.
TARGETS: Mapping[str, str] = {
    "ragworker": "readiness.targets.ragworker",
}


def open_target(name: str, stack: StackInfo) -> Target:
    """The adapter of the target `name`, bound to a started stack. BadInput when no such target is known."""
    check_target(name)
    opener = cast("Callable[[StackInfo], Target]", import_module(TARGETS[name]).open_target)
    return opener(stack)


def check_target(name: str) -> None:
    """BadInput, with the nearest known name, unless `name` is a target."""
    if name in TARGETS:
        return
    near = difflib.get_close_matches(name, TARGETS, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise BadInput(f"target: expected one of {', '.join(TARGETS)}, got: {name!r}.{hint}")
