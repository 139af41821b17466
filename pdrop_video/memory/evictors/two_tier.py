"""Two tiers: the last steps whole, and of every older step a few columns, chosen once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ...common import checks
from ...common.ties import exactly, settled
from ...registry import Facts
from ..table import TokenTable
from .base import Held, best_first, lexicographic, mean_of, rank_in_group

WINDOW, BANK, REST = 2, 1, 0
"""Tiers, by what goes last."""


def window(table: TokenTable, room: int) -> tuple[Tensor, Tensor]:
    """The newest steps that fit into so many columns, whole, and the newest that shows something in any case.

    Returns
    -------
    group : Tensor [tokens]
        The number of each column's step.
    inside : Tensor [tokens]
        Whether it belongs to one of those steps.
    """
    steps, group = table.step.unique(return_inverse=True)
    counts = torch.zeros_like(steps).scatter_add(0, group, table.visual.long())
    since = counts.flip(0).cumsum(0).flip(0)  # of a step and all later ones
    shown = torch.where(counts > 0, steps, -1)
    recent = (since <= room) | (shown == shown.max())
    return group, recent[group] & (table.step >= 0)


@dataclass(frozen=True, slots=True)
class TwoTier:
    """A window of whole steps and a bank of n columns for each older one: the streaming rule of POINTS-Long without it.

    POINTS-Long (arXiv 2604.11627) keeps the full columns of recent frames, and of older ones only n standby tokens,
    which it was trained to fill. Without that training there are none: this is our analogue. When a step leaves the
    window, the n of its columns that scored best when they came stay, and the others go. When the bank is full its
    oldest step goes, the lowest scores of it first (inferred; the notes on the paper do not say). Room that the two
    tiers leave is filled with the best scores of the rest, so that no budget is wasted (ours).

    A column's score never changes, and of a step those that are not chosen go first. So which n are chosen is decided
    once, though nothing is carried.

    It differs from `Pyramid`, whose older past competes for the budget by score, but for a floor for each of 16
    periods, which stretch as the stream grows: there a step may lose all, or stay whole for an hour. Here every older
    step has the same n columns from the moment on at which it leaves the window, until it goes as the oldest.

    Parameters
    ----------
    window : float
        Share of the budget that the newest whole steps fill; the newest one is always among them.
    n : int
        Columns of each older step.
    by : {"score", "place"}
        How the n are chosen: by score, or, as a control, spread evenly over the picture.

    Raises
    ------
    ConfigError
        If a parameter is out of its bounds.
    """

    facts: ClassVar[Facts] = Facts(
        says="the last steps whole; of each older step its n best tokens, chosen when it leaves them",
        paper="POINTS-Long, arXiv 2604.11627",
        formula=(
            "stay: whole steps, the newest, up to the share `window` of the budget; n tokens of each older\n"
            "    step, by score\n"
            "what does not fit: the oldest step's lowest scores go first"
        ),
        ours=True,
    )
    by_table: ClassVar[bool] = True
    uses_query: ClassVar[bool] = False
    distinct: ClassVar[bool] = True
    uses_score: ClassVar[bool] = True
    window: float = 0.125
    n: int = 8
    by: Literal["score", "place"] = "score"

    def __post_init__(self) -> None:
        object.__setattr__(self, "window", checks.share("window", self.window))
        object.__setattr__(self, "n", checks.whole("n", self.n))
        checks.choice("by", self.by, ("score", "place"))

    def __call__(self, held: Held, keep: int) -> Tensor:
        """By tier; in the window by recency, in the bank by recency and score, else by score."""
        table, tier = held.table, self.tiers(held, keep)
        recency = table.step.masked_fill(tier == REST, -1)
        return lexicographic(tier, recency, table.score, *table.spread())

    def tiers(self, held: Held, keep: int) -> Tensor:
        """What each column is of [tokens]: 2 the window, its text too, 1 the bank, 0 neither."""
        table = held.table
        group, inside = window(table, int(self.window * keep))
        order = table.spread() if self.by == "place" else (table.score, *table.spread())
        place = rank_in_group(best_first(table.visual, *order), group)
        return torch.where(inside, WINDOW, torch.where(table.visual & (place < self.n), BANK, REST))


@dataclass(frozen=True, slots=True)
class TwoTierMeans(TwoTier):
    """The same, but the n columns of a step become means of it: each stands for those of the others nearest to it.

    Columns that go join the chosen column of their step whose key is most like theirs (cosine over all heads). It
    becomes the mean of keys and of values, each weighted by that cosine, from 0, and itself by 1. All of it is ours. A
    step's columns that found room beside the bank join later, when they go.
    """

    facts: ClassVar[Facts] = Facts(
        says="the last steps whole; each older step as n means of similar tokens",
        paper="POINTS-Long, arXiv 2604.11627",
        formula=(
            "as two_tier; the n tokens become (own + sum c x) / (1 + sum c) over the tokens x that join them, c\n"
            "    = max(cos of keys, 0)"
        ),
        ours=True,
    )
    by_table: ClassVar[bool] = False

    def merge(self, held: Held, stay: Tensor, priority: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
        """The means [kv_heads, slots, head_dim], in place of the chosen columns of steps that lose some."""
        table, tier = held.table, self.tiers(held, len(stay))
        kept = torch.zeros_like(table.visual).index_fill(0, stay, True)
        goes = table.visual & ~kept
        slots = (kept & (tier == BANK) & torch.isin(table.step, table.step[goes])).nonzero()[:, 0]
        if not len(slots):
            return None
        slots = slots[best_first(*(key[slots] for key in table.spread()))]
        keys = F.normalize(exactly(held.keys.transpose(0, 1).flatten(1)), dim=-1)
        same = table.step[slots][:, None] == table.step
        likeness = settled(keys[slots] @ keys.mT, held.keys.dtype).masked_fill(~same, -torch.inf)
        nearest = likeness.argmax(0)  # the first of equals, which is the first in the even spread
        among = same & goes & (nearest == torch.arange(len(slots), device=slots.device)[:, None])
        weights = likeness.amax(0).clamp(min=0).index_fill(0, slots, 1.0)
        among[torch.arange(len(slots), device=slots.device), slots] = True
        return slots, mean_of(held.keys, among, weights), mean_of(held.values, among, weights)
