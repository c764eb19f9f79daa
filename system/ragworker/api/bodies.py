"""The JSON of requests and answers, and so the schemas of the OpenAPI document. Knows no web framework."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AliasPath, BaseModel, BeforeValidator, ConfigDict, Field, computed_field

from ragworker.job import JobState, JobView, Priority

_Maybe: TypeAlias = Annotated[int | None, Field(exclude_if=lambda value: value is None)]
_MaybeText: TypeAlias = Annotated[str | None, Field(exclude_if=lambda value: value is None)]

#: 0 is what a record that has expired says of its times.
_Moment: TypeAlias = Annotated[int | None, BeforeValidator(lambda at_ms: at_ms or None)]


class _Seen(BaseModel):
    """Read from the attributes of our own values."""

    model_config = ConfigDict(from_attributes=True)


class _Asked(BaseModel):
    """Read from a request: text is not taken for a number, nor a misspelt key for a default."""

    model_config = ConfigDict(extra="forbid", strict=True)


class HistoryLine(_Seen):
    """One past event of a job; what does not apply is left out."""

    at_ms: int
    event: str
    attempt: int
    code: _MaybeText = None
    delay_ms: _Maybe = None
    worker: _MaybeText = None


class Failure(_Seen):
    """Why the last attempt failed."""

    code: str
    message: str


class Job(_Seen):
    """A job with its history; what is not known (yet) is null."""

    job_id: str
    state: JobState
    mode: str
    name: str
    media_type: str
    priority: Priority
    bytes: int
    sha256: str
    attempt: int
    deliveries: int
    created_ms: _Moment
    finished_ms: int | None
    duration_ms: int | None
    chunks: Annotated[int, Field(validation_alias=AliasPath("figures", "chunks"))]
    tokens: Annotated[int, Field(validation_alias=AliasPath("figures", "tokens"))]
    cost_usd: Annotated[float, Field(validation_alias=AliasPath("figures", "cost_usd"))]
    error: Failure | None
    history: list[HistoryLine]
    request_id: str
    trace_id: str
    correlation_id: str
    user_id: str


class Payload(BaseModel):
    """What is kept of a document that may be shown: never its text."""

    sha256: str
    bytes: int


class DeadLetter(Job):
    """A job that failed for good, and what is kept of its document."""

    @computed_field  # type: ignore[prop-decorator]  # mypy does not know decorated properties
    @property
    def attempts(self) -> int:
        """How often it was tried."""
        return self.attempt

    @computed_field  # type: ignore[prop-decorator]  # the same
    @property
    def payload(self) -> Payload:
        """The document, by its digest."""
        return Payload(sha256=self.sha256, bytes=self.bytes)


class DeadLetters(BaseModel):
    """A page of the caller's dead letters; `count` is how many there are in all."""

    entries: list[DeadLetter]
    count: int


class Receipt(BaseModel):
    """A change that was accepted, and the ids of the request that asked for it."""

    job_id: str
    state: JobState
    request_id: str
    trace_id: str


class Submission(Receipt):
    """Where a document went. `duplicate`: the work was known already."""

    mode: Literal["durable", "background"]
    duplicate: bool


class Rollback(Receipt):
    """A committed effect that is undone."""

    rolled_back: bool


class CancelRequest(_Asked):
    """Why a job is cancelled; shown to operators."""

    reason: Annotated[str, Field(max_length=200)] = ""


class UiError(BaseModel):
    """An error panel that a user interface has shown; types that are not known are counted as `unknown`."""

    type: Annotated[str, Field(strict=True)]


class Readiness(BaseModel):
    """Whether the parts of the selected mode are reachable."""

    ready: bool
    mode: Literal["durable", "background"]
    parts: dict[str, str]


def job_body(view: JobView) -> dict[str, Any]:
    """A job as the API shows it."""
    return Job.model_validate(view).model_dump(mode="json")
