"""Work that ends when nobody waits for it any more, and events sent as they come. Knows ASGI, and no videos."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable
from typing import Any, TypeVar

from fastapi import Request
from starlette.responses import Response

from .refusals import Refusal, said

Result = TypeVar("Result")
HEARTBEAT = b": still here\n\n"
"""A comment, which clients pass over."""


async def attended(request: Request, work: Awaitable[Result], deadline: float) -> Result:
    """The result of some work, which is cancelled if the client goes away or the time is over.

    Parameters
    ----------
    request : Request
        Whose body was read.
    work : awaitable
    deadline : float
        Seconds.
    """
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request.receive))
    try:
        await asyncio.wait({task, gone}, timeout=deadline, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
    finally:
        await _end(task, gone)
    if gone.cancelled():
        raise Refusal(f"This took longer than {deadline:g} seconds; ask for less at a time.", 504, "deadline_exceeded")
    raise Refusal("The client went away.", 408, "client_gone")


class ServerSent(Response):
    """Server-sent events, as they come; what makes them is closed as soon as the client goes away.

    Parameters
    ----------
    events : async generator of bytes
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes, None]) -> None:
        self._events = events
        self.status_code, self.background = 200, None
        self.init_headers({"cache-control": "no-cache", "x-accel-buffering": "no"})
        del self.headers["content-length"]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send them."""
        task, gone = asyncio.ensure_future(self._send(send)), asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _end(task, gone)
            await self._events.aclose()
        if not task.cancelled():
            task.result()

    async def _send(self, send: Any) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for event in self._events:
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def event(value: Any, *, name: str | None = None, number: int | None = None) -> bytes:
    """One event, whose data is JSON or a word."""
    data = value if isinstance(value, str) else json.dumps(value)
    lines = [
        *([] if number is None else [f"id: {number}"]),
        *([] if name is None else [f"event: {name}"]),
        f"data: {data}",
    ]
    return ("\n".join(lines) + "\n\n").encode()


async def told(events: AsyncGenerator[bytes, None], deadline: float) -> AsyncGenerator[bytes, None]:
    """Events, whose last one says what went wrong, if anything did; they end in time."""
    loop = asyncio.get_running_loop()
    over = loop.time() + deadline
    try:
        while True:
            try:
                yield await asyncio.wait_for(anext(events), max(over - loop.time(), 0))
            except StopAsyncIteration:
                return
            except asyncio.TimeoutError:
                yield event(said(Refusal(f"This took longer than {deadline:g} seconds.", 504, "deadline_exceeded")))
                return
            except Exception as error:
                yield event(said(error))
                return
    finally:
        await events.aclose()


async def _gone(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _end(*tasks: asyncio.Future[Any]) -> None:
    """Cancel what still runs, and wait for its end."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # it was seen
