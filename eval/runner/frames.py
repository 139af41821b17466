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
from pdrop_video.video import Motion, VideoReader

from ..stats.record import digest
from .sampling import BY_RATE, RULES, at_rate

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

    Attributes
    ----------
    warnings : list of str
        What was wrong with the file of the latest viewing so far, one sentence each; empty if nothing was.

    Raises
    ------
    ConfigError
        If nothing can be kept in the folder.
    """

    def __init__(self, folder: Path | None = None, gigabytes: float = 50.0) -> None:
        self._cache: diskcache.Cache | None = None
        self.warnings: list[str] = []
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
        self.warnings = []
        if self._cache is None:
            yield from self._decoded(viewing)
            return
        name, done = _name(viewing), 0
        count, final = json.loads(self._cache.get(name) or "[0, []]")
        for chunk in self._kept(name, count):
            yield chunk
            done += 1
        if done < count or not count:
            yield from islice(self._keeping(name, self._decoded(viewing)), done, None)
        else:
            self.warnings = final

    def _kept(self, name: str, count: int) -> Iterator[pv.FrameChunk]:
        """The chunks of a whole viewing, read one by one, up to the first that is not there any more."""
        assert self._cache is not None
        for number in range(count):
            data = self._cache.get(f"{name}/{number}")
            if data is None:
                return
            chunk, self.warnings = _unpacked(data)
            yield chunk

    def _keeping(self, name: str, chunks: Iterator[pv.FrameChunk]) -> Iterator[pv.FrameChunk]:
        assert self._cache is not None
        count = 0
        for chunk in chunks:
            self._cache.set(f"{name}/{count}", _packed(chunk, self.warnings))
            count += 1
            yield chunk
        self._cache.set(name, json.dumps([count, self.warnings]))  # last: a viewing that was broken off has no count

    def _decoded(self, viewing: Viewing) -> Iterator[pv.FrameChunk]:
        with _opened(viewing) as reader:
            last = 0.0
            for chunk in reader:
                self.warnings, last = reader.warnings, chunk.seconds[-1]
                yield chunk
            self.warnings = [*reader.warnings, *_missing(viewing, reader.info.duration, last)]


def _opened(viewing: Viewing) -> VideoReader:
    opened = partial(pv.open_video, viewing.path, chunk=viewing.chunk, motion=viewing.motion)
    if viewing.path.is_dir():
        opened = _series(viewing)
    if viewing.frames is not None:
        return opened(at=partial(chosen, viewing))
    end = None if viewing.end is None else viewing.end + _INSTANT  # the frame at `end` is seen
    return opened(fps=viewing.fps, start=viewing.start, end=end)


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
        Path(str(viewing.path).replace("%", "%%")) / f"%0{len(first.stem)}d{first.suffix}",
        chunk=viewing.chunk,
        format="image2",
        connection=pv.video.Connection(options=options),
    )


def _missing(viewing: Viewing, duration: float | None, last: float) -> list[str]:
    """A sentence where a part that ends before the video does has no frames near its end."""
    if viewing.fps is None or viewing.end is None or duration is None:
        return []
    end = min(viewing.end, duration)
    return [f"no frame behind {last:g} s, in a part up to {end:g} s"] if end - last > 1 / viewing.fps + 1 else []


def _name(viewing: Viewing) -> str:
    """A viewing's name in the cache; another file at the same path has another name."""
    try:
        stat = viewing.path.stat()
    except OSError:  # opening it will say what is wrong
        return "missing"
    what = (viewing.start, viewing.end, viewing.fps, viewing.frames, viewing.rule, viewing.chunk)
    more: tuple[object, ...] = ("motion",) if viewing.motion else ()
    if viewing.path.is_dir():
        more = (*more, viewing.pictures)
    return digest("with warnings", str(viewing.path.absolute()), stat.st_size, stat.st_mtime_ns, *what, *more)


def _packed(chunk: pv.FrameChunk, warnings: Sequence[str]) -> bytes:
    buffer = io.BytesIO()
    told = {"seconds": chunk.seconds, "source": chunk.source, "lost": chunk.lost, "warnings": warnings}
    header = json.dumps(told).encode()
    motion = {} if chunk.motion is None else {name: getattr(chunk.motion, name).numpy() for name in _TOLD}
    np.savez(buffer, frames=chunk.frames.numpy(), header=np.frombuffer(header, np.uint8), **motion)
    return buffer.getvalue()


def _unpacked(data: bytes) -> tuple[pv.FrameChunk, list[str]]:
    with np.load(io.BytesIO(data)) as stored:
        header = json.loads(stored["header"].tobytes())
        told = [torch.from_numpy(stored[name]) for name in _TOLD if name in stored]
        motion = Motion(*told) if told else None
        frames, seconds = stored["frames"], header["seconds"]
        chunk = pv.FrameChunk.of(frames, seconds, header["source"], header["lost"], motion=motion)
        return chunk, header["warnings"]


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
    total, step = behind - first, times[-1] / max(len(times) - 1, 1)
    lasts = float(times[behind - 1] - times[first] + step)
    if viewing.rule in BY_RATE and viewing.end is not None:
        lasts = viewing.end - viewing.start
        with pv.open_video(viewing.path) as reader:
            total = at_rate(total, lasts, reader.info.average_rate or float(1 / step))
    return [times[first + index] for index in RULES[viewing.rule](total, viewing.frames, lasts)]
