"""`AsyncVideoStream`: a `VideoStream` for asyncio. Knows threads and event loops; refuses to know models and frames.

Underneath nothing changes: whatever may wait for the model does so in a thread. A stream has one of its own, in which
pushes go in the order in which they were awaited, and each question has another: so a stream that has to wait keeps
neither the event loop nor asyncio's own few threads from anybody else.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from typing_extensions import Self

from ..common import checks
from ..common.renamed import renamed
from ..errors import StreamError
from ..video import FrameChunk
from .answer import Answer, Pushed, Status, TokenLogprob
from .answering import AnswerStream
from .awaited import AsyncWatch
from .events import Note
from .stream import VideoStream
from .watch import Summary, Watch

Result = TypeVar("Result")


async def apart(work: Callable[[], Result]) -> Result:
    """Do work in a thread made for it. Who is cancelled meanwhile does not wait for its end."""
    lane = _lane("apart")
    try:
        return await asyncio.wrap_future(lane.submit(work))
    finally:
        lane.shutdown(wait=False)


def _lane(name: str) -> ThreadPoolExecutor:
    """One thread, begun with its first work, which it does in order."""
    return ThreadPoolExecutor(1, f"pdrop-video {name}")


class AsyncAnswer:
    """An answer to come: ``await`` it for the whole, or iterate over its pieces as they are generated.

    The question is put when it is first awaited or iterated over, as a coroutine begins. Cancelling whoever waits for
    it stops the answer at its next token and closes it. Whoever stops iterating before the end should `aclose` it, or
    use `contextlib.aclosing`; one that nobody holds any more is closed without.

    Parameters
    ----------
    put : callable
        Puts the question; the answer as it is generated in threads.

    Attributes
    ----------
    answer : Answer or None
        None until it is complete.
    """

    def __init__(self, put: Callable[[], AnswerStream]) -> None:
        self._put, self._lane = put, _lane("answer")
        self._live: AnswerStream | None = None
        self._over = False

    @property
    def answer(self) -> Answer | None:
        """The whole answer; None until it is complete."""
        return None if self._live is None else self._live.answer

    @property
    def logprobs(self) -> Sequence[TokenLogprob]:
        """Those of the tokens so far, where they were asked for."""
        return () if self._live is None else self._live.logprobs

    def __await__(self) -> Generator[Any, None, Answer]:
        return self._run(self._whole).__await__()

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        piece = None if self.answer is not None else await self._run(self._piece)
        if piece is None:
            self._lane.shutdown(wait=False)
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        """Stop generating at the next token, and give the room behind the stream's memory back."""
        self._over = True
        try:
            if self._live is not None:
                await apart(self._live.close)
        finally:
            self._lane.shutdown(wait=False)

    async def _run(self, work: Callable[[], Result]) -> Result:
        if self._over:
            raise StreamError("this answer was closed, or cancelled, before its end; ask again.")
        try:
            return await asyncio.wrap_future(self._lane.submit(work))
        except asyncio.CancelledError:
            await asyncio.shield(self.aclose())
            raise

    def _opened(self) -> AnswerStream:
        if self._live is None:
            self._live = self._put()
        if self._over:  # cancelled while the question was put: there was nothing to close yet
            self._live.close()
        return self._live

    def _whole(self) -> Answer:
        return self._opened().finish()

    def _piece(self) -> str | None:
        return next(self._opened(), None)


