"""Sessions: streams that clients feed and ask over many requests. Bounded in number, in bytes and in time.

Knows streams and clocks. Refuses to know requests.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import PDropError
from ..guard import Allowance
from ..stream import AsyncVideoStream, Event, Pushed, VideoLM
from ..stream.aio import apart
from ..video import FrameChunk
from .copies import NAME, Copy
from .events import Events
from .metrics import Metrics
from .refusals import Refusal, said
from .settings import Settings
from .watching import Opening, watch


class Session:
    """One stream, what its client does with it, and what it tells.

    Parameters
    ----------
    stream : AsyncVideoStream
        Whose watches tell their events here.
    owner : str
        Who opened it; nobody else can use it.
    metrics : Metrics
    most : int
        Requests with frames that may wait.

    Attributes
    ----------
    id : str
    source : dict or None
        What of a video or a camera is being watched, and how that goes.
    copy : Copy or None
        What is kept of it elsewhere, where that is done.
    """

    def __init__(self, stream: AsyncVideoStream, owner: str, metrics: Metrics, most: int) -> None:
        self.id = secrets.token_urlsafe(18)
        self.copy: Copy | None = None
        self.stream, self.owner, self.events, self.created = stream, owner, Events(), time.time()
        self.waiting, self.source = 0, None  # type: int, dict[str, Any] | None
        self._used, self._busy, self._most, self._metrics = time.monotonic(), 0, most, metrics
        self._watching: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        for found in stream.stream.watches:
            found.call = self._found
            found.deliver()  # what a saved stream had not given yet

    @contextmanager
    def use(self) -> Iterator[None]:
        """Within, the session is in use."""
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1
            self.touch()

    def touch(self) -> None:
        """Somebody is there."""
        self._used = time.monotonic()

    def idle(self) -> float:
        """For how many seconds nobody used it."""
        return 0.0 if self._busy else time.monotonic() - self._used

    async def push(self, chunks: Iterable[FrameChunk]) -> list[Pushed]:
        """Watch frames, in the order of the requests.

        Raises
        ------
        Refusal
            If too many requests wait.
        """
        if self.waiting >= self._most:
            raise Refusal(
                f"{self.waiting} requests with frames wait in this session; send the next when one is answered.",
                429,
                "queue_full",
                retry=1,
            )
        self.waiting += 1
        try:
            done = []
            for chunk in chunks:
                if self.copy is not None:
                    self.copy.check_later(chunk, self.stream.status.seconds)
                done.append(await self.stream.push(chunk))
                self._metrics.pushed(done[-1])
            return done
        finally:
            self.waiting -= 1

    def begin(self, opening: Opening, name: str) -> None:
        """Watch a source, until it ends or `stop` is called.

        Raises
        ------
        Refusal
            If one is being watched.
        """
        if self._watching is not None and not self._watching.done():
            raise Refusal("This session watches a source already; stop that first.", 409, "source_busy")
        self.source = {"url": name, "state": "watching", "error": None}
        self._watching = asyncio.ensure_future(self._watch(opening, self.source))

    async def stop(self) -> None:
        """Stop watching the source."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait({self._watching})

    async def close(self) -> None:
        """End all of it; what standing questions found and lasts still is cut, and listeners hear so."""
        await self.stop()
        try:
            await self.stream.close()
        finally:
            self.events.end()

    async def _watch(self, opening: Opening, source: dict[str, Any]) -> None:
        try:
            await watch(self.stream, opening, lambda pushed, second: self._metrics.pushed(pushed))
            source["state"] = "ended"
        except asyncio.CancelledError:
            source["state"] = "stopped"
        except Exception as error:
            source |= {"state": "failed", "error": said(error)["error"]["message"]}
        if not self.stream.closed:
            self.events.add("source", **source)

    def _found(self, event: Event) -> None:
        """Called in the thread that pushes, which does not wait for the event loop."""
        with suppress(RuntimeError):  # the server has ended: nobody listens
            self._loop.call_soon_threadsafe(self._tell, event)

    def _tell(self, event: Event) -> None:
        self._metrics.events.inc()
        self.events.add("begin" if event.end is None else "end", **asdict(event))


