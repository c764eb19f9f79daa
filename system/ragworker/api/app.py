"""Put the app together: parts, routes, problems, and the ids middleware around all of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from ragworker import __version__
from ragworker.api import dead_letters, jobs, operations
from ragworker.api.context import RequestContext
from ragworker.api.problems import install_problem_handlers
from ragworker.api.services import Services
from ragworker.settings import FlagSource, Settings


def create_app(settings: Settings, *, flag: FlagSource | None = None) -> FastAPI:
    """The API. `flag` re-reads USE_DURABLE_WORKER per request; without it the value in `settings` holds."""
    services = Services(settings, flag=flag)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await services.start()
        try:
            yield
        finally:
            await services.close()

    # The interactive documentation loads scripts from elsewhere; the schema at /openapi.json needs nothing.
    app = FastAPI(title="ragworker", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.services = services
    for router in (jobs.router, dead_letters.router, operations.router):
        app.include_router(router)
    install_problem_handlers(app)
    app.add_middleware(
        RequestContext,
        read_flag=services.read_flag,
        authenticator=services.authenticator,
        figures=services.figures,
    )
    return app
