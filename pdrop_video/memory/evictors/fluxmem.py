"""FluxMem-style tiers: recent steps whole, then what changes over time, then one anchor for what is alike in a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ...common import checks
from ...common.ties import exactly, settled, unlike
from ...registry import Facts
from .base import Held, best_first, lexicographic, mean_of

_BINS = 128
_AROUND = tuple((row, column) for row in (-1, 0, 1) for column in (-1, 0, 1))
_AHEAD = ((0, 1), (1, -1), (1, 0), (1, 1))
"""Half of a place's neighbours: each pair once."""
_SHORT, _NEW, _ANCHOR, _GOES = 3, 2, 1, 0


@dataclass(frozen=True, slots=True)
class FluxMem:
    """Short, middle and long term (FluxMem, arXiv 2603.02096; its released code), on keys and within a budget.

    The last `short` steps stay whole. In the `middle` ones before them a token stays that differs, from what stands
    within one place of it in the next step or in the one before, by no less than that step's Otsu threshold (1 - the
    largest cosine), unless it is more than `same` like the next step. In each older step neighbours that are no further
    apart than the step's Otsu threshold are one cluster; its anchor, nearest to the mean, stays and becomes the mean of
    itself and of those of the cluster that go. Where too little goes by that, the oldest steps go.

    Ours: the release prunes hidden states of one prefill, to no budget. Here keys of all heads are compared, in every
    layer, whenever it is full: what the rules let go goes first, as much as must, older before younger, and what the
    rules let stay goes last. Nothing is carried, so they look at what is left of steps when they are applied.

    Parameters
    ----------
    short, middle : int
        Steps of time; the release has 4 and 32 (8 and 64 frames, two a step), or 128 where nothing is said.
    same : float
        Cosine to the next step above which a token of a middle step goes.

    Raises
    ------
    ConfigError
        If a parameter is out of its bounds.
    """

    facts: ClassVar[Facts] = Facts(
        says="the last steps whole, then tokens that change between steps, then one for each group of similar ones",
        paper="FluxMem, arXiv 2603.02096",
        formula=(
            "the last `short` steps stay whole\n"
            "of the `middle` ones before them a token stays if 1 - max cos to the 3 x 3 around it, in the next\n"
            "    or the previous step, >= that step's Otsu threshold, unless its cos to the next step > same\n"
            "of older steps one anchor for each cluster of neighbours closer than the step's Otsu threshold, as\n"
            "    the cluster's mean"
        ),
        ours=True,
    )
    by_table: ClassVar[bool] = False
    uses_query: ClassVar[bool] = False
    distinct: ClassVar[bool] = True
    short: int = 4
    middle: int = 32
    same: float = 0.8

    def __post_init__(self) -> None:
        object.__setattr__(self, "short", checks.whole("short", self.short))
        object.__setattr__(self, "middle", checks.whole("middle", self.middle, 0))
        object.__setattr__(self, "same", checks.real("same", self.same, -1, 1))

    def __call__(self, held: Held, keep: int) -> Tensor:
        """By what the rules say, then by time."""
        table = held.table
        return lexicographic(self.tiers(held)[0], table.step, *table.spread())

    def merge(self, held: Held, stay: Tensor, priority: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
        """The anchors' means [kv_heads, slots, head_dim]."""
        tier, cluster = self.tiers(held)
        kept = torch.zeros_like(tier, dtype=torch.bool).index_fill(0, stay, True)
        joins = (tier == _GOES) & (cluster >= 0) & ~kept
        slots = (kept & (tier == _ANCHOR) & torch.isin(cluster, cluster[joins])).nonzero()[:, 0]
        if not len(slots):
            return None
        among = (cluster[slots][:, None] == cluster) & joins
        among[torch.arange(len(slots), device=slots.device), slots] = True
        ones = torch.ones_like(tier)
        return slots, mean_of(held.keys, among, ones), mean_of(held.values, among, ones)

    def tiers(self, held: Held) -> tuple[Tensor, Tensor]:
        """What the rules make of each column, 3 to 0, and its cluster, -1 for none; both [tokens]."""
        table = held.table
        shown = table.step.masked_fill(~table.visual, -1)
        steps = shown.unique()
        steps = steps[steps >= 0]
        age = len(steps) - 1 - torch.searchsorted(steps, table.step).clamp(max=max(len(steps) - 1, 0))
        scene = _Scene(held, steps)
        own = table.pictured & ~table.standby
        middle = own & (age >= self.short) & (age < self.short + self.middle)
        new = scene.changes(middle, self.same)
        cluster, anchor = scene.clusters(own & (age >= self.short + self.middle))
        stays = torch.where(new, _NEW, torch.where(anchor | (table.visual & ~own), _ANCHOR, _GOES))
        return torch.where(table.visual & (age < self.short), _SHORT, stays), cluster


class _Scene:
    """Keys of a layer by step and place."""

    def __init__(self, held: Held, steps: Tensor) -> None:
        table, self.dtype = held.table, held.keys.dtype
        self.pictured, device = table.pictured & ~table.standby, steps.device
        self.raw = exactly(held.keys.transpose(0, 1).flatten(1))
        self.unit = F.normalize(self.raw, dim=-1)
        self.steps = max(len(steps), 1)
        at = torch.searchsorted(steps, table.step).clamp(max=self.steps - 1)
        self.step, self.row, self.column = at + 1, table.row.clamp(min=0) + 1, table.column.clamp(min=0) + 1
        size = self.steps + 2, int(self.row.max()) + 2, int(self.column.max()) + 2
        self.turn = best_first(*table.spread())
        self.grid = torch.full(size, -1, device=device)
        here = self.pictured.nonzero()[:, 0]
        self.grid[self.step[here], self.row[here], self.column[here]] = here

    def _apart(self, of: Tensor, step: int, row: int, column: int, among: Tensor) -> tuple[Tensor, Tensor]:
        """1 - cosine of columns `of` to what stands so far from each, inf where none of `among` does; and what does."""
        other = self.grid[self.step[of] + step, self.row[of] + row, self.column[of] + column]
        there = (other >= 0) & among[other.clamp(min=0)]
        cosine = (self.unit[of] * self.unit[other.clamp(min=0)]).sum(-1)
        return settled(unlike(cosine, self.dtype), self.dtype).masked_fill(~there, torch.inf), other

    def changes(self, among: Tensor, same: float) -> Tensor:
        """Which of `among` differ from the next step, or from the one before, as their step's thresholds have it."""
        of = among.nonzero()[:, 0]
        differs = []
        for step in (1, -1):
            apart = torch.stack([self._apart(of, step, *by, self.pictured)[0] for by in _AROUND]).amin(0)
            known, group = apart.isfinite(), self.step[of]
            line = otsu(apart.masked_fill(~known, 0), known, group, self.steps + 2, median=True)[group]
            differs.append((known & (apart >= line), known, apart))
        (after, followed, apart), (before, _, _) = differs
        line = settled(apart.new_tensor(1 - same), self.dtype)
        new = ~followed | ((after | before) & (apart >= line))
        return torch.zeros_like(among).index_put((of,), new)

    def clusters(self, among: Tensor) -> tuple[Tensor, Tensor]:
        """Each one's cluster within its step, -1 where not `among`, and whether it is its anchor; both [tokens]."""
        of, number = among.nonzero()[:, 0], torch.arange(len(among), device=among.device)
        found = [self._apart(of, 0, *by, among) for by in _AHEAD]
        apart, ends = (torch.stack(each) for each in zip(*found, strict=True))
        known, group = apart.isfinite(), self.step[of].expand(len(_AHEAD), -1)
        line = otsu(apart.masked_fill(~known, 0).flatten(), known.flatten(), group.flatten(), self.steps + 2)
        joined = known & (apart <= line[group])
        one, other = of.expand(len(_AHEAD), -1)[joined], ends[joined]
        label = number
        while True:  # as many rounds as clusters are wide
            least = torch.minimum(label[one], label[other])
            new = label.scatter_reduce(0, one, least, "amin").scatter_reduce(0, other, least, "amin")
            new = new[new]
            if torch.equal(new, label):
                break
            label = new
        count = torch.zeros_like(label).scatter_add(0, label, torch.ones_like(label))
        mean = torch.zeros_like(self.raw).index_add(0, label, self.raw) / count.clamp(min=1)[:, None].to(self.raw)
        off = settled((self.raw - mean[label]).square().sum(-1), self.dtype)
        order = self.turn[off[self.turn].argsort(stable=True)]
        place = torch.empty_like(order).scatter(0, order, number)
        first = torch.full_like(label, len(label)).scatter_reduce(0, label, place, "amin")
        return torch.where(among, label, -1), among & (place == first[label])


def otsu(values: Tensor, among: Tensor, group: Tensor, groups: int, *, median: bool = False) -> Tensor:
    """The threshold of each group [groups] that best parts its values, from 0 to 2, in two: the middle of a bin of 128.

    Where one bin holds all of them it is their lower median, with `median`; otherwise, and for an empty group, -inf.

    Parameters
    ----------
    values, group : Tensor [values]
    among : Tensor [values], bool
        Which count.
    groups : int
    """
    width = 2 / _BINS
    exact = values.clamp(0, 2)
    at = (exact / width).long().clamp(max=_BINS - 1)
    share = exact.new_zeros(groups * _BINS).index_add(0, group * _BINS + at, among.to(exact)).view(groups, _BINS)
    total = share.sum(1, keepdim=True)
    share = share / total.clamp(min=1)
    centres = (torch.arange(_BINS, dtype=exact.dtype, device=exact.device) + 0.5) * width
    below, mass = share.cumsum(1), (share * centres).cumsum(1)
    between = (mass[:, -1:] * below - mass) ** 2 / (below * (1 - below)).clamp(min=1e-12)
    between = settled(between.masked_fill((below < 1e-6) | (1 - below < 1e-6), -1), torch.float32)
    best = between.argmax(1)
    line = centres[best]
    parted = between.amax(1) > 0
    if not median or not len(exact):
        return line.masked_fill(~parted, -torch.inf)
    order = exact.masked_fill(~among, torch.inf).argsort(stable=True)
    order = order[group[order].argsort(stable=True)]  # by group, those that count first, ascending
    sizes = torch.zeros_like(best).index_add(0, group, torch.ones_like(group))
    counted = torch.zeros_like(best).index_add(0, group, among.long())
    middle = (sizes.cumsum(0) - sizes + (counted - 1).clamp(min=0) // 2).clamp(max=len(order) - 1)
    middling = exact[order[middle]].masked_fill(counted == 0, -torch.inf)
    return torch.where(parted, line, middling)
