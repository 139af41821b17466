"""What an allocator is given, and the two tools that all of them share."""

from __future__ import annotations

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


def _by_frame(group: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
    """`order` [batch, rows] sorted stably by group, and where in it a new group begins."""
    order = order.gather(1, group.gather(1, order).argsort(dim=1, stable=True))
    grouped = group.gather(1, order)
    begins = torch.ones_like(grouped, dtype=torch.bool)
    begins[:, 1:] = grouped[:, 1:] != grouped[:, :-1]
    return order, begins


def rank_in_frame(scores: Tensor, visual: Tensor, frame: Tensor) -> Tensor:
    """How many rows of its own frame each visual row stands behind [batch, rows]: 0 for a frame's best."""
    best_first = scores.argsort(dim=1, descending=True, stable=True)
    order, begins = _by_frame(frame.masked_fill(~visual, -1), best_first)
    place = torch.arange(order.shape[1], device=order.device).expand_as(order)
    start = torch.where(begins, place, 0).cummax(1).values
    return torch.empty_like(place).scatter(1, order, place - start)


def sum_of_frame(scores: Tensor, visual: Tensor, frame: Tensor) -> Tensor:
    """The sum over a row's frame [batch, rows]; text rows make a group of their own."""
    place = torch.arange(scores.shape[1], device=scores.device).expand(scores.shape)
    order, begins = _by_frame(frame.masked_fill(~visual, -1), place)
    number = torch.empty_like(order).scatter(1, order, begins.cumsum(1) - 1)  # frames renumbered without gaps
    return torch.zeros_like(scores).scatter_add(1, number, scores).gather(1, number)


def proportional(scores: Tensor, visual: Tensor, frame: Tensor, weight: Tensor, floor: int) -> Tensor:
    """Priorities that give each frame tokens in proportion to its weight, and `floor` tokens before all else.

    Webster's divisor method: a frame's r-th best row (from 0) comes up at (r + 1/2) / weight, and the rows that come up
    first stay. Against the largest remainder this needs no rounding, gives what a small frame can't use to the others,
    and never takes a token from a frame because the budget grew.

    Parameters
    ----------
    scores, visual, frame : Tensor [batch, rows]
    weight : Tensor [batch, rows]
        Of each row's frame, above 0.
    floor : int
        Tokens that each frame gets first.
    """
    rank = rank_in_frame(scores, visual, frame)
    share = settled(weight / weight.amax(1, keepdim=True), torch.float64)  # equal sums may be a last bit apart
    turn = (rank + 0.5) / share
    return 1 / (1 + turn) + (floor - rank).clamp(min=0)  # in (0, 1); above 1 for the floor, its first tokens first
