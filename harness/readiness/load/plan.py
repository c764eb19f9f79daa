"""What a load run is to do, with its bounds, and how the plan travels to the generator: by environment
variables.

Values only. Both sides import it: the step, which decides, and the Locust file, which obeys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from readiness.errors import BadInput

LOG_VARIABLE = "READINESS_LOAD_LOG"
SEED_VARIABLE = "READINESS_LOAD_SEED"
SECONDS_VARIABLE = "READINESS_LOAD_SECONDS"
USERS_VARIABLE = "READINESS_LOAD_USERS"
STREAMS_VARIABLE = "READINESS_LOAD_STREAMS"
DRAIN_VARIABLE = "READINESS_LOAD_DRAIN_SECONDS"
TOKEN_VARIABLE = "READINESS_LOAD_TOKEN"  # noqa: S105 - the name of a variable, not a token

DRAIN_SECONDS = 20.0
"""How long jobs may still run after the last arrival. What has not ended then counts as never ended."""

REQUEST_SECONDS = 10.0
"""The deadline of an API request: twenty times the target for its P95, so that slow answers are still
measured.
"""

STREAM_SILENCE_SECONDS = 40.0
"""A stream without a byte for this long is dead: the API sends a heartbeat every 15 s."""

STARTUP_SECONDS = 25.0
"""How long Locust may take to start on a loaded machine; it needs about two seconds on an idle one."""

MAX_STREAMS_PER_SECOND = 500
"""Above this one Locust process on a small machine would measure itself."""

LONGEST_DOCUMENT_WORDS = 150
"""A submitted text stays within one chunk, so that the load is many small jobs and not a few large ones."""


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """`streams` jobs, each with one event stream, submitted within `seconds` by `users` users.

    Jobs that have not ended `drain_seconds` after that never do.
    """

    seconds: float
    users: int
    streams: int
    seed: int
    drain_seconds: float = DRAIN_SECONDS

    def __post_init__(self) -> None:
        _require(1 <= self.seconds <= 86_400, "seconds to be 1..86400", self.seconds)
        _require(1 <= self.users <= 2_000, "users to be 1..2000", self.users)
        _require(self.streams >= 1, "at least one stream", self.streams)
        _require(0 <= self.drain_seconds <= 3600, "drain_seconds to be 0..3600", self.drain_seconds)
        highest = int(self.seconds * MAX_STREAMS_PER_SECOND)
        _require(self.streams <= highest, f"at most {highest} streams in {self.seconds:g} s", self.streams)

    @property
    def limit_seconds(self) -> float:
        """After this long from its start the generator is ended, whatever it does."""
        return STARTUP_SECONDS + self.seconds + self.drain_seconds + REQUEST_SECONDS

    def environment(self, *, log: str) -> dict[str, str]:
        """The variables by which the Locust file learns the plan."""
        return {
            LOG_VARIABLE: log,
            SEED_VARIABLE: str(self.seed),
            SECONDS_VARIABLE: repr(self.seconds),
            USERS_VARIABLE: str(self.users),
            STREAMS_VARIABLE: str(self.streams),
            DRAIN_VARIABLE: repr(self.drain_seconds),
        }


def plan_of(environ: Mapping[str, str]) -> LoadPlan | None:
    """The plan in an environment; None when Locust was started by hand. BadInput on bad values."""
    if STREAMS_VARIABLE not in environ:
        return None
    try:
        return LoadPlan(
            seconds=float(environ.get(SECONDS_VARIABLE, "12")),
            users=int(environ.get(USERS_VARIABLE, "20")),
            streams=int(environ[STREAMS_VARIABLE]),
            seed=int(environ.get(SEED_VARIABLE, "0")),
            drain_seconds=float(environ.get(DRAIN_VARIABLE, DRAIN_SECONDS)),
        )
    except ValueError as error:
        raise BadInput(
            f"load plan in the environment (READINESS_LOAD_*): expected numbers, got: {error}."
        ) from None


def _require(holds: bool, expected: str, got: object) -> None:
    if not holds:
        raise BadInput(
            f"load plan: expected {expected}, got {got}. Change load_* or sse_streams in the profile."
        )
