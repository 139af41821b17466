"""The application: all addresses behind one door. Knows FastAPI; what the addresses do is in the modules beside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel

from ..stream import VideoLM
from . import chat, live, socket
from .copies import Telling
from .door import Door
from .refusals import RESPONSES, handle_all
from .service import Keeping, Service
from .sessions import Sessions
from .settings import Settings

_ABOUT = "Video-LLMs watch streams that never end, in memory that never grows, and answer questions at any time."


class Health(BaseModel):
    """Whether the server is there."""

    status: str
    model: str


def create_app(lm: VideoLM, settings: Settings | None = None, *, sessions: Keeping = Sessions) -> FastAPI:
    """A server's application, for uvicorn or any other ASGI server.

    Parameters
    ----------
    lm : VideoLM
    settings : Settings, optional
    sessions : callable
        Makes what keeps sessions, of model, settings and figures: this process by itself, or `shared.SharedSessions`.

    Returns
    -------
    FastAPI
    """
    settings = settings or Settings()
    service = Service(lm, settings, sessions)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        sweeping = asyncio.ensure_future(service.sessions.sweep_for_ever())
        try:
            yield
        finally:
            sweeping.cancel()
            await service.sessions.close()
            service.library.close()  # who is told to end by a signal removes nothing afterwards

    app = FastAPI(title="pdrop-video", description=_ABOUT, version=_version(), lifespan=lifespan, redoc_url=None)
    app.state.service = service
    handle_all(app)

    @app.get("/health", tags=["server"])
    async def health() -> Health:
        """Tell that the server is there."""
        return Health(status="ok", model=settings.name)

    @app.get(
        "/metrics",
        tags=["server"],
        responses={**RESPONSES, 200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
        response_class=Response,
    )
    async def metrics() -> Response:
        """Figures for Prometheus."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    for each in (chat, live, socket):
        app.include_router(each.routes(service))
    app.add_middleware(Telling)
    app.add_middleware(_Front, service=service)
    plain = app.openapi

    def described() -> dict[str, Any]:
        """The page of addresses, without FastAPI's own form of errors, which nobody gets here."""
        page = plain()
        for path in page["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
        for name in ("HTTPValidationError", "ValidationError"):
            page["components"]["schemas"].pop(name, None)
        return page

    app.openapi = described  # type: ignore[method-assign]
    return app


class _Front(Door):
    """The door, as Starlette's middleware is made."""

    def __init__(self, app: Any, service: Service) -> None:
        super().__init__(app, service.settings, service.metrics)


def _version() -> str:
    import pdrop_video

    return pdrop_video.__version__
