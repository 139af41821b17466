"""`AsyncWatch`: events of a watch for asyncio. Knows event loops; refuses to know streams and how a look is done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from typing_extensions import Self

from .events import Event
from .watch import Watch


class AsyncWatch:
    """Something that a stream looks out for: iterate over its events with ``async for``, which ends with the watch.

    Events wait in the watch until they are taken: who stops iterating, or is cancelled, loses none, and saved streams
    keep them. Several may iterate over one watch; each event goes to one of them.

    Parameters
    ----------
    opening : Future of Watch
        The watch, once the stream had time to open it.
    """

    def __init__(self, opening: Future[Watch]) -> None:
        self._opening, self._changed = opening, asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def __await__(self) -> Generator[Any, None, Self]:
        """Wait until it looks out; raises what was wrong with its terms."""
        yield from self._opened().__await__()
        return self

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        watch, self._loop = await self._opened(), asyncio.get_running_loop()
        while True:
            self._changed.clear()
            try:
                event = watch.take(self._wake)
            except StopIteration:
                raise StopAsyncIteration from None
            if event is not None:
                return event
            await self._changed.wait()

    @property
    def watch(self) -> Watch:
        """The watch itself, whose properties never wait.

        Raises
        ------
        InvalidStateError
            If it was not awaited yet.
        """
        if not self._opening.done():
            raise asyncio.InvalidStateError("the watch is not open yet; await it first.")
        return self._opening.result()

    async def cancel(self) -> None:
        """Look no more. An event that lasts is cut and given a last time; a second call does nothing."""
        (await self._opened()).cancel()

    async def _opened(self) -> Watch:
        return await asyncio.shield(asyncio.wrap_future(self._opening))

    def _wake(self) -> None:
        assert self._loop is not None
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._changed.set)
