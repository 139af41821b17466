"""`Watch`: the handle of something that a stream looks out for, and `Summary`, that of its notes.

Knows threads, and what a look found. Refuses to know how a look is done: `proactive` asks the stream.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from threading import Condition, RLock
from typing import Any, NoReturn

from ..errors import StreamError
from .events import Event, Phase, Terms, event_of, mark_of, phase_of, plain

_UNREAD = 1024
"""Events that wait to be read; who never reads does not fill the memory."""


class Watch:
    """Something that a stream looks out for. Made by `VideoStream.watch_for`.

    Each event is given twice: when it begins, with `Event.end` None, and when it ends. There are three ways to get
    them, each event by one of them: iterate, also in another thread, which waits for the next and ends with the watch;
    `poll` what there is by now; or give `call`, which gets each in the thread that pushes, right after the push, and
    keeps that push waiting for as long as it takes.

    Attributes
    ----------
    terms : Terms
        Question and thresholds.
    call : callable or None
        Gets the events, if it is not None.
    missed : int
        Events that nobody read while 1,024 newer ones came.
    failed : int
        Looks that came to nothing because of an error; an event that lasts goes on lasting.
    error : Exception or None
        The newest of these, until a look comes to something again.
    """

    def __init__(self, terms: Terms, call: Callable[[Event], object] | None = None) -> None:
        self.terms, self.call = terms, call
        self.missed = self.failed = 0
        self.error: Exception | None = None
        self._phase, self._over = Phase(), False
        self._unread: deque[Event] = deque()
        self._changed = Condition(RLock())  # re-entrant: a finaliser may end it in whichever thread is in here
        self._wakes: set[Callable[[], object]] = set()

    def __repr__(self) -> str:
        state = "over" if self._over else "nothing lasts" if self.event is None else f"since {self.event.begin:g} s"
        return f"Watch({self.terms.question!r}, {state})"

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        with self._changed:
            self._changed.wait_for(lambda: self._unread or self._over)
            if not self._unread:
                raise StopIteration
            return self._unread.popleft()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise StreamError(
            "a watch can't be copied or pickled: it belongs to its stream. Save the stream with its watches, or open "
            "another with VideoStream.watch_for."
        )

    def poll(self) -> tuple[Event, ...]:
        """The events that were not read yet, oldest first; never waits."""
        with self._changed:
            events = tuple(self._unread)
            self._unread.clear()
        return events

    def take(self, wake: Callable[[], object]) -> Event | None:
        """The oldest event that was not read yet; never waits.

        Parameters
        ----------
        wake : callable
            Where there is none, called once there may be one, in whichever thread that is; it must not wait.

        Raises
        ------
        StopIteration
            If no more can come.
        """
        with self._changed:
            if self._unread:
                return self._unread.popleft()
            if self._over:
                raise StopIteration
            self._wakes.add(wake)
        return None

    @property
    def event(self) -> Event | None:
        """What lasts, with its peak so far; None if nothing does."""
        return self._phase.event

    @property
    def likelihood(self) -> float | None:
        """What the newest look found; None before the first."""
        return self._phase.likelihood

    @property
    def looks(self) -> int:
        """How many looks came to anything."""
        return self._phase.looks

    @property
    def over(self) -> bool:
        """Whether it looks no more, since it was cancelled, or its stream closed."""
        return self._over

    def cancel(self) -> None:
        """Look no more. An event that lasts is cut and given a last time; a second call does nothing."""
        self.end()
        self.deliver()

    def end(self) -> None:
        """The same, but for `call`, which is left alone."""
        with self._changed:
            if self._over:
                return
            self._phase, event = self._phase.cut()
            self._over = True
            self._put(event)

    # -- for the stream ---------------------------------------------------------------------------------------------

    def due(self, span: tuple[float, float]) -> bool:
        """Whether a mark was passed since the last look."""
        return not self._over and mark_of(self.terms.every, span) > self._phase.mark

    def pass_over(self, mark: int) -> None:
        """Begin behind a mark."""
        self._phase = replace(self._phase, mark=mark)

    def saw(self, mark: int, seconds: float, likelihood: float) -> None:
        """Take in what a look found."""
        with self._changed:
            if self._over:
                return
            phase, event = self._phase.after(self.terms, seconds, likelihood)
            self._phase, self.error = replace(phase, mark=max(mark, phase.mark)), None
            self._put(event)

    def could_not_see(self, mark: int, error: Exception) -> None:
        """Take in that a look came to nothing; the next one is at the next mark."""
        with self._changed:
            first, self.error, self.failed = self.error is None, error, self.failed + 1
            self._phase = replace(self._phase, mark=max(mark, self._phase.mark))
        if first:
            warnings.warn(f"a look for {self.terms.question!r} came to nothing: {error}", stacklevel=4)

    def deliver(self) -> None:
        """Give `call` what was not read yet, one by one; outside of any turn."""
        while self.call is not None:
            with self._changed:
                if not self._unread:
                    return
                event = self._unread.popleft()
            self.call(event)

    def saved(self) -> dict[str, Any]:
        """What stands in a file of it: all but `call` and the errors."""
        with self._changed:
            unread = [plain(event) for event in self._unread]
            return {"terms": plain(self.terms), "phase": plain(self._phase), "unread": unread, "missed": self.missed}

    @classmethod
    def restored(cls, given: dict[str, Any]) -> Watch:
        """One out of a file; raises where there is none in it."""
        watch = cls(Terms(**given["terms"]))
        watch._phase, watch.missed = phase_of(given["phase"]), int(given["missed"])
        watch._unread.extend(event_of(each) for each in given["unread"])
        return watch

    def _put(self, event: Event | None) -> None:
        if event is not None:
            if len(self._unread) == _UNREAD:
                self._unread.popleft()
                self.missed += 1
            self._unread.append(event)
        self._changed.notify_all()
        while self._wakes:
            self._wakes.pop()()


class Summary:
    """A stream's taking of notes. Made by `VideoStream.summarise`; the notes themselves are `VideoStream.notes`.

    Attributes
    ----------
    every : float
        Seconds from note to note.
    question : str
        What is asked; {begin} and {end} stand for the stretch.
    lines, max_new_tokens : int
        Most notes that are listed, and the longest of them.
    failed : int
        How often no note came about because of an error, or could not be told to the stream.
    error : Exception or None
        The newest of these, until a note comes about again.
    over : bool
        Whether it takes no more.
    """

    KEPT = ("every", "question", "lines", "max_new_tokens", "mark")

    def __init__(self, every: float, question: str, lines: int, max_new_tokens: int, mark: int = 0) -> None:
        self.every, self.question, self.lines, self.max_new_tokens = every, question, lines, max_new_tokens
        self.mark = mark
        self.failed, self.over = 0, False
        self.error: Exception | None = None

    def cancel(self) -> None:
        """Take no more notes; those that were taken stay."""
        self.over = True

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise StreamError("the taking of notes can't be copied or pickled: it belongs to its stream; save the stream.")

    def due(self, span: tuple[float, float]) -> bool:
        """Whether a mark was passed since the last note."""
        return not self.over and mark_of(self.every, span) > self.mark

    def could_not(self, error: Exception) -> None:
        """Take in that a note came to nothing."""
        first, self.error, self.failed = self.error is None, error, self.failed + 1
        if first:
            warnings.warn(f"no note could be taken: {error}", stacklevel=4)

    def saved(self) -> dict[str, Any]:
        """What stands in a file of it."""
        return {name: getattr(self, name) for name in self.KEPT}


class Lookout:
    """All that one stream does by itself after a push: its watches and its notes.

    Attributes
    ----------
    looking : RLock
        Held while looks are done and events given, so that they come in order whoever pushes; a `call` may use the
        stream, also push.
    """

    def __init__(self, watches: Iterable[Watch] = (), summary: Summary | None = None) -> None:
        self._watches, self._summary = tuple(watches), summary
        self.looking = RLock()

    @property
    def watches(self) -> tuple[Watch, ...]:
        """Those that look still, in the order in which they were opened."""
        return tuple(watch for watch in self._watches if not watch.over)

    @property
    def summary(self) -> Summary | None:
        """The taking of notes, if there is one."""
        return None if self._summary is None or self._summary.over else self._summary

    @summary.setter
    def summary(self, summary: Summary) -> None:
        self._summary = summary

    def add(self, watch: Watch) -> None:
        """One more."""
        self._watches = (*self.watches, watch)

    def end(self) -> None:
        """Nobody pushes any more."""
        for watch in self.watches:
            watch.end()

    def saved(self) -> dict[str, Any]:
        """What stands in a file of it."""
        summary = self.summary
        return {
            "watches": [watch.saved() for watch in self.watches],
            "summary": None if summary is None else summary.saved(),
        }
