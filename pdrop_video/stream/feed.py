"""A bounded queue in front of a stream, emptied by a thread of its own: for cameras, which don't wait.

Knows chunks of frames and how to push them. Refuses to know what a push does.
"""

from __future__ import annotations

from collections import deque
from os import getpid
from threading import Condition, Thread, current_thread
from typing import Any, Literal, NoReturn, Protocol, get_args
from weakref import finalize, ref

from ..common import checks
from ..common.renamed import renamed
from ..errors import StreamError
from ..video import FrameChunk
from .answer import FeedStats

Policy = Literal["block", "drop_oldest"]


class Watcher(Protocol):
    """What frames are pushed into."""

    @property
    def closed(self) -> bool:
        """Whether it takes no more."""

    def push(self, frames: FrameChunk) -> object:
        """Watch them."""


class Feed:
    """Frames on their way into a stream. Opened by `VideoStream.feed`; use it with ``with``, or call `close`.

    Each `put` becomes one push, in the order of the puts. What goes wrong in a push is raised by whichever of `put`,
    `flush` and `close` is called next, one error a call; the stream is then as it was before that push, and the feed
    goes on.

    Leaving the ``with`` block waits until all was watched; leaving it by an exception does not.
    """

    def __init__(self, stream: Watcher, queue: int = 8, policy: Policy = "block") -> None:
        queue = checks.whole("queue", queue)
        checks.choice("policy", policy, get_args(Policy))
        self.stream = stream
        self._line = _Line(queue, policy)
        # the thread holds neither feed nor stream while it has nothing to do: who forgets to close loses nothing
        self._thread = Thread(target=_work, args=(self._line, ref(stream)), name="pdrop-video feed", daemon=True)
        self._finalizer = finalize(self, self._line.seal)
        self._thread.start()

    def __enter__(self) -> Feed:
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        try:
            if kind is None:
                self.flush()
        finally:
            self._close()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise StreamError(
            "a feed can't be copied or pickled: its own thread empties it into its stream; fork or save the stream, "
            "and open another with VideoStream.feed."
        )

    def put(self, frames: FrameChunk | Any, seconds: Any = None, *, sound: Any = None, rate: int | None = None) -> None:
        """Let frames be pushed as soon as the stream gets to them; they are copied, so that a buffer can be used again.

        Where the queue is full, "block" waits for room, and "drop_oldest" drops the chunk that waits longest.

        Parameters
        ----------
        frames, seconds, sound, rate
            As for `VideoStream.push`.

        Raises
        ------
        FrameError
            If dtype or shape are wrong. Times that go back are found by the push, as is all that a push refuses.
        StreamError
            If the feed or its stream is closed, also while waiting for room; or in a process forked off meanwhile.
        PDropError
            What an earlier push raised; these frames were not taken.
        """
        chunk = FrameChunk.checked(frames, seconds, sound, rate)
        self._line.put(chunk.clone())

    def flush(self) -> None:
        """Wait until all that was put is watched or dropped.

        Raises
        ------
        StreamError
            If the feed or its stream was closed meanwhile.
        PDropError
            What an earlier push raised.
        """
        self._line.flush()

    def close(self) -> FeedStats:
        """Stop at once; what still waits is dropped. A second call does nothing.

        Returns
        -------
        FeedStats

        Raises
        ------
        PDropError
            What an earlier push raised and nobody was told yet; the feed is closed all the same.
        """
        self._close()
        self._line.complain()
        return self.stats

    @property
    def stats(self) -> FeedStats:
        """What became of the frames put so far."""
        return self._line.stats()

    @property
    def fed(self) -> FeedStats:
        """The old name of `stats`."""
        renamed("Feed.fed", "Feed.stats")
        return self.stats

    def end(self) -> None:
        """Take no more and drop what waits, without waiting for the push that runs."""
        self._line.end()

    def _close(self) -> None:
        self._line.end()
        if current_thread() is not self._thread and not self._line.forked:
            self._thread.join()


