"""The routes of the dead-letter queue: list, inspect, requeue, purge (spec C5). It exists in Redis only."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from ragworker.api.bodies import dead_letter_body
from ragworker.api.jobs import caller_of, services_of
from ragworker.api.problems import Problem
from ragworker.api.services import RedisAwayError, Services, check_job_id, redis_away
from ragworker.job import JobState, JobView
from ragworker.logs import bind_context, get_logger

logger = get_logger(__name__)
router = APIRouter(prefix="/rag/dlq")

#: Entries looked through for those of one user; a queue with more dead letters needs an operator, not a list.
MAX_SCANNED: Final = 1_000

_PAGE: Final = 100


@router.get("")
async def list_entries(
    request: Request,
    offset: Annotated[int, Query(ge=0, le=MAX_SCANNED)] = 0,
    limit: Annotated[int, Query(ge=1, le=_PAGE)] = 50,
) -> Response:
    """The caller's dead letters, newest first; `count` is how many there are in all."""
    own = await _own_entries(services_of(request), caller_of(request).user_id)
    entries = [dead_letter_body(view) for view in own[offset : offset + limit]]
    return JSONResponse({"entries": entries, "count": len(own)})


@router.get("/{job_id}")
async def show(request: Request, job_id: str) -> Response:
    """One dead letter, whole, without the document's text."""
    check_job_id(job_id)
    return JSONResponse(dead_letter_body(await _entry(request, job_id)))


@router.post("/{job_id}/requeue")
async def requeue(request: Request, job_id: str) -> Response:
    """Give the job a fresh series of attempts."""
    services, caller = services_of(request), caller_of(request)
    check_job_id(job_id)
    with bind_context(job_id=job_id):
        await _entry(request, job_id)
        try:
            moved = await services.ask_redis(lambda: services.queue.requeue(job_id), what="requeue")
        except RedisAwayError as error:
            raise redis_away(str(error)) from None
        if not moved:
            raise _not_found(job_id)
        logger.info("job.requeued", extra={"fields": {"by": caller.user_id}})
    ids = {"request_id": caller.ids.request_id, "trace_id": caller.ids.trace_id}
    return JSONResponse({"job_id": job_id, "state": JobState.QUEUED.value, **ids}, status_code=202)


@router.delete("/{job_id}")
async def purge(request: Request, job_id: str) -> Response:
    """Forget the job and its document for good."""
    services, caller = services_of(request), caller_of(request)
    check_job_id(job_id)
    with bind_context(job_id=job_id):
        await _entry(request, job_id)
        try:
            gone = await services.ask_redis(lambda: services.queue.purge(job_id), what="purge")
        except RedisAwayError as error:
            raise redis_away(str(error)) from None
        if not gone:
            raise _not_found(job_id)
        logger.info("job.purged", extra={"fields": {"by": caller.user_id}})
    return Response(status_code=204)


async def _entry(request: Request, job_id: str) -> JobView:
    services = services_of(request)
    try:
        view = await services.ask_redis(lambda: services.queue.get(job_id), what="dead letter")
    except RedisAwayError as error:
        raise redis_away(str(error)) from None
    if view is None or view.state is not JobState.DEAD or view.user_id != caller_of(request).user_id:
        raise _not_found(job_id)
    return view


async def _own_entries(services: Services, user_id: str) -> list[JobView]:
    own: list[JobView] = []
    for offset in range(0, MAX_SCANNED, _PAGE):
        try:
            page = await services.ask_redis(
                lambda offset=offset: services.queue.dead_letters(offset=offset, limit=_PAGE),  # type: ignore[misc]  # mypy does not type default arguments of lambdas
                what="dead letters",
            )
        except RedisAwayError as error:
            raise redis_away(str(error)) from None
        own += [view for view in page if view.user_id == user_id]
        if len(page) < _PAGE:
            break
    return own


def _not_found(job_id: str) -> Problem:
    return Problem("dead-letter-not-found", f"no dead letter {job_id[:80]!r} of this user; see GET /rag/dlq")
