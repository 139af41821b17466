"""Entropic optimal transport between two sets of tokens. Knows masses and costs, never who moves, or why."""

from __future__ import annotations

import torch
from torch import Tensor

from ..common.ties import exactly, settled

STILL = 0.01
"""Mean change of the sources' scaling under which Sinkhorn's rounds stop, as in AOT's release."""
_LOOK = 4
"""After how many rounds the device is asked whether all have stopped."""


def sinkhorn(cost: Tensor, sources: Tensor, targets: Tensor, eps: float, rounds: int) -> Tensor:
    """Plans that bring a mass of 1 from the sources, each with as much, to the targets, each with as much.

    Each problem of the batch stops by itself, and stays as it is while others go on: but for the last digits a plan is
    the same whatever it is computed beside.

    Parameters
    ----------
    cost : Tensor [batch, sources, targets]
    sources, targets : Tensor [batch, sources], [batch, targets], bool
        False for those that fill the batch up.
    eps : float
        Weight of the entropy: the smaller, the sharper the plan.
    rounds : int
        At most so many.

    Returns
    -------
    Tensor [batch, sources, targets]
        Zero for those that fill up, and everywhere where there are no sources or no targets. The columns sum to the
        targets' mass exactly, the rows to the sources' as far as the rounds have come.
    """
    kernel = torch.exp(-cost / eps) * (sources[:, :, None] & targets[:, None])
    back = kernel.transpose(1, 2).contiguous()
    count = sources.sum(1).clamp(min=1)
    mass, demand = (each / each.sum(1, keepdim=True).clamp(min=1) for each in (sources.to(cost), targets.to(cost)))
    left, right = torch.ones_like(mass), torch.ones_like(demand)
    going = torch.ones(len(mass), 1, dtype=torch.bool, device=cost.device)
    for number in range(rounds):
        scaled = _over(mass, kernel @ right[..., None])
        moved = settled(((scaled - left).abs() * sources).sum(1) / count, torch.float64)
        left = torch.where(going, scaled, left)
        right = torch.where(going, _over(demand, back @ left[..., None]), right)
        going = going & (moved >= STILL)[:, None]
        if number % _LOOK == _LOOK - 1 and not going.any():
            break
    return left[..., None] * kernel * right[:, None]


def _over(mass: Tensor, reached: Tensor) -> Tensor:
    """As much mass as is wanted over what is reached; where nothing is reached, the mass."""
    reached = reached[..., 0]
    return mass / torch.where(reached > 0, reached, 1)


def cosines(x: Tensor, y: Tensor) -> Tensor:
    """Cosines [batch, x, y] of the rows of [batch, x, hidden] and [batch, y, hidden]; 0 where one is zero."""
    lengths = [exactly(torch.linalg.vector_norm(each, dim=-1)) for each in (x, y)]
    both = lengths[0][:, :, None] * lengths[1][:, None]
    return exactly(x @ y.transpose(1, 2)) / both.masked_fill(both == 0, 1)
