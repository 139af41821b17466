"""A thread that lets a session's stream watch a source, and says how far it is.

Knows a stream and where frames come from. Refuses to know pages, visitors and who else is there.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Literal

import pdrop_video as pv
from pdrop_video.plots import Album

from .standing import Standing

log = logging.getLogger(__name__)

State = Literal["idle", "queued", "opening", "watching", "done", "stopped", "failed"]
Opened = AbstractContextManager[Any]
"""A context manager that gives an iterator of chunks; see `open_video`."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far watching is; a new object after every chunk.

    Attributes
    ----------
    state : str
        "idle", "queued", "opening", "watching", "done", "stopped" or "failed".
    place : int
        In the line for a seat, from 1; 0 for one who is seated.
    frames : int
        Watched so far.
    seconds : tuple of float or None
        Times of the first and last of them.
    total : float or None
        Seconds that the source promises; None where it promises nothing.
    entered : int
        Visual tokens that entered the model.
    kept : tuple of int
        Those that each stage remembers.
    cache_bytes : int
    bound : int or None
        Most bytes of the cache.
    speed : float
        Seconds of video watched in a second.
    dropped, reconnects : int
        Frames that a live source showed while the model was busy; connections made again.
    message : str
        What went wrong, one sentence.
    warnings : tuple of str
        What is odd about the source.
    """

    state: State = "idle"
    place: int = 0
    frames: int = 0
    seconds: tuple[float, float] | None = None
    total: float | None = None
    entered: int = 0
    kept: tuple[int, ...] = ()
    cache_bytes: int = 0
    bound: int | None = None
    speed: float = 0.0
    dropped: int = 0
    reconnects: int = 0
    message: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def running(self) -> bool:
        """Whether there is more to come."""
        return self.state in ("queued", "opening", "watching")


class Watcher:
    """Pushes a source's chunks into a stream, in a thread of its own.

    Parameters
    ----------
    stream : VideoStream
    source : callable
        Opens the source.
    seat : callable
        Waits for this session's turn to watch; gets a function that is told the place in the line, and one that says
        whether to give up.
    standing : list of Standing
        Asked after each chunk; whoever adds to it from outside does so in one step.
    limit : float or None
        Most seconds of video to watch; None for a live source.
    """

    def __init__(
        self,
        stream: pv.VideoStream,
        source: Callable[[], Opened],
        *,
        seat: Callable[[Callable[[int], None], threading.Event], None],
        standing: list[Standing],
        limit: float | None,
    ) -> None:
        self.progress = Progress("opening")
        self.album = Album()
        self.watched = threading.Event()
        """Set once there is something to ask about, or there will be nothing."""
        self._stream, self._source, self._seat, self._standing = stream, source, seat, standing
        self._limit = limit
        self._stopped = threading.Event()
        self._reader: Any = None
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Watch no further; returns at once."""
        self._stopped.set()
        reader = self._reader
        if reader is not None:
            reader.close()

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end."""
        self._thread.join(timeout)

    def _run(self) -> None:
        try:
            self._seat(self._queued, self._stopped)
            if not self._stopped.is_set():
                self._set(state="opening", place=0)
                with self._source() as self._reader:
                    self._watch(self._reader)
            self._set(state="stopped" if self._stopped.is_set() else "done")
        except pv.PDropError as error:
            stopped = self._stopped.is_set()  # a reader that was closed under way says so by an error
            self._set(state="stopped" if stopped else "failed", message="" if stopped else str(error))
        except Exception:
            log.exception("watching failed")
            self._set(state="failed", message="Something went wrong on the server while watching; its log says what.")
        finally:
            self._reader = None
            self.watched.set()

    def _watch(self, reader: Any) -> None:
        info = getattr(reader, "info", None)
        total = None if info is None else info.duration
        if total is not None and self._limit is not None and total > self._limit:
            raise pv.VideoError(
                f"The video lasts {total / 60:.1f} minutes, and this page takes at most {self._limit / 60:.1f}; cut "
                "it, or start the server with --max-minutes."
            )
        self._set(state="watching", total=total)
        began = time.monotonic()
        for chunk in self._until_stopped(reader):
            pushed = self._stream.push(chunk)
            self.album.add(self._stream, chunk)
            self._note(chunk, pushed, reader, time.monotonic() - began)
            self.watched.set()
            for standing in list(self._standing):
                standing.ask(self._stream)
            if self._limit is not None and chunk.seconds[-1] >= self._limit:
                self._set(message=f"Watched the first {self._limit / 60:.1f} minutes, this page's limit.")
                return

    def _until_stopped(self, reader: Any) -> Iterator[pv.FrameChunk]:
        for chunk in reader:
            if self._stopped.is_set():
                return
            yield chunk

    def _note(self, chunk: pv.FrameChunk, pushed: pv.Pushed, reader: Any, taken: float) -> None:
        stream, before = self._stream, self.progress
        first = before.seconds[0] if before.seconds else chunk.seconds[0]
        self._set(
            frames=before.frames + len(chunk),
            seconds=(first, chunk.seconds[-1]),
            entered=before.entered + pushed.visual_tokens,
            kept=tuple(int(stream.held(stage).visual.sum()) for stage in range(len(stream.loop.schedule.layers) + 1)),
            cache_bytes=stream.cache_bytes,
            bound=stream.cache_bound,
            speed=(chunk.seconds[-1] - first) / max(taken, 1e-6),
            dropped=getattr(reader, "dropped", 0),
            reconnects=getattr(reader, "reconnects", 0),
            warnings=tuple(getattr(reader, "warnings", ())),
        )

    def _queued(self, place: int) -> None:
        self._set(state="queued", place=place)

    def _set(self, **changes: Any) -> None:
        self.progress = replace(self.progress, **changes)