class Sessions:
    """All sessions of one server.

    Parameters
    ----------
    lm : VideoLM
    settings : Settings
    metrics : Metrics
    """

    def __init__(self, lm: VideoLM, settings: Settings, metrics: Metrics) -> None:
        self._lm, self._settings, self._metrics, most = lm, settings, metrics, settings.limits
        self._open: dict[str, Session] = {}
        self._seats = Allowance("sessions", most.sessions_each, most.sessions)
        self._reserved: dict[str, int] = {}
        self._saving = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._open)

    @property
    def all(self) -> tuple[Session, ...]:
        """Those that are open."""
        return tuple(self._open.values())

    @property
    def waiting(self) -> int:
        """Requests with frames that wait."""
        return sum(each.waiting for each in self._open.values())

    async def find(self, name: str, owner: str) -> Session:
        """A session of somebody's, wherever it is kept; here all are open, or gone.

        Raises
        ------
        Refusal
        """
        return self.get(name, owner)

    async def turn_kept(self, session: Session) -> None:
        """A question and its answer stay in a session, as no pushes would bring them back."""

    def get(self, name: str, owner: str) -> Session:
        """An open session of somebody's.

        Raises
        ------
        Refusal
            If there is none; the same for another's.
        """
        session = self._open.get(name)
        if session is None or session.owner != owner:
            raise Refusal("There is no such session; it may have ended, so open another.", 404, "session_not_found")
        session.touch()
        return session

    @contextmanager
    def seat(self, owner: str) -> Iterator[None]:
        """Room for one more, given back if opening it fails.

        Raises
        ------
        Exhausted
        """
        self._seats.take(owner)
        try:
            yield
        except BaseException:
            self._seats.give_back(owner)
            raise

    async def add(self, stream: AsyncVideoStream, owner: str, name: str | None = None) -> Session:
        """Make a session of a stream, for which there is a seat; its name may be chosen where that means something.

        Raises
        ------
        Refusal
            If it could come to remember more than there is room for.
        """
        if name in self._open:
            await stream.close()
            raise Refusal(f"There is a session {name!r} already.", 409, "session_exists")
        bound = stream.stream.cache_bound
        most, taken = self._settings.limits.session_bytes, sum(self._reserved.values())
        if bound is not None:
            bound += stream.stream.memory.archive or 0
        if bound is None or taken + bound > most:
            await stream.close()
            if bound is None or bound > most:
                raise Refusal("A session must have a bounded memory that this server has room for.", 400, "too_large")
            raise Refusal(
                "This server has no room for another session's memory; try again later.", 503, "full", retry=30
            )
        session = Session(stream, owner, self._metrics, self._settings.limits.pushes)
        session.id = session.id if name is None else name
        self._open[session.id], self._reserved[session.id] = session, bound
        return session

    async def remove(self, session: Session) -> None:
        """End a session."""
        if session.id in self._open:
            self._forget(session)
            self._seats.give_back(session.owner)
            await session.close()

    def _forget(self, session: Session) -> None:
        del self._open[session.id], self._reserved[session.id]

    async def sweep_for_ever(self) -> None:
        """End sessions that nobody uses any more."""
        idle = self._settings.limits.idle
        while True:
            await asyncio.sleep(min(idle / 4, 5.0))
            for session in self.all:
                if session.idle() > idle:
                    self._metrics.expired.inc()
                    with suppress(PDropError):
                        await self.remove(session)

    async def close(self) -> None:
        """End all of them."""
        for session in self.all:
            await self.remove(session)

    # -- files ------------------------------------------------------------------------------------------------------

    async def save(self, session: Session) -> tuple[str, int]:
        """Write a session's stream to the server's folder; the name to resume it by, and its bytes.

        Raises
        ------
        Refusal
            If nothing is saved here, or there is no room.
        """
        folder, most = self._folder(), self._settings.limits
        async with self._saving:
            files = await apart(lambda: [each.stat().st_size for each in folder.glob("*.pdrop")])
            bound = session.stream.stream.cache_bound or 0
            if len(files) >= most.saves or sum(files) + bound > most.save_bytes:
                raise Refusal("This server has no room for another saved session.", 503, "full", retry=300)
            name = secrets.token_urlsafe(18)
            path = self._file(name, session.owner)
            await session.stream.save(path)
        return name, path.stat().st_size

    async def resumed(self, name: str, owner: str) -> AsyncVideoStream:
        """The stream that somebody saved.

        Raises
        ------
        Refusal
            If there is none; the same for another's.
        """
        path = self._file(name, owner) if NAME.fullmatch(name) else None
        if path is None or not await apart(partial(Path.is_file, path)):
            raise Refusal("There is no such saved session.", 404, "saved_session_not_found", "resume")
        return await self._lm.async_resume(path)

    def _folder(self) -> Path:
        if self._settings.saves is None:
            raise Refusal("This server saves no sessions; start it with --saves FOLDER.", 400, "no_saves")
        return self._settings.saves

    def _file(self, name: str, owner: str) -> Path:
        return self._folder() / f"{hashlib.sha256(owner.encode()).hexdigest()[:16]}-{name}.pdrop"
