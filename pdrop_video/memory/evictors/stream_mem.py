"""StreamMem: what the answer's turn would look at, and one prototype of every new frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...common.ties import comparable
from ...registry import Facts
from .base import Held, best_first, mean_of


@dataclass(frozen=True, slots=True)
class StreamMem:
    """Attention of a proxy query, over old memory and new frames jointly, arXiv 2508.15717.

    The proxy is the chat template's answer turn behind the newest chunk (or the standing question). Each new frame also
    leaves one prototype, the mean of its keys and values weighted by that attention; it takes the place of the
    frame's least attended token, which is kept for it (the place is inferred).
    """

    facts: ClassVar[Facts] = Facts(
        says="tokens that the answer's turn attends to, and a prototype of every new frame",
        paper="StreamMem, arXiv 2508.15717",
        formula=(
            "score = attention of the answer's turn (or of the standing question) over old and new tokens\n"
            "prototype of a new frame = mean of its keys and values, weighted by that attention"
        ),
        carries="the queries of the newest probe, in every layer",
    )
    by_table: ClassVar[bool] = False
    uses_query: ClassVar[bool] = True

    def __call__(self, held: Held, keep: int) -> Tensor:
        """The attention in [0, 1]; 1 and more for the places of prototypes."""
        attention = comparable(held.attention(), held.table.visual, held.keys.dtype)
        return torch.where(self._places(held, attention), 1 + attention, attention)

    def merge(self, held: Held, stay: Tensor, priority: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Prototypes [kv_heads, new frames, head_dim]."""
        attention, new = held.attention(), held.newest
        places = self._places(held, comparable(attention, held.table.visual, held.keys.dtype))
        slots = places.nonzero()[:, 0]
        slots = slots[torch.isin(slots, stay)]
        same = (held.table.step[slots][:, None] == held.table.step) & new
        return slots, mean_of(held.keys, same, attention), mean_of(held.values, same, attention)

    @staticmethod
    def _places(held: Held, attention: Tensor) -> Tensor:
        """The least attended token of each new frame that has two or more [tokens], bool."""
        step, new = held.table.step, held.newest
        frames, group = step.unique(return_inverse=True)
        count = torch.zeros_like(frames).scatter_add(0, group, new.long())
        order = best_first(-attention.masked_fill(~new, torch.inf), *held.table.spread())
        first = torch.full_like(frames, len(step)).scatter_reduce(
            0, group[order], torch.arange(len(order), device=order.device), "amin"
        )
        place = torch.empty_like(order).scatter(0, order, torch.arange(len(order), device=order.device))
        return new & (place == first[group]) & (count[group] > 1)
