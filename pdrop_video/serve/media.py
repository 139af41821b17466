"""Videos and pictures of a conversation, wherever they are: named by what is in them. Knows the guard and files."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, Literal

from ..guard import Guard, Refused, fetched
from . import pictures
from .settings import Limits

_PATIENCE = 60.0
"""Seconds for a file to come from elsewhere."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A video or a picture that somebody named.

    Attributes
    ----------
    kind : "video" or "image"
    url : str
        data:, http(s), or a file in one of the server's folders.
    fps, start, end : float or None
        Of a video: how it is watched.
    frames : int or None
    """

    kind: Literal["video", "image"]
    url: str
    fps: float | None = None
    start: float | None = None
    end: float | None = None
    frames: int | None = None

    @property
    def how(self) -> tuple[object, ...]:
        """What of it changes what is seen, beside its bytes."""
        return self.kind, self.fps, self.start, self.end, self.frames


@dataclass(frozen=True, slots=True)
class Media:
    """A video or a picture at hand.

    Attributes
    ----------
    wanted : Wanted
    path : Path
        Its file.
    digest : str
        Of its bytes.
    """

    wanted: Wanted
    path: Path
    digest: str


class Library:
    """Gets what is named, as files; those that it had to write are gone once it is closed.

    Parameters
    ----------
    guard : Guard
    limits : Limits
    """

    def __init__(self, guard: Guard, limits: Limits) -> None:
        self._guard, self._limits = guard, limits
        self._folder = tempfile.TemporaryDirectory(prefix="pdrop-video-")

    def close(self) -> None:
        """Remove all that was written."""
        self._folder.cleanup()

    def get(self, wanted: Wanted) -> tuple[Media, Callable[[], None]]:
        """A file, and what to call when it is not needed any more; may take a while.

        Raises
        ------
        PDropError
            If it may not be had.
        """
        url = wanted.url.strip()
        scheme = url.partition(":")[0].lower()
        if scheme in ("http", "https", "data"):
            return self._written(wanted, url, scheme)
        path = self._guard.file(url)
        facts = path.stat()
        return Media(wanted, path, _digest_of(path, facts.st_size, facts.st_mtime_ns)), lambda: None

    def _written(self, wanted: Wanted, url: str, scheme: str) -> tuple[Media, Callable[[], None]]:
        handle, name = tempfile.mkstemp(dir=self._folder.name)
        path = Path(name)
        try:
            with os.fdopen(handle, "w+b") as file:
                if scheme == "data":
                    data = pictures.from_base64(url, kind=wanted.kind)
                    if len(data) > self._limits.media:
                        raise Refused(
                            f"A {wanted.kind} may have {self._limits.media:,} bytes here; send a smaller one."
                        )
                    file.write(data)
                else:
                    fetched(self._guard, url, file, self._limits.media, _PATIENCE)
                file.seek(0)
                digest = _digested(file)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return Media(wanted, path, digest), lambda: path.unlink(missing_ok=True)


@lru_cache(256)
def _digest_of(path: Path, size: int, changed: int) -> str:
    """Of a file that is as it was when it was read."""
    with path.open("rb") as file:
        return _digested(file)


def _digested(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while data := file.read(2**20):
        digest.update(data)
    return digest.hexdigest()
