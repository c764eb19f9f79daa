"""Say inside a job that somebody cancelled it (spec D2), and stop what it waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, Final, TypeVar

from ragworker.errors import WorkerCancellationError

#: How long a cancelled job may take to let go.
LET_GO_SECONDS: Final = 5.0

Answer = TypeVar("Answer")


class Cancellation:
    """Whether one delivery is to end, and why."""

    __slots__ = ("_requested", "reason")

    def __init__(self, reason: str | None = None) -> None:
        self.reason = reason
        #: Made when somebody waits for it: most jobs never do.
        self._requested: asyncio.Event | None = None

    def request(self, reason: str) -> None:
        """Cancel; the first reason stays."""
        self.reason = self.reason or reason
        if self._requested is not None:
            self._requested.set()

    def check(self) -> None:
        """WorkerCancellationError when somebody cancelled."""
        if self.reason is not None:
            raise WorkerCancellationError(self.reason)

    async def race(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        """Do `work`, but stop it and raise WorkerCancellationError as soon as somebody cancels."""
        self._requested = asyncio.Event()
        if self.reason is not None:
            self._requested.set()
        task = asyncio.ensure_future(work)
        cancelled = asyncio.ensure_future(self._requested.wait())
        try:
            await asyncio.wait({task, cancelled}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            self.check()
            raise AssertionError("woken without a reason")
        finally:
            await end_tasks((task, cancelled), seconds=LET_GO_SECONDS)


async def end_tasks(tasks: Iterable[asyncio.Future[Any]], *, seconds: float) -> None:
    """Cancel tasks until they have ended, at most for `seconds`.

    Once is not enough: one that meets an answer on its way in can get lost in the Redis client (39 of 300 tries
    with redis-py 8.1.0).
    """
    pending = {task for task in tasks if not task.done()}
    deadline = asyncio.get_running_loop().time() + seconds
    while pending and asyncio.get_running_loop().time() < deadline:
        for task in pending:
            task.cancel()
        ended, pending = await asyncio.wait(pending, timeout=0.1)
        for task in ended:
            # Asked for, so that nobody is told of an exception that was never retrieved: the end was wanted.
            if not task.cancelled():
                task.exception()
