"""`Album`: small pictures of what a stream watched, and how large its cache was, in bounded room.

A stream keeps tokens, not frames; whoever wants to see which places of a frame are still remembered keeps an album
beside it. Knows frames and token tables. Refuses to know how anything is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ..errors import StreamError
from ..video import FrameChunk
from .subjects import Watched

_DIMMED = 0.18
"""Brightness of a place whose token was dropped."""


@dataclass(frozen=True, slots=True)
class Overlay:
    """One step of time as one stage remembers it.

    Attributes
    ----------
    seconds : float
        The moment.
    stage : int
        Counted from 0, shallow to deep.
    layers : tuple of int
        First and last decoder layer of the stage.
    kept, entered : int
        Visual tokens of the moment that the stage still remembers, and all that entered the model.
    picture : NDArray [height, width, 3] of uint8
        The frame; places that are no longer remembered are dark.
    """

    seconds: float
    stage: int
    layers: tuple[int, int]
    kept: int
    entered: int
    picture: NDArray[np.uint8]


@dataclass(slots=True)
class _Page:
    seconds: float
    picture: NDArray[np.uint8]
    grid: tuple[int, int]


@dataclass(slots=True)
class Album:
    """A picture for each step of time, thinned out evenly once there are too many.

    Parameters
    ----------
    most : int
        Pictures kept; the room is that many times the size of one. When it is full, every second one goes.
    side : int
        Longest side of a picture, in pixels.

    Attributes
    ----------
    history : list of tuple of float and int
        After each push: seconds of the last frame, and bytes of the cache then; thinned out in the same way.

    Examples
    --------
    >>> album = Album()
    >>> for chunk in video:  # doctest: +SKIP
    ...     stream.push(chunk)
    ...     album.add(stream, chunk)
    """

    most: int = 256
    side: int = 320
    history: list[tuple[float, int]] = field(default_factory=list)
    _pages: list[_Page] = field(default_factory=list)
    _frames: int = 0
    _steps: int = 0
    _every: int = 1
    _pushes: int = 0
    _history_every: int = 1
    _grids: dict[tuple[int, ...], tuple[int, int]] = field(default_factory=dict)

    def add(self, stream: Watched, chunk: FrameChunk) -> None:
        """Take pictures of a chunk that was just pushed.

        Parameters
        ----------
        stream : VideoStream
        chunk : FrameChunk
        """
        step = stream.lm.adapter.frames_per_step
        for frame, seconds in zip(chunk.frames, chunk.seconds, strict=True):
            if self._frames % step == 0:
                if self._steps % self._every == 0:
                    self._pages.append(_Page(seconds, _small(frame, self.side), self._grid(stream, frame)))
                self._steps += 1
            self._frames += 1
        if self._pushes % self._history_every == 0:
            self.history.append((chunk.seconds[-1], stream.cache_bytes))
        self._pushes += 1
        while len(self._pages) > self.most:
            self._pages, self._every = self._pages[::2], self._every * 2
        while len(self.history) > 4 * self.most:
            self.history, self._history_every = self.history[::2], self._history_every * 2

    @property
    def seconds(self) -> tuple[float, ...]:
        """The moments of which there is a picture."""
        return tuple(page.seconds for page in self._pages)

    def at(self, stream: Watched, seconds: float) -> list[Overlay]:
        """The picture nearest to a moment, once for each stage with layers, with what it has forgotten made dark.

        Parameters
        ----------
        stream : VideoStream
        seconds : float

        Raises
        ------
        StreamError
            If there is no picture yet.
        """
        if not self._pages:
            raise StreamError("the album is empty; add each chunk after it was pushed.")
        page = min(self._pages, key=lambda page: abs(page.seconds - seconds))
        overlays = []
        for stage, span in enumerate(stream.loop.schedule.spans):
            if not span:
                continue
            table = stream.held(stage)
            here = table.visual & (table.seconds == torch.tensor(page.seconds, dtype=table.seconds.dtype))
            light = np.zeros(page.grid, bool)
            light[table.row[here].cpu().numpy(), table.column[here].cpu().numpy()] = True
            overlays.append(
                Overlay(
                    seconds=page.seconds,
                    stage=stage,
                    layers=(span[0], span[-1]),
                    kept=int(light.sum()),
                    entered=light.size,
                    picture=_dimmed(page.picture, light),
                )
            )
        return overlays

    def _grid(self, stream: Watched, frame: torch.Tensor) -> tuple[int, int]:
        """Rows and columns of visual tokens that the model makes of such a frame."""
        size = tuple(frame.shape)
        if size not in self._grids:
            blank = torch.zeros(stream.lm.adapter.frames_per_step, *size, dtype=torch.uint8)
            _, (_, rows, columns) = stream.lm.adapter.preprocess(blank)
            self._grids[size] = rows, columns
        return self._grids[size]


def _small(frame: torch.Tensor, side: int) -> NDArray[np.uint8]:
    picture = Image.fromarray(frame.cpu().numpy())
    picture.thumbnail((side, side))
    return np.asarray(picture)


def _dimmed(frame: NDArray[np.uint8], light: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """A frame [height, width, 3] with all places dark but those where `light` [rows, columns]."""
    height, width = frame.shape[:2]
    down = np.arange(height) * light.shape[0] // height
    across = np.arange(width) * light.shape[1] // width
    bright = np.where(light[np.ix_(down, across)], 1.0, _DIMMED)
    return (frame * bright[..., None]).astype(np.uint8)
