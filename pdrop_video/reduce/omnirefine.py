"""OmniRefine: regions of one piece become one token, and what was there a step before joins it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..common.checks import real, share, switch
from ..common.ties import exactly, working
from ..errors import ConfigError
from ..registry import Facts
from .base import Reduced, Tokens
from .cosines import inverse, level, levels
from .quadtree import quadtree

_STEP = 256
"""Tokens of a step, for FLOPs alone."""


@dataclass(frozen=True, slots=True)
class OmniRefine:
    """The video half of OmniRefine, arXiv 2605.12056, after a third party's reading of it: no code is published.

    Units of four steps, each by itself:

    1. From the whole grid down, a region becomes one node, the mean of its tokens, if that has a cosine of `tau_s` or
       more to the mean of each of its quadrants; else each quadrant is looked at in its turn. An odd row or column
       belongs to the first half, a strip splits in two, a single token is a node.
    2. Step by step, a node whose most similar node in the step before has a cosine of `tau_t` or more joins it, in the
       mean by the number of tokens, and is gone. Where all of a step are gone, the next one looks at the older step.
    3. From `least` to `most` of the unit's tokens go on. Of too many nodes the lightest are dropped.

    Ours: the tokens are those that enter the language model; units of four steps in place of chunks of three to five
    that follow the sound; nodes of a step are compared with what the step before was before this one changes it, so
    that their order does not matter, and of equals the first counts; a node stands at the token nearest to its region's
    centre, of equals the first by rows; a step with holes has means over what is there, and no node where nothing is;
    of too few nodes the tokens least like the mean that they are part of go on by themselves, out of that mean; equals
    go in an order spread evenly over time and space; `deep` and `centre`; 1 - cosine is compared in steps of what the
    features' type can tell apart. Nothing is coupled to the sound. `least` = `most` makes the share a fixed one.

    A stream holds a unit back until it is whole, so that nothing depends on where chunks begin and end. Nothing is
    carried, but with `centre` 8 * (hidden + 1) bytes: the sum of all features and their number.

    Parameters
    ----------
    tau_s, tau_t : float
        Least cosine within a region and over time, from -1 to 1.
    least, most : float
        Bounds of the share of each unit's tokens that goes on.
    deep : bool
        Whether a region is compared with each of its tokens in place of its quadrants' means, in which one odd token
        of sixteen is lost.
    centre : bool
        Whether cosines are between features less the mean of all that the stream has shown, this unit's included:
        where features share a large part, all of them are alike without it. What goes on is a mean of features as they
        are.

    Raises
    ------
    ConfigError
        If a parameter is out of its bounds, or `least` is above `most`.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    unit: ClassVar[int] = 4
    facts: ClassVar[Facts] = Facts(
        says="means of uniform regions, joined over four steps",
        paper="OmniRefine (its video half), arXiv 2605.12056",
        formula=(
            "a region becomes its mean if cos(mean, mean of each quadrant) >= tau_s, else it is divided in four\n"
            "a node joins the most similar node of the step before if cos >= tau_t"
        ),
        ours=True,
        carries="nothing, or one sum with `centre`",
    )
    tau_s: float = 0.82
    tau_t: float = 0.58
    least: float = 0.18
    most: float = 0.55
    deep: bool = False
    centre: bool = False

    def __post_init__(self) -> None:
        """Check the parameters."""
        for name in ("tau_s", "tau_t"):
            object.__setattr__(self, name, real(name, getattr(self, name), -1, 1))
        for name in ("least", "most"):
            object.__setattr__(self, name, share(name, getattr(self, name)))
        for name in ("deep", "centre"):
            object.__setattr__(self, name, switch(name, getattr(self, name)))
        if self.least > self.most:
            raise ConfigError(f"least is {self.least} and most is {self.most}; expected the first not to be above it.")

    @torch.no_grad()
    def __call__(self, tokens: Tokens, carried: Mapping[str, Tensor]) -> tuple[Reduced, dict[str, Tensor]]:
        """Unit after unit."""
        device, features = tokens.features.device, working(tokens.features)
        turn = tokens.turn()
        step, place, turn = torch.stack([tokens.step, tokens.place(), turn]).cpu().numpy()
        units = -(-len(tokens.seconds) // self.unit)
        begins = np.searchsorted(step, np.arange(units + 1) * self.unit).tolist()
        if self.centre:
            features, carried = self._centred(tokens.features, carried, begins)
        nodes = self._nodes(features, tokens, step, place)
        kept, owners = [], []
        for low, high in pairwise(begins):
            if low < high:
                first, last = np.searchsorted(nodes.anchor, (low, high))
                part = nodes.part(first, last)
                owner = self._joined(part, tokens.features.dtype)[nodes.of[low:high] - first]
                anchors, owner = self._bounded(
                    features[low:high], part.anchor - low, owner, turn[low:high], tokens.features.dtype
                )
                kept.append(anchors + low)
                owners.append(np.where(owner < 0, -1, owner + low))
        went, owner = np.concatenate(kept), np.concatenate(owners)
        weights = owner == went[:, None]
        weights = torch.from_numpy(weights / weights.sum(1, keepdims=True)).to(features)
        return Reduced(torch.from_numpy(went).to(device), weights), dict(carried) if self.centre else {}

    @staticmethod
    def _centred(
        features: Tensor, carried: Mapping[str, Tensor], begins: list[int]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Features less the mean of all so far, and the sum: unit by unit, in the same order however they come.

        One more number of some roundings' size, the same for all, makes those alike that are the mean but for rounding.
        """
        exact, total, parts = exactly(features), exactly(features.new_zeros(features.shape[1] + 1)), []
        if "sum" in carried and carried["sum"].shape == total.shape:
            total = carried["sum"].to(total)
        rounding = torch.finfo(features.dtype).eps * (16 if features.element_size() == 2 else 1024)
        for low, high in pairwise(begins):
            total = total + torch.cat([exact[low:high].sum(0), total.new_full((1,), high - low)])
            mean = total[:-1] / total[-1].clamp(min=1)
            parts.append(F.pad(exact[low:high] - mean, (0, 1)))
            parts[-1][:, -1] = rounding * mean.norm()
        return torch.cat(parts).to(working(features).dtype), {"sum": total}

    def _nodes(self, features: Tensor, tokens: Tokens, step: np.ndarray, place: np.ndarray) -> _Nodes:
        """The regions that each step is cut into."""
        many, places, tree = len(tokens.seconds), tokens.places, quadtree(*tokens.grid)
        regions, dtype = len(tree.cell), tokens.features.dtype
        slot = tokens.step * places + tokens.place()
        cells = features.new_zeros(many * places, features.shape[1])
        cells[slot] = features
        cells = cells.view(many, places, -1)
        there = np.zeros((many, places), bool)
        there[step, place] = True
        count = there @ tree.member.T.astype(np.int64)
        # directions are enough for cosines, so sums stand for means; the last row is that of no region
        sums = features.new_zeros(many, regions + 1, features.shape[1])
        single = np.flatnonzero(tree.cell >= 0)
        sums[:, single] = cells[:, torch.from_numpy(tree.cell[single]).to(features.device)]
        whole = np.ones((many, regions + 1), bool)
        for numbers in reversed(tree.levels):
            parts = torch.from_numpy(tree.children[numbers]).to(features.device)
            below = sums[:, parts]
            above = below.sum(2)
            sums[:, torch.from_numpy(numbers).to(features.device)] = above
            if not self.deep:
                cosine = (below @ above[..., None])[..., 0] * inverse(below) * inverse(above)[..., None]
                full = np.concatenate([count, np.zeros_like(count[:, :1])], axis=1)[:, tree.children[numbers]] > 0
                alike = (levels(cosine, dtype) <= level(self.tau_s, dtype)).cpu().numpy()
                whole[:, numbers] = (alike | ~full).all(-1)
        if self.deep and tree.levels:
            numbers = np.concatenate(tree.levels)
            above = F.normalize(sums[:, torch.from_numpy(numbers).to(features.device)], dim=-1)
            cosine = above @ F.normalize(cells, dim=-1).mT
            alike = (levels(cosine, dtype) <= level(self.tau_s, dtype)).cpu().numpy()
            whole[:, numbers] = (alike | ~there[:, None] | ~tree.member[numbers]).all(-1)
        picture, region = (tree.cut(whole[:, :-1]) & (count > 0)).nonzero()
        within = tree.member[region] & there[picture]
        anchor = np.where(within, tree.far[region], np.iinfo(np.int64).max).argmin(1)
        token = np.full((many, places), -1)
        token[step, place] = np.arange(len(tokens))
        anchor = token[picture, anchor]
        order = np.argsort(anchor)
        node, cell = within[order].nonzero()
        of = np.empty(len(tokens), np.int64)
        of[token[picture[order][node], cell]] = node
        chosen = (torch.from_numpy(each[order]).to(features.device) for each in (picture, region))
        return _Nodes(sums[tuple(chosen)], picture[order], anchor[order], of)

    def _joined(self, nodes: _Nodes, dtype: torch.dtype) -> np.ndarray:
        """For each node of a unit the node that it became part of, or itself."""
        sums = nodes.sums.clone()
        into = np.arange(len(sums))
        before = into[:0]
        for picture in np.unique(nodes.picture):
            here = np.flatnonzero(nodes.picture == picture)
            if len(before):
                old, new = (torch.from_numpy(each).to(sums.device) for each in (before, here))
                there = sums[old]
                change = levels(F.normalize(sums[new], dim=-1) @ F.normalize(there, dim=-1).T, dtype).long()
                # the least change, of equals the first; one answer of the device a step, as the next one rests on it
                best = (change * len(old) + torch.arange(len(old), device=sums.device)).amin(1).cpu().numpy()
                joins = best // len(old) <= level(self.tau_t, dtype)
                match = best % len(old)
                share = F.one_hot(torch.from_numpy(match[joins]).to(sums.device), len(old)).to(sums)
                sums[old] = there + share.T @ sums[new][torch.from_numpy(joins).to(sums.device)]
                into[here[joins]] = before[match[joins]]
                here = here[~joins]
            before = here if len(here) else before
        return into

    def _bounded(
        self, features: Tensor, anchor: np.ndarray, into: np.ndarray, turn: np.ndarray, dtype: torch.dtype
    ) -> tuple[np.ndarray, np.ndarray]:
        """Which tokens of a unit go on, ascending, and in which of them each is, -1 for none; `into` counts nodes."""
        count = len(into)
        high = max(int(count * self.most), 1)
        low = min(high, max(int(np.ceil(count * self.least - 1e-9)), 1))
        owner = anchor[into]
        kept, weight = np.unique(owner, return_counts=True)
        if len(kept) > high:
            kept = np.sort(kept[np.lexsort((turn[kept], -weight))[:high]])
            owner = np.where(np.isin(owner, kept), owner, -1)
        elif len(kept) < low:
            group = torch.from_numpy(np.searchsorted(kept, owner)).to(features.device)
            mean = F.one_hot(group, len(kept)).to(features).T @ features
            cosine = (features * mean[group]).sum(-1) * inverse(features) * inverse(mean)[group]
            lost = levels(cosine, dtype).cpu().numpy()
            rest = np.setdiff1d(np.arange(count), kept)
            alone = rest[np.lexsort((turn[rest], -lost[rest]))[: low - len(kept)]]
            owner[alone] = alone
            kept = np.union1d(kept, alone)
        return kept, owner

    def left(self, tokens: int) -> int | None:
        """It depends on what they show."""
        return None

    def most_bytes(self, places: int, hidden: int, bytes_per_number: int) -> int:
        """One sum in float64 and a number, with `centre`."""
        return 8 * (hidden + 1) if self.centre else 0

    def flops(self, tokens: int, hidden: int) -> int:
        """Regions with their parts, and at most all tokens of a step with all of the one before, 256 at most."""
        step = min(tokens, _STEP)
        return int(2 * tokens * hidden * (4 + step + (step / 3 if self.deep else 0)))


@dataclass(frozen=True, slots=True)
class _Nodes:
    """Nodes in the order of their anchors: sums of features, pictures, anchors; and which one each token is in."""

    sums: Tensor
    picture: np.ndarray
    anchor: np.ndarray
    of: np.ndarray

    def part(self, first: int, last: int) -> _Nodes:
        """Some of them."""
        return _Nodes(self.sums[first:last], self.picture[first:last], self.anchor[first:last], self.of)


__all__ = ["OmniRefine"]
