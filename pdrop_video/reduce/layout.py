"""Tokens of a chunk laid out by step, some of each step in front: from ragged steps to batches, and back to rows.

Knows places in tables, never features or scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from .base import Tokens


@dataclass(frozen=True, slots=True)
class Layout:
    """Of each step the numbers of some tokens, its anchors, and of its others; both ascending and filled up.

    Attributes
    ----------
    anchor, other : Tensor [steps, most anchors], [steps, most others], int64
        Any number where it fills up.
    anchors, others : Tensor, bool
        Of the same shapes: False where it fills up.
    tokens : int
    """

    anchor: Tensor
    other: Tensor
    anchors: Tensor
    others: Tensor
    tokens: int

    @classmethod
    def of(cls, tokens: Tokens, chosen: Tensor, counts: Sequence[int], wanted: Sequence[int], *, rest: bool) -> Layout:
        """Lay out a chunk.

        Parameters
        ----------
        tokens : Tokens
        chosen : Tensor [tokens], bool
            Which are anchors.
        counts, wanted : sequence of int
            Tokens and anchors of each step.
        rest : bool
            Whether the others matter; else there are none.
        """
        order = (tokens.step * 2 + ~chosen).argsort(stable=True)
        begins = list(accumulate(counts, initial=0))[:-1]
        others = [n - some if rest else 0 for n, some in zip(counts, wanted, strict=True)]
        behind = [begin + some for begin, some in zip(begins, wanted, strict=True)]
        (anchor, anchors), (other, those) = _table(order, begins, wanted), _table(order, behind, others)
        return cls(anchor, other, anchors, those, len(tokens))

    def rows(self, step: Tensor, anchors: Tensor, others: Tensor) -> Tensor:
        """Weights over tokens out of weights over a step's anchors and others.

        Parameters
        ----------
        step : Tensor [rows], int64
        anchors, others : Tensor [rows, most anchors], [rows, most others]

        Returns
        -------
        Tensor [rows, tokens]
        """
        # what fills up has a column of its own, which is then left out
        rows = anchors.new_zeros(len(step), self.tokens + 1)
        for number, real, weights in ((self.anchor, self.anchors, anchors), (self.other, self.others, others)):
            rows.scatter_(1, torch.where(real, number, self.tokens)[step], weights)
        return rows[:, :-1]


def _table(order: Tensor, begins: Sequence[int], counts: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Parts of an order below each other, and which entries are part of them."""
    begin, count = (torch.tensor(each, device=order.device)[:, None] for each in (begins, counts))
    along = torch.arange(max(counts), device=order.device)
    return order[(begin + along).clamp(max=len(order) - 1)], along < count
