"""The routes of jobs and of dead letters (spec C5). Where a job lives is left to `Services`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response

from ragworker.api.bodies import CancelRequest, DeadLetter, DeadLetters, Job, Receipt, Rollback, Submission
from ragworker.api.context import Caller
from ragworker.api.events import event_stream, resumable_id
from ragworker.api.problems import Problem, UnavailableError, answers
from ragworker.api.services import JOB_ID, Services
from ragworker.api.submissions import content_key
from ragworker.job import JobState, JobView, NewJob
from ragworker.logs import bind_context, get_logger
from ragworker.store import RollbackResult
from ragworker.tracing import parent_id, submit_span

logger = get_logger(__name__)

#: Event streams open in one process: each holds a connection, and descriptors are finite.
MAX_STREAMS: Final = 2_000

#: Entries looked through for those of one user; a queue with more dead letters needs an operator, not a list.
MAX_SCANNED: Final = 1_000
_PAGE: Final = 100

_ALWAYS: Final = answers("unauthorized", "invalid-request", "rate-limited", "internal-error", "unavailable")
_BODY: Final = answers("upload-too-slow", "payload-too-large")
_EVENTS: Final = {"text/event-stream": {"itemSchema": {"$ref": "#/components/schemas/SentEvent"}}}

everything = APIRouter(prefix="/rag", responses=_ALWAYS)
one_job = APIRouter(prefix="/rag/jobs/{job_id}", responses={**_ALWAYS, **answers("job-not-found")})
one_dead_letter = APIRouter(
    prefix="/rag/dlq/{job_id}", responses={**_ALWAYS, **answers("dead-letter-not-found")}
)
routers: Final = (everything, one_job, one_dead_letter)


async def services_of(request: Request) -> Services:
    """The parts of this app."""
    services: Services = request.app.state.services
    return services


async def caller_of(request: Request) -> Caller:
    """Who asks, as the ids middleware found out."""
    caller: Caller = request.state.caller
    return caller


Here = Annotated[Services, Depends(services_of)]
Who = Annotated[Caller, Depends(caller_of)]

#: The form is only told: an id of another form is unknown, and so a 404.
JobId = Annotated[str, Path(json_schema_extra={"pattern": JOB_ID})]


async def own_job(services: Here, caller: Who, job_id: JobId) -> AsyncIterator[JobView]:
    """The caller's job, its id on every log line of the request. Problem 404."""
    with bind_context(job_id=job_id[:80]):
        yield await services.find(job_id, user_id=caller.user_id)


OwnJob = Annotated[JobView, Depends(own_job)]


async def own_dead_letter(view: OwnJob) -> JobView:
    """The caller's job, which has failed for good. Problem 404."""
    if view.state is not JobState.DEAD:
        raise _not_dead(view)
    return view


OwnDeadLetter = Annotated[JobView, Depends(own_dead_letter)]


@everything.post(
    "/jobs",
    status_code=202,
    response_model=Submission,
    responses={
        200: {"model": Submission, "description": "The work was known already", "headers": ["Location"]},
        202: {"headers": ["Location"]},
        **_BODY,
        **answers("unsupported-media-type"),
    },
    openapi_extra={"requestBody": {"$ref": "#/components/requestBodies/Submission"}},
)
async def submit(
    request: Request,
    response: Response,
    services: Here,
    caller: Who,
    key: Annotated[str | None, Header(alias="Idempotency-Key", pattern=r"^[\x21-\x7e]{1,200}$")] = None,
) -> Any:
    """Accept a document: 202, or 200 when the same work is known already (spec A4)."""
    if len(request.headers.getlist("idempotency-key")) > 1:
        raise Problem("invalid-request", "Idempotency-Key: expected one header, came several")
    upload = await services.uploads.read(request)
    ids = {"request_id": caller.request_id, "trace_id": caller.trace_id}
    new = NewJob(
        key=key or content_key(caller.user_id, upload.name, upload.media_type, upload.content),
        name=upload.name,
        media_type=upload.media_type,
        payload=upload.content,
        priority=upload.priority,
        user_id=caller.user_id,
        correlation_id=caller.correlation_id,
        **ids,
    )
    with submit_span() as sending:
        job, mode = await services.submit(replace(new, span_id=parent_id()))
        sending.set({"messaging.message.id": job.job_id, "rag.mode": mode, "rag.duplicate": job.duplicate})
    with bind_context(job_id=job.job_id):
        fields = {"mode": mode, "bytes": len(upload.content), "media_type": upload.media_type}
        logger.info("job.found" if job.duplicate else "job.submitted", extra={"fields": fields})
    response.status_code = 200 if job.duplicate else 202
    response.headers["Location"] = f"/rag/jobs/{job.job_id}"
    return {"job_id": job.job_id, "state": job.state, "mode": mode, "duplicate": job.duplicate, **ids}


@one_job.get("", response_model=Job)
async def show(view: OwnJob) -> Any:
    """One job with its history."""
    return Job.model_validate(view)


