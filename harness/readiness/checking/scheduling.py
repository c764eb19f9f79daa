"""Which process runs which check under pytest-xdist: groups together, long ones first, a crashed one once.

Why not xdist's own ``loadgroup``: it writes the group into a private attribute of the item that newer
pytest no longer reads, so groups fall apart silently; and a test that crashes its process is run again
until no process is left. So the workers write down the group of each test, and this scheduler reads it.
Units run in the order of collection, which `order` has put so that a check marked ``early`` does not start
last and hold up the end.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling  # type: ignore[import-untyped]  # ships no types

from readiness.checking.session import CHECKS_FILE

if TYPE_CHECKING:
    from xdist.remote import Producer  # type: ignore[import-untyped]  # ships no types
    from xdist.workermanage import WorkerController  # type: ignore[import-untyped]  # ships no types

GROUPS_FILE = Path("data") / "check-groups.json"


class CheckScheduling(LoadScopeScheduling):  # type: ignore[misc]  # the base has no types
    """xdist's scheduler by scope, with the scope taken from the groups that the workers wrote."""

    def __init__(self, config: pytest.Config, log: Producer | None, *, run_dir: Path) -> None:
        config.option.loadscopereorder = False  # the order of collection is meant
        super().__init__(config, log)
        self._run_dir = run_dir

    @cached_property
    def _groups(self) -> dict[str, str]:
        groups: dict[str, str] = json.loads((self._run_dir / GROUPS_FILE).read_text(encoding="utf-8"))
        return groups

    def _split_scope(self, nodeid: str) -> str:
        return self._groups.get(nodeid.rpartition("@")[0]) or self._groups.get(nodeid) or nodeid

    def remove_node(self, node: WorkerController) -> str | None:
        """Take back what a vanished process had not finished; the test it died of counts as run."""
        workload = self.assigned_work.pop(node)
        crashed: str | None = None
        for unit in workload.values():
            for nodeid, completed in unit.items():
                if not completed and crashed is None:
                    crashed = nodeid
                    unit[nodeid] = True
        self.workqueue.update({scope: unit for scope, unit in workload.items() if not all(unit.values())})
        for other in self.assigned_work:
            self._reschedule(other)
        return crashed


def order(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """Checks marked ``early`` first; otherwise as collected."""
    return sorted(items, key=lambda item: item.get_closest_marker("early") is None)


def write_checks(checks: Mapping[str, Sequence[str]], run_dir: Path) -> None:
    """Write down which checks the run has, by node id with their claims; a resumed run looks for their outcomes."""
    _write(run_dir / CHECKS_FILE, checks)


def write_groups(items: Iterable[pytest.Item], run_dir: Path) -> None:
    """Write down the group of each test that has one; every worker writes the same, so the last one may
    win.
    """
    groups = {
        item.nodeid: str(mark.args[0])
        for item in items
        if (mark := item.get_closest_marker("xdist_group")) is not None and mark.args
    }
    _write(run_dir / GROUPS_FILE, groups)


def _write(path: Path, content: Mapping[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(content, indent=1, sort_keys=True), encoding="utf-8")
    temporary.replace(path)
