"""Sound as a second kind of row that competes at boundaries, among its own and for a budget of its own.

Knows rows and layouts. Refuses to know what ranks them and how pictures are dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..common.ties import comparable
from .rows import Rows
from .scorers import Layout
from .select import keep_best


@dataclass(frozen=True, slots=True)
class Sound:
    """The rows of sound that enter a loop.

    Attributes
    ----------
    mask : Tensor [batch, rows], bool
        Which they are, the same number in every sample.
    number : int
        How many.
    since : int
        Tokens of sound of the stream before these, for ties.
    """

    mask: Tensor
    number: int
    since: int = 0

    def to(self, device: torch.device) -> Sound:
        """The same on a device."""
        return replace(self, mask=self.mask.to(device))

    def layout(self) -> Layout:
        """Each a moment of its own, all at one place."""
        moment = self.mask.cumsum(1) - 1
        frame, place = torch.where(self.mask, moment, -1), torch.where(self.mask, 0, -1)
        return Layout(frame, place, self.number, 1, 1, self.since)

    def as_kind(self, rows: Rows) -> Rows:
        """The same rows as those see them that rank sound: it competes, and nothing else does.

        What a scorer learns of sound is kept apart from what it learns of pictures, under numbers below 0.
        """
        layout = self.layout()
        frame, place = (each.gather(1, rows.origin) for each in (layout.frame, layout.place))
        usual = {~i: usual for i, usual in rows.usual.items() if i < 0}
        visual = self.mask.gather(1, rows.origin)
        return replace(rows, visual=visual, layout=replace(layout, frame=frame, place=place), usual=usual)

    def drop(
        self, rows: Rows, scores: Tensor, wanted: int, rank: Callable[[Rows, int], Tensor], exact: bool
    ) -> tuple[Tensor, Tensor]:
        """Rank sound at a boundary.

        Parameters
        ----------
        rows : Rows
        scores : Tensor [batch, rows]
            Of the pictures.
        wanted : int
            How many rows of sound stay.
        rank : callable
            Gives scores to rows as a kind sees them, and learns.
        exact : bool
            As for `pdrop_video.pyramid.drop.drop`.

        Returns
        -------
        scores : Tensor [batch, rows]
            With those of sound.
        gone : Tensor [batch, rows that entered], bool
            Rows of sound that are left behind here, or were before.
        """
        kind = self.as_kind(rows)
        given = rank(kind, wanted)
        rows.usual.update({~i: usual for i, usual in kind.usual.items()})
        scores = torch.where(kind.visual, given.to(scores), scores)
        compared = given if exact else comparable(given, kind.visual, rows.hidden.dtype)
        turn = kind.layout.spread().argsort(dim=1, stable=True)
        index, _ = keep_best(compared, kind.visual, torch.zeros_like(kind.visual), [wanted] * len(self.mask), turn)
        stays = torch.zeros_like(self.mask).scatter(1, rows.origin.gather(1, index), True)
        return scores, self.mask & ~stays
