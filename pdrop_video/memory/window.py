"""Positions kept within a model's trained range: gaps that forgotten tokens leave are closed.

Knows position numbers. Refuses to know keys and how they are rotated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol
from warnings import warn

import torch
from torch import Tensor

from ..errors import ConfigError
from .table import TokenTable


class Turn(Protocol):
    """Rotates keys."""

    def __call__(self, layer: int, keys: Tensor, by: Tensor) -> Tensor:
        """Keys [kv_heads, tokens, head_dim] of a layer moved `by` so many positions [tokens, axes], in one rotation."""


@dataclass(frozen=True, slots=True)
class Shift:
    """By how much a layer's positions stand behind the stream's own.

    Attributes
    ----------
    text : int
        Of what comes next, on every axis.
    video : int
        Of the running video's height and width, which start where the video started, however long it lasts.
    reach : int
        Where positions may come to before they are moved again, if what is held left no room in the window; else 0.
    """

    text: int = 0
    video: int = 0
    reach: int = 0

    def move(self, positions: Tensor, visual: Tensor | None) -> Tensor:
        """Where new tokens stand in the layer.

        Parameters
        ----------
        positions : Tensor [..., axes]
            In the stream.
        visual : Tensor [...] or None
            Which of them are of the running video.
        """
        if self.text == self.video == 0:
            return positions
        moved = positions - self.text
        if self.text != self.video and visual is not None and positions.shape[-1] > 1:
            moved[..., 1:] += (self.text - self.video) * visual[..., None]
        return moved


@dataclass(frozen=True, slots=True)
class Ahead:
    """What comes next, in the stream's own positions.

    Attributes
    ----------
    first, end : int
        The smallest position on the first axis, and the largest + 1.
    next : int
        Where text stands behind the video's rows, or in front of everything if there are none.
    start, reach : int or None
        Where the running video started, and the end of its height and width; None if the rows begin no video or a new
        one.
    """

    first: int
    end: int
    next: int
    start: int | None = None
    reach: int | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """Positions from 0 to `limit`.

    Attributes
    ----------
    limit : int
        What the largest position must stay below.
    turn : Turn
    always : bool
        Whether gaps are closed whenever something is forgotten, and to nothing; otherwise when the limit comes near,
        and by as little as leaves half of the range free.
    """

    limit: int
    turn: Turn
    always: bool = False

    def squeeze(self, table: TokenTable, ahead: Ahead) -> tuple[Tensor, Shift]:
        """New positions for what a layer holds, and the shift of what comes next.

        Gaps on the first axis (the only one, or time) longer than some length become that length, the same for all, and
        everything between two gaps moves together. Height and width move with their video's start, so that they go on
        meaning places in the picture: they can't move with the time of a video that has been running for an hour, which
        would make them negative.

        Returns
        -------
        now : Tensor [tokens, axes]
        shift : Shift

        Examples
        --------
        Text at 0 to 2 and frames at 10, 11, 50 and 51, the next one due at 52, a limit of 30: with gaps of at most 4
        all that is held fits into half of it. The frames go to 6, 7, 11 and 12, the next one to 13.
        """
        longest = self._longest(table, ahead)
        now, shift = self._closed(table, ahead, longest)
        if longest > 1 and ahead.end - shift.text > self.limit:  # a large picture that is not over
            return self._closed(table, ahead, 1)
        return now, shift

    @staticmethod
    def _closed(table: TokenTable, ahead: Ahead, longest: int) -> tuple[Tensor, Shift]:
        """The same with gaps of at most `longest`."""
        line = table.position[:, 0]
        points, inverse = line.unique(return_inverse=True)
        gaps = _gaps(points, ahead)
        steps = torch.cat([points[:1].clamp(max=longest), gaps.clamp(max=longest)]).cumsum(0)
        moved, coming = steps[:-1], int(steps[-1])

        def start_now(start: Tensor) -> Tensor:
            """Where a video that started at `start` starts now: as far behind what stands before it as allowed."""
            before = (torch.searchsorted(points, start, right=True) - 1).clamp(min=0)
            return moved[before] + (start - points[before]).clamp(max=longest)

        now = moved[inverse][:, None].expand(-1, table.position.shape[1]).clone()
        if now.shape[1] > 1:
            start = table.position[:, 1] - table.row
            place = table.position[:, 1:] - start[:, None] + start_now(start)[:, None]
            now[:, 1:] = torch.where(table.pictured[:, None], place, now[:, 1:])
        text = ahead.first - coming
        if ahead.start is None or ahead.reach is None:
            return now, Shift(text, text)
        video = ahead.start - int(start_now(points.new_tensor([ahead.start])))
        # text stands behind all of a video's height and width
        return now, Shift(min(text, ahead.next - (ahead.reach - video)), video)

    def _longest(self, table: TokenTable, ahead: Ahead) -> int:
        """The longest gap allowed, so that what is held takes at most half of the room beside what comes."""
        if self.always:
            return 1
        points = table.position[:, 0].unique()
        gaps, room = _gaps(points, ahead), (self.limit - (ahead.end - ahead.first)) // 2 - int(points[0])
        low, high = 1, max(int(gaps.max()), 1)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if int(gaps.clamp(max=middle).sum()) <= room else (low, middle - 1)
        return low


def _gaps(points: Tensor, ahead: Ahead) -> Tensor:
    """From each position at which something stands to the next, and to what comes [points]."""
    return torch.cat([points, points.new_tensor([max(ahead.first, int(points[-1]))])]).diff()


_COUNTED = 2**24
"""Up to here float32, in which models compute RoPE, tells neighbouring positions apart."""


@dataclass(slots=True)
class Range:
    """The positions that a model was trained with, for a stream that can't always stay among them.

    Attributes
    ----------
    trained : int or None
        How many; None if its RoPE adapts itself to any.
    warned : bool
        Whether it was said that a stream has left them.
    """

    trained: int | None
    warned: bool = False

    def heed(self, end: int) -> None:
        """Say once that positions, which come to `end` now, leave the range; and refuse those that can't be told apart.

        Raises
        ------
        ConfigError
        """
        if end > _COUNTED:
            raise ConfigError(
                f"positions would come to {end:,}, and beyond {_COUNTED:,} a model can't tell one from the next; open "
                'the stream with a limited Memory and positions="window", which closes what pauses leave.'
            )
        if self.trained is not None and end > self.trained and not self.warned:
            self.warned = True
            warn(
                f"positions have come to {end:,}, beyond the {self.trained:,} that the model was trained with: answers "
                'may be wrong from here on. A limited Memory with positions="window" stays within them.',
                stacklevel=2,
            )
