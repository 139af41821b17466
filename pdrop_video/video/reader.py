"""`open_video` and `VideoReader`: sampled frames of a file, a stream or a camera, in chunks, in one pass.

Frames are chosen by their own presentation times, never by average rate, so that variable frame rates come out right.
The reader knows neither the model nor what becomes of the frames, and not how they are decoded either: that is up to
what it draws from.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Literal

import numpy as np
import torch

from ..errors import ConfigError, VideoError
from .address import Address, Connection
from .ahead import Ahead
from .chunk import FrameChunk
from .decode import Losses, counted
from .decord_file import DecordFrames
from .drawn import Drawn, Shot
from .file import FileFrames, known_times
from .live import LiveFrames
from .sampling import Sampling
from .track import Track


def open_video(
    source: str | os.PathLike[str],
    fps: float | None = 2.0,
    chunk: int = 8,
    *,
    start: float | None = None,
    end: float | None = None,
    frames: int | None = None,
    at: Iterable[float] | None = None,
    decoder: Literal["pyav", "decord"] = "pyav",
    ahead: int = 1,
    policy: Literal["block", "latest"] | None = None,
    format: str | None = None,
    protocols: str | None = None,
    connection: Connection | None = None,
) -> VideoReader:
    """Open a video file, a stream on the network or a camera for reading in chunks of sampled frames.

    Parameters
    ----------
    source : str or path
        A file in any format that FFmpeg reads; an address that begins with http, https, rtsp, rtsps, rtmp, rtmps, tcp
        or udp and "://"; or a camera: /dev/video0 and the like, or a device's name together with `format`. FFmpeg's
        other protocols (`file:`, `concat:`, ...) are never understood.
    fps : float or None
        Frames to take a second: the first frame at or after each multiple of 1/fps seconds from the stream's start
        time, each frame at most once. None takes every frame.
    chunk : int
        Frames in a chunk; the last one may be shorter.
    start, end : float or None
        Hand out only frames with `start <= seconds < end`. They are those frames that reading the whole video would
        give, with the same times.
    frames : int or None
        Take so many frames instead of so many a second, evenly spaced from the first to the last of those between
        `start` and `end`: the indices `numpy.linspace(0, n - 1, frames, dtype=int)`. A video with fewer gives all.
    at : iterable of float or None
        Take the frame on screen at each of these seconds instead, each frame at most once. Together with
        `frame_times` this takes frames by any rule on indices.
    decoder : {"pyav", "decord"}
        What decodes. decord reads files alone, in a process of its own, and is there for comparison; PyAV reads more
        kinds, uses less memory and reports damage.
    ahead : int
        Chunks to decode ahead of the one being read, in a thread; 0 decodes when asked. A live source always has one.
    policy : {"block", "latest"} or None
        When so much is decoded ahead: wait, or drop the oldest frames and count them in `dropped`. None waits for
        what has an end and keeps the latest of what has none.
    format : str or None
        FFmpeg's name of the format where it must not be guessed; "v4l2", "avfoundation" or "dshow" make any name a
        camera.
    protocols : str or None
        What FFmpeg may use to read the source and whatever that names in turn, separated by commas. None allows files
        for a path, and for an address what it takes: for http and https those two, tcp, tls and crypto. A file that
        lists other files is refused unless this is given.
    connection : Connection or None
        Time-outs, attempts to connect again, and options for FFmpeg; None for the usual ones.

    Returns
    -------
    VideoReader
        An iterator of `FrameChunk`, and a context manager that closes the source.

    Raises
    ------
    ConfigError
        If a setting is out of range, contradicts another or does not suit the source.
    VideoError
        If the source cannot be read or not one frame of it can be decoded.

    Examples
    --------
    >>> with open_video("match.mp4", fps=1, chunk=8) as video:  # doctest: +SKIP
    ...     for chunk in video:
    ...         print(chunk.seconds)
    """
    sampling = Sampling.of(fps, chunk, start, end, frames, at)
    _check(decoder, ahead, policy)
    address = Address.of(source, format, protocols)
    drawn = _open(address, connection or Connection(), sampling, decoder)
    latest = isinstance(drawn, LiveFrames) if policy is None else policy == "latest"
    return VideoReader(drawn, address.name, sampling, ahead=ahead, latest=latest)


def frame_times(source: str | os.PathLike[str], *, protocols: str | None = None) -> tuple[float, ...]:
    """Give the time of every frame of a file, in seconds from its start, mostly without decoding it.

    Parameters
    ----------
    source : str or path
        A file, or the address of one.
    protocols : str or None
        As for `open_video`.

    Returns
    -------
    tuple of float
        In increasing order, one for each frame that `open_video(source, fps=None)` would hand out. They come from the
        file's packets; where those do not tell, as in raw or damaged streams, the whole file is decoded once.

    Raises
    ------
    VideoError
        If the source cannot be read or has no end.

    Examples
    --------
    The middle frame of each of eight equal parts, by index:

    >>> times = frame_times("match.mp4")  # doctest: +SKIP
    >>> middles = [times[int((part + 0.5) * len(times) / 8)] for part in range(8)]  # doctest: +SKIP
    >>> video = open_video("match.mp4", at=middles)  # doctest: +SKIP
    """
    address, connection = Address.of(source, protocols=protocols), Connection()
    track = Track(address, connection, Losses())
    try:
        if _is_live(address, track):
            raise VideoError(f"{address.name} has no end that is known; expected a file, or the address of one.")
        return tuple(float(time) for time in known_times(address, connection, track.index())[0])
    finally:
        track.close()


class VideoReader:
    """Sampled frames of an open video, chunk by chunk, in one pass. Made by `open_video`.

    Frames come upright (rotation and mirroring applied) as RGB of the stored resolution. A sample aspect ratio other
    than 1:1 is left as it is: the pixels are not stretched. If the resolution changes on the way, frames are scaled to
    that of the first.

    Attributes
    ----------
    info : VideoInfo
        Size, codec and what the container promises.
    source : str
        The path or address as it was given, without a password.
    frames_read : int
        Frames handed out so far.
    """

    def __init__(self, drawn: Drawn, source: str, sampling: Sampling, *, ahead: int = 0, latest: bool = False) -> None:
        self.info = drawn.info
        self.source = source
        self.frames_read = 0
        self._drawn = drawn
        self._sampling = sampling
        self._closed = self._exhausted = False
        live = isinstance(drawn, LiveFrames)
        room = max(ahead, int(live)) * sampling.chunk
        self._ahead = Ahead(drawn, room, latest=latest, stop=drawn.stop, release=drawn.close) if room else None
        self._shots: Iterator[Shot] = iter(drawn) if self._ahead is None else self._ahead
        if live and self._ahead is not None:
            self._ahead.start()

    @property
    def frames_decoded(self) -> int:
        """Frames decoded so far, also those decoded ahead or not taken."""
        return self._drawn.frames_decoded

    @property
    def lost(self) -> int:
        """Packets and frames that could not be delivered intact so far: undecodable, damaged, or with a wrong time."""
        return self._drawn.lost

    @property
    def dropped(self) -> int:
        """Frames that were wanted and decoded, but gave way to later ones because they were not read in time."""
        return 0 if self._ahead is None else self._ahead.buffer.dropped

    @property
    def reconnects(self) -> int:
        """How often a lost connection was made again."""
        return self._drawn.reconnects

    @property
    def warnings(self) -> list[str]:
        """What went wrong so far, one plain sentence each; empty if nothing did."""
        said = self._drawn.warnings
        if self.dropped:
            said.append(f"dropped because they came faster than they were read: {counted(self.dropped, 'frame')}")
        return said

    def __iter__(self) -> VideoReader:
        """Return the reader itself: there is one pass over a video."""
        return self

    def __next__(self) -> FrameChunk:
        """Read on until a chunk is full or the video ends.

        Raises
        ------
        VideoError
            If the reader was closed, here or by another thread, or the video ended without a single frame to hand out.
        """
        if self._exhausted:
            raise StopIteration
        shots: list[Shot] = []
        try:
            while not self._closed and len(shots) < self._sampling.chunk:
                shots.append(next(self._shots))
        except StopIteration:
            self._exhausted = not self._closed
        except BaseException:  # also Ctrl-C: what draws is spent, and going on would look like an early end
            self.close()
            raise
        if self._closed:
            raise VideoError(f"the reader of {self.source} is closed; open the video again with open_video to read it.")
        if self._exhausted:
            self._finish(frames=len(shots))
        if not shots:
            raise StopIteration
        self.frames_read += len(shots)
        lost = self.lost if self._exhausted else shots[-1].lost
        pictures = torch.from_numpy(np.stack([shot.picture for shot in shots]))
        return FrameChunk(pictures, tuple(float(shot.time) for shot in shots), self.source, lost)

    def __enter__(self) -> VideoReader:
        """Use the reader as a context manager that closes the source."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close the source."""
        self.close()

    def close(self) -> None:
        """Close the source; a second call does nothing.

        Safe from another thread where frames are decoded ahead: a read that waits for the source ends at once.
        """
        self._closed = True
        if self._ahead is not None:
            self._ahead.close()
        else:
            self._drawn.close()

    def _finish(self, frames: int) -> None:
        """End the pass: free the source and see whether there was anything to hand out."""
        self.close()
        if self.frames_read or frames:
            return
        start, end = self._sampling.start, self._sampling.end
        until = "" if end is None else f" and before {float(end):g} s"
        raise VideoError(
            f"{self.source} gave no frame at or after {float(start):g} s{until}; the last frame seen is at "
            f"{float(self._drawn.last_time):.3f} s. Choose start and end within the video, or a higher fps."
        )


def _open(address: Address, connection: Connection, sampling: Sampling, decoder: str) -> Drawn:
    if decoder == "decord":
        return DecordFrames(address, connection, sampling)
    track = Track(address, connection, Losses())
    try:
        if not _is_live(address, track):
            return FileFrames(track, address, connection, sampling)
        if sampling.picks:
            raise ConfigError(
                f"frames and at choose among the frames of a video that has an end; {address.name} is live. Use fps."
            )
        return LiveFrames(track, address, connection, sampling)
    except BaseException:
        track.close()
        raise


def _is_live(address: Address, track: Track) -> bool:
    return address.kind == "device" or (address.kind == "url" and track.promised is None)


def _check(decoder: object, ahead: object, policy: object) -> None:
    if decoder not in ("pyav", "decord"):
        raise ConfigError(f"decoder is {decoder!r}; expected 'pyav' or 'decord'.")
    if isinstance(ahead, bool) or not isinstance(ahead, int) or ahead < 0:
        raise ConfigError(f"ahead is {ahead!r}; expected a whole number of chunks, 0 or more.")
    if policy not in (None, "block", "latest"):
        raise ConfigError(f"policy is {policy!r}; expected 'block', 'latest' or None.")
