"""Density peaks: DPC-kNN, by which methods find tokens that stand for those around them."""

from __future__ import annotations

import torch
from torch import Tensor

from ..common.ties import settled


def distances(features: Tensor, dtype: torch.dtype) -> Tensor:
    """Euclidean distances over the root of the dimension [tokens, tokens]; 0 for two roundings of one state.

    Parameters
    ----------
    features : Tensor [tokens, hidden]
        As `steps.precisely` has them.
    dtype : torch.dtype
        Of what they were before.
    """
    length = features.square().sum(-1)
    both = length[:, None] + length[None, :]
    square = torch.addmm(both, features, features.T, alpha=-2)
    least = max(16 * torch.finfo(dtype).eps ** 2, 64 * torch.finfo(square.dtype).eps)
    square.masked_fill_(square <= least * both, 0)
    return square.div_(features.shape[1]).sqrt_()


def peaks(
    distance: Tensor, turn: Tensor, count: int, nearest: int, dtype: torch.dtype, *, sparser: bool = False
) -> Tensor:
    """Numbers [count] of the tokens that are dense and far from any denser one, ascending.

    How dense a token is: exp(-mean of its squared distances to the nearest, itself among them). Its score: that, by the
    distance to the nearest denser token, the largest distance for the densest of all. Of equally dense tokens that of
    the smallest turn counts as the densest; releases add random noise to that end.

    Parameters
    ----------
    distance : Tensor [tokens, tokens]
    turn : Tensor [tokens], int64
    count, nearest : int
    dtype : torch.dtype
        Of what was measured.
    sparser : bool
        Measure the distance to the nearest *sparser* token in its place, as StreamingTOM's release does.
    """
    nearest = min(nearest, len(distance))
    sparse = settled(distance.topk(nearest, largest=False).values.square().mean(-1), dtype)
    order = turn.argsort(stable=True)
    order = order[sparse[order].argsort(stable=True)]
    rank = torch.empty_like(order).scatter(0, order, torch.arange(len(order), device=order.device))
    denser = (rank[None, :] > rank[:, None]) if sparser else (rank[None, :] < rank[:, None])
    above = torch.where(denser, distance, distance.amax()).amin(-1)
    score = settled(above * (-sparse).exp(), dtype)
    order = turn.argsort(stable=True)
    return order[score[order].argsort(descending=True, stable=True)][:count].sort().values
