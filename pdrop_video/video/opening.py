"""`open_video` and `frame_times`: what kind of source it is decides what draws its frames; wrong settings end here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Literal

from ..common.checks import instance, shown, switch, whole
from ..errors import ConfigError, VideoError
from .address import Address, Connection
from .decode import Losses
from .decord_file import DecordFrames
from .drawn import Drawn
from .file import FileFrames, known_times
from .live import LiveFrames
from .reader import VideoReader
from .sampling import Rule, Sampling
from .soundtrack import SoundTrack
from .torchcodec_file import TorchcodecFrames
from .track import Track

_OTHERS: dict[str, Callable[[Address, Connection, Sampling], Drawn]] = {
    "decord": DecordFrames,
    "torchcodec": TorchcodecFrames,
}
DECODERS = ("pyav", *_OTHERS)
"""What decodes, by name."""
_HEARD = 16_000
"""Samples a second that models hear."""


def open_video(
    source: str | os.PathLike[str],
    fps: float | None = 2.0,
    chunk: int = 8,
    *,
    start: float | None = None,
    end: float | None = None,
    frames: int | None = None,
    at: Iterable[float] | Rule | None = None,
    decoder: Literal["pyav", "decord", "torchcodec"] = "pyav",
    ahead: int = 1,
    policy: Literal["block", "latest"] | None = None,
    format: str | None = None,
    protocols: str | None = None,
    connection: Connection | None = None,
    sound: bool | int = False,
    motion: bool = False,
) -> VideoReader:
    """Open a video file, a stream on the network or a camera for reading in chunks of sampled frames.

    Parameters
    ----------
    source : str or path
        A file in any format that FFmpeg reads; an address that begins with http, https, rtsp, rtsps, rtmp, rtmps, tcp
        or udp and "://"; or a camera: /dev/video0 and the like, or a device's name together with `format`. FFmpeg's
        other protocols (`file:`, `concat:`, `data:`, ...) are never understood. A numbered series of pictures goes by
        its pattern, "shots/%03d.png", together with `format="image2"`.
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
    at : iterable of float, callable or None
        Take the frame on screen at each of these seconds instead, each frame at most once. A function is given the
        times of all frames, as fractions of a second, and returns those to take: any rule on indices.
    decoder : {"pyav", "decord", "torchcodec"}
        What decodes. PyAV reads the most kinds, uses least memory and reports damage. torchcodec reads files alone,
        and decodes on a CUDA card where there is one; the frames stay there. decord reads files alone, in a process of
        its own, and is there for comparison.
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
    sound : bool or int
        Whether chunks carry their sound, from their first frame up to the first of the next, for models that hear: of
        one channel, at the 16,000 samples a second that they hear, or at so many. Of files, read with PyAV.
    motion : bool
        Whether chunks carry what the video's codec says of motion, over every frame decoded since the one handed out
        before, for gates that use it; see `Motion`. The frames are the same. Read with PyAV; of codecs that export no
        vectors (all but H.264 and the MPEG family before it) nothing but their I-frames is known.

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

    The middle frame of each of eight equal parts, by index:

    >>> def middles(times):
    ...     return [times[int((part + 0.5) * len(times) / 8)] for part in range(8)]
    >>> video = open_video("match.mp4", at=middles)  # doctest: +SKIP
    """
    sampling = Sampling.of(fps, chunk, start, end, frames, at)
    _check(decoder, ahead, policy)
    address = Address.of(source, format, protocols)
    patience = Connection() if connection is None else instance("connection", connection, Connection, "Connection()")
    rate = _rate(sound, decoder)
    if switch("motion", motion) and decoder != "pyav":
        raise ConfigError(f"motion vectors are read with decoder='pyav' alone; leave decoder={decoder!r} out.")
    drawn = _open(address, patience, sampling, decoder, motion)
    latest = isinstance(drawn, LiveFrames) if policy is None else policy == "latest"
    try:
        track = None if rate is None else _sound(drawn, address, patience, rate, latest=latest)
    except BaseException:
        drawn.close()
        raise
    return VideoReader(drawn, address.name, sampling, ahead=ahead, latest=latest, sound=track)


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
    >>> times = frame_times("match.mp4")  # doctest: +SKIP
    >>> print(f"{len(times)} frames up to {times[-1]:.2f} s")  # doctest: +SKIP
    """
    address, connection = Address.of(source, protocols=protocols), Connection()
    track = Track(address, connection, Losses())
    try:
        if _is_live(address, track):
            raise VideoError(f"{address.name} has no end that is known; expected a file, or the address of one.")
        return tuple(float(time) for time in known_times(address, connection, track.index())[0])
    finally:
        track.close()


def _open(address: Address, connection: Connection, sampling: Sampling, decoder: str, motion: bool) -> Drawn:
    if decoder != "pyav":
        return _OTHERS[decoder](address, connection, sampling)
    track = Track(address, connection, Losses(), motion)
    try:
        if not _is_live(address, track):
            return FileFrames(track, address, connection, sampling, motion)
        if sampling.picks:
            raise ConfigError(
                f"frames and at choose among the frames of a video whose end is known; {address.name} is live, or does "
                "not say how long it is. Use fps, or download it first."
            )
        return LiveFrames(track, address, connection, sampling, motion)
    except BaseException:
        track.close()
        raise


def _rate(sound: object, decoder: str) -> int | None:
    """Samples a second of the sound that is wanted; None for none."""
    if sound is False:
        return None
    if decoder != "pyav":
        raise ConfigError(f"sound is read with decoder='pyav' alone; leave decoder={decoder!r} out.")
    return _HEARD if sound is True else whole("sound", sound, 1000, 10**6)


def _sound(drawn: Drawn, address: Address, connection: Connection, rate: int, *, latest: bool) -> SoundTrack:
    if not isinstance(drawn, FileFrames):
        raise ConfigError(
            f"sound is read from files alone, and {address.name} is live; leave sound out, or push frames "
            "with sound of your own."
        )
    if latest:
        raise ConfigError("with sound no frames can be dropped; leave policy='latest' out.")
    return SoundTrack(address, connection, rate, drawn.origin)


def _is_live(address: Address, track: Track) -> bool:
    return address.kind != "file" and not track.ends


def _check(decoder: object, ahead: object, policy: object) -> None:
    if not isinstance(decoder, str) or decoder not in DECODERS:
        raise ConfigError(f"decoder is {shown(decoder)}; expected one of {', '.join(map(repr, DECODERS))}.")
    whole("ahead", ahead, 0)
    if policy is not None and (not isinstance(policy, str) or policy not in ("block", "latest")):
        raise ConfigError(f"policy is {shown(policy)}; expected 'block', 'latest' or None.")
