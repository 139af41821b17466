"""InfiniPot-V: what changed over time, and what has large values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ...common.ties import comparable, exactly, unlike
from ...registry import Facts
from .base import Held, best_first


@dataclass(frozen=True, slots=True)
class InfiniPotV:
    """Temporal redundancy (TaR) and value norm (VaN), arXiv 2506.15745.

    A share of the newest steps stays whole. Half of what is left goes to the tokens whose keys differ most from the
    keys at the same place in those steps, TaR(t, i, j) = -mean over recent steps of cos(K[t, i, j], K[recent, i, j]);
    the rest to the largest values, VaN = ||V||_2. Keys and values are taken over all heads together.

    Parameters
    ----------
    recent : float
        Share of the steps held that stays whole (the paper's floor(.25 f)).
    temporal : float
        Share of the other places that TaR fills.
    """

    facts: ClassVar[Facts] = Facts(
        says="the last steps whole; then what changed since, and what has large values",
        paper="InfiniPot-V, arXiv 2506.15745",
        formula=(
            "stay: the newest share `recent` of the steps; of the places left, the share `temporal` by TaR, the\n"
            "    others by VaN\n"
            "TaR = -mean over the recent steps of cos(k[t, p], k[recent, p]); VaN = |v|"
        ),
    )
    by_table: ClassVar[bool] = False
    uses_query: ClassVar[bool] = False
    recent: float = 0.25
    temporal: float = 0.5

    def __call__(self, held: Held, keep: int) -> Tensor:
        """3 for the recent steps, 2 for TaR's choice; 0 to 1 by value norm for the others."""
        table = held.table
        width = int(table.column.max()) + 1
        place = (table.row * width + table.column).masked_fill(~table.pictured | table.standby, -1)
        steps = table.step[table.visual].unique()
        new = steps[len(steps) - int(self.recent * len(steps)) :]
        recent = table.visual & torch.isin(table.step, new)

        keys = F.normalize(exactly(held.keys.transpose(0, 1).flatten(1)), dim=-1)  # [tokens, heads * dim]
        places = int(place.max()) + 1
        sums = keys.new_zeros(places + 1, keys.shape[1]).index_add(0, place[recent] + 1, keys[recent])
        counts = keys.new_zeros(places + 1).index_add(0, place[recent] + 1, torch.ones_like(keys[recent, 0]))
        cosine = (keys * sums[place + 1]).sum(-1) / counts[place + 1].clamp(min=1)  # a mean of them
        older = table.visual & ~recent
        tar = comparable(unlike(cosine, held.keys.dtype), older, held.keys.dtype)  # 1 + TaR, scaled
        van = exactly(held.values.transpose(0, 1).flatten(1)).norm(dim=-1)

        left = max(keep - int((table.chunk < 0).sum()) - int(recent.sum()), 0)
        wanted = min(int(self.temporal * left), int(older.sum()))
        chosen = best_first(tar.masked_fill(~older, -torch.inf), *table.spread())[:wanted]
        priority = comparable(van, torch.ones_like(older), held.values.dtype).masked_fill(recent, 3.0)
        return priority.scatter(0, chosen, 2.0)
