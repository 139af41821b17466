"""Opening a file: which stream is the video, what does the container promise, and what is wrong with it.

Everything that can be said before the first frame is decoded is said here. This module decodes nothing.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from ..errors import VideoError

# FFmpeg shows text files as films of a terminal; nobody who passes a text file means that.
_TEXT_FORMATS = frozenset({"tty", "bin", "xbin", "adf", "idf"})
_FALLBACK_RATE = Fraction(25)


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What is known of a video once its first frame is decoded.

    Attributes
    ----------
    width, height : int
        Size in pixels of the frames that are handed out, that is after turning them upright.
    rotation : int
        Degrees counter-clockwise by which stored frames are turned: 0, 90, 180 or 270.
    mirrored : bool
        Whether frames are flipped left to right after turning.
    codec : str
        Name of the decoder, such as "h264".
    duration : float or None
        Seconds that the container promises, counted from the stream's start; None if it promises nothing.
    average_rate : float or None
        Frames a second on average, as the container states it. Times are never computed from it.
    start : float or None
        The stream's start time on the container's own scale, in seconds; a frame's `seconds` count from here. None if
        the container does not state it: the first frame's time serves then.
    frames : int or None
        Number of frames that the container promises; None if it promises none.
    """

    width: int
    height: int
    rotation: int
    mirrored: bool
    codec: str
    duration: float | None
    average_rate: float | None
    start: float | None
    frames: int | None


def open_stream(source: str | os.PathLike[str]) -> tuple[InputContainer, VideoStream]:
    """Open a video file and choose its video stream.

    Parameters
    ----------
    source : str or path
        A file. The path is never taken for a network address, and FFmpeg lets a playlist in a file open files only.

    Returns
    -------
    tuple of InputContainer and VideoStream
        The container, for the caller to close, and its video stream.

    Raises
    ------
    VideoError
        If the file is missing, a folder, empty, not a video, without a video stream or in an unknown codec.
    """
    path = _existing_file(source)
    try:
        container = av.open(str(path), mode="r", metadata_errors="replace")
    except (av.FFmpegError, ValueError) as error:
        raise VideoError(
            f"{path} cannot be opened as a video ({error}). Expected a video file such as mp4, mkv, webm, mov, avi or "
            "ts; an mp4 that was cut off before its index was written must be repaired or recorded again."
        ) from error
    try:
        return container, _video_stream(container, path)
    except BaseException:
        container.close()
        raise


def _existing_file(source: str | os.PathLike[str]) -> Path:
    if not isinstance(source, str | os.PathLike):
        raise VideoError(
            f"the source is a {type(source).__name__}; expected the path of a video file. Frames that are already in "
            "memory need no reader: push them to the stream with their seconds."
        )
    if "\0" in os.fspath(source) or not os.fspath(source):
        raise VideoError(f"the source is {os.fspath(source)!r}; expected the path of a video file.")
    # An absolute path cannot be mistaken for one of FFmpeg's protocols ("concat:", "http:").
    path = Path(source).absolute()
    if not path.exists():
        raise VideoError(f"there is no file {path}; expected an existing video file. Check the path.")
    if path.is_dir():
        raise VideoError(f"{path} is a folder; expected a video file. Name one of the files in it.")
    if path.is_file() and path.stat().st_size == 0:
        raise VideoError(f"{path} is empty (0 bytes); expected a video file. Was the copy or download finished?")
    return path


def _video_stream(container: InputContainer, path: Path) -> VideoStream:
    if container.format.name in _TEXT_FORMATS:
        raise VideoError(f"{path} holds text or plain bytes; expected a video file.")
    # A music file's cover picture counts as a video stream in FFmpeg.
    moving = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not moving:
        kinds = {"cover picture" if stream.type == "video" else stream.type for stream in container.streams}
        found = ", ".join(sorted(kinds)) or "nothing at all"
        raise VideoError(f"{path} has no moving pictures, only: {found}; expected a file with a video stream.")
    best = container.streams.best("video")
    stream = next((stream for stream in moving if best is not None and stream.index == best.index), moving[0])
    if stream.codec_context is None:
        raise VideoError(
            f"{path} holds a video in a codec that the installed PyAV cannot decode; expected for instance H.264, "
            "HEVC, VP9, AV1 or MPEG-4. Convert the file, or install a PyAV with that decoder."
        )
    return stream


def start_seconds(stream: VideoStream) -> Fraction | None:
    """Give the stream's start time in seconds on the container's scale, or None."""
    if stream.start_time is None or stream.time_base is None:
        return None
    return stream.start_time * stream.time_base


def frame_step(stream: VideoStream) -> Fraction:
    """Give the usual time between two frames in seconds, for frames that come without a time."""
    rate = stream.average_rate or stream.guessed_rate or _FALLBACK_RATE
    return 1 / rate if rate > 0 else 1 / _FALLBACK_RATE


def promised_seconds(container: InputContainer, stream: VideoStream) -> Fraction | None:
    """Give the seconds of video that the container promises from the stream's start, or None."""
    if stream.duration is not None and stream.time_base is not None:
        return stream.duration * stream.time_base
    if "matroska" not in container.format.name:
        return None if container.duration is None else Fraction(container.duration, av.time_base)
    # Matroska states when things end, counted from 0: for each stream in a tag, else for the whole file.
    end = _clock_time(stream.metadata.get("DURATION", ""))
    if end is None and container.duration is not None:
        end = Fraction(container.duration, av.time_base)
    return None if end is None else end - (start_seconds(stream) or 0)


def _clock_time(text: str) -> Fraction | None:
    """Read "00:01:02.500000000" as seconds; None for anything else."""
    try:
        hours, minutes, seconds = text.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)
    except ValueError:
        return None