@one_job.post(
    "/cancel", status_code=202, response_model=Receipt, responses={**_BODY, **answers("job-already-finished")}
)
async def cancel(services: Here, caller: Who, view: OwnJob, wish: CancelRequest | None = None) -> Any:
    """Ask for the end of a job (spec D1): 202, or 409 when it has ended already."""
    state = view.state
    if not state.terminal:
        reason = "".join(sign if sign.isprintable() else " " for sign in (wish or CancelRequest()).reason)
        asked = services.queues[view.mode].request_cancel(view.job_id, reason=reason, by=caller.user_id)
        state = await services.ask(asked, "cancel")
    if view.state.terminal or state in (JobState.DONE, JobState.DEAD):
        raise Problem("job-already-finished", f"expected a job that has not ended, this one is {state}")
    logger.info("job.cancel_requested", extra={"fields": {"state": state.value}})
    return _receipt(caller, view, state)


@one_job.post(
    "/rollback", response_model=Rollback, responses=answers("rollback-too-late", "nothing-to-roll-back")
)
async def roll_back(services: Here, caller: Who, view: OwnJob) -> Any:
    """Undo the committed effect of a job within its window (spec D3). Asked again, it says the same again."""
    result = RollbackResult.NOTHING
    if view.state.terminal:
        result = await services.roll_back(view.job_id, by=caller.user_id)
    if result is RollbackResult.NOTHING:
        raise Problem("nothing-to-roll-back", f"expected a job that is done, this one is {view.state}")
    if result is RollbackResult.TOO_LATE:
        window = f"{services.settings.rollback_seconds:g} s (RAG_ROLLBACK_SECONDS)"
        raise Problem("rollback-too-late", f"expected a commit of the last {window}, this one stays")
    # Also where an earlier request undid the effect: it may not have come as far as this.
    await services.ask(services.queues[view.mode].rolled_back(view.job_id, by=caller.user_id), "rollback")
    logger.info("job.rolled_back", extra={"fields": {"by": caller.user_id, "result": result.value}})
    return {**_receipt(caller, view, JobState.CANCELLED), "rolled_back": True}


@one_job.get("/events", response_class=Response, responses={200: {"content": _EVENTS}})
async def events(services: Here, view: OwnJob, last_event_id: Annotated[str | None, Header()] = None) -> Any:
    """The job's events as they happen: `state`, `progress` and, last, `end`."""
    if services.streams >= MAX_STREAMS:
        raise UnavailableError(f"{MAX_STREAMS} event streams are open here; ask for the job itself")
    if last_event_id:
        services.figures.count("sse_reconnect_count")
    after = resumable_id(last_event_id)
    return event_stream(services.hubs[view.mode], view, after=after, count=services.count_stream)


@everything.get("/dlq", response_model=DeadLetters)
async def list_dead_letters(
    services: Here,
    caller: Who,
    offset: Annotated[int, Query(ge=0, le=MAX_SCANNED)] = 0,
    limit: Annotated[int, Query(ge=1, le=_PAGE)] = 50,
) -> Any:
    """The caller's dead letters, newest first; `count` is how many there are in all."""
    own: list[JobView] = []
    for queue in services.queues.values():
        for start in range(0, MAX_SCANNED, _PAGE):
            asked = queue.dead_letters(offset=start, limit=_PAGE)
            page = await services.ask_durable(asked, "dead letters", unused=[])
            own += [view for view in page if view.user_id == caller.user_id]
            if len(page) < _PAGE:
                break
    own.sort(key=lambda view: view.finished_ms or 0, reverse=True)
    shown = [DeadLetter.model_validate(view) for view in own[offset : offset + limit]]
    return DeadLetters(entries=shown, count=len(own))


@one_dead_letter.get("", response_model=DeadLetter)
async def show_dead_letter(view: OwnDeadLetter) -> Any:
    """One dead letter, whole, without the document's text."""
    return DeadLetter.model_validate(view)


@one_dead_letter.post("/requeue", status_code=202, response_model=Receipt)
async def requeue(services: Here, caller: Who, view: OwnDeadLetter) -> Any:
    """Give the job a fresh series of attempts."""
    if not await services.ask(services.queues[view.mode].requeue(view.job_id), "requeue"):
        raise _not_dead(view)
    logger.info("job.requeued", extra={"fields": {"by": caller.user_id}})
    return _receipt(caller, view, JobState.QUEUED)


@one_dead_letter.delete("", status_code=204)
async def purge(services: Here, caller: Who, view: OwnDeadLetter) -> None:
    """Forget the job and its document for good."""
    if not await services.ask(services.queues[view.mode].purge(view.job_id), "purge"):
        raise _not_dead(view)
    logger.info("job.purged", extra={"fields": {"by": caller.user_id}})


def _not_dead(view: JobView) -> Problem:
    return Problem("dead-letter-not-found", f"{view.job_id} is no dead letter now; see GET /rag/dlq")


def _receipt(caller: Caller, view: JobView, state: JobState) -> dict[str, Any]:
    return {
        "job_id": view.job_id,
        "state": state,
        "request_id": caller.request_id,
        "trace_id": caller.trace_id,
    }
