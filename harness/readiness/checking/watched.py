"""One instance under the eyes of the run's Prometheus: idle for a while, then at work that is known in every number.

What is drawn and what would alarm can so be compared with what happened. Judges nothing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from readiness.checking.ends import ends_of
from readiness.checking.history import Request, requests_of
from readiness.checking.prometheus import Prometheus
from readiness.checking.waiting import WaitedTooLong, wait_until
from readiness.documents import Document

if TYPE_CHECKING:
    from readiness.targets.base import JobStatus, Lane

SCRAPED_SECONDS = 20.0  # target discovery hands changes on every 5 s, then a scrape each second
IDLE_SECONDS = 3.0
WORK_SECONDS = 30.0
FAST, SLOW = 10, 2  # a rank-based P95 of 12 is the slowest; a mean is not
SLOW_MS = 450


@dataclass(frozen=True, slots=True)
class Watched:
    """`since`, `idle_until` and `until` in seconds of the epoch: from the first scrape, idle, then at work.

    `statuses` are those of all jobs that the instance ever had, `requests` all that it sent to the embedding API.
    """

    lane: Lane
    prometheus_url: str
    since: float
    idle_until: float
    until: float
    statuses: Mapping[str, JobStatus | None]
    requests: Sequence[Request]

    @property
    def matchers(self) -> dict[str, str]:
        """What selects this instance among all that Prometheus scrapes."""
        return {"lane": self.lane.name}

    @property
    def durations_ms(self) -> list[float]:
        """How long each job took, by its own record."""
        known = (one.duration_ms for one in self.statuses.values() if one is not None)
        return [float(duration) for duration in known if duration is not None]


def watch(lane: Lane, prometheus_url: str, *, seed: int) -> Watched:
    """Let it be scraped while it is idle, give it work, and wait until the end of the work was scraped."""
    with Prometheus(prometheus_url) as prometheus:
        build = f'rag_build_info{{lane="{lane.name}"}}'
        what = f"a scrape of {lane.name}"
        wait_until(lambda: prometheus.now(build), seconds=SCRAPED_SECONDS, what=what, every_seconds=0.2)
        since = time.time()
        time.sleep(IDLE_SECONDS)  # not a wait for something: nothing is what shall happen
        idle_until = time.time()

        lane.http().post("/ui/errors", json={"type": "network"})
        lane.script_embedding([{"contains": "watched-slow", "delay_ms": SLOW_MS}])
        texts = [f"watched-slow-{seed}-{number}" for number in range(SLOW)]
        texts += [f"watched-{seed}-{number}" for number in range(FAST)]
        jobs = [lane.enqueue(Document(f"{text}.txt", "text/plain", text.encode())).job_id for text in texts]
        statuses = ends_of(lane, jobs, seconds=WORK_SECONDS)
        requests = requests_of(lane.embedding_log())
        # What a worker counts comes with its heartbeat, so both are awaited; a figure that never comes is judged later.
        counted = f'sum(rag_job_duration_ms_count{{lane="{lane.name}"}}) >= {len(jobs)}'
        sent = f'sum(embedding_api_latency_ms_count{{lane="{lane.name}"}}) >= {len(requests)}'
        with suppress(WaitedTooLong):
            wait_until(
                lambda: prometheus.now(counted) and prometheus.now(sent),
                seconds=SCRAPED_SECONDS,
                what="the last figures in Prometheus",
                every_seconds=0.2,
            )
        return Watched(
            lane=lane,
            prometheus_url=prometheus_url,
            since=since,
            idle_until=idle_until,
            until=time.time(),
            statuses=statuses,
            requests=requests,
        )
