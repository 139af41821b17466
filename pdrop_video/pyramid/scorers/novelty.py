"""Novelty: how much a token differs from what stood at its place before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Ranking, unit_rows


@dataclass(frozen=True, slots=True)
class Novelty:
    """1 - cosine to the latest earlier token at the same place, among the rows that reached this layer.

    In [0, 2]. A token without a predecessor, as in a chunk's first frame, scores `first`.

    Parameters
    ----------
    first : float
        Score of a token that nothing precedes; 1 is what an unrelated predecessor would give.
    """

    uses_probe: ClassVar[bool] = False
    uses_layout: ClassVar[bool] = True
    once: ClassVar[bool] = False
    first: float = 1.0

    @torch.no_grad()
    def __call__(self, ranking: Ranking) -> Tensor:
        """Scores by the hidden states that enter the next layer."""
        hidden, place = ranking.hidden, ranking.layout.place.masked_fill(~ranking.visual, -1)
        # rows come in the order of time, so a stable sort by place puts each token behind its predecessor
        order = place.argsort(dim=1, stable=True)
        sorted_place = place.gather(1, order)
        unit = unit_rows(hidden).take_along_dim(order[..., None], 1)
        change = 1 - (unit[:, 1:] * unit[:, :-1]).sum(-1)
        change = torch.where(sorted_place[:, 1:] == sorted_place[:, :-1], change, self.first)
        change = F.pad(change, (1, 0), value=self.first)
        return torch.empty_like(change).scatter(1, order, change)
