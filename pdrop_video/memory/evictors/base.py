"""What an evictor is given, and the tools that several share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from einops import rearrange
from torch import Tensor

from ...common.ties import working
from ..table import TokenTable


@dataclass(frozen=True, slots=True)
class Held:
    """A layer that must shrink.

    Attributes
    ----------
    keys, values : Tensor [kv_heads, tokens, head_dim]
        What it holds, keys with RoPE, in no particular order.
    table : TokenTable
        What its tokens are, in the same order.
    layer, layers : int
        Its number and how many there are.
    query : Tensor [heads, probes, head_dim] or None
        What the probe behind the newest chunk asked in this layer, with RoPE; for evictors that use it.
    deeper : (TokenTable, Tensor [tokens]) or None
        What the next deeper layer held, and the priorities that the evictor gave there just now; None if it was not
        full. Layers are asked from deep to shallow.
    """

    keys: Tensor
    values: Tensor
    table: TokenTable
    layer: int
    layers: int
    query: Tensor | None = None
    deeper: tuple[TokenTable, Tensor] | None = None

    @property
    def newest(self) -> Tensor:
        """Tokens of the newest chunk that shows something [tokens], bool."""
        chunk = self.table.chunk.masked_fill(~self.table.visual, -1)
        return chunk == chunk.max().clamp(min=0)

    def attention(self) -> Tensor:
        """What the probe attends to [tokens], at least float32: softmax over all columns, mean over heads and rows."""
        assert self.query is not None
        query = rearrange(self.query, "(kv group) probes dim -> kv (group probes) dim", kv=self.keys.shape[0])
        logits = working(query) * self.keys.shape[-1] ** -0.5 @ working(self.keys).mT
        return logits.softmax(-1).mean((0, 1))

    def ages(self) -> Tensor:
        """Seconds since each token's frame was last to be seen [tokens]; text has the age of the oldest frame."""
        until, visual = self.table.until, self.table.visual
        age = until.masked_fill(~visual, -torch.inf).amax() - until
        return torch.where(until.isnan(), age.masked_fill(~visual, 0).amax(), age)


def mean_of(states: Tensor, among: Tensor, weights: Tensor) -> Tensor:
    """Means [kv_heads, slots, head_dim] of some columns' keys or values, in their own type.

    Parameters
    ----------
    states : Tensor [kv_heads, tokens, head_dim]
    among : Tensor [slots, tokens], bool
        Which columns each slot stands for.
    weights : Tensor [tokens]
        What each counts, from 0. Columns whose weights are all too small for their type count the same.
    """
    exact = working(states)
    counted = torch.where(among, weights, 0).to(exact.dtype)
    counted = torch.where(counted.sum(-1, keepdim=True) > 0, counted, among.to(exact.dtype))
    return (counted / counted.sum(-1, keepdim=True) @ exact).to(states.dtype)


class Evictor(Protocol):
    """Gives every token a priority: a frozen dataclass that can be called.

    The tokens of the highest priorities stay, as many as the budget says, and text of the prefix always; so the bound
    holds whatever the evictor does. It is asked when a layer is full. Of equal priorities those stay that come first in
    `TokenTable.spread`; what is computed from keys and values should be `pdrop_video.common.ties.settled`, so that ties
    are equal.

    Attributes
    ----------
    by_table : bool
        True if priorities depend on the table alone. Layers that hold the same tokens then share one decision.
    uses_query : bool
        True if it looks at `Held.query`: a probe then follows every chunk through all layers.
    distinct : bool, optional
        True if no two of its priorities are equal.
    uses_score : bool, optional
        True if it can do nothing sensible without `TokenTable.score`: tokens are then ranked also where a stream's
        pyramid drops none.
    """

    by_table: ClassVar[bool]
    uses_query: ClassVar[bool]

    def __call__(self, held: Held, keep: int) -> Tensor:
        """Priorities [tokens] for keeping `keep` tokens, the prefix included."""


@runtime_checkable
class Merger(Protocol):
    """An evictor that merges what goes into a few of the columns that stay."""

    def merge(self, held: Held, stay: Tensor, priority: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
        """Columns [slots] among `stay` [kept], and their new keys and values, each [kv_heads, slots, head_dim]."""


def best_first(*keys: Tensor) -> Tensor:
    """Row numbers [tokens] by the first key, then by the next ones, higher first, then backwards."""
    order = torch.arange(keys[0].shape[0] - 1, -1, -1, device=keys[0].device)
    for key in reversed(keys):
        order = order[key[order].argsort(descending=True, stable=True)]
    return order


def lexicographic(*keys: Tensor) -> Tensor:
    """Priorities [tokens] from 1 that compare by the first key, then by the next ones, higher first; none are equal."""
    return priorities(best_first(*keys))


def priorities(order: Tensor) -> Tensor:
    """Priorities [tokens] from 1 of row numbers [tokens], best first."""
    return torch.empty_like(order).scatter(0, order, torch.arange(len(order), 0, -1, device=order.device))


def rank_in_group(order: Tensor, group: Tensor) -> Tensor:
    """How many of its group's tokens each token stands behind [tokens] in `order`, best first: 0 for its best."""
    order = order[group[order].argsort(stable=True)]
    place = torch.arange(len(order), device=order.device)
    begins = torch.ones_like(place, dtype=torch.bool)
    grouped = group[order]
    begins[1:] = grouped[1:] != grouped[:-1]
    start = torch.where(begins, place, 0).cummax(0).values
    return torch.empty_like(place).scatter(0, order, place - start)


def choose(priority: Tensor, table: TokenTable, keep: int, distinct: bool = False) -> Tensor:
    """Ascending row numbers [keep] of what stays: the prefix, then the highest priorities, spread evenly over equals.

    No two priorities are equal where they are `distinct`.

    Glue is forgotten with its step: it is as good as the step's best visual token, and comes right behind it. Of turns
    of question and answer that were kept, the newest stay whole, in up to a quarter of the room; older ones go first.
    """
    prefix = table.chunk < 0
    rank = lexicographic(priority, *(() if distinct else table.spread()))
    step = table.step.unique(return_inverse=True)[1]
    best = torch.zeros_like(rank).scatter_reduce(0, step, rank.masked_fill(~table.visual, 0), "amax")
    rank = torch.where(table.visual, rank, best[step])
    turn = ~prefix & (rank == 0)  # text whose step shows nothing
    since = torch.zeros_like(rank).scatter_add(0, step, turn.long()).flip(0).cumsum(0).flip(0)  # of a step and later
    recent = turn & (since[step] <= keep // 4)
    # one number for four keys, none of which is as large as the factor behind it
    worth = ((2 * prefix.long() + recent.long()) * (len(table) + 1) + rank) * 2 + table.visual.long()
    order = best_first(worth, table.index)
    return order[:keep].sort().values
