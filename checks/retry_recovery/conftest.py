"""Every failure that the checks of this section look at, done once: the waits run side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from readiness.checking.ends import ends_of
from readiness.checking.history import Request, attempts_on, requests_of
from readiness.documents import Document
from readiness.simulators.embedding import GARBAGE
from readiness.targets.base import JobStatus, Lane

FINISH_SECONDS = 20.0
RETRIES = 4  # RAG_MAX_RETRIES, default
DOCUMENTS = 3  # of each kind
RETRY_AFTER_SECONDS = 1.0
LARGE_WORDS = 8_000  # more than 64 kB
# Without any text by the chunking rule: nothing to embed, and trying again cannot help.
HOPELESS = {
    "empty.txt": ("text/plain", b""),
    "blank.txt": ("text/plain", b" \n\t \xc2\xa0\n"),
    "markup-only.html": ("text/html", b"<html><script>var text = 'not text'</script></html>"),
    "broken.pdf": ("application/pdf", b"%PDF-1.7 this is no document"),
}


@dataclass(frozen=True, slots=True)
class Retried:
    """Documents of one chunk by what happened to them; a document is named by its text.

    ``backoff`` fails four times; ``hopeless`` always, as do ``buried`` and ``large``, which are to be requeued (the
    second does not fit into its record), and ``purged``, which is to be forgotten; ``limited`` is answered 429 once,
    ``failing`` 500 once, ``garbled`` once by each kind of garbage;
    ``refused`` has no text, by file name ("" when the API refused it).
    """

    lane: Lane
    backoff: tuple[str, ...]
    hopeless: tuple[str, ...]
    buried: str
    large: str
    purged: str
    limited: str
    failing: str
    garbled: tuple[str, ...]
    jobs: Mapping[str, str]
    refused: Mapping[str, str]
    statuses: Mapping[str, JobStatus | None]
    requests: tuple[Request, ...]

    def status(self, text: str) -> JobStatus:
        """How the job of a document ended, or how it was last seen; a lost one fails the check that asks."""
        status = self.statuses[self.jobs[text]]
        assert status is not None, f"{text}: the target does not know its job any more"
        return status

    def attempts(self, text: str) -> list[Request]:
        """The true attempts on a document, from the simulator's log."""
        return attempts_on(self.requests, text)


@pytest.fixture(scope="session")
def retried(retry_lane: Lane, seed: int) -> Retried:
    """Submit documents of every fate at once and wait until all have met it."""
    lane = retry_lane
    backoff = tuple(f"backoff-fails-four-times-{seed}-{number}" for number in range(DOCUMENTS))
    hopeless = tuple(f"hopeless-always-fails-{seed}-{number}" for number in range(DOCUMENTS))
    buried = f"buried-always-fails-{seed}"
    large = f"large-always-fails-{seed} " + " ".join(f"word{number}" for number in range(LARGE_WORDS))
    purged = f"purged-always-fails-{seed}"
    limited, failing = f"limited-429-{seed}", f"failing-500-{seed}"
    garbled = {f"garbled-{kind}-{seed}": kind for kind in GARBAGE}
    lane.script_embedding(
        [
            *({"contains": text, "times": RETRIES, "status": 500} for text in backoff),
            *({"contains": text.split()[0], "status": 503} for text in [*hopeless, buried, large, purged]),
            {"contains": limited, "times": 1, "status": 429, "retry_after": RETRY_AFTER_SECONDS},
            {"contains": failing, "times": 1, "status": 500},
            *({"contains": text, "times": 1, "garbage": kind} for text, kind in garbled.items()),
        ]
    )
    texts = [*backoff, *hopeless, buried, large, purged, limited, failing, *garbled]
    jobs = {
        text: lane.enqueue(Document(f"{text.split()[0]}.txt", "text/plain", text.encode())).job_id
        for text in texts
    }
    refused = {name: lane.enqueue(Document(name, *what)).job_id for name, what in HOPELESS.items()}
    accepted = [job for job in [*jobs.values(), *refused.values()] if job]
    return Retried(
        lane=lane,
        backoff=backoff,
        hopeless=hopeless,
        buried=buried,
        large=large,
        purged=purged,
        limited=limited,
        failing=failing,
        garbled=tuple(garbled),
        jobs=jobs,
        refused=refused,
        statuses=ends_of(lane, accepted, seconds=FINISH_SECONDS),
        requests=tuple(requests_of(lane.embedding_log())),
    )
