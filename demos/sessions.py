"""Who is here: sessions, seats, the line in front of them, and the end of those that nobody looks at any more.

A session's name is a secret that only its visitor has. Knows no page.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Sequence

import pdrop_video as pv

from .session import Session, SessionError


class Sessions:
    """All sessions of one server.

    Parameters
    ----------
    models : mapping of str to callable
        Loads the model of a name; each is called once, when the model is first wanted.
    seats : int
        Most sessions that hold a stream; the others wait in a line.
    most : int
        Most sessions, those in the line included.
    idle : float
        Seconds after which a session that nobody looks at is closed.
    longest : float
        Most seconds of a video that is not live.
    clock : callable
        Seconds, for tests.
    """

    def __init__(
        self,
        models: dict[str, Callable[[], pv.VideoLM]],
        *,
        seats: int = 4,
        most: int = 32,
        idle: float = 900.0,
        longest: float = 3600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.models, self.clock = models, clock
        self.seats, self.most, self.idle, self.longest = seats, most, idle, longest
        self._loaded: dict[str, pv.VideoLM] = {}
        self._loading = threading.Lock()
        self._sessions: dict[str, Session] = {}  # in the order in which they came, which is that of the line
        self._changed = threading.Condition(threading.RLock())

    def open(self, name: str = "") -> Session:
        """The session of this name, or a new one.

        Raises
        ------
        SessionError
            If there is no room for another.
        """
        self.sweep()
        with self._changed:
            session = self._sessions.get(name)
            if session is None:
                if len(self._sessions) >= self.most:
                    raise SessionError(f"All {self.most} places of this server are taken; try again in a few minutes.")
                session = Session(secrets.token_urlsafe(18), self)
                self._sessions[session.name] = session
            session.seen = self.clock()
            return session

    def get(self, name: str) -> Session:
        """A session that was opened.

        Raises
        ------
        SessionError
            If it was closed, by its visitor or because nobody looked at it for too long.
        """
        with self._changed:
            session = self._sessions.get(name)
            if session is None:
                raise SessionError("This session was closed, or was never opened; open the video again.")
            session.seen = self.clock()
            return session

    def close(self, name: str) -> bool:
        """End a session and free its memory; False if there is none of this name."""
        with self._changed:
            session = self._sessions.pop(name, None)
            self._changed.notify_all()
        if session is not None:
            session.clear()
        return session is not None

    def sweep(self) -> list[str]:
        """Close the sessions that nobody looked at for too long; returns their names."""
        with self._changed:
            late = [name for name, session in self._sessions.items() if self.clock() - session.seen > self.idle]
        return [name for name in late if self.close(name)]

    def sweep_for_ever(self, every: float = 5.0) -> threading.Thread:
        """Sweep now and then, in a thread that ends with the process."""

        def run() -> None:
            while True:
                time.sleep(every)
                self.sweep()

        thread = threading.Thread(target=run, name="sweeper", daemon=True)
        thread.start()
        return thread

    def place(self, name: str) -> int:
        """The place in the line, from 1; 0 for one who is seated. Who is gone is seated too: nothing to wait for."""
        with self._changed:
            names = list(self._sessions)
            return max(0, names.index(name) - self.seats + 1) if name in names else 0

    def wait_for_seat(self, name: str, tell: Callable[[int], None], stopped: threading.Event) -> None:
        """Wait until a session is seated, or stopped."""
        with self._changed:
            while (place := self.place(name)) and not stopped.is_set():
                tell(place)
                self._changed.wait(0.2)

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
        """Names of all sessions, in the order of the line."""
        with self._changed:
            return list(self._sessions)
