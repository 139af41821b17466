"""Standby tokens as memory: recent steps whole, and of every older one what stands by for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...common import checks
from ...registry import Facts
from .base import Held, lexicographic
from .two_tier import BANK, REST, WINDOW, window


@dataclass(frozen=True, slots=True)
class Standby:
    """The streaming rule of POINTS-Long, arXiv 2604.11627, for streams whose steps have standby tokens.

    Such streams are opened with the reducer ``standby``. The newest steps stay whole, their own columns and their
    standby columns, up to a share of the budget. When that is full, the own columns of its oldest step go and its
    standby columns stay. When there is no room for these, those of the oldest step go (inferred; the notes on the paper
    do not say). Room that is left stays filled with the newest of the own columns that would go, so that no budget is
    wasted (ours). The half of it that needs no training is `TwoTier`. Where steps have no standby tokens, the newest
    columns are all that stays.

    Parameters
    ----------
    window : float
        Share of the budget that the newest whole steps fill, at most; the newest one is always among them. The paper's
        is 4 thousand of 32 thousand.

    Raises
    ------
    ConfigError
        If `window` is out of its bounds.
    """

    facts: ClassVar[Facts] = Facts(
        says="the last steps whole; of each older step its standby tokens",
        paper="POINTS-Long, arXiv 2604.11627",
        trained=True,
        ours=True,
        formula=(
            "stay: whole steps, the newest, up to the share `window` of the budget; all standby tokens\n"
            "first go own tokens of steps behind the window, then standby tokens, the oldest first"
        ),
    )
    by_table: ClassVar[bool] = True
    uses_query: ClassVar[bool] = False
    distinct: ClassVar[bool] = True
    beside: ClassVar[str] = "standby"
    window: float = 0.125

    def __post_init__(self) -> None:
        object.__setattr__(self, "window", checks.share("window", self.window))

    def __call__(self, held: Held, keep: int) -> Tensor:
        """By tier, and within each by recency; of the steps that share a time, evenly over the picture."""
        return lexicographic(self.tiers(held, keep), held.table.step, *held.table.spread())

    def tiers(self, held: Held, keep: int) -> Tensor:
        """What each column is of [tokens]: 2 the window, its text too, 1 the bank, 0 neither."""
        _, inside = window(held.table, int(self.window * keep))
        return torch.where(inside, WINDOW, torch.where(held.table.standby, BANK, REST))
