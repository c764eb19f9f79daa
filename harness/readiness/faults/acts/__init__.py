"""Every act by its name in YAML: one line each, the classes in the files beside this one."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import cast

from readiness.faults.act import Act, Params

# Name in `method` of a scenario -> module below this package and class in it.
ACTS: Mapping[str, tuple[str, str]] = {
    # processes
    "kill_worker": ("process", "KillWorker"),
    "kill_before_report": ("process", "KillBeforeReport"),
    "stop_workers": ("process", "StopWorkers"),
    "freeze_worker": ("process", "FreezeWorker"),
    "crash_loop": ("process", "CrashLoop"),
    "kill_api": ("process", "KillApi"),
    # the network
    "slow_network": ("network", "SlowNetwork"),
    "thin_network": ("network", "ThinNetwork"),
    "reset_in_command": ("network", "ResetInCommand"),
    "silence": ("network", "Silence"),
    "half_open": ("network", "HalfOpen"),
    "partition": ("network", "Partition"),
    "packet_loss": ("network", "PacketLoss"),
    "lost_name": ("names", "LostName"),
    "mixed_versions": ("versions", "MixedVersions"),
    # the upstream API
    "upstream": ("upstream", "Upstream"),
}


def act_class(name: str) -> type[Act]:
    """The class of a known act."""
    module, attribute = ACTS[name]
    return cast("type[Act]", getattr(import_module(f"{__name__}.{module}"), attribute))


def make_act(name: str, params: Params) -> Act:
    """An act for one scenario."""
    build = cast("type", act_class(name))
    return cast("Act", build(params))
