"""Who is here: sessions, models, seats, and the end of those that nobody looks at any more.

A session's name is a secret that only its visitor has. Knows no page.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import pdrop_video as pv

from .seats import Seats
from .session import Session, SessionError

log = logging.getLogger(__name__)

_UNDER_WAY = 5.0
"""Seconds for which what a page asked just before it was closed may still come in."""


class Sessions:
    """All sessions of one server.

    Parameters
    ----------
    models : mapping of str to callable
        Loads the model of a name; each is called once, when the model is first wanted.
    seats : int
        Most sessions that watch at a time; the others wait in a line. Who has watched needs none to be answered.
    most : int
        Most sessions, those in the line included.
    each : int or None
        Most of them from one address; None for a quarter, and at least 2.
    idle : float
        Seconds after which a session that nobody looks at is closed.
    grace : float
        Seconds after which a session is closed once the last page that showed it was; a reload takes less.
    longest : float
        Most seconds of a video that is not live.
    largest : int
        Most tokens that a session's layers may be set to remember.
    remember : int
        Most bytes that sessions which are not watching remember together; beyond that, those that nobody asked for
        longest are closed.
    clock : callable
        Seconds, for tests.
    """

    def __init__(
        self,
        models: dict[str, Callable[[], pv.VideoLM]],
        *,
        seats: int = 4,
        most: int = 32,
        each: int | None = None,
        idle: float = 900.0,
        grace: float = 45.0,
        longest: float = 3600.0,
        largest: int = 32_768,
        remember: int = 4 * 10**9,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.models, self.clock = models, clock
        self.each = max(most // 4, 2) if each is None else each
        self.most, self.idle, self.grace = most, idle, grace
        self.longest, self.largest, self.remember = longest, largest, remember
        self._seats = Seats(seats)
        self._loaded: dict[str, pv.VideoLM] = {}
        self._loading = threading.Lock()
        self._sessions: dict[str, Session] = {}
        self._ended: deque[tuple[str, str]] = deque(maxlen=256)  # names of sessions that were closed for them, and why
        self._pages: dict[str, str] = {}  # of each open page: the session that it shows
        self._changing = threading.RLock()

    def open(self, name: str = "", client: str = "") -> Session:
        """The session of this name, or a new one.

        Parameters
        ----------
        name : str
        client : str
            The address that a new one counts for; empty for none.

        Raises
        ------
        SessionError
            If there is no room for another, or not for this client.
        """
        self.sweep()
        with self._changing:
            session = self._sessions.get(name)
            if session is None:
                if len(self._sessions) >= self.most:
                    raise SessionError(f"All {self.most} places of this server are taken; try again in a few minutes.")
                if client and sum(other.client == client for other in self._sessions.values()) >= self.each:
                    raise SessionError(
                        f"Your address has {self.each} sessions here, the most that one may have; close another tab or "
                        "program, and try again in a minute."
                    )
                session = Session(secrets.token_urlsafe(18), self, client)
                self._sessions[session.name] = session
            return self._seen(session)

    def get(self, name: str) -> Session:
        """A session that was opened.

        Raises
        ------
        SessionError
            If it was closed, by its visitor or because nobody looked at it for too long.
        """
        with self._changing:
            session = self._sessions.get(name) if isinstance(name, str) else None
            if session is None:
                why = dict(self._ended).get(str(name), ", or was never opened; open the video again.")
                raise SessionError(f"This session was closed{why}")
            return self._seen(session)

    def check(self, name: str) -> None:
        """Raise as `get` does; a session that is there is not the younger for it."""
        if name not in self.names:
            self.get(name)

    def _seen(self, session: Session) -> Session:
        session.seen = self.clock()
        if session.left is not None and session.seen - session.left > _UNDER_WAY:
            session.left = None
        return session

    def show(self, page: str, name: str) -> None:
        """A page shows a session from now on, and no other."""
        with self._changing:
            if self._pages.get(page) != name:
                self.leave(page)
            if name in self._sessions:
                self._pages[page] = name
                self._sessions[name].left = None

    def leave(self, page: str) -> None:
        """A page was closed; the session that it showed follows it soon, unless it is asked for again."""
        with self._changing:
            name = self._pages.pop(page, None)
            if name in self._sessions and name not in self._pages.values():
                self._sessions[name].left = self.clock()

    def shown(self, page: str) -> str:
        """The session that a page shows; empty for none."""
        with self._changing:
            return self._pages.get(page, "")

    def close(self, name: str) -> bool:
        """End a session and free its memory; False if there is none of this name."""
        with self._changing:
            session = self._sessions.pop(name, None) if isinstance(name, str) else None
            self._pages = {page: shown for page, shown in self._pages.items() if shown != name}
        if session is not None:
            session.clear()
        return session is not None

    def sweep(self) -> list[str]:
        """Close the sessions that nobody looked at for too long, that were left, or that remember too much.

        Returns
        -------
        list of str
            Their names.
        """
        with self._changing:
            over = [(name, why) for name, session in self._sessions.items() if (why := self._late(session))]
            names = {name for name, _ in over}
            kept = [each for each in self._sessions.values() if each.name not in names and not each.busy]
            held = sum(session.progress.cache_bytes for session in kept)
            for session in sorted(kept, key=lambda session: session.seen):
                if held > self.remember and session.progress.cache_bytes:
                    held -= session.progress.cache_bytes
                    over.append((session.name, " to make room for the videos of others; open the video again."))
            self._ended.extend(over)
        return [name for name, _ in over if self.close(name)]

    def _late(self, session: Session) -> str:
        now, left = self.clock(), session.left
        if now - session.seen > self.idle:
            return f", as nobody used it for {self.idle / 60:g} minutes; open the video again."
        return ", as its page was; open the video again." if left is not None and now - left > self.grace else ""

    def sweep_for_ever(self, also: Callable[[], None] = lambda: None, every: float = 5.0) -> threading.Thread:
        """Sweep now and then, and do something else besides, in a thread that ends with the process."""

        def run() -> None:
            while True:
                time.sleep(every)
                try:
                    self.sweep()
                    also()
                except Exception:  # the next visitors want to be swept after, too
                    log.exception("sweeping failed")

        thread = threading.Thread(target=run, name="sweeper", daemon=True)
        thread.start()
        return thread

    def seat(self, tell: Callable[[int], None], stopped: threading.Event) -> AbstractContextManager[None]:
        """A seat among those that watch; given up as soon as watching is over, whoever goes on looking."""
        return self._seats.taken(tell, stopped)

    def model(self, name: str) -> pv.VideoLM:
        """A model by the name under which the server offers it."""
        name = name or next(iter(self.models))
        if name not in self.models:
            raise pv.ConfigError(f"This server has no model {name!r}; choose one of {', '.join(self.models)}.")
        with self._loading:
            if name not in self._loaded:
                self._loaded[name] = self.models[name]()
            return self._loaded[name]

    @property
    def names(self) -> Sequence[str]:
        """Names of all sessions, in the order in which they came."""
        with self._changing:
            return list(self._sessions)
