"""Opening a source: which stream is the video, what does the container promise, and what is wrong with it.

Everything that can be said before the first frame is decoded is said here. This module decodes nothing.
"""

from __future__ import annotations

import errno
import math
import time
from dataclasses import dataclass
from fractions import Fraction

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from ..errors import VideoError
from .address import Address, Connection

# FFmpeg shows text files as films of a terminal; nobody who passes a text file means that.
_TEXT_FORMATS = frozenset({"tty", "bin", "xbin", "adf", "idf"})
# Formats that hold no pictures but name other files or servers.
_PLAYLISTS = frozenset({"hls", "concat", "dash", "sdp", "imf", "applehttp"})
_FALLBACK_RATE = Fraction(25)
# Frames a second above which a stated rate is a unit of time that was taken for one.
_MOST_RATE = 1000


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


def open_stream(address: Address, connection: Connection | None = None) -> tuple[InputContainer, VideoStream]:
    """Open a source and choose its video stream.

    Parameters
    ----------
    address : Address
        Where to read from.
    connection : Connection or None
        How long to wait for a source that is no file.

    Returns
    -------
    tuple of InputContainer and VideoStream
        The container, for the caller to close, and its video stream.

    Raises
    ------
    VideoError
        If it cannot be reached in time, is not a video, has no video stream or one in an unknown codec.
    """
    patience = connection or Connection()
    begun = time.monotonic()
    options = _options(address, patience)
    try:
        try:
            container = _open(address, patience, options)
        except av.FFmpegError as error:
            if error.errno != errno.EIO or address.kind != "url":
                raise
            # What ends while its format is being guessed and never said its length: guess from the first few bytes.
            container = _open(address, patience, {"formatprobesize": "2048"} | options)
    except (av.FFmpegError, ValueError) as error:
        # Many a format takes the interruption for the end of the data and complains about that.
        late = address.kind != "file" and time.monotonic() - begun >= patience.connect_timeout
        raise VideoError(_not_opened(address, patience, error, late)) from error
    try:
        if address.kind == "file" and not address.playlists and container.format.name in _PLAYLISTS:
            raise VideoError(
                f"{address.name} is a list of other files to open ({container.format.name}); expected a video file. If "
                "the list can be trusted, say what it may open: protocols='file' for files."
            )
        return container, _video_stream(container, address.name)
    except BaseException:
        container.close()
        raise


def _open(address: Address, patience: Connection, options: dict[str, str]) -> InputContainer:
    return av.open(
        address.url,
        mode="r",
        format=address.format,
        options=options,
        metadata_errors="replace",
        timeout=None if address.kind == "file" else (patience.connect_timeout, patience.read_timeout),
    )


def _options(address: Address, patience: Connection) -> dict[str, str]:
    """Give FFmpeg's options; the caller's own come last and win, but for the protocols."""
    options: dict[str, str] = {}
    if address.kind == "file" and address.format is None:
        options["pattern_type"] = "none"  # a picture named "take%02d.png" is that file, and no numbered series
    if address.url.lower().startswith("http"):
        # FFmpeg itself goes on where a file's download broke off; a live source is opened anew by the reader.
        options |= {"reconnect": "1", "reconnect_delay_max": str(math.ceil(patience.longest_wait))}
    if address.url.lower().startswith("rtsp"):
        options["rtsp_transport"] = "tcp"  # lost datagrams would smear the picture until the next keyframe
    options |= patience.options
    if address.protocols:
        options["protocol_whitelist"] = address.protocols
    return options


def _not_opened(address: Address, patience: Connection, error: Exception, late: bool) -> str:
    # FFmpeg's message repeats the whole address, password included.
    reason = getattr(error, "strerror", None) or type(error).__name__
    if address.kind == "file":
        return (
            f"{address.url} cannot be opened as a video ({reason}). Expected a video file such as mp4, mkv, webm, mov, "
            "avi or ts; an mp4 that was cut off before its index was written must be repaired or recorded again."
        )
    if late:
        reason = f"no answer within {patience.connect_timeout:g} s"
    what = "device" if address.kind == "device" else "address"
    return (
        f"{address.name} cannot be opened as a video ({reason}). Expected the {what} of a camera, a stream or a video "
        "file; check that it can be reached from here and that nothing else holds it."
    )


def _video_stream(container: InputContainer, path: str) -> VideoStream:
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
    return 1 / rate if 0 < rate <= _MOST_RATE else 1 / _FALLBACK_RATE


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


def has_end(container: InputContainer, promised: Fraction | None) -> bool:
    """Whether the source ends: it promises how long it lasts, or is so many bytes and no list of others."""
    return promised is not None or (container.size > 0 and container.format.name not in _PLAYLISTS)


def _clock_time(text: str) -> Fraction | None:
    """Read "00:01:02.500000000" as seconds; None for anything else."""
    try:
        hours, minutes, seconds = text.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)
    except ValueError:
        return None
