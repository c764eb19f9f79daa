"""The routes for operators and their machines: metrics, probes, error panels of a user interface."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

from fastapi import APIRouter, Response
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import PlainTextResponse

from ragworker.api.bodies import Readiness, UiError
from ragworker.api.context import durable_selected
from ragworker.api.jobs import Here
from ragworker.api.problems import answers
from ragworker.api.services import PART_SECONDS, REDIS_AWAY, RedisAwayError
from ragworker.telemetry import CONTENT_TYPE, UI_ERROR_TYPES, exposition

router = APIRouter()


@router.get(
    "/metrics",
    response_class=PlainTextResponse,
    responses={404: {"description": "PROMETHEUS_ENABLED is false", "content": {"text/plain": {}}}},
)
async def metrics(services: Here) -> Response:
    """One scrape; figures about durable jobs are read from Redis now, within `PART_SECONDS`."""
    if not services.settings.prometheus_enabled:
        return PlainTextResponse("PROMETHEUS_ENABLED is false\n", 404)
    background, durable = await services.queues["background"].gauges(), None
    with suppress(RedisAwayError):
        durable = await services.ask(services.queues["durable"].gauges(), "gauges")
    text = exposition(
        services.figures, durable=durable, background=background, durable_expected=durable_selected()
    )
    return Response(text, media_type=CONTENT_TYPE)


@router.get("/healthz")
async def alive() -> dict[str, str]:
    """The process answers; nothing else is asked."""
    return {"status": "alive"}


@router.get(
    "/readyz", response_model=Readiness, responses={503: {"model": Readiness, "description": "Not ready"}}
)
async def ready(services: Here, response: Response) -> Any:
    """Whether the parts that the selected mode needs are reachable: 200 or 503, with each part's state."""
    durable = durable_selected()
    parts = {"sql": await _part_state(asyncio.to_thread(services.store.ping))}
    if durable:
        parts["redis"] = await _part_state(services.queues["durable"].ping())
    well = all(state == "reachable" for state in parts.values())
    response.status_code = 200 if well else 503
    return {"ready": well, "mode": "durable" if durable else "background", "parts": parts}


@router.post(
    "/ui/errors",
    status_code=204,
    responses=answers("upload-too-slow", "payload-too-large", "invalid-request"),
)
async def ui_error(services: Here, shown: UiError) -> None:
    """Count an error panel that a user interface has shown."""
    kind = shown.type if shown.type in UI_ERROR_TYPES else "unknown"
    services.figures.count("ui_error_panel_shown", type=kind)


async def _part_state(answer: Awaitable[None]) -> str:
    try:
        async with asyncio.timeout(PART_SECONDS):
            await answer
    except (*REDIS_AWAY, SQLAlchemyError) as error:
        # The class says enough; the message may carry a connection string.
        return f"unreachable: {type(error).__name__}"
    return "reachable"
