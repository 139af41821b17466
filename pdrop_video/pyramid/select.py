"""Which rows stay at a stage boundary, in order, for batches whose rows keep different counts.

Knows scores and masks. Refuses to know where scores come from.
"""

from __future__ import annotations

import torch
from torch import Tensor


def keep_best(
    scores: Tensor, competing: Tensor, staying: Tensor, totals: list[int], turn: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Row numbers of what stays: every `staying` row and the best-scored `competing` ones, in their old order.

    Parameters
    ----------
    scores : Tensor [batch, rows]
        Higher is better.
    competing : Tensor [batch, rows]
        Rows that compete (visual tokens).
    staying : Tensor [batch, rows]
        Rows that stay whatever their score (text).
    totals : list of int
        How many rows each sample keeps in all, the staying ones included.
    turn : Tensor [batch, rows]
        All row numbers, in the order in which rows of equal scores win.

    Returns
    -------
    index : Tensor [batch, kept]
        Ascending row numbers; samples that keep fewer are padded on the left with row 0.
    valid : Tensor [batch, kept] or None
        False at those paddings; None where there is none.
    """
    ranked = scores.masked_fill(~competing, -torch.inf).masked_fill(staying, torch.inf)
    longest = max(totals)
    best_first = turn.gather(1, ranked.gather(1, turn).argsort(dim=1, descending=True, stable=True))
    index = best_first[:, :longest]
    if min(totals) == longest:
        return index.sort(dim=1).values, None
    valid = torch.arange(longest, device=scores.device) < torch.tensor(totals, device=scores.device)[:, None]
    index = index.masked_fill(~valid, -1).sort(dim=1).values
    return index.clamp(min=0), index >= 0
