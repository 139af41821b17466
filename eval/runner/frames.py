"""The frames of one viewing of a video: by rate or by a benchmark's rule for N frames, decoded once and kept on disk.

Knows files and times. Refuses to know models and questions.
"""

from __future__ import annotations

import io
import json
import re
import sqlite3
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from functools import partial
from itertools import islice
from pathlib import Path

import diskcache
import numpy as np
import torch

import pdrop_video as pv
from pdrop_video.video import Motion

from ..stats.record import digest
from .sampling import RULES

_TOLD = tuple(field.name for field in fields(Motion))
_INSTANT = 1e-5
"""Seconds: less than any two frames lie apart, more than times in floats are off."""


@dataclass(frozen=True, slots=True)
class Viewing:
    """What of a video is watched.

    Attributes
    ----------
    path : Path
    start, end : float and float or None
        Frames with ``start <= seconds <= end``; None for the video's end.
    fps : float or None
        Frames a second; or
    frames, rule : int or None, str
        so many, chosen by a rule in `eval.runner.sampling.RULES`.
    chunk : int
        Frames a chunk.
    motion : bool
        Whether chunks carry what the codec says of motion, for gates that use it.
    pictures : float
        Frames a second where the path is a folder of numbered pictures, the first of which is at 0 s.
    """

    path: Path
    start: float
    end: float | None
    fps: float | None
    frames: int | None
    rule: str
    chunk: int
    motion: bool = False
    pictures: float = 1.0


class Frames:
    """Hands out viewings, chunk by chunk; with a folder, decoded frames are kept there for the next time.

    Parameters
    ----------
    folder : Path or None
        May be shared by several processes.
    gigabytes : float
        Size of the folder at most; what was used least recently goes first.

    Raises
    ------
    ConfigError
        If nothing can be kept in the folder.
    """

    def __init__(self, folder: Path | None = None, gigabytes: float = 50.0) -> None:
        self._cache: diskcache.Cache | None = None
        if folder is not None:
            limit = int(gigabytes * 2**30)
            try:
                self._cache = diskcache.Cache(str(folder), size_limit=limit, eviction_policy="least-recently-used")
            except (OSError, sqlite3.Error) as error:
                raise pv.ConfigError(
                    f"{folder} can't hold decoded frames ({error}); choose another --cache."
                ) from error

    def __call__(self, viewing: Viewing) -> Iterator[pv.FrameChunk]:
        """Draw the chunks of a viewing.

        Raises
        ------
        VideoError
            If the video can't be read.
        """
        if self._cache is None:
            yield from _decoded(viewing)
            return
        name, done = _name(viewing), 0
        count = int(self._cache.get(name) or 0)
        for chunk in self._kept(name, count):
            yield chunk
            done += 1
        if done < count or not count:
            yield from islice(self._keeping(name, _decoded(viewing)), done, None)

    def _kept(self, name: str, count: int) -> Iterator[pv.FrameChunk]:
        """The chunks of a whole viewing, read one by one, up to the first that is not there any more."""
        assert self._cache is not None
        for number in range(count):
            data = self._cache.get(f"{name}/{number}")
            if data is None:
                return
            yield _unpacked(data)

    def _keeping(self, name: str, chunks: Iterator[pv.FrameChunk]) -> Iterator[pv.FrameChunk]:
        assert self._cache is not None
        count = 0
        for chunk in chunks:
            self._cache.set(f"{name}/{count}", _packed(chunk))
            count += 1
            yield chunk
        self._cache.set(name, str(count))  # last: a viewing that was broken off has no count


def _name(viewing: Viewing) -> str:
    """A viewing's name in the cache; another file at the same path has another name."""
    try:
        stat = viewing.path.stat()
    except OSError:  # opening it will say what is wrong
        return "missing"
    what = (viewing.start, viewing.end, viewing.fps, viewing.frames, viewing.rule, viewing.chunk)
    more: tuple[object, ...] = ("motion",) if viewing.motion else ()  # what was kept without it keeps its name
    if viewing.path.is_dir():
        more = (*more, viewing.pictures)
    return digest(str(viewing.path.absolute()), stat.st_size, stat.st_mtime_ns, *what, *more)


def _packed(chunk: pv.FrameChunk) -> bytes:
    buffer = io.BytesIO()
    header = json.dumps({"seconds": chunk.seconds, "source": chunk.source, "lost": chunk.lost}).encode()
    told = {} if chunk.motion is None else {name: getattr(chunk.motion, name).numpy() for name in _TOLD}
    np.savez(buffer, frames=chunk.frames.numpy(), header=np.frombuffer(header, np.uint8), **told)
    return buffer.getvalue()


def _unpacked(data: bytes) -> pv.FrameChunk:
    with np.load(io.BytesIO(data)) as stored:
        header = json.loads(stored["header"].tobytes())
        told = [torch.from_numpy(stored[name]) for name in _TOLD if name in stored]
        motion = Motion(*told) if told else None
        return pv.FrameChunk.of(stored["frames"], header["seconds"], header["source"], header["lost"], motion=motion)


def _decoded(viewing: Viewing) -> Iterator[pv.FrameChunk]:
    opened = partial(pv.open_video, viewing.path, chunk=viewing.chunk, motion=viewing.motion)
    if viewing.path.is_dir():
        opened = _series(viewing)
    if viewing.frames is not None:
        reader = opened(at=partial(chosen, viewing))
    else:
        end = None if viewing.end is None else viewing.end + _INSTANT  # the frame at `end` is seen
        reader = opened(fps=viewing.fps, start=viewing.start, end=end)
    with reader:
        yield from reader


def _series(viewing: Viewing) -> partial[pv.video.VideoReader]:
    """How a folder of numbered pictures is opened, such as 00001.jpg, 00002.jpg, ...

    Raises
    ------
    VideoError
        If there is none in it.
    """
    numbered = [
        path for path in viewing.path.iterdir() if re.fullmatch(r"\d+\.(?:jpe?g|png)", path.name, re.IGNORECASE)
    ]
    if not numbered:
        raise pv.VideoError(f"{viewing.path} holds no numbered pictures, such as 00001.jpg; was it unpacked whole?")
    first = min(numbered, key=lambda path: int(path.stem))
    options = {"framerate": f"{viewing.pictures:g}", "start_number": str(int(first.stem))}
    return partial(
        pv.open_video,
        viewing.path / f"%0{len(first.stem)}d{first.suffix}",
        chunk=viewing.chunk,
        format="image2",
        connection=pv.video.Connection(options=options),
    )


def chosen(viewing: Viewing, times: Sequence[Fraction]) -> list[Fraction]:
    """The times of the N frames that the viewing's rule takes, out of those of all frames, in seconds.

    Raises
    ------
    VideoError
        If the video has no frame in that part.
    """
    assert viewing.frames is not None
    end = times[-1] if viewing.end is None else viewing.end
    first, behind = bisect_left(times, viewing.start - _INSTANT), bisect_right(times, end + _INSTANT)
    if first == behind:
        raise pv.VideoError(
            f"{viewing.path} has no frame between {viewing.start:g} and {float(end):g} s; its last one is at "
            f"{float(times[-1]):g} s."
        )
    step = times[-1] / max(len(times) - 1, 1)
    lasts = float(times[behind - 1] - times[first] + step)
    return [times[first + index] for index in RULES[viewing.rule](behind - first, viewing.frames, lasts)]
