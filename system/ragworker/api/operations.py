"""The routes for operators and their machines: metrics, probes, error panels of a user interface."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from fastapi import APIRouter, Request
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import JSONResponse, PlainTextResponse, Response

from ragworker.api.context import durable_selected
from ragworker.api.jobs import services_of
from ragworker.api.problems import Problem
from ragworker.api.services import PART_SECONDS, REDIS_AWAY, RedisAwayError, Services
from ragworker.api.uploads import read_small_json
from ragworker.telemetry import CONTENT_TYPE, UI_ERROR_TYPES, JobFigures, exposition

router = APIRouter()


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """One scrape; figures about durable jobs are read from Redis now, within `PART_SECONDS`."""
    services = services_of(request)
    if not services.settings.prometheus_enabled:
        return PlainTextResponse("PROMETHEUS_ENABLED is false\n", status_code=404)
    background = services.background
    local = JobFigures(
        queue_length=background.queue_length,
        active_jobs=background.active_jobs,
        token_used_pct=background.token_used_pct,
        stats=background.stats(),
    )
    text = exposition(
        services.figures,
        background=local,
        queue=await _queue_figures(services),
        queue_expected=durable_selected(),
    )
    return Response(text, media_type=CONTENT_TYPE)


@router.get("/healthz")
async def alive() -> Response:
    """The process answers; nothing else is asked."""
    return JSONResponse({"status": "alive"})


@router.get("/readyz")
async def ready(request: Request) -> Response:
    """Whether the parts that the selected mode needs are reachable: 200 or 503, with each part's state."""
    services = services_of(request)
    durable = durable_selected()
    parts = {"sql": await _part_state(asyncio.to_thread(services.store.ping))}
    if durable:
        parts["redis"] = await _part_state(services.queue.ping())
    well = all(state == "reachable" for state in parts.values())
    body = {"ready": well, "mode": "durable" if durable else "background", "parts": parts}
    return JSONResponse(body, status_code=200 if well else 503)


@router.post("/ui/errors")
async def ui_error(request: Request) -> Response:
    """Count an error panel that a user interface has shown."""
    kind = (await read_small_json(request)).get("type")
    if not isinstance(kind, str):
        raise Problem("invalid-request", f'expected {{"type": one of {", ".join(UI_ERROR_TYPES)}}}')
    shown = kind if kind in UI_ERROR_TYPES else "unknown"
    services_of(request).figures.count("ui_error_panel_shown", type=shown)
    return Response(status_code=204)


async def _queue_figures(services: Services) -> JobFigures | None:
    try:
        gauges = await services.ask_redis(services.queue.gauges, what="gauges")
    except RedisAwayError:
        return None
    return JobFigures(
        queue_length=gauges.queue_length,
        active_jobs=gauges.active_jobs,
        token_used_pct=gauges.token_used_pct,
        dlq_entries=gauges.dlq_entries,
        workers=gauges.workers,
        stats=gauges.stats,
    )


async def _part_state(answer: Awaitable[None]) -> str:
    try:
        async with asyncio.timeout(PART_SECONDS):
            await answer
    except (*REDIS_AWAY, SQLAlchemyError) as error:
        # The class says enough; the message may carry a connection string.
        return f"unreachable: {type(error).__name__}"
    return "reachable"
