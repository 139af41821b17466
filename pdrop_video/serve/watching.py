"""A video into a stream, chunk by chunk, without a thread of the event loop's. Knows readers and streams."""

from __future__ import annotations

from asyncio import wrap_future
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from threading import Thread
from typing import Any

from ..errors import VideoError
from ..stream import AsyncVideoStream, Pushed
from ..video import FrameChunk

Opening = Callable[[], AbstractContextManager[Any]]
"""Opens a reader of chunks; may wait for its source."""


async def watch(
    stream: AsyncVideoStream,
    opening: Opening,
    pushed: Callable[[Pushed, float], None],
    *,
    later: float = 0.0,
    check: Callable[[Any], None] = lambda reader: None,
) -> None:
    """Push all that a source has. Whoever is cancelled closes the source, even one that waits for its next frame.

    Parameters
    ----------
    stream : AsyncVideoStream
    opening : callable
    pushed : callable
        Told of each push, and of the second of its last frame.
    later : float
        Seconds to add to the source's own times.
    check : callable
        May refuse a reader, before its first frame.
    """
    lane, opened = ThreadPoolExecutor(1, "pdrop-video source"), ExitStack()
    reader: Any = None

    def begin() -> Any:
        nonlocal reader
        reader = opened.enter_context(opening())
        check(reader)
        return iter(reader)

    try:
        chunks = await wrap_future(lane.submit(begin))
        while (chunk := await wrap_future(lane.submit(next, chunks, None))) is not None:
            if later:
                chunk = _later(chunk, later)
            pushed(await stream.push(chunk), chunk.seconds[-1])
    except VideoError as error:  # as if it had come while opening, where it is put into words for others
        await wrap_future(lane.submit(opened.__exit__, type(error), error, error.__traceback__))
        raise
    finally:
        if reader is not None:  # a thread that waits for the next frame is told; that may take a moment, too
            Thread(target=reader.close, daemon=True).start()
        lane.submit(opened.close)
        lane.shutdown(wait=False)


def _later(chunk: FrameChunk, by: float) -> FrameChunk:
    return replace(chunk, seconds=tuple(second + by for second in chunk.seconds))
