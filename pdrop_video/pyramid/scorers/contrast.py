"""Contrast: how much a token differs from what its place usually shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Ranking, unit_rows


@dataclass(frozen=True, slots=True)
class Contrast:
    """1 - cosine to the mean token at the same place, over this chunk and, ever more faintly, the chunks before.

    The mean is a picture of the background, so that what stands out against it stays, for as long as it is shown.
    It is known at the first boundary only, where all tokens still are; deeper boundaries drop by the same scores.

    Parameters
    ----------
    decay : float
        How much of what was usual is still so after one step of time.
    """

    uses_probe: ClassVar[bool] = False
    uses_layout: ClassVar[bool] = True
    once: ClassVar[bool] = True
    decay: float = 0.9

    @torch.no_grad()
    def learn(self, ranking: Ranking) -> Tensor:
        """What is usual at each place with these rows seen: decayed sums of rows of length 1.

        Returns
        -------
        Tensor [batch, 1 + places, hidden]
            Text is gathered at 0.
        """
        layout, unit = ranking.layout, unit_rows(ranking.hidden)
        at = (layout.place.masked_fill(~ranking.visual, -1) + 1)[..., None].expand_as(unit)
        sums = unit.new_zeros(unit.shape[0], 1 + layout.places, unit.shape[2]).scatter_add(1, at, unit)
        before = ranking.usual
        if before is None or before.shape != sums.shape:  # the first chunk, or pictures of another size
            return sums
        return sums + before * self.decay**layout.steps

    @torch.no_grad()
    def __call__(self, ranking: Ranking) -> Tensor:
        """Scores in [0, 2]."""
        usual = F.normalize(self.learn(ranking), dim=-1)
        at = (ranking.layout.place.masked_fill(~ranking.visual, -1) + 1)[..., None]
        return 1 - (unit_rows(ranking.hidden) * usual.take_along_dim(at, 1)).sum(-1)
