"""Novelty: how much a token differs from what stood at its place before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...common.taking import rows_at
from ...common.ties import unlike
from ...registry import Facts
from .base import Ranking, unit_rows


@dataclass(frozen=True, slots=True)
class Novelty:
    """1 - cosine to the latest earlier token at the same place, among the rows that reached this layer.

    In [0, 2]. The latest may have come with a chunk before. A token without a predecessor, as in a stream's first
    frame, scores `first`.

    Parameters
    ----------
    first : float
        Score of a token that nothing precedes; 1 is what an unrelated predecessor would give.
    """

    facts: ClassVar[Facts] = Facts(
        says="tokens that differ most from the token before at the same place",
        paper="",
        formula="score = 1 - cos(h[t, p], the latest earlier h at place p); `first` where there is none",
        ours=True,
        carries="the latest row at each place: (1 + places) x hidden, before each boundary",
    )
    uses_probe: ClassVar[bool] = False
    uses_layout: ClassVar[bool] = True
    once: ClassVar[bool] = False
    first: float = 1.0

    @torch.no_grad()
    def learn(self, ranking: Ranking) -> Tensor:
        """The latest row at each place, of length 1; zeros where there was none.

        Returns
        -------
        Tensor [batch, 1 + places, hidden]
            Text is gathered at 0.
        """
        at, unit = ranking.places(), unit_rows(ranking.hidden)
        row = torch.arange(at.shape[1], device=at.device).expand_as(at)
        latest = at.new_full((at.shape[0], 1 + ranking.layout.places), -1).scatter_reduce(1, at, row, "amax")
        here = rows_at(unit, latest.clamp(min=0))
        dtype = torch.promote_types(ranking.hidden.dtype, torch.float32)
        return torch.where(latest[..., None] >= 0, here, _before(ranking, unit)).to(dtype)

    @torch.no_grad()
    def __call__(self, ranking: Ranking) -> Tensor:
        """Scores by the hidden states that enter the next layer."""
        at, unit = ranking.places(), unit_rows(ranking.hidden)
        # rows come in the order of time, so a stable sort by place puts each token behind its predecessor
        order = at.argsort(dim=1, stable=True)
        placed, rows = at.gather(1, order), rows_at(unit, order)
        follows = torch.zeros_like(ranking.visual)
        follows[:, 1:] = placed[:, 1:] == placed[:, :-1]
        past = rows_at(_before(ranking, unit), placed)
        predecessor = torch.where(follows[..., None], rows.roll(1, 1), past)
        change = unlike((rows * predecessor).sum(-1), ranking.hidden.dtype)
        change = torch.where(predecessor.any(-1), change, self.first)
        return torch.empty_like(change).scatter(1, order, change)


def _before(ranking: Ranking, unit: Tensor) -> Tensor:
    """The latest rows of the chunks before [batch, 1 + places, hidden]; zeros in the first, or if the size changed."""
    shape = (unit.shape[0], 1 + ranking.layout.places, unit.shape[2])
    known = ranking.usual is not None and ranking.usual.shape == shape
    return ranking.usual.to(unit) if known and ranking.usual is not None else unit.new_zeros(shape)
