"""`Album`: small pictures of what a stream watched, and how large its cache was, in bounded room.

A stream keeps tokens, not frames; whoever wants to see which places of a frame are still remembered keeps an album
beside it. Knows frames and token tables. Refuses to know how anything is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ..errors import StreamError
from ..memory import TokenTable
from ..video import FrameChunk
from .painting import Fate, paint
from .subjects import SiftedStep, Watched


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
        Visual tokens of the moment that the stage still remembers, and as many as the vision tower makes of its
        picture: all that entered the model, where no gate or reducer left some out.
    picture : NDArray [height, width, 3] of uint8
        The frame; places that are not remembered, or never entered the model, are dark, and what a gate or a reducer
        did stands around them (`plots.paint`).
    span : tuple of float or None
        The time of the step whose tokens these are, and up to when it stands for what was to be seen. Behind a gate it
        may have begun before the moment. None where nothing of it is remembered.
    """

    seconds: float
    stage: int
    layers: tuple[int, int]
    kept: int
    entered: int
    picture: NDArray[np.uint8]
    span: tuple[float, float] | None
    fates: NDArray[np.uint8]
    members: NDArray[np.int64]
    skipped: bool
    source: float | None

    def count(self, *fates: Fate) -> int:
        """How many of its places came to that."""
        return int(np.isin(self.fates, fates).sum())


@dataclass(frozen=True, slots=True)
class _Entered:
    """What of a step entered the model, on the host."""

    members: NDArray[np.int64]
    worth: NDArray[np.bool_]
    merged: NDArray[np.bool_]

    @classmethod
    def of(cls, step: SiftedStep, grid: tuple[int, int]) -> _Entered | None:
        """None where it is not of that grid."""
        members, worth, merged = (
            np.full(grid, usual) if each is None else each.cpu().numpy()
            for each, usual in ((step.members, 1), (step.worth, True), (step.merged, False))
        )
        return cls(members, worth, merged) if members.shape == worth.shape == grid else None


