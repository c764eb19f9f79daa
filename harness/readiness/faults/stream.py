"""The submissions around a fault: bounded in number and time, each with its own idempotency key, all in the history.

An answer that does not come is written down as unknown, never guessed. When the fault is over `settle_unknown` asks
again under the same key, as a careful client would: the target then says which job it is.
"""

from __future__ import annotations

import random
import threading
import time
from hashlib import sha256

from readiness.documents import Document
from readiness.faults.history import History, Look, Submit, now_ms
from readiness.faults.scenario import StreamPlan
from readiness.targets.base import Lane, Submission, TargetError

REFUSED_AGAIN = 3
"""So often is a submission without an outcome asked again when the fault is over."""

AGAIN_SECONDS = 0.5
JOIN_SECONDS = 40.0
"""Longer than one request may take (30 s), so that the last answer is heard."""


class SubmissionStream(threading.Thread):
    """Submits from `start` until `end` or until the plan's jobs are used up. Starts no process."""

    def __init__(self, lane: Lane, plan: StreamPlan, history: History, *, label: str, seed: int) -> None:
        super().__init__(name=f"submissions-{label}", daemon=True)
        self._lane, self._plan, self._history = lane, plan, history
        self._label, self._rng = label, random.Random(seed)  # noqa: S311  no secret
        self._ended = threading.Event()
        self._acknowledged: list[str] = []
        self._unknown: dict[str, Document] = {}
        self.submitted = 0

    @property
    def acknowledged(self) -> list[str]:
        """Ids of the jobs that the target took responsibility for, so far."""
        return list(self._acknowledged)

    def run(self) -> None:
        while self.submitted < self._plan.jobs and not self._ended.wait(self._plan.every_ms / 1000):
            self.submit_one(f"{self._label}-{self.submitted}")
            self._look_back()

    def submit_one(self, key: str) -> Submission | None:
        """Submit one document under this key; None when no answer came."""
        self.submitted += 1
        return self._send(key, self._document(key))

    def end(self) -> None:
        """Stop submitting and hear the last answer."""
        self._ended.set()
        if self.ident is not None:
            self.join(timeout=JOIN_SECONDS)

    def settle_unknown(self) -> int:
        """Ask again about every submission without an answer; how many still have none."""
        for _ in range(REFUSED_AGAIN):
            for key, document in list(self._unknown.items()):
                self._send(key, document)
            if not self._unknown:
                break
            time.sleep(AGAIN_SECONDS)
        return len(self._unknown)

    def _send(self, key: str, document: Document) -> Submission | None:
        began = now_ms()
        digest = sha256(" ".join(document.content.decode().split()).encode()).hexdigest()
        try:
            answer = self._lane.enqueue(document, key=key)
        except TargetError as error:
            self._unknown[key] = document
            self._history.add(Submit(began, key, "unknown", digest=digest, why=str(error)[:200]))
            return None
        self._unknown.pop(key, None)
        if answer.accepted:
            self._acknowledged.append(answer.job_id)
        word = "acknowledged" if answer.accepted else "refused"
        why = "" if answer.accepted else f"HTTP {answer.status_code}"
        # The moment of the answer: from here on the target is responsible.
        self._history.add(
            Submit(now_ms(), key, word, answer.job_id, answer.mode, answer.duplicate, digest, why)
        )
        return answer

    def _document(self, key: str) -> Document:
        words = " ".join(f"{key.replace('-', ' ')} w{number}" for number in range(self._plan.words))
        text = " ".join(words.split()[: max(8, self._plan.words)])
        return Document(name=f"{key}.txt", media_type="text/plain", content=text.encode())

    def _look_back(self) -> None:
        """Look at one earlier job: a final state that was seen once must stay."""
        if not self._acknowledged:
            return
        job = self._rng.choice(self._acknowledged)
        try:
            status = self._lane.status(job)
        except TargetError:
            return
        if status.state != "missing":
            self._history.add(Look(now_ms(), job, status.state))
