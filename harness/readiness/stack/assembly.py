"""Start what a plan asks for, in the order in which the parts need each other, and end all of it.

Missing parts are facts of the run, not failures of it: they are written down and the claims that need them
are NOT_RUN. A part that is there and does not start is a StackError.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from readiness.errors import BadInput
from readiness.judge.model import Part
from readiness.stack.alertmanager import (
    AlertmanagerPart,
    alertmanager_is_here,
    alertmanager_part,
    amtool_part,
    require_alertmanager,
)
from readiness.stack.base import StackInfo, StackPlan
from readiness.stack.docker import choose_images
from readiness.stack.embedding import EmbeddingPart, embedding_part
from readiness.stack.processes import STOP_GRACE_SECONDS, Stoppable, stop_all
from readiness.stack.prometheus import (
    PrometheusPart,
    prometheus_is_here,
    prometheus_part,
    promtool_part,
    require_prometheus,
)
from readiness.stack.redis import RedisPart, redis_part, require_redis, start_redis
from readiness.stack.sinks import SinksPart, sinks_part
from readiness.stack.sql import database_url, new_postgres, require_sql, sql_part

if TYPE_CHECKING:
    from readiness.stack.postgres import PostgresServer

Notify = Callable[[str], None]


class Stack:
    """A started stack. Leaving its `with` block, or `stop`, ends every process of it."""

    def __init__(
        self,
        info: StackInfo,
        started: list[Stoppable],
        *,
        redis: RedisPart,
        postgres: PostgresServer | None = None,
    ) -> None:
        self.info = info
        self.redis = redis
        self.postgres = postgres
        self._started = started

    @classmethod
    def start(cls, plan: StackPlan, run_dir: Path, *, notify: Notify = lambda _: None) -> Stack:
        """Start all parts; `notify` hears each one begin. `stack.json` is written when all are ready.

        Raises BadInput for a Redis that cannot be had and StackError for a part that does not start; whatever
        had been started by then is ended first, on Ctrl-C too. Call it from the main thread.
        """
        started: list[Stoppable] = []
        try:
            return _start(plan, run_dir, notify, started)
        except BaseException:
            stop_all(reversed(started))
            raise

    def stop(self) -> None:
        """End all processes, last started first; within about 3 s. Doing it twice is harmless."""
        stop_all(reversed(self._started), grace=STOP_GRACE_SECONDS)

    def __enter__(self) -> Stack:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def require_parts(plan: StackPlan) -> None:
    """Raise BadInput, one line, for a part that the plan names and this machine cannot give. Starts nothing."""
    choose_images(plan.images)
    require_redis(plan.redis)
    require_sql(plan.sql)
    if plan.monitoring_in not in ("local", "docker"):
        raise BadInput(f"--monitoring: expected local or docker, got: {plan.monitoring_in!r}")
    if plan.monitoring_in == "docker":
        if not plan.monitoring:
            raise BadInput(
                "--monitoring docker: expected no --no-monitoring beside it. Leave one of the two out."
            )
        require_prometheus(plan)
        require_alertmanager(plan)


def _start(plan: StackPlan, run_dir: Path, notify: Notify, started: list[Stoppable]) -> Stack:
    choose_images(plan.images)
    embedding, sinks = EmbeddingPart(run_dir), SinksPart(run_dir)
    notify("starting the embedding API simulator and the sinks")
    for simulator in (embedding, sinks):
        started.append(simulator)
        simulator.begin()
    notify("starting Redis")
    redis = start_redis(run_dir, plan.redis)
    started.append(redis)
    notify(f"Redis {redis.version} ({redis.provider}) is ready")
    postgres = _start_postgres(plan, run_dir, notify, started)
    embedding.await_ready()
    sinks.await_ready()
    alertmanager, prometheus = _start_monitoring(plan, run_dir, sinks, notify, started)
    info = StackInfo(
        run_dir=run_dir,
        redis_url=redis.url,
        redis_provider=redis.provider,
        redis_version=redis.version,
        database_url=postgres.url if postgres else database_url(run_dir, "rag"),
        embedding_url=embedding.url,
        prometheus_url=prometheus.url if prometheus else None,
        alertmanager_url=alertmanager.url if alertmanager else None,
        mail_sink=sinks.url,
        slack_sink=sinks.url,
        parts=_parts(redis, postgres, alertmanager, prometheus),
    )
    info.write()
    return Stack(info, started, redis=redis, postgres=postgres)


def _start_postgres(
    plan: StackPlan, run_dir: Path, notify: Notify, started: list[Stoppable]
) -> PostgresServer | None:
    if plan.sql != "docker":
        return None
    notify("starting PostgreSQL")
    postgres = new_postgres(run_dir)
    started.append(postgres)
    postgres.start()
    notify(f"PostgreSQL {postgres.version} ({postgres.provider}) is ready")
    return postgres


def _start_monitoring(
    plan: StackPlan, run_dir: Path, sinks: SinksPart, notify: Notify, started: list[Stoppable]
) -> tuple[AlertmanagerPart | None, PrometheusPart | None]:
    """Alertmanager first, because Prometheus must know where it is."""
    alertmanager: AlertmanagerPart | None = None
    prometheus: PrometheusPart | None = None
    contained = plan.monitoring_in == "docker"
    if plan.monitoring and (contained or alertmanager_is_here()):
        notify("starting Alertmanager")
        alertmanager = AlertmanagerPart(run_dir, plan=plan, sinks=sinks)
        started.append(alertmanager)
        alertmanager.start()
    if plan.monitoring and (contained or prometheus_is_here()):
        notify("starting Prometheus")
        manager_url = alertmanager.url if alertmanager else None
        prometheus = PrometheusPart(run_dir, plan=plan, alertmanager_url=manager_url)
        started.append(prometheus)
        prometheus.start()
    return alertmanager, prometheus


def _parts(
    redis: RedisPart,
    postgres: PostgresServer | None,
    alertmanager: AlertmanagerPart | None,
    prometheus: PrometheusPart | None,
) -> tuple[Part, ...]:
    return (
        redis_part(redis),
        sql_part(postgres),
        prometheus_part(prometheus),
        promtool_part(),
        alertmanager_part(alertmanager),
        amtool_part(),
        embedding_part(),
        sinks_part(),
    )