@dataclass(slots=True)
class _Page:
    seconds: float
    last: float
    picture: NDArray[np.uint8]
    grid: tuple[int, int]
    skipped: bool = False
    source: float | None = None  # the time of the frame that stands for it, or its own
    begun: float | None = None
    entered: _Entered | None = None

    def became(self, light: NDArray[np.bool_], waits: bool) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """What became of its places, of which some are remembered [rows, columns], and of how many each is a mean."""
        entered = self.entered
        if entered is None:  # in a stream that was saved, or between pushes that this album did not see
            lost = Fate.WAITS if waits else Fate.FORGOTTEN
            return np.where(light, Fate.KEPT, lost).astype(np.uint8), np.ones(self.grid, np.int64)
        fates = np.where(entered.members > 0, Fate.FORGOTTEN, Fate.LEFT_OUT)
        fates[entered.merged] = Fate.MERGED
        fates[~entered.worth] = Fate.NOT_WORTH
        fates = np.where(light, np.where(entered.members > 1, Fate.MEAN, Fate.KEPT), fates)
        return fates.astype(np.uint8), entered.members

    def shown(self, table: TokenTable) -> torch.Tensor:
        """Which tokens [tokens] stand for its first frame, whose picture it is.

        They are those of one step, which is that frame's own, or began before it and lasts. A step of two frames may
        have the mean of their times, which lies between the two; the next step begins with the second one, or later.
        """
        begun = (table.seconds <= self.seconds) | (table.seconds < self.last)
        inside = (table.row < self.grid[0]) & (table.column < self.grid[1])  # a frame left out may be of another size
        return table.pictured & ~table.standby & begun & (table.until >= self.seconds) & inside


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
    _newest: SiftedStep | None = None
    _frames: int = 0
    _steps: int = 0
    _every: int = 1
    _pushes: int = 0
    _history_every: int = 1

    def add(self, stream: Watched, chunk: FrameChunk) -> None:
        """Take pictures of a chunk that was just pushed.

        Parameters
        ----------
        stream : VideoStream
        chunk : FrameChunk
        """
        step, sifted = stream.lm.adapter.frames_per_step, stream.sifted
        skipped = dict(sifted.skipped)
        for frame, seconds in zip(chunk.frames, chunk.seconds, strict=True):
            if self._frames % step == 0:
                if self._steps % self._every == 0:
                    grid = stream.lm.adapter.grid(*frame.shape[:2])
                    page = _Page(seconds, seconds, _small(frame, self.side), grid)
                    page.skipped, page.source = seconds in skipped, skipped.get(seconds, seconds)
                    self._pages.append(page)
                self._steps += 1
            elif (self._steps - 1) % self._every == 0:
                self._pages[-1].last = seconds
            self._frames += 1
        self._note(sifted.steps)
        if self._pushes % self._history_every == 0:
            self.history.append((chunk.seconds[-1], stream.cache_bytes))
        self._pushes += 1
        while len(self._pages) > self.most:
            self._pages, self._every = self._pages[::2], self._every * 2
        while len(self.history) > 4 * self.most:
            self.history, self._history_every = self.history[::2], self._history_every * 2

    def _note(self, steps: Sequence[SiftedStep]) -> None:
        """Note what entered for the pages that these steps stand for; the newest may stand for frames to come."""
        known = [*(() if self._newest is None else (self._newest,)), *steps]
        of = {seconds: step for step in known for seconds in step.frames}
        for page in self._pages:
            if page.entered is None and page.source in of:
                page.begun, page.entered = of[page.source].frames[0], _Entered.of(of[page.source], page.grid)
        self._newest = known[-1] if known else None

    @property
    def seconds(self) -> tuple[float, ...]:
        """The moments of which there is a picture."""
        return tuple(page.seconds for page in self._pages)

    def at(self, stream: Watched, seconds: float) -> list[Overlay]:
        """The picture nearest to a moment, once for each stage with layers, with what it does not remember made dark.

        A frame that a gate left out has no tokens of its own; it shows those of the step that stands for it.

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
        overlays, waits = [], page.source in stream.sifted.waiting
        for stage, span in enumerate(stream.loop.schedule.spans):
            if not span:
                continue
            table = stream.held(stage)
            own = table.take(page.shown(table).nonzero()[:, 0])
            light = np.zeros(page.grid, bool)
            light[own.row.cpu().numpy(), own.column.cpu().numpy()] = True
            fates, members = page.became(light, waits)
            overlays.append(
                Overlay(
                    seconds=page.seconds,
                    stage=stage,
                    layers=(span[0], span[-1]),
                    kept=int(light.sum()),
                    entered=light.size,
                    picture=paint(page.picture, fates, members, page.skipped),
                    span=(float(own.seconds[0]), float(own.until[0])) if len(own) else None,
                    fates=fates,
                    members=members,
                    skipped=page.skipped,
                    source=float(own.seconds[0]) if len(own) else page.begun,
                )
            )
        return overlays

    def remembered(self, stream: Watched, most: int = 48) -> list[tuple[float, tuple[float, ...]]]:
        """How much is still remembered of moments that are spread evenly over the past.

        Parameters
        ----------
        stream : VideoStream
        most : int
            Moments.

        Returns
        -------
        list of tuple
            The time of each, and the share of its picture's places that each stage with layers remembers, shallow to
            deep: what `at` shows as bright.
        """
        pages = list(self._pages)
        pages = pages[:: -(-len(pages) // most) or 1]
        tables = [stream.held(stage) for stage, span in enumerate(stream.loop.schedule.spans) if span]
        shares = []
        for page in pages:
            rows, columns = page.grid
            own = [(table.row * columns + table.column)[page.shown(table)].unique() for table in tables]
            shares.append((page.seconds, tuple(len(places) / (rows * columns) for places in own)))
        return shares


def _small(frame: torch.Tensor, side: int) -> NDArray[np.uint8]:
    picture = Image.fromarray(frame.cpu().numpy())
    picture.thumbnail((side, side))
    return np.asarray(picture)