class _Line:
    """The queue and its counts, without the feed, so that a feed can be forgotten while its thread still works."""

    def __init__(self, most: int, policy: Policy) -> None:
        self._condition = Condition()  # re-entrant: a finaliser may call `seal` in whichever thread is in here
        self._process = getpid()
        self._most, self._policy = most, policy
        self._chunks: deque[FrameChunk] = deque()
        self._running = 0  # frames of the push that runs
        self._ended = self._sealed = False
        self._put = self._watched = self._dropped = self._failed = self._blocked = 0
        self._errors: deque[BaseException] = deque()

    @property
    def forked(self) -> bool:
        """Whether this is a copy in a forked process: its thread stayed with the parent, perhaps with the lock."""
        return self._process != getpid()

    @property
    def _changed(self) -> Condition:
        if self.forked:
            raise StreamError(
                "the feed was opened before this process was forked, and its thread did not come along; feed the "
                "stream in the process that opened it."
            )
        return self._condition

    def put(self, chunk: FrameChunk) -> None:
        with self._changed:
            self.complain()
            if self._policy == "block" and len(self._chunks) == self._most:
                self._blocked += 1
                self._changed.wait_for(lambda: self._ended or self._errors or len(self._chunks) < self._most)
                self.complain()
            self._check()
            self._put += len(chunk)
            if len(self._chunks) == self._most:
                gone = self._chunks.popleft()
                self._dropped += len(gone)
                if self._chunks:
                    self._chunks[0] = self._chunks[0].after(gone)
                else:
                    chunk = chunk.after(gone)
            self._chunks.append(chunk)
            self._changed.notify_all()

    def take(self) -> FrameChunk | None:
        """The next chunk, once there is one; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._chunks or self._ended or self._sealed)
            if not self._chunks:
                return None
            chunk = self._chunks.popleft()
            self._running = len(chunk)
            self._changed.notify_all()
            return chunk

    def done(self, error: BaseException | None = None) -> None:
        """Note how the push of what was taken went."""
        with self._changed:
            if error is None:
                self._watched += self._running
            elif self._ended and isinstance(error, StreamError):  # it was closed in the middle of the push
                self._dropped += self._running
            else:
                self._failed += self._running
                self._errors.append(error)
            self._running = 0
            self._changed.notify_all()

    def flush(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._errors or not (self._chunks or self._running))
            self.complain()
            self._check()

    def complain(self) -> None:
        """Raise an error that nobody was told yet."""
        with self._changed:
            error = self._errors.popleft() if self._errors else None
        if error is not None:
            raise error

    def seal(self) -> None:
        """Nobody can put any more: end once the queue is empty."""
        if self.forked:
            return
        with self._changed:
            self._sealed = True
            self._changed.notify_all()

    def end(self) -> None:
        if self.forked:
            return
        with self._changed:
            self._ended = True
            self._dropped += sum(map(len, self._chunks))
            self._chunks.clear()
            self._changed.notify_all()

    def stats(self) -> FeedStats:
        with self._changed:
            waiting = sum(map(len, self._chunks)) + self._running
            return FeedStats(self._put, self._watched, self._dropped, self._failed, waiting, self._blocked)

    def _check(self) -> None:
        if self._ended:
            raise StreamError("the feed was closed, by itself or with its stream; open another with VideoStream.feed.")


def _work(line: _Line, stream_ref: ref[Watcher]) -> None:
    """Push what was put, until the end."""
    while (chunk := line.take()) is not None:
        stream = stream_ref()
        if stream is None:  # nobody can ask about these frames any more
            line.end()
        error = None
        try:
            if stream is not None:
                stream.push(chunk)
        except BaseException as raised:  # whatever it is: it must reach who puts next
            error = raised
            if stream is not None and stream.closed:  # whoever closes it may not have come to this feed yet
                line.end()
        line.done(error)
        del chunk, stream, error  # not kept alive while waiting
