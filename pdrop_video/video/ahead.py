"""A thread that runs an iterator ahead of its consumer, with bounded room between the two.

It knows nothing of videos. The thread alone touches the iterator and what the iterator holds open; whoever closes from
another thread only asks it to stop.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar
from weakref import WeakSet

T = TypeVar("T")

# Seconds that closing waits for the thread; one that is inside a long read ends by itself after it.
_GRACE = 1.0
_STOPPED: WeakSet[threading.Thread] = WeakSet()


def late() -> list[threading.Thread]:
    """The threads that were told to stop and are still within a read of a source that does not answer."""
    return [thread for thread in list(_STOPPED) if thread.is_alive()]


class Buffer(Generic[T]):
    """What two threads share: items in order, and how the iterator ended.

    Parameters
    ----------
    room : int
        Most items held.
    latest : bool
        What to do when the room is full: drop the oldest item, or let the producer wait.
    heir : callable
        From an item and the one before it, which was dropped, to what stands in place of the former.

    Attributes
    ----------
    dropped : int
        Items that gave way to later ones.
    most : int
        Most items that were ever held at once.
    """

    def __init__(self, room: int, latest: bool, heir: Callable[[T, T], T] = lambda item, gone: item) -> None:
        self.dropped = self.most = 0
        self._heir = heir
        self._room = room
        self._latest = latest
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._stopped = self._ended = False
        self._error: BaseException | None = None

    def put(self, item: T) -> bool:
        """Add an item, waiting for room if need be; False once the consumer has gone."""
        with self._changed:
            while len(self._items) >= self._room and not self._latest and not self._stopped:
                self._changed.wait()
            if self._stopped:
                return False
            if len(self._items) >= self._room:
                gone = self._items.popleft()
                self.dropped += 1
                if self._items:
                    self._items[0] = self._heir(self._items[0], gone)
                else:
                    item = self._heir(item, gone)
            self._items.append(item)
            self.most = max(self.most, len(self._items))
            self._changed.notify_all()
            return True

    def get(self) -> T:
        """Take the oldest item, waiting for one if need be.

        Raises
        ------
        StopIteration
            When the iterator has ended, or somebody stopped it.
        BaseException
            What the iterator raised, after all that came before it.
        """
        with self._changed:
            while not self._items and not self._ended and not self._stopped:
                self._changed.wait()
            if self._stopped or not self._items:
                error, self._error = self._error, None
                if error is not None and not self._stopped:
                    raise error
                raise StopIteration
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def end(self, error: BaseException | None) -> None:
        """Say that nothing more comes, and why."""
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def stop(self) -> None:
        """Wake up both sides and let go of everything held."""
        with self._changed:
            self._stopped = True
            self._items.clear()
            self._changed.notify_all()


class Ahead(Generic[T]):
    """An iterator over what a thread draws from `items`, at most `room` items ahead.

    The thread starts with the first item that is asked for, and ends when the items do, when `close` is called, or when
    this object is collected or the interpreter exits.

    Parameters
    ----------
    items : iterable
        Drawn by the thread alone. What it raises arrives at the consumer, after all that came before it.
    room : int
        Most items drawn and not yet taken.
    latest : bool
        Drop the oldest item instead of waiting when the room is full.
    heir : callable
        From an item and the one before it, which was dropped, to what stands in place of the former.
    stop : callable
        Called, from any thread, to get the iterator out of a wait.
    release : callable
        Called once when the thread ends, in that thread; or by `close`, if it never started.
    """

    def __init__(
        self,
        items: Iterable[T],
        room: int,
        *,
        latest: bool = False,
        heir: Callable[[T, T], T] = lambda item, gone: item,
        stop: Callable[[], None] = lambda: None,
        release: Callable[[], None] = lambda: None,
    ) -> None:
        self.buffer: Buffer[T] = Buffer(room, latest, heir)
        self._release = release
        self._thread = threading.Thread(
            target=_draw, args=(items, self.buffer, release), name="pdrop-video-ahead", daemon=True
        )
        self._starting = threading.Lock()
        # Neither the thread nor this callback refers to `self`, so that a forgotten reader is collected and ends both.
        self._finalize = weakref.finalize(self, _shut, self.buffer, self._thread, stop, os.getpid())

    def __iter__(self) -> Ahead[T]:
        """Return itself: items are drawn once."""
        return self

    def start(self) -> None:
        """Start drawing before the first item is asked for."""
        with self._starting:
            if self._thread.ident is None and self._finalize.alive:
                self._thread.start()

    def __next__(self) -> T:
        """Take the next item."""
        self.start()
        return self.buffer.get()

    def close(self) -> None:
        """Stop the thread; returns soon even while it waits for a source. A second call does nothing."""
        with self._starting:  # a thread that another one is just starting would draw from what is released here
            if self._finalize.alive and self._thread.ident is None:
                self._finalize()
                self._release()
        self._finalize()


def _draw(items: Iterable[T], buffer: Buffer[T], release: Callable[[], None]) -> None:
    error: BaseException | None = None
    try:
        for item in items:
            if not buffer.put(item):
                break
    except BaseException as raised:  # also an interrupt: the consumer must not wait for ever
        error = raised
    finally:
        try:
            release()
        finally:
            buffer.end(error)


def _shut(buffer: Buffer[T], thread: threading.Thread, stop: Callable[[], None], process: int) -> None:
    if process != os.getpid():  # a fork has no part in it: the thread stayed behind, perhaps with the buffer's lock
        return
    buffer.stop()
    stop()
    if thread.ident is not None and thread is not threading.current_thread():
        _STOPPED.add(thread)
        thread.join(_GRACE)
