"""HERMES: recent in shallow layers, attended in deep ones, and a summary of what deep layers forget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...common.ties import comparable, settled
from ...registry import Facts
from .base import Held, lexicographic, mean_of


@dataclass(frozen=True, slots=True)
class Hermes:
    """Recency and the attention of a pseudo-query, mixed by depth (HERMES, arXiv 2601.14724, as described there).

    S = (1 - w) minmax(attention) + w minmax(exp(-k age)): w is 1 in the first layers, 0 in the last ones and falls
    linearly between. Each layer's score is smoothed by that of the next deeper one. A deep layer (w = 0) lets one token
    stand for all that it forgets, the mean of their keys and values; it takes the place of the last token that
    stays (the place, k and the smoothing's strength are inferred).

    Parameters
    ----------
    shallow, deep : float
        Shares of the layers in which only recency, and only attention, counts.
    k : float
        Decay of recency over the whole time remembered.
    smooth : float
        Share of the deeper layer's score.
    """

    facts: ClassVar[Facts] = Facts(
        says="recent tokens in shallow layers, attended ones in deep layers, and a summary of what those forget",
        paper="HERMES, arXiv 2601.14724",
        formula=(
            "score = (1 - w) * minmax(attention) + w * minmax(exp(-k * age)), age from 0 to 1; w falls from 1\n"
            "    in shallow to 0 in deep layers\n"
            "smoothed: (1 - smooth) * score + smooth * (the next deeper layer's score)"
        ),
        carries="the queries of the newest probe, in every layer",
    )
    by_table: ClassVar[bool] = False
    uses_query: ClassVar[bool] = True
    shallow: float = 0.1
    deep: float = 0.3
    k: float = 3.0
    smooth: float = 0.3

    def weight(self, layer: int, layers: int) -> float:
        """W of a layer: how much recency counts."""
        first, last = self.shallow * layers, (1 - self.deep) * layers
        return min(max((last - layer) / (last - first), 0.0), 1.0)

    def __call__(self, held: Held, keep: int) -> Tensor:
        """Scores in [0, 1]."""
        table, w = held.table, self.weight(held.layer, held.layers)
        age = held.ages()
        age = age / age.masked_fill(~table.visual, 0).max().clamp(min=1e-6)
        # ties are equal before a range is taken, which would make much of a last bit where all are
        attention = comparable(held.attention(), table.visual, held.keys.dtype)
        recency = settled((-self.k * age).exp(), torch.float32)
        score = (1 - w) * _minmax(attention, table.visual) + w * _minmax(recency, table.visual)
        if held.deeper is None:
            return score
        other, theirs = held.deeper
        order = other.index.argsort()
        place = torch.searchsorted(other.index[order], table.index).clamp(max=len(order) - 1)
        same = other.index[order][place] == table.index
        return torch.where(same, (1 - self.smooth) * score + self.smooth * theirs[order][place], score)

    def merge(self, held: Held, stay: Tensor, priority: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
        """The summary [kv_heads, 1, head_dim], in deep layers."""
        if self.weight(held.layer, held.layers) > 0:
            return None
        worth = priority[stay].masked_fill(~held.table.visual[stay], torch.inf)
        slot = stay[lexicographic(worth, *(key[stay] for key in held.table.spread())).argmin()][None]
        gone = held.table.visual.clone().index_fill(0, stay, False).index_fill(0, slot, True)
        keys, values = (mean_of(states, gone[None], torch.ones_like(priority)) for states in (held.keys, held.values))
        return slot, keys, values


def _minmax(values: Tensor, over: Tensor) -> Tensor:
    """Moved to [0, 1] by the smallest and the largest among `over`."""
    low, high = values.masked_fill(~over, torch.inf).min(), values.masked_fill(~over, -torch.inf).max()
    return ((values - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
