"""The routes of jobs: submit, look, watch, cancel. Where a job lives is left to `Services`."""

from __future__ import annotations

import re
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from ragworker.api.bodies import job_body
from ragworker.api.context import Caller
from ragworker.api.events import event_stream, resumable_id
from ragworker.api.problems import Problem
from ragworker.api.services import RETRY_AFTER, Services, check_job_id
from ragworker.api.submissions import content_key
from ragworker.api.uploads import read_small_json
from ragworker.background import BackgroundFullError
from ragworker.job import NewJob, Priority
from ragworker.logs import bind_context, get_logger

logger = get_logger(__name__)
router = APIRouter(prefix="/rag/jobs")

#: 1 to 200 visible ASCII characters.
_IDEMPOTENCY_KEY: Final = re.compile(r"[\x21-\x7e]{1,200}")

#: Kept with the request to cancel and shown to operators.
MAX_REASON_CHARS: Final = 200


def services_of(request: Request) -> Services:
    """The parts of this app."""
    services: Services = request.app.state.services
    return services


def caller_of(request: Request) -> Caller:
    """Who asks, as the ids middleware found out."""
    caller: Caller = request.state.caller
    return caller


@router.post("")
async def submit(request: Request) -> Response:
    """Accept a document: 202, or 200 when the same work is known already (spec A4)."""
    services, caller = services_of(request), caller_of(request)
    explicit = _idempotency_key(request)
    upload = await services.uploads.read(request)
    new = NewJob(
        key=explicit or content_key(caller.user_id, upload.name, upload.media_type, upload.content),
        name=upload.name,
        media_type=upload.media_type,
        payload=upload.content,
        priority=Priority(upload.priority),
        user_id=caller.user_id,
        request_id=caller.ids.request_id,
        trace_id=caller.ids.trace_id,
        correlation_id=caller.ids.correlation_id,
    )
    try:
        accepted = await services.submit(new)
    except BackgroundFullError as error:
        detail = f"too many jobs wait in this process ({error}); try again, or turn USE_DURABLE_WORKER on"
        raise Problem("unavailable", detail, headers=RETRY_AFTER) from None
    job = accepted.submitted
    with bind_context(job_id=job.job_id):
        fields = {"mode": accepted.mode, "bytes": len(upload.content), "media_type": upload.media_type}
        logger.info("job.found" if job.duplicate else "job.submitted", extra={"fields": fields})
    return JSONResponse(
        {
            "job_id": job.job_id,
            "state": job.state.value,
            "mode": accepted.mode,
            "duplicate": job.duplicate,
            "request_id": caller.ids.request_id,
            "trace_id": caller.ids.trace_id,
        },
        status_code=200 if job.duplicate else 202,
        headers={"Location": f"/rag/jobs/{job.job_id}"},
    )


@router.get("/{job_id}")
async def show(request: Request, job_id: str) -> Response:
    """One job with its history."""
    check_job_id(job_id)
    view = await services_of(request).find(job_id, user_id=caller_of(request).user_id)
    return JSONResponse(job_body(view))


@router.post("/{job_id}/cancel")
async def cancel(request: Request, job_id: str) -> Response:
    """Ask for the end of a job (spec D1): 202, or 409 when it has ended already."""
    services, caller = services_of(request), caller_of(request)
    check_job_id(job_id)
    reason = await _reason(request)
    with bind_context(job_id=job_id):
        view = await services.find(job_id, user_id=caller.user_id)
        if view.state.terminal:
            raise _already_ended(view.state.value)
        state = await services.request_cancel(view, reason=reason, by=caller.user_id)
        if state.terminal and state.value != "cancelled":
            raise _already_ended(state.value)
        logger.info("job.cancel_requested", extra={"fields": {"state": state.value}})
    return JSONResponse(
        {
            "job_id": job_id,
            "state": state.value,
            "request_id": caller.ids.request_id,
            "trace_id": caller.ids.trace_id,
        },
        status_code=202,
    )


@router.get("/{job_id}/events")
async def events(request: Request, job_id: str) -> Response:
    """The job's events as they happen; see `events.py`."""
    services = services_of(request)
    check_job_id(job_id)
    services.check_room_for_stream()
    last_event_id = request.headers.get("last-event-id")
    if last_event_id:
        services.figures.count("sse_reconnect_count")
    with bind_context(job_id=job_id):
        view = await services.find(job_id, user_id=caller_of(request).user_id)
        hub = services.background_events if view.mode == "background" else services.queue_events
        return event_stream(hub, view, after=resumable_id(last_event_id), count=services.count_stream)


def _idempotency_key(request: Request) -> str | None:
    given = request.headers.getlist("idempotency-key")
    if not given:
        return None
    if len(given) > 1 or not _IDEMPOTENCY_KEY.fullmatch(given[0]):
        detail = "Idempotency-Key: expected one header of 1 to 200 visible ASCII characters, came another one"
        raise Problem("invalid-request", detail)
    return given[0]


async def _reason(request: Request) -> str:
    body = await read_small_json(request)
    reason = body.get("reason", "")
    if not isinstance(reason, str) or len(reason) > MAX_REASON_CHARS or set(body) - {"reason"}:
        detail = f'expected {{"reason": text of at most {MAX_REASON_CHARS} characters}} or no body'
        raise Problem("invalid-request", detail)
    return "".join(sign if sign.isprintable() else " " for sign in reason)


def _already_ended(state: str) -> Problem:
    return Problem("job-already-finished", f"expected a job that has not ended, this one is {state}")
