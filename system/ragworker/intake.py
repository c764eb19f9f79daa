"""How jobs enter the queue: together, because a round trip costs more than what it asks for. Used by `queue.py` only.

Submits that come while another is on its way wait for it and then travel in one call; nobody waits for company. A
bulk submit prepares one batch while Redis works on another. Documents too large to travel with their job go ahead of
it in pieces, into a key that expires by itself unless the job takes it over in the submit's own step.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import redis.asyncio

from ragworker import rows
from ragworker.job import JobState, NewJob, Submitted, job_id_for
from ragworker.settings import QueueSettings

#: Jobs and bytes that travel in one submit; a script this long holds Redis for a few ms.
SUBMIT_JOBS: Final = 500
SUBMIT_BYTES: Final = 1 << 20

#: Bulk submits on their way at a time: one is made ready while Redis works on another.
SUBMITS_IN_FLIGHT: Final = 2

#: Documents up to this size travel with the job; larger ones are written and read in pieces, so that neither a script
#: nor a worker ever holds one whole.
INLINE_BYTES: Final = 32 * 1024
PIECE_BYTES: Final = 1 << 20

#: What was uploaded for a submit that never came is forgotten after this time.
UPLOAD_SECONDS: Final = 600

#: How long a submit waits for its replicas (RAG_REDIS_WAIT_REPLICAS).
REPLICA_MS: Final = 1000


class NotReplicatedError(redis.RedisError):
    """Too few replicas confirmed a submit in time. It may survive all the same; sent again it is the same job."""


class Intake:
    """The submitting side of one queue; `run` calls a script by its name."""

    def __init__(
        self,
        client: redis.asyncio.Redis,
        run: Callable[..., Awaitable[Any]],
        *,
        queue: str,
        prefix: str,
        settings: QueueSettings,
    ) -> None:
        self._redis = client
        self._run = run
        self._queue = queue
        self._prefix = prefix
        self._replicas = settings.wait_replicas
        self._waiting: deque[tuple[NewJob, asyncio.Future[Submitted]]] = deque()
        self._submitter: asyncio.Task[None] | None = None

    async def submit(self, new: NewJob) -> Submitted:
        """As `Queue.submit`."""
        answer: asyncio.Future[Submitted] = asyncio.get_running_loop().create_future()
        self._waiting.append((new, answer))
        if self._submitter is None:
            self._submitter = asyncio.create_task(self._submit_waiting())
        return await answer

    async def submit_many(self, jobs: Iterable[NewJob]) -> list[Submitted]:
        """As `Queue.submit_many`."""
        answers: list[Submitted] = []
        under_way: deque[asyncio.Task[list[Submitted]]] = deque()
        try:
            for batch in _batches(jobs):
                under_way.append(asyncio.create_task(self._submit(batch)))
                if len(under_way) >= SUBMITS_IN_FLIGHT:
                    answers += await under_way.popleft()
            while under_way:
                answers += await under_way.popleft()
        finally:
            for task in under_way:
                task.cancel()
        return answers

    async def _submit_waiting(self) -> None:
        try:
            while self._waiting:
                line, self._waiting = self._waiting, deque()
                for batch in _batches(new for new, _ in line):
                    answers = [line.popleft()[1] for _ in batch]
                    try:
                        accepted = await self._submit(batch)
                    except Exception as error:
                        for answer in answers:
                            if not answer.done():
                                answer.set_exception(error)
                    else:
                        for answer, submitted in zip(answers, accepted, strict=True):
                            if not answer.done():
                                answer.set_result(submitted)
        finally:
            self._submitter = None

    async def _submit(self, batch: Sequence[NewJob]) -> list[Submitted]:
        ids: list[str] = []
        args: list[str | bytes] = []
        for new in batch:
            job_id = job_id_for(queue=self._queue, user_id=new.user_id, key=new.key)
            about = rows.about(new, sha256=hashlib.sha256(new.payload).hexdigest())
            inline = len(new.payload) <= INLINE_BYTES
            upload = "" if inline else await self._upload(new.payload)
            ids.append(job_id)
            args += (
                job_id,
                new.priority.value,
                about,
                new.payload if inline else str(len(new.payload)),
                upload,
            )
        states = await (self._replicated(args) if self._replicas else self._run("submit", *args))
        return [
            Submitted(job_id, JobState(rows.text(state) or JobState.QUEUED), duplicate=bool(state))
            for job_id, state in zip(ids, states, strict=True)
        ]

    async def _upload(self, payload: bytes) -> str:
        key = f"{self._prefix}upload:{secrets.token_hex(12)}"
        for start in range(0, len(payload), PIECE_BYTES):
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.append(key, payload[start : start + PIECE_BYTES])
                pipe.expire(key, UPLOAD_SECONDS)
                await pipe.execute()
        return key

    async def _replicated(self, args: Sequence[str | bytes]) -> Any:
        """Submit; NotReplicatedError when fewer replicas than RAG_REDIS_WAIT_REPLICAS have what was written."""
        # WAIT speaks of the writes of its own connection. Sent with them, it never asks a master that came after.
        async with self._redis.pipeline(transaction=False) as pipe:
            await self._run("submit", *args, client=pipe)
            pipe.wait(self._replicas, REPLICA_MS)
            states, have = await pipe.execute()
        if have < self._replicas:
            raise NotReplicatedError(f"{have} of {self._replicas} replicas confirmed in {REPLICA_MS} ms")
        return states


def _batches(jobs: Iterable[NewJob]) -> Iterator[list[NewJob]]:
    """Jobs as they come, in batches of bounded number and size."""
    batch: list[NewJob] = []
    size = 0
    for new in jobs:
        if batch and (len(batch) >= SUBMIT_JOBS or size + len(new.payload) > SUBMIT_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(new)
        size += len(new.payload)
    if batch:
        yield batch
