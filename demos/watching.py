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

import numpy as np
from numpy.typing import NDArray

import pdrop_video as pv
from pdrop_video.plots import Album
from pdrop_video.video import VideoInfo

log = logging.getLogger(__name__)

_MOST_PIXELS = 2**27
"""Of a chunk: 16 frames of 3840 x 2160, or 0.4 GB; as many are decoded ahead of it twice."""
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
    skipped : int
        Those of them that the gate left out.
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
    silence : float
        Seconds for which a live source has given no frame.
    connected : bool
        False while the lost connection to a live source is being made again.
    message : str
        What went wrong, one sentence.
    warnings : tuple of str
        What is odd about the source.
    """

    state: State = "idle"
    place: int = 0
    frames: int = 0
    skipped: int = 0
    seconds: tuple[float, float] | None = None
    total: float | None = None
    entered: int = 0
    kept: tuple[int, ...] = ()
    cache_bytes: int = 0
    bound: int | None = None
    speed: float = 0.0
    dropped: int = 0
    reconnects: int = 0
    silence: float = 0.0
    connected: bool = True
    message: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def running(self) -> bool:
        """Whether there is more to come."""
        return self.state in ("queued", "opening", "watching")


def refuse_large(info: VideoInfo | None, limit: float | None, chunk: int) -> None:
    """Raise if a video promises to last longer than `limit` seconds, or its frames are too large to hold a chunk."""
    if info is None:
        return
    if info.duration is not None and limit is not None and info.duration > limit:
        raise pv.VideoError(
            f"The video lasts {info.duration / 60:.1f} minutes, and this page takes at most {limit / 60:.1f}; cut it, "
            "or start the server with --max-minutes."
        )
    most = _MOST_PIXELS // (info.width * info.height)
    if chunk > most:
        raise pv.VideoError(
            f"The frames are {info.width} x {info.height} pixels, too large for {chunk} at a time; "
            + (f"set the chunk to {most} or less." if most else "make the video smaller.")
        )


class Watcher:
    """Pushes a source's chunks into a stream, in a thread of its own.

    Parameters
    ----------
    stream : VideoStream
    source : callable
        Opens the source.
    seat : callable
        Waits for this session's turn to watch, and holds it for a block; gets a function that is told the place in the
        line, and an event that says whether to give up.
    limit : float or None
        Most seconds of video to watch; None for a live source.
    chunk : int
        Frames that the source gives at a time.
    """

    def __init__(
        self,
        stream: pv.VideoStream,
        source: Callable[[], Opened],
        *,
        seat: Callable[[Callable[[int], None], threading.Event], AbstractContextManager[None]],
        limit: float | None,
        chunk: int,
    ) -> None:
        self._progress = Progress("opening")
        self._changing = threading.Lock()
        self.album = Album()
        self.newest: tuple[NDArray[np.uint8], float] | None = None
        """The last picture that was watched, and its time."""
        self.watched = threading.Event()
        """Set once there is something to ask about, or there will be nothing."""
        self._stream, self._source, self._seat = stream, source, seat
        self._limit, self._chunk = limit, chunk
        self._stopped = threading.Event()
        self._reader: Any = None
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def progress(self) -> Progress:
        """How far it is, and whether the source keeps it waiting."""
        reader, now = self._reader, self._progress
        if reader is None or not now.running:
            return now
        return replace(now, silence=reader.silence, connected=reader.connected)

    def stop(self) -> None:
        """Watch no further, also while the source is being opened or waited for."""
        with self._changing:
            self._stopped.set()
            if self._progress.running:
                self._progress = replace(self._progress, state="stopped")
        self.watched.set()
        reader = self._reader
        if reader is not None:
            reader.close()

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end."""
        self._thread.join(timeout)

    def _run(self) -> None:
        try:
            with self._seat(self._queued, self._stopped):
                if not self._stopped.is_set():
                    self._set(state="opening", place=0)
                    with self._source() as self._reader:
                        if not self._stopped.is_set():  # by somebody who found no reader to close yet
                            self._watch(self._reader)
                            self._set(**_said(self._reader))
            self._set(state="done")
        except pv.PDropError as error:  # a reader that was closed under way says so by one, and is no failure
            self._set(state="failed", message=str(error))
        except Exception:
            log.exception("watching failed")
            self._set(state="failed", message="Something went wrong on the server while watching; its log says what.")
        finally:
            self._reader = None
            self.watched.set()

    def _watch(self, reader: Any) -> None:
        total = None if reader.info is None else reader.info.duration
        refuse_large(reader.info, self._limit, self._chunk)
        self._set(state="watching", total=total)
        began = time.monotonic()
        for chunk in self._until_stopped(reader):
            self._stream.push(chunk)
            self.album.add(self._stream, chunk)
            self.newest = chunk.frames[-1].cpu().numpy(), chunk.seconds[-1]
            self._note(chunk, reader, time.monotonic() - began)
            self.watched.set()
            if self._limit is not None and chunk.seconds[-1] >= self._limit:
                self._set(message=f"Watched the first {self._limit / 60:.1f} minutes, this page's limit.")
                return

    def _until_stopped(self, reader: Any) -> Iterator[pv.FrameChunk]:
        for chunk in reader:
            if self._stopped.is_set():
                return
            yield chunk

    def _note(self, chunk: pv.FrameChunk, reader: Any, taken: float) -> None:
        stream, before = self._stream, self._progress
        first = before.seconds[0] if before.seconds else chunk.seconds[0]
        self._set(
            frames=before.frames + len(chunk),
            seconds=(first, chunk.seconds[-1]),
            speed=(chunk.seconds[-1] - first) / max(taken, 1e-6),
            **remembered(stream),
            **_said(reader),
        )

    def _queued(self, place: int) -> None:
        self._set(state="queued", place=place)

    def _set(self, **changes: Any) -> None:
        with self._changing:
            if self._stopped.is_set():  # whatever comes of it after that, it was stopped
                changes = {name: value for name, value in changes.items() if name not in ("state", "message")}
            self._progress = replace(self._progress, **changes)


def remembered(stream: pv.VideoStream) -> dict[str, Any]:
    """What `Progress` says of a stream itself."""
    stages = range(len(stream.loop.schedule.layers) + 1)
    return {
        "skipped": stream.status.skipped,
        "entered": stream.visual_tokens,
        "kept": tuple(int(stream.held(stage).visual.sum()) for stage in stages),
        "cache_bytes": stream.cache_bytes,
        "bound": stream.cache_bound,
    }


def _said(reader: Any) -> dict[str, Any]:
    return {"dropped": reader.dropped, "reconnects": reader.reconnects, "warnings": tuple(reader.warnings)}
