"""ragworker's HTTP API as the verbs of a lane: submit, look, wait, cancel, requeue. Starts nothing."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import httpx
import jwt

from readiness.targets.base import DeadlineExceeded, JobStatus, JsonObject, Submission, TargetError
from readiness.targets.ragworker_answers import missing_status, read_status, read_submission, sample

if TYPE_CHECKING:
    from readiness.documents import Document

REQUEST_SECONDS = 30.0
"""No answer of the API may take longer: a request that does is an error of the target."""

POLL_SECONDS = 0.1
"""Pause between two looks at unfinished jobs, so that waiting does not become the load."""

USER = "readiness"
"""The `sub` of the lane's own requests when the target wants a token."""

TOKEN_SECONDS = 86_400
"""Longer than any run."""


class RagworkerApi(ABC):
    """The verbs, for whatever address the API has now. A subclass knows address and settings."""

    name: str
    settings: Mapping[str, str]

    def __init__(self) -> None:
        self._clients: list[httpx.Client] = []  # the last one is for the address of now

    @property
    @abstractmethod
    def api_url(self) -> str:
        """Base URL without a slash at the end; TargetError while no API was started."""

    def http(self) -> httpx.Client:
        """A client for the API as it runs now, without a token. It lives as long as the lane."""
        if not self._clients or str(self._clients[-1].base_url).rstrip("/") != self.api_url:
            client = httpx.Client(base_url=self.api_url, timeout=REQUEST_SECONDS, trust_env=False)
            self._clients.append(client)
        return self._clients[-1]

    def enqueue(
        self, document: Document, *, key: str | None = None, headers: Mapping[str, str] | None = None
    ) -> Submission:
        """Submit one document as a file. TargetError when no answer comes, which says nothing about the job."""
        extra = {"Idempotency-Key": key} if key is not None else {}
        answer = self._ask(
            "POST",
            "/rag/jobs",
            files={"file": (document.name, document.content, document.media_type)},
            headers={**extra, **(headers or {})},
        )
        return read_submission(answer.status_code, json_object(answer), dict(answer.headers))

    def status(self, job_id: str) -> JobStatus:
        """One job; state "missing" when the target does not know it. TargetError for any other refusal."""
        answer = self._ask("GET", f"/rag/jobs/{job_id}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            return missing_status(job_id)
        return read_status(json_object(expect(answer, httpx.codes.OK)))

    def wait_all(self, job_ids: Sequence[str], *, seconds: float) -> dict[str, JobStatus]:
        """Wait until all are terminal; DeadlineExceeded names those that are not.

        An API that is away for a while is asked again until the deadline.
        """
        deadline = time.monotonic() + seconds
        finished: dict[str, JobStatus] = {}
        waiting = dict.fromkeys(job_ids, "not seen")
        trouble = ""
        while True:
            # One at a time: asking for all of them over and over would be a load of its own.
            late = time.monotonic() >= deadline
            batch = list(waiting) if late else list(waiting)[:1]
            try:
                looked = {job_id: self.status(job_id) for job_id in batch}
            except TargetError as error:
                looked, trouble = {}, f"; last trouble: {error}"
            ended = {job_id: status for job_id, status in looked.items() if status.finished}
            waiting.update({job_id: status.state for job_id, status in looked.items()})
            for job_id, status in ended.items():
                finished[job_id] = status
                del waiting[job_id]
            if not waiting:
                return {job_id: finished[job_id] for job_id in job_ids}
            if late:
                raise self._late(waiting, seconds, trouble)
            if len(ended) < len(batch):
                time.sleep(POLL_SECONDS)

    def cancel(self, job_id: str, *, reason: str = "asked by the harness") -> int:
        """202 when the job will be cancelled, 409 when it has ended, 404 when it is unknown."""
        return self._ask("POST", f"/rag/jobs/{job_id}/cancel", json={"reason": reason}).status_code

    def dead_letters(self) -> list[JsonObject]:
        """The entries of the dead-letter queue."""
        entries = json_object(expect(self._ask("GET", "/rag/dlq"), httpx.codes.OK)).get("entries")
        if not isinstance(entries, list):
            raise TargetError(f"/rag/dlq: expected a list of entries, got {type(entries).__name__}")
        return [entry for entry in entries if isinstance(entry, dict)]

    def requeue(self, job_id: str) -> int:
        """HTTP status of the request to try a dead job again."""
        return self._ask("POST", f"/rag/dlq/{job_id}/requeue").status_code

    def metrics(self) -> str:
        """The exposition text."""
        return expect(self._ask("GET", "/metrics"), httpx.codes.OK).text

    def depth(self) -> int:
        """Ready and delayed jobs, from the gauge."""
        return int(sample(self.metrics(), "rag_queue_length"))

    def in_flight(self) -> int:
        """Claimed jobs, from the gauge."""
        return int(sample(self.metrics(), "worker_active_jobs"))

    def close_clients(self) -> None:
        """Let all connections go."""
        for client in self._clients:
            client.close()

    def _ask(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        json: object = None,
        files: Mapping[str, tuple[str, bytes, str]] | None = None,
    ) -> httpx.Response:
        everything = {**self._token(), **(headers or {})}
        try:
            return self.http().request(method, path, headers=everything, json=json, files=files)
        except httpx.HTTPError as error:
            why = str(error) or type(error).__name__
            raise TargetError(f"lane {self.name}: {method} {path}: expected an answer, got: {why}") from error

    def _token(self) -> dict[str, str]:
        """The Authorization of the lane's own requests, where the target wants one."""
        secret = self.settings.get("RAG_JWT_SECRET", "")
        if not secret:
            return {}
        claims: dict[str, object] = {"sub": USER, "exp": int(time.time()) + TOKEN_SECONDS}
        for claim, setting in (("aud", "RAG_JWT_AUDIENCE"), ("iss", "RAG_JWT_ISSUER")):
            if self.settings.get(setting):
                claims[claim] = self.settings[setting]
        return {"Authorization": f"Bearer {jwt.encode(claims, secret, algorithm='HS256')}"}

    def _late(self, waiting: Mapping[str, str], seconds: float, trouble: str) -> DeadlineExceeded:
        some = ", ".join(f"{job_id} {state}" for job_id, state in list(waiting.items())[:5])
        more = f" and {len(waiting) - 5} more" if len(waiting) > 5 else ""
        count = f"{len(waiting)} jobs not ended within {seconds:g} s"
        return DeadlineExceeded(f"lane {self.name}: {count}: {some}{more}{trouble}", unfinished=waiting)


def expect(answer: httpx.Response, status: int) -> httpx.Response:
    """The answer, or TargetError when its status is another."""
    if answer.status_code != status:
        asked = f"{answer.request.method} {answer.request.url.path}"
        raise TargetError(f"{asked}: expected {status}, got {answer.status_code}: {answer.text[:300]}")
    return answer


def json_object(answer: httpx.Response) -> JsonObject:
    """The JSON object of an answer; an empty one when there is no body. TargetError when it is none."""
    if not answer.content:
        return {}
    try:
        value = answer.json()
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise TargetError(f"{answer.request.url.path}: expected a JSON object, got: {answer.text[:300]}")
    return value