class AsyncVideoStream:
    """A `VideoStream` whose every call that may wait for the model is awaited; the same answers, the same memory.

    Its methods are the stream's, with the same arguments and errors. Opened by `VideoLM.async_stream`; use it with
    ``async with``, or `close` it.

    Parameters
    ----------
    stream : VideoStream
        An open one, which may be used from threads as before.

    Attributes
    ----------
    stream : VideoStream
        For what is not here because it never waits, or because it is seldom needed; the latter in a thread.
    """

    def __init__(self, stream: VideoStream) -> None:
        checks.instance("stream", stream, VideoStream, "VideoLM.stream()")
        self.stream = stream
        self._lane = _lane("stream")

    def __repr__(self) -> str:
        return f"Async{self.stream!r}"

    async def push(
        self, frames: FrameChunk | Any, seconds: Any = None, *, sound: Any = None, rate: int | None = None
    ) -> Pushed:
        """Watch some more frames; see `VideoStream.push`.

        Pushes, and what is told, go in the order in which they were awaited. One that is cancelled does nothing if it
        did not begin, and is completed otherwise: a stream is never left in the middle.
        """
        return await self._run(partial(self.stream.push, frames, seconds, sound=sound, rate=rate))

    async def add_text(self, text: str) -> None:
        """Let text into the stream; see `VideoStream.add_text`."""
        await self._run(partial(self.stream.add_text, text))

    async def tell(self, text: str) -> None:
        """The old name of `add_text`."""
        renamed("AsyncVideoStream.tell", "AsyncVideoStream.add_text")
        await self.add_text(text)

    def ask(self, question: str, max_new_tokens: int = 128, **how: Any) -> AsyncAnswer:
        """Answer a question: ``await stream.ask(...)``, or ``async for piece in stream.ask(...)``.

        Parameters
        ----------
        question, max_new_tokens, **how
            As for `VideoStream.ask`, but for `stream`, which the way of waiting says. What is wrong with them is said
            when the answer is awaited.

        Returns
        -------
        AsyncAnswer
        """

        def put() -> AnswerStream:
            return self.stream.ask(question, max_new_tokens, **how, stream=True)

        return AsyncAnswer(put)

    async def add_turn(self, question: str, answer: str) -> int:
        """Let a question and an answer that was given elsewhere stay in the stream; see `VideoStream.add_turn`."""
        return await self._run(partial(self.stream.add_turn, question, answer))

    async def likelihood(self, question: str, options: Sequence[str], **how: Any) -> tuple[float, ...]:
        """How likely each of some answers is; see `VideoStream.likelihood`. Others may push and ask meanwhile."""
        return await apart(partial(self.stream.likelihood, question, options, **how))

    def watch_for(self, question: str, every: float = 2.0, **how: Any) -> AsyncWatch:
        """Look out for something, from the pushes awaited after this on; see `VideoStream.watch_for`.

        Parameters
        ----------
        question, every, **how
            As there. `call` gets events in the stream's own thread.

        Returns
        -------
        AsyncWatch
            ``async for event in stream.watch_for(...)``. What is wrong with the terms is said when it is awaited or
            iterated over.
        """
        return AsyncWatch(self._submitted(partial(self.stream.watch_for, question, every, **how)))

    @property
    def watches(self) -> tuple[AsyncWatch, ...]:
        """What is looked out for, such as what a resumed stream goes on with; see `VideoStream.watches`."""
        return tuple(AsyncWatch(_done(watch)) for watch in self.stream.watches)

    async def look(self) -> None:
        """Let all watches look now; see `VideoStream.look`."""
        await self._run(self.stream.look)

    async def summarise(self, every: float = 60.0, **how: Any) -> Summary:
        """Take a note every so many seconds of video, from the pushes awaited after this on.

        Arguments and errors are those of `VideoStream.summarise`.
        """
        return await self._run(partial(self.stream.summarise, every, **how))

    @property
    def notes(self) -> tuple[Note, ...]:
        """The newest notes; see `VideoStream.notes`."""
        return self.stream.notes

    async def save(self, path: str | os.PathLike[str]) -> None:
        """Write all that the stream remembers to one file, behind the pushes awaited before; see `VideoStream.save`."""
        await self._run(partial(self.stream.save, path))

    async def fork(self) -> AsyncVideoStream:
        """A second stream with the same past, that of the pushes awaited before included; see `VideoStream.fork`."""
        return AsyncVideoStream(await self._run(self.stream.fork))

    async def close(self) -> None:
        """Stop what runs on the stream at its next turn, and free what it remembers; see `VideoStream.close`."""
        await apart(self.stream.close)
        self._lane.shutdown(wait=False)

    @property
    def status(self) -> Status:
        """What the stream holds, as its last whole push left it; never waits."""
        return self.stream.status

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self.stream.closed

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await asyncio.shield(self.close())

    async def _run(self, work: Callable[[], Result]) -> Result:
        """Do something in the stream's own thread, in turn."""
        return await asyncio.wrap_future(self._submitted(work))

    def _submitted(self, work: Callable[[], Result]) -> Future[Result]:
        _ = self.stream.status  # a StreamError if it was closed: then its thread takes nothing more
        return self._lane.submit(work)


def _done(watch: Watch) -> Future[Watch]:
    """A watch that is open."""
    future: Future[Watch] = Future()
    future.set_result(watch)
    return future
