"""The parts a run needs beside the target: start them, wait until they are ready, end every one of them."""

from readiness.stack.assembly import Stack
from readiness.stack.base import StackInfo, StackPlan
from readiness.stack.processes import (
    ManagedProcess,
    Probe,
    StackError,
    clean_environment,
    spawn,
    stop_all,
)
from readiness.stack.redis import RedisServer, start_private_redis
from readiness.stack.stray_containers import sweep_containers
from readiness.stack.strays import sweep_stray

__all__ = [
    "ManagedProcess",
    "Probe",
    "RedisServer",
    "Stack",
    "StackError",
    "StackInfo",
    "StackPlan",
    "clean_environment",
    "spawn",
    "start_private_redis",
    "stop_all",
    "sweep_containers",
    "sweep_stray",
]
