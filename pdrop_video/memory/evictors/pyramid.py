"""Ours: the recent past whole, the older past by score with a floor for every period of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...registry import Facts
from .base import Held, best_first, priorities, rank_in_group


@dataclass(frozen=True, slots=True)
class Pyramid:
    """A recent window whole; older tokens compete by score, with a floor for each period.

    Periods are stretches of time of equal length, `periods` of them over all that is remembered. While each has fewer
    than its floor the best of its tokens come before anything else that is old, so that an hour ago stays represented.

    Parameters
    ----------
    recent : float
        Share of the budget that the newest tokens fill.
    periods : int
        Into how many the older past is divided.
    floor : float
        Share of the budget that is divided equally among the periods.
    half_life : float, optional
        Seconds after which a period's floor is half as large. None: an hour ago has the floor of a minute ago.
    """

    facts: ClassVar[Facts] = Facts(
        says="the recent past whole; of the older past the best scores, and some of every period of it",
        paper="",
        formula=(
            "stay: the newest share `recent` of the budget\n"
            "then the best scores of each of `periods` equal periods, up to floor * budget / periods of each\n"
            "then the best scores of all"
        ),
        ours=True,
    )
    by_table: ClassVar[bool] = True
    uses_query: ClassVar[bool] = False
    distinct: ClassVar[bool] = True
    uses_score: ClassVar[bool] = True
    recent: float = 0.25
    periods: int = 16
    floor: float = 0.5
    half_life: float | None = None

    def __call__(self, held: Held, keep: int) -> Tensor:
        """By recency, then by the floor, then by score."""
        table = held.table
        count = len(table)
        recent = min(int(self.recent * keep), count)
        newest = torch.zeros_like(table.visual)
        if recent:
            newest = table.index >= table.index.sort().values[count - recent]
        age = held.ages()
        oldest = age.masked_fill(~table.visual, 0).amax()
        period = ((oldest - age) / oldest.clamp(min=1e-6) * self.periods).long().clamp(0, self.periods - 1)
        floor = age.new_full((count,), self.floor * keep / self.periods)
        if self.half_life is not None:
            floor = floor * 0.5 ** (age / self.half_life)
        order = best_first(~newest, table.score, *table.spread())
        granted = (rank_in_group(order, period) < floor) & ~newest
        return (2 * newest.long() + granted.long()) * (count + 1) + priorities(order)
