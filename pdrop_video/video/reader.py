"""`open_video` and `VideoReader`: sampled frames of a file in chunks, read once from front to back.

Frames are chosen by their own presentation times, never by index or average rate, so that variable frame rates come out
right. The reader never seeks, and it knows neither the model nor what becomes of the frames.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from types import TracebackType

import av
import numpy as np
import torch
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from ..errors import VideoError
from .chunk import FrameChunk
from .clock import Clock
from .decode import Decoder, Losses, counted
from .picture import Orientation, to_rgb
from .sampling import Sampling, Ticks
from .source import VideoInfo, frame_step, open_stream, promised_seconds, start_seconds

# A video that ends this much earlier than promised is called cut short; less is rounding in the container.
_SHORTFALL = Fraction(1, 4)


def open_video(
    source: str | os.PathLike[str],
    fps: float | None = 2.0,
    chunk: int = 8,
    *,
    start: float | None = None,
    end: float | None = None,
) -> VideoReader:
    """Open a video file for reading in chunks of sampled frames.

    Parameters
    ----------
    source : str or path
        A video file in any format that FFmpeg reads.
    fps : float or None
        Frames to take a second: the first frame at or after each multiple of 1/fps seconds from the stream's start
        time, each frame at most once. None takes every frame.
    chunk : int
        Frames in a chunk; the last one may be shorter.
    start, end : float or None
        Hand out only frames with `start <= seconds < end`. They are those frames that reading the whole video would
        give, with the same times; the frames before `start` are decoded all the same.

    Returns
    -------
    VideoReader
        An iterator of `FrameChunk`, and a context manager that closes the file.

    Raises
    ------
    ConfigError
        If `fps`, `chunk`, `start` or `end` is out of range.
    VideoError
        If the file cannot be read or not one frame of it can be decoded.

    Examples
    --------
    >>> with open_video("match.mp4", fps=1, chunk=8) as video:  # doctest: +SKIP
    ...     for chunk in video:
    ...         print(chunk.seconds)
    """
    sampling = Sampling.of(fps, chunk, start, end)
    container, stream = open_stream(source)
    try:
        return VideoReader(container, stream, os.fspath(source), sampling)
    except BaseException:
        container.close()
        raise


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
        The path as it was given.
    frames_decoded, frames_read : int
        Frames decoded so far, and frames taken of them by the sampling rule and handed out.
    """

    def __init__(
        self,
        container: InputContainer,
        stream: VideoStream,
        source: str,
        sampling: Sampling,
    ) -> None:
        self.source = source
        self.frames_decoded = self.frames_read = 0
        self._container = container
        self._closed = self._exhausted = False
        self._sampling = sampling
        self._ticks = Ticks(sampling.fps)
        self._time_base = stream.time_base or Fraction(1, av.time_base)
        self._step = frame_step(stream)
        self._clock = Clock(start_seconds(stream), self._step)
        self._losses = Losses()
        self._resized = False
        self._ending: str | None = None
        self._promised = promised_seconds(container, stream)
        self._decoded = self._decode(Decoder(container, stream, self._losses))
        self._first = next(self._decoded, None)  # the display matrix comes with the frames
        if self._first is None:
            raise VideoError(
                f"{source} holds no frame that can be decoded ({'; '.join(self.warnings) or 'the video is empty'}); "
                "expected at least one. Check that the file plays, or convert it."
            )
        self._orientation = Orientation.of(self._first[0])
        self._size = (self._first[0].width, self._first[0].height)
        self.info = self._describe(stream)
        self._taken = self._take()

    @property
    def lost(self) -> int:
        """Packets and frames that could not be delivered intact so far: undecodable, damaged, or with a wrong time."""
        return self._losses.total + self._clock.backward

    @property
    def warnings(self) -> list[str]:
        """What went wrong so far, one plain sentence each; empty if nothing did."""
        clock, said = self._clock, self._losses.sentences()
        if clock.backward:
            said.append(f"skipped because their times repeat or go back: {counted(clock.backward, 'frame')}")
        if clock.restarts:
            said.append(f"the source's clock was set back {counted(clock.restarts, 'time')}; times go on from before")
        if clock.untimed:
            said.append(
                f"without a presentation time: {counted(clock.untimed, 'frame')}; times follow from the decoding order "
                f"and {float(1 / self._step):g} frames a second"
            )
        if self._resized:
            said.append("the resolution changes on the way; frames are scaled to {} x {}".format(*self._size))
        return said + ([self._ending] if self._ending else [])

    def __iter__(self) -> VideoReader:
        """Return the reader itself: there is one pass over a video."""
        return self

    def __next__(self) -> FrameChunk:
        """Read on until a chunk is full or the video ends.

        Raises
        ------
        VideoError
            If the reader was closed, or the video ended without a single frame to hand out.
        """
        if self._exhausted:
            raise StopIteration
        if self._closed:
            raise VideoError(f"the reader of {self.source} is closed; open the video again with open_video to read it.")
        pictures: list[NDArray[np.uint8]] = []
        seconds: list[float] = []
        try:
            for picture, time in self._taken:
                pictures.append(picture)
                seconds.append(float(time))
                if len(pictures) == self._sampling.chunk:
                    break
            else:
                self._finish(frames=len(pictures))
        except BaseException:  # also Ctrl-C: the generators within are spent, going on would look like an early end
            self.close()
            raise
        if not pictures:
            raise StopIteration
        self.frames_read += len(pictures)
        return FrameChunk(torch.from_numpy(np.stack(pictures)), tuple(seconds), self.source, self.lost)

    def __enter__(self) -> VideoReader:
        """Use the reader as a context manager that closes the file."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._closed = True
        self._first = None
        self._container.close()

    def _decode(self, decoder: Decoder) -> Iterator[tuple[VideoFrame, Fraction]]:
        """Draw every frame whose time goes forward, with its time in seconds from the start of the video."""
        for frame in decoder:
            self.frames_decoded += 1
            pts, dts = (None if stamp is None else stamp * self._time_base for stamp in (frame.pts, frame.dts))
            time = self._clock.read(pts, dts)
            if time is not None:
                yield frame, time

    def _take(self) -> Iterator[tuple[NDArray[np.uint8], Fraction]]:
        """Draw the frames to hand out, converted; only these are."""
        frame_and_time, self._first = self._first, None
        start, end = self._sampling.start, self._sampling.end
        while frame_and_time is not None:
            frame, time = frame_and_time
            if end is not None and time >= end:
                return
            if self._ticks.take(time) and time >= start:
                picture = self._convert(frame)
                if picture is not None:
                    yield picture, time
            frame_and_time = next(self._decoded, None)
        self._ending = self._shortfall(frame)

    def _convert(self, frame: VideoFrame) -> NDArray[np.uint8] | None:
        self._resized = self._resized or (frame.width, frame.height) != self._size
        try:
            return self._orientation.upright(to_rgb(frame, *self._size))
        except av.FFmpegError:
            self._losses.unconverted += 1
            return None

    def _finish(self, frames: int) -> None:
        """End the pass: free the file and see whether there was anything to hand out."""
        self.close()
        if not self.frames_read and not frames:
            start, end = self._sampling.start, self._sampling.end
            until = "" if end is None else f" and before {float(end):g} s"
            raise VideoError(
                f"{self.source} gave no frame at or after {float(start):g} s{until}; the last frame seen is at "
                f"{float(self._clock.last or 0):.3f} s. Choose start and end within the video, or a higher fps."
            )
        self._exhausted = True

    def _shortfall(self, last: VideoFrame) -> str | None:
        """Compare where decoding ended with what the container promised."""
        if self._promised is None or self._clock.last is None:
            return None
        ended = self._clock.last + ((last.duration or 0) * self._time_base or self._step)
        if self._promised - ended <= max(_SHORTFALL, 2 * self._step):
            return None
        return (
            f"cut short: the container promised {float(self._promised):.1f} s, decoding ended at {float(ended):.1f} s"
        )

    def _describe(self, stream: VideoStream) -> VideoInfo:
        width, height = self._size if self._orientation.turns % 2 == 0 else self._size[::-1]
        began = start_seconds(stream)
        return VideoInfo(
            width=width,
            height=height,
            rotation=90 * self._orientation.turns,
            mirrored=self._orientation.mirrored,
            codec=stream.codec_context.name,
            duration=None if self._promised is None else float(self._promised),
            average_rate=None if stream.average_rate is None else float(stream.average_rate),
            start=None if began is None else float(began),
            frames=stream.frames or None,
        )
