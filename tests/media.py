"""Makes the files that the video tests read: numbered pictures at chosen times, and ways to damage a file.

Every picture carries its own number in eight wide grey columns, which survive lossy coding, so that a test can tell
which frame it was given and not only when.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition

WIDTH, HEIGHT = 96, 64
_DARK, _LIGHT = 30, 220


def numbered(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Draw `number` (0 to 255) as eight columns, the lowest bit at the left: uint8 `[height, width, 3]`."""
    picture = np.full((height, width, 3), _DARK, np.uint8)
    for bit in range(8):
        if number >> bit & 1:
            picture[:, bit * width // 8 : (bit + 1) * width // 8] = _LIGHT
    return picture


def number_of(picture: np.ndarray) -> int:
    """Read the number back from a picture `[height, width, 3]`, tolerant of blur at the columns' edges."""
    edges = [bit * picture.shape[1] // 8 for bit in range(9)]
    columns = [picture[:, left + 2 : right - 2].mean() for left, right in pairwise(edges)]
    return sum(1 << bit for bit, grey in enumerate(columns) if grey > (_DARK + _LIGHT) / 2)


def steady(frames: int, rate: int = 30) -> list[Fraction]:
    """Give the times of `frames` frames at a constant rate, in seconds."""
    return [Fraction(index, rate) for index in range(frames)]


def write_video(
    path: Path,
    times: Sequence[Fraction | float],
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    pictures: Sequence[np.ndarray] | None = None,
    start: Fraction | float = 0,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    time_base: Fraction = Fraction(1, 90000),
    rate: int = 30,
    options: dict[str, str] | None = None,
    colorspace: int | None = None,
) -> Path:
    """Write numbered pictures (or `pictures`, RGB or av frames) at `times` + `start` seconds; the suffix is the format.

    An mp4 gets its index at the front, so that a truncated copy can still be opened.
    """
    fast = {"movflags": "faststart"} if path.suffix in (".mp4", ".mov") else {}
    with av.open(str(path), "w", options=fast) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        stream.codec_context.time_base = time_base
        if colorspace is not None:
            stream.codec_context.colorspace = colorspace
            stream.codec_context.color_range = 1
        for index, time in enumerate(times):
            picture = numbered(index, *size) if pictures is None else pictures[index]
            frame = picture if isinstance(picture, av.VideoFrame) else av.VideoFrame.from_ndarray(picture, "rgb24")
            frame = frame.reformat(format=pix_fmt)
            frame.pts, frame.time_base = round((Fraction(time) + Fraction(start)) / time_base), time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_audio(path: Path, *, cover: bool = False, frames: int = 8, rate: int = 16000) -> Path:
    """Write a file that holds silence, and a cover picture if asked, but no moving pictures."""
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=rate)
        if cover:
            picture = container.add_stream("mjpeg", rate=1)
            picture.width, picture.height, picture.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
            picture.disposition = Disposition.attached_pic.value
            container.mux(picture.encode(av.VideoFrame.from_ndarray(numbered(1), "rgb24").reformat(format="yuvj420p")))
            container.mux(picture.encode())
        for index in range(frames):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = rate, index * 1024
            container.mux(sound.encode(frame))
        container.mux(sound.encode())
    return path


def turn(source: Path, target: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Copy an mp4 with another display matrix (a, b, c, d): the point (x, y) is shown at (ax + cy, bx + dy).

    Written into the track header by hand, since not every supported PyAV can set it.
    """
    data = bytearray(source.read_bytes())
    at = data.index(b"tkhd") + 4
    at += 36 + (20 if data[at] == 0 else 32) - 16
    one = 1 << 16
    assert struct.unpack(">9i", data[at : at + 36]) == (one, 0, 0, 0, one, 0, 0, 0, 1 << 30), "not a track header"
    a, b, c, d = (one * value for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    target.write_bytes(data)
    return target


def cut(source: Path, target: Path, share: float) -> Path:
    """Copy the first `share` of a file's bytes."""
    data = source.read_bytes()
    target.write_bytes(data[: int(len(data) * share)])
    return target


def scramble(source: Path, target: Path, begin: float, end: float) -> Path:
    """Copy a file with the bytes between two shares of its length replaced by noise (always the same)."""
    data = bytearray(source.read_bytes())
    first, last = int(len(data) * begin), int(len(data) * end)
    data[first:last] = random.Random(0).randbytes(last - first)
    target.write_bytes(data)
    return target


def packets(path: Path) -> list[bytes]:
    """Read the video packets of a file, as bytes."""
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def spoil(source: Path, target: Path, indices: Sequence[int], begin: float = 0.0, *, noise: bool = False) -> Path:
    """Copy a file with zeros (or noise, always the same) in some video packets, from a share of their length on."""
    data = bytearray(source.read_bytes())
    found = packets(source)
    for index in indices:
        at, last = data.index(found[index]), len(found[index])
        first = int(last * begin)
        data[at + first : at + last] = random.Random(1).randbytes(last - first) if noise else bytes(last - first)
    target.write_bytes(data)
    return target


def restamp(source: Path, target: Path, times_ms: dict[int, int]) -> Path:
    """Copy a one-cluster Matroska file with other times (milliseconds) for some packets, which no muxer would write."""
    data = bytearray(source.read_bytes())
    found = packets(source)
    for index, time in times_ms.items():
        at = data.index(found[index]) - 4
        assert data[at] == 0x81, "not the block of the first track"
        data[at + 1 : at + 3] = struct.pack(">h", time)
    target.write_bytes(data)
    return target
