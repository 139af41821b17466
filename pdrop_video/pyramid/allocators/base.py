"""What an allocator is given, and the two tools that all of them share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ...common.ties import settled


class Allocator(Protocol):
    """Splits a boundary's budget over frames: a frozen dataclass that can be called.

    It gives priorities, and the rows of the highest priorities stay, as many as the budget says; so the total is
    exact whatever the allocator does. Of equal priorities the earlier row wins: rows come in an order that is spread
    evenly over time and space, and scores that tie are equal.
    """

    def __call__(self, scores: Tensor, visual: Tensor, frame: Tensor) -> Tensor:
        """Priorities [batch, rows] from scores, competing rows and their frames, each [batch, rows]."""


@dataclass(frozen=True, slots=True)
class Frames:
    """Rows in the order of their frames, the best of a frame first; text rows make a group of their own.

    Attributes
    ----------
    order : Tensor [batch, rows]
    begins : Tensor [batch, rows], bool
        Where in it another frame begins.
    """

    order: Tensor
    begins: Tensor

    @classmethod
    def of(cls, scores: Tensor, visual: Tensor, frame: Tensor) -> Frames:
        """Those of scores, competing rows and their frames, each [batch, rows]."""
        order = scores.argsort(dim=1, descending=True, stable=True)
        group = frame.masked_fill(~visual, -1)
        order = order.gather(1, group.gather(1, order).argsort(dim=1, stable=True))
        grouped = group.gather(1, order)
        begins = torch.ones_like(grouped, dtype=torch.bool)
        begins[:, 1:] = grouped[:, 1:] != grouped[:, :-1]
        return cls(order, begins)

    def rank(self) -> Tensor:
        """How many rows of its own frame each row stands behind [batch, rows]: 0 for a frame's best."""
        place = torch.arange(self.order.shape[1], device=self.order.device).expand_as(self.order)
        start = torch.where(self.begins, place, 0).cummax(1).values
        return torch.empty_like(place).scatter(1, self.order, place - start)

    def sum(self, weights: Tensor) -> Tensor:
        """The sum of some weights [batch, rows] over each row's frame [batch, rows]."""
        number = self.begins.cumsum(1) - 1
        sums = torch.zeros_like(weights).scatter_add(1, number, weights.gather(1, self.order))
        return torch.empty_like(weights).scatter(1, self.order, sums.gather(1, number))


def proportional(rank: Tensor, weight: Tensor, floor: int) -> Tensor:
    """Priorities that give each frame tokens in proportion to its weight, and `floor` tokens before all else.

    Webster's divisor method: a frame's r-th best row (from 0) comes up at (r + 1/2) / weight, and the rows that come up
    first stay. Against the largest remainder this needs no rounding, gives what a small frame can't use to the others,
    and never takes a token from a frame because the budget grew.

    Parameters
    ----------
    rank : Tensor [batch, rows]
        How many rows of its own frame each row stands behind.
    weight : Tensor [batch, rows]
        Of each row's frame, above 0.
    floor : int
        Tokens that each frame gets first.
    """
    share = settled(weight / weight.amax(1, keepdim=True), torch.float64)  # equal sums may be a last bit apart
    turn = (rank + 0.5) / share
    return 1 / (1 + turn) + (floor - rank).clamp(min=0)  # in (0, 1); above 1 for the floor, its first tokens first
