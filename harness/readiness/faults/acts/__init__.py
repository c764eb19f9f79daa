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
    "kill_before_report": ("window", "KillBeforeReport"),
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
    # Redis
    "kill_redis": ("redis", "KillRedis"),
    "flip_redis_file": ("redis", "FlipRedisFile"),
    "stall_redis": ("redis", "StallRedis"),
    "read_only_redis": ("redis", "ReadOnlyRedis"),
    "memory_full": ("redis", "MemoryFull"),
    "failover": ("failover", "Failover"),
    # the machine
    "redis_disk_full": ("disks", "RedisDiskFull"),
    "temp_disk_full": ("disks", "TempDiskFull"),
    "few_files": ("limits", "FewFiles"),
    "starved_cpu": ("limits", "StarvedCpu"),
    "memory_limit": ("limits", "MemoryLimit"),
    "clock_jump": ("limits", "ClockJump"),
    "slow_fsync": ("disks", "SlowFsync"),
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
