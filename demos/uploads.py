"""The files that visitors sent: how much of them there may be, and the end of those that nobody has a use for."""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pdrop_video.guard import Allowance

_PATIENCE = 900.0
"""Seconds after which a file of which nothing is known is a leftover."""
_UNOPENED = 60.0
"""Seconds for a session to open what was uploaded."""
AROUND = 2**20
"""Bytes around a file in a request, which count while it comes in."""
_BROKEN_OFF = 15.0
"""Seconds after which what a broken-off upload left is deleted."""


@dataclass(slots=True)
class _Stored:
    """A file, those who sent it, and how often it is wanted: held by sessions, or uploaded and not yet opened."""

    size: int
    clients: set[str] = field(default_factory=set)
    held: int = 0
    unopened: int = 0
    since: float = 0.0


@dataclass(slots=True)
class Arrival:
    """An upload under way: its own folder, who sends it, and what was counted for it so far."""

    folder: Path
    client: str
    taken: int = 0
    broken: float | None = None


class Uploads:
    """One server's folder of uploads.

    Parameters
    ----------
    folder : Path
    largest : int
        Most bytes of a file.
    each, most : int or None
        Most bytes of one address, and of all; None for a quarter, and for 8 of the largest files.
    files_each, files : int
        Most files of one address, and of all.
    """

    def __init__(
        self,
        folder: Path,
        *,
        largest: int = 2**30,
        each: int | None = None,
        most: int | None = None,
        files_each: int = 8,
        files: int = 32,
    ) -> None:
        self.folder, self.largest = folder.resolve(), largest
        most = most or 8 * largest
        self.bytes = Allowance("bytes of uploads", each or max(most // 4, largest + AROUND), most)
        self.files = Allowance("uploads", files_each, files)
        self._stored: dict[Path, _Stored] = {}  # the same file, sent twice, is one
        self._arriving: dict[Path, Arrival] = {}
        self._changing = threading.RLock()

    # -- arriving ---------------------------------------------------------------------------------------------------

    def begin(self, client: str) -> Arrival:
        """Begin an upload; raises `Exhausted` if there is no room for another file."""
        self.files.take(client)
        arrival = Arrival(self.folder / secrets.token_urlsafe(18), client)
        with self._changing:
            self._arriving[arrival.folder] = arrival
        arrival.folder.mkdir(parents=True)
        return arrival

    def grow(self, arrival: Arrival, size: int) -> None:
        """Count more bytes, before they are written; raises `Exhausted` if there is no room for them."""
        self.bytes.take(arrival.client, size)
        arrival.taken += size

    def keep(self, arrival: Arrival, file: Path, digest: str, name: str) -> Path:
        """End an upload with its file, which is kept under a name that only its sender knows."""
        path, client = self.folder / digest / name, arrival.client
        with self._changing:
            path.parent.mkdir(exist_ok=True)
            file.replace(path)
            del self._arriving[arrival.folder]
            stored = self._stored.setdefault(path, _Stored(path.stat().st_size))
            again = client in stored.clients
            self.bytes.give_back(client, arrival.taken - (0 if again else stored.size))
            if again:
                self.files.give_back(client)
            stored.clients.add(client)
            stored.unopened += 1
            stored.since = time.monotonic()
        shutil.rmtree(arrival.folder, ignore_errors=True)
        return path

    def drop(self, arrival: Arrival) -> None:
        """End an upload of which nothing is kept."""
        shutil.rmtree(arrival.folder, ignore_errors=True)
        with self._changing:
            if self._arriving.pop(arrival.folder, None) is not None:
                self.files.give_back(arrival.client)
                self.bytes.give_back(arrival.client, arrival.taken)

    # -- being used -------------------------------------------------------------------------------------------------

    def hold(self, path: Path) -> Callable[[], None]:
        """Keep a file until the function that is returned is called; files from elsewhere are no business of this."""
        path = path.resolve()
        if not path.is_relative_to(self.folder):
            return lambda: None
        with self._changing:
            stored = self._stored.setdefault(path, _Stored(0))
            stored.held += 1
            stored.unopened = max(stored.unopened - 1, 0)
        once = [path]
        return lambda: self._let_go(once.pop()) if once else None

    def unopened(self, path: Path) -> bool:
        """Whether a file was uploaded and no session has opened it yet."""
        with self._changing:
            return path in self._stored and not self._stored[path].held

    def _let_go(self, path: Path) -> None:
        with self._changing:
            self._stored[path].held -= 1
            self._delete_unwanted(path)

    def _delete_unwanted(self, path: Path) -> None:
        stored = self._stored[path]
        if stored.held > 0 or stored.unopened:
            return
        del self._stored[path]
        with suppress(OSError):  # it may be gone, or still open where open files can't be deleted
            path.unlink()
            path.parent.rmdir()
        for client in stored.clients:
            self.files.give_back(client)
            self.bytes.give_back(client, stored.size)

    # -- the end ----------------------------------------------------------------------------------------------------

    def sweep(self) -> None:
        """Delete what no session opened, the beginnings of uploads that were broken off, and other leftovers."""
        now = time.monotonic()
        with self._changing:
            for path, stored in list(self._stored.items()):
                if stored.unopened and now - stored.since > _UNOPENED:
                    stored.unopened = 0
                    self._delete_unwanted(path)
            broken = [each for each in self._arriving.values() if each.broken and now > each.broken + _BROKEN_OFF]
        for arrival in broken:
            self.drop(arrival)
        with suppress(OSError):
            for path in (*self.folder.glob("*"), *self.folder.glob("*/*")):
                known = path in self._stored or path.parent in self._arriving
                if not known and path.is_file() and time.time() - path.stat().st_mtime > _PATIENCE:
                    path.unlink()
