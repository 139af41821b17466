"""Sessions that outlive their process: copies in a folder that several share, one of which holds each session.

Who holds a session holds its lock, which the operating system takes back when a process ends, however it ends. Knows
files, locks and clocks. Refuses to know requests, and who sends them where.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..common.atomic import replacing
from ..errors import ConfigError, PDropError
from ..stream import AsyncVideoStream, VideoLM
from ..stream.aio import apart
from .copies import NAME, Copy
from .metrics import Metrics
from .refusals import Refusal
from .sessions import Session, Sessions
from .settings import Settings

log = logging.getLogger(__name__)
_STATE, _RECORD, _LOCK = ".pdrop", ".json", ".lock"


class SharedSessions(Sessions):
    """All sessions that one replica holds, of those in a folder.

    Parameters
    ----------
    lm : VideoLM
    settings : Settings
    metrics : Metrics
    folder : Path
        Which all replicas see, on a file system that locks.
    every : float
        Seconds from one copy of a session to the next, if something changed.

    Attributes
    ----------
    bring : callable
        Awaited with the name of each session that is asked for; has `load` called, unless it knows that it was.
    known_after : float
        Seconds after which it is known elsewhere that a new session is here; until then it is not told of.

    Raises
    ------
    ConfigError
        If nothing can be locked in the folder.
    """

    def __init__(self, lm: VideoLM, settings: Settings, metrics: Metrics, folder: Path, every: float = 5.0) -> None:
        super().__init__(lm, settings, metrics)
        self._shared, self._every, self._idle = folder, every, settings.limits.idle
        self._locks: dict[str, FileLock] = {}
        self._loading = asyncio.Lock()
        self.bring: Callable[[str], Awaitable[Any]] = self.load
        self.known_after = 0.0
        check_folder(folder)

    async def find(self, name: str, owner: str) -> Session:
        """A session of somebody's, from here or from the folder.

        Raises
        ------
        Refusal
            If there is none, if it is another's, or if another replica holds it.
        """
        if NAME.fullmatch(name):
            await self.bring(name)
            if name not in self._open:
                await self.load(name)
        return self.get(name, owner)

    async def load(self, name: str) -> None:
        """Go on with a session that nobody holds any more; one that is open here stays as it is.

        Raises
        ------
        Refusal
        Exhausted
        """
        if name in self._open:  # whoever has one need not wait for another's
            return
        async with self._loading:
            if name in self._open or not await apart(self._path(name, _RECORD).exists):
                return
            lock = await apart(partial(self._locked, name))
            try:
                record = await apart(partial(self._read, name))
                lost = not record["released"]
                await apart(partial(self._write, name, record | {"released": False}))
                with self.seat(record["owner"]):
                    stream = await self._lm.async_resume(self._path(name, _STATE))
                    session = await super().add(stream, record["owner"], name)
            except BaseException:
                lock.release()
                raise
            second = _last(stream)
            self._locks[name] = lock
            session.copy = Copy(second, stream.status.frames, heard=not lost)
            session.created = record["created"]
            session.events.go_on(record["events"])
            session.events.add("resumed", resume_from_seconds=second, lost=lost)

    async def add(self, stream: AsyncVideoStream, owner: str, name: str | None = None) -> Session:
        """Make a session of a stream, for which there is a seat; a first copy is in the folder before it is told of.

        Raises
        ------
        Refusal
            If there is one of that name, or no room.
        """
        name = secrets.token_urlsafe(18) if name is None else name
        try:
            if name in self._open or await apart(self._path(name, _RECORD).exists):
                raise Refusal(f"There is a session {name!r} already.", 409, "session_exists")
            lock = await apart(partial(self._locked, name))
        except BaseException:
            await stream.close()
            raise
        try:
            session = await super().add(stream, owner, name)
        except BaseException:
            lock.release()
            raise
        self._locks[name], session.copy = lock, Copy()
        try:
            await self.keep(session)
            await self.bring(name)
            await asyncio.sleep(self.known_after)
        except BaseException:
            self._forget(session)
            await session.close()
            await apart(partial(self._erase, name))
            self._locks.pop(name).release()
            raise
        return session

    async def keep(self, session: Session) -> None:
        """Write a session into the folder, if it is still here."""
        copy = session.copy
        assert copy is not None
        async with copy.writing:
            if session.id not in self._open:
                return
            frames, second = session.stream.status.frames, _last(session.stream)
            await session.stream.save(self._path(session.id, _STATE))  # behind all pushes that were awaited before
            record = {
                "owner": session.owner,
                "created": session.created,
                "events": session.events.last,
                "released": copy.leaving,
            }
            await apart(partial(self._write, session.id, record))
            copy.frames, copy.second = frames, second

    async def turn_kept(self, session: Session) -> None:
        """Write it at once: nobody would send a turn again."""
        await self.keep(session)

    async def release(self, name: str) -> None:
        """Let another replica go on with a session, of which nothing is lost."""
        session = self._open.get(name)
        if session is None or session.copy is None or session.copy.leaving:
            return
        session.copy.leaving = True  # no push begins any more
        try:
            await session.stop()
            await self.keep(session)
        finally:
            await super().remove(session)
            self._locks.pop(name).release()

    async def remove(self, session: Session) -> None:
        """End a session for good."""
        if session.copy is None or session.id not in self._open or session.copy.leaving:
            return
        await super().remove(session)
        async with session.copy.writing:
            await apart(partial(self._erase, session.id))
            self._locks.pop(session.id).release()

    async def close(self) -> None:
        """Let go of all of them."""
        for session in self.all:
            try:
                await self.release(session.id)
            except (PDropError, OSError):
                log.exception("a session could not be written")

    async def sweep_for_ever(self) -> None:
        """Write what changed, and end what nobody uses, here and in the folder."""
        await asyncio.gather(super().sweep_for_ever(), self._keep_for_ever(), self._tidy_for_ever())

    async def _keep_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._every)
            for session in self.all:
                if session.copy is None or session.copy.leaving or session.copy.frames == session.stream.status.frames:
                    continue
                try:
                    await self.keep(session)
                except (PDropError, OSError):  # its answers go on telling of the last one that could be written
                    if session.id in self._open:
                        log.exception("a session could not be written")

    async def _tidy_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._idle / 4)
            await apart(partial(self.tidy, time.time() - self._idle))

    def tidy(self, before: float) -> None:
        """Erase what nobody holds and nobody came back for since."""
        for record in _listed(self._shared):
            with suppress(OSError, Refusal):
                if record.stat().st_mtime < before:
                    lock = self._locked(record.stem)
                    try:
                        if record.stat().st_mtime < before:
                            self._erase(record.stem)
                    finally:
                        lock.release()

    # -- files ------------------------------------------------------------------------------------------------------

    def _path(self, name: str, suffix: str) -> Path:
        return self._shared / (name + suffix)

    def _locked(self, name: str) -> FileLock:
        lock = FileLock(self._path(name, _LOCK), thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise Refusal(
                f"Another replica holds this session; send its requests with the header "
                f"'serve-multiplexed-model-id: {name}', and this one again.",
                503,
                "session_elsewhere",
                retry=1,
            ) from None
        return lock

    def _write(self, name: str, record: dict[str, Any]) -> None:
        with replacing(self._path(name, _RECORD)) as part:
            Path(part).write_text(json.dumps(record))

    def _read(self, name: str) -> dict[str, Any]:
        try:
            record: dict[str, Any] = json.loads(self._path(name, _RECORD).read_text())
        except FileNotFoundError:
            raise Refusal("There is no such session; open another.", 404, "session_not_found") from None
        return record

    def _erase(self, name: str) -> None:
        for suffix in (_RECORD, _STATE, _LOCK):
            self._path(name, suffix).unlink(missing_ok=True)


def check_folder(folder: Path) -> None:
    """Refuse a folder in which two processes could hold the same session.

    Raises
    ------
    ConfigError
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{secrets.token_hex(8)}{_LOCK}"
        first, second = FileLock(probe), FileLock(probe)
        try:
            with first.acquire(timeout=0), second.acquire(timeout=0):
                raise ConfigError(f"nothing can be locked in {folder}; choose a folder on a file system that locks.")
        except Timeout:
            probe.unlink(missing_ok=True)
    except (OSError, NotImplementedError) as error:
        raise ConfigError(f"the shared folder {folder} can't be used: {error}; choose another.") from error


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.glob("*" + _RECORD))
    except OSError:  # it may be there again the next time
        return []


def _last(stream: AsyncVideoStream) -> float | None:
    span = stream.status.seconds
    return None if span is None else span[1]
