"""What an evictor is given, and the tools that several share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from ..table import TokenTable


@dataclass(frozen=True, slots=True)
class Held:
    """A layer that must shrink.

    Attributes
    ----------
    keys, values : Tensor [kv_heads, tokens, head_dim]
        What it holds, keys with RoPE.
    table : TokenTable
        What its tokens are.
    layer, layers : int
        Its number and how many there are.
    """

    keys: Tensor
    values: Tensor
    table: TokenTable
    layer: int
    layers: int


class Evictor(Protocol):
    """Gives every token a priority: a frozen dataclass that can be called.

    The tokens of the highest priorities stay, as many as the budget says, and text of the prefix always; so the bound
    holds whatever the evictor does.

    Attributes
    ----------
    by_table : bool
        True if priorities depend on the table alone. Layers that hold the same tokens then share one decision.
    """

    by_table: ClassVar[bool]

    def __call__(self, held: Held, keep: int) -> Tensor:
        """Priorities [tokens] for keeping `keep` tokens, the prefix included."""


def lexicographic(*keys: Tensor) -> Tensor:
    """Priorities [tokens] that compare by the first key, then by the next ones, higher first; ties go to the newer."""
    order = torch.arange(keys[0].shape[0] - 1, -1, -1, device=keys[0].device)
    for key in reversed(keys):
        order = order[key[order].argsort(descending=True, stable=True)]
    return torch.empty_like(order).scatter(0, order, torch.arange(len(order), 0, -1, device=order.device))


def rank_in_group(scores: Tensor, group: Tensor) -> Tensor:
    """How many of its group's tokens each token stands behind [tokens]: 0 for a group's best."""
    order = scores.argsort(descending=True, stable=True)
    order = order[group[order].argsort(stable=True)]
    place = torch.arange(len(order), device=order.device)
    begins = torch.ones_like(place, dtype=torch.bool)
    begins[1:] = group[order][1:] != group[order][:-1]
    start = torch.where(begins, place, 0).cummax(0).values
    return torch.empty_like(place).scatter(0, order, place - start)


def choose(priority: Tensor, table: TokenTable, keep: int) -> Tensor:
    """Ascending row numbers [keep] of what stays: the prefix, then the highest priorities.

    Glue is forgotten with its step: it is as good as the step's best visual token, and comes right behind it.
    """
    prefix = table.chunk < 0
    rank = lexicographic(priority)
    step = table.step.unique_consecutive(return_inverse=True)[1]  # tokens stand in the order of time
    best = torch.zeros_like(rank).scatter_reduce(0, step, rank.masked_fill(~table.visual, 0), "amax")
    rank = torch.where(table.visual, rank, best[step])
    order = lexicographic(prefix.long(), rank, table.visual.long()).argsort(descending=True)
    return order[:keep].sort().values
