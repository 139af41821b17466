"""FastVID: segments of like frames; what is salient in each frame, and peaks of density that stand for the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..common.checks import choice, real, share, switch, whole
from ..common.ties import settled, spread
from ..registry import Facts
from .base import Reduced, Tokens
from .density import distances, peaks
from .likeness import apart, line_at, precisely
from .merging import Merged
from .steps import SALIENT, best_of_each, mean_of_each, salience, unit_by_unit

_NEAREST = 4
"""Neighbours that make density, the token itself among them, as in the release."""
_STEPS_A_SEGMENT = 4
"""32 frames in 8 segments is what the release runs with."""


@dataclass(frozen=True, slots=True)
class FastVID:
    """Dynamic density pruning, arXiv 2503.11187: each segment keeps what is salient and what stands for its tokens.

    A video is cut where neighbouring steps are least alike, and wherever they are less alike than a threshold. Of each
    segment's budget the share `context` goes to its anchor steps, every `period`-th from its end backwards: there, of
    the tokens that are not salient, the peaks of density (DPC-kNN) stay, and each becomes a mean of itself and of all
    tokens of the segment nearest to it, by cosine. The rest of the budget goes to the salient tokens of each step,
    which stay as they are. For a chunk that holds a whole video this is the release's plain form (LLaVA-Video); with
    `parallel` it is that of LLaVA-OneVision, which rounds budgets per step, and counts a peak among the tokens that are
    merged into it.

    Ours: steps are compared by the means of their tokens, as the release does for Qwen2.5-VL, since SigLIP's pooled
    vector is not handed over. Salient is what is least like the mean of its step, so that every family can do it; with
    ``salient="attention"`` it is what receives attention in the tower's last layer, as the release has it for
    Qwen2.5-VL (for SigLIP it has the attention of its pooling head). There are at least as many segments as make one in
    four steps, the release's 8 of 32 frames, unless `segments` says how many. Equal densities go by an order spread
    over the picture, where the release adds random noise; anchors never get more than they have, where the release
    raises; at least one token stays.

    Nothing is carried. Segments end with the chunk, and how many cuts are made follows from its length: what stays
    depends on where chunks begin and end, but never more than int(tokens * keep) of each step in the mean, or one
    token. With `unit` it does not depend on chunks; pushes of a frame or two need that to have segments at all.

    Parameters
    ----------
    keep : float
        Share of the tokens that stays: int(tokens * keep) of each step, in the mean over a segment.
    segments : int, optional
        Of a chunk, at least; one for every four steps where left out.
    threshold : float
        Cosine of two steps below which a segment ends.
    context : float
        Share of the budget that goes to means: the release's d.
    period : int
        Steps from anchor to anchor: its p.
    own : float
        Least weight of a peak beside what is merged into it: its beta.
    parallel : bool
        The release's parallel form.
    salient : str
        "features", or "attention" that a token receives in the tower's last layer, for families that hand it over.
    unit : int
        Steps that are reduced together, whatever the chunks; 1 for those of a chunk.

    Raises
    ------
    ConfigError
        If one of them is out of range.
    """

    facts: ClassVar[Facts] = Facts(
        says="salient tokens of each step, and density peaks as means over segments of similar steps",
        paper="FastVID, arXiv 2503.11187",
        formula=(
            "a segment ends where cos(mean of a step, mean of the next) < threshold\n"
            "salient: 1 - cos(x, mean of its step); peaks: exp(-mean d^2 to the nearest) * (distance to the\n"
            "    nearest denser token)\n"
            "peak = w * itself + (1 - w) * mean of those nearest to it, w = max(own, 1 / (1 + their number))"
        ),
        ours=True,
    )
    keep: float = 0.25
    segments: int | None = None
    threshold: float = 0.9
    context: float = 0.4
    period: int = 4
    own: float = 0.6
    parallel: bool = False
    salient: str = "features"
    unit: int = 1

    def __post_init__(self) -> None:
        """Check all of them."""
        object.__setattr__(self, "salient", choice("salient", self.salient, SALIENT))
        object.__setattr__(self, "keep", share("keep", self.keep))
        if self.segments is not None:
            object.__setattr__(self, "segments", whole("segments", self.segments))
        object.__setattr__(self, "threshold", real("threshold", self.threshold, -1, 1))
        for name in ("context", "own"):
            object.__setattr__(self, name, real(name, getattr(self, name), 0, 1))
        for name in ("period", "unit"):
            object.__setattr__(self, name, whole(name, getattr(self, name)))
        switch("parallel", self.parallel)

    @property
    def needs(self) -> tuple[str, ...]:
        """The tower's attention, if that is what is salient."""
        return ("attention",) if self.salient == "attention" else ()

    @torch.no_grad()
    def __call__(self, tokens: Tokens, carried: Mapping[str, Tensor]) -> tuple[Reduced, dict[str, Tensor]]:
        """Unit by unit."""
        return unit_by_unit(tokens, self.unit, self._unit), {}

    def _unit(self, tokens: Tokens) -> Reduced:
        features, device = precisely(tokens.features), tokens.step.device
        counted = tokens.step.bincount(minlength=len(tokens.seconds))
        sizes = counted.tolist()
        salient, peaked, segments = [], [], self._segments(tokens, features, counted)
        for first, last in segments:
            salient_here, peaked_here = self._budgets(sizes[first : last + 1])
            salient += salient_here
            peaked += peaked_here
        chosen = best_of_each(tokens, salience(tokens, self.salient), torch.tensor(salient, device=device))
        merged = Merged(tokens)
        merged.alone(chosen.nonzero()[:, 0])
        begins = [sum(sizes[:step]) for step in range(len(sizes) + 1)]
        rest, turn, unit = ~chosen, tokens.turn(), F.normalize(features, dim=-1)
        for first, last in segments:
            if not any(peaked[first : last + 1]):
                continue
            around = rest[begins[first] : begins[last + 1]].nonzero()[:, 0] + begins[first]
            for step in range(first, last + 1):
                if peaked[step]:
                    here = rest[begins[step] : begins[step + 1]].nonzero()[:, 0] + begins[step]
                    dtype = tokens.features.dtype
                    best = peaks(distances(features[here], dtype), turn[here], peaked[step], _NEAREST, dtype)
                    self._merge(unit, here[best], around, dtype, merged)
        return merged.reduced(self.salient)

    def _segments(self, tokens: Tokens, features: Tensor, sizes: Tensor) -> list[tuple[int, int]]:
        """First and last step of each."""
        steps = len(tokens.seconds)
        mean = F.normalize(mean_of_each(features, tokens.step, sizes), dim=-1)
        dtype = tokens.features.dtype
        change = apart((mean[:-1] * mean[1:]).sum(-1), dtype)
        line = line_at(self.threshold, dtype).to(change)
        step = torch.arange(steps - 1, device=change.device)
        order = spread(step + tokens.since, torch.zeros_like(step), torch.zeros_like(step)).argsort(stable=True)
        order = order[change[order].argsort(descending=True, stable=True)]
        least = -(-steps // _STEPS_A_SEGMENT) if self.segments is None else self.segments
        cut = (change > line).index_fill(0, order[: least - 1], True)
        cuts = [-1, *cut.nonzero()[:, 0].tolist(), steps - 1]
        return [(before + 1, last) for before, last in pairwise(cuts)]

    def _budgets(self, sizes: list[int]) -> tuple[list[int], list[int]]:
        """How many salient tokens and how many peaks each step of a segment keeps."""
        kept = [int(size * self.keep) for size in sizes]
        anchors = list(range(len(sizes) - 1, -1, -self.period))
        if self.parallel:
            aside = [int(count * self.context) for count in kept]
            salient = [count - less for count, less in zip(kept, aside, strict=True)]
            shares = [sum(aside) // len(anchors)] * len(anchors)
        else:
            context = int(sum(kept) * self.context)
            salient = _shared(sum(kept) - context, len(sizes))
            shares = _shared(context, len(anchors))
        salient = [min(count, size) for count, size in zip(salient, sizes, strict=True)]
        peaked = [0] * len(sizes)
        for step, count in zip(anchors, shares, strict=True):
            peaked[step] = min(count, sizes[step] - salient[step])
        return salient, peaked

    def _merge(self, unit: Tensor, centres: Tensor, around: Tensor, dtype: torch.dtype, merged: Merged) -> None:
        """Peaks, and means of those that are nearest to each of them."""
        nearest = settled(unit[around] @ unit[centres].T, dtype).argmax(1)
        count = len(centres)
        among = F.one_hot(nearest, count).T.to(unit)
        place, at = torch.searchsorted(around, centres), torch.arange(count, device=centres.device)
        among[:, place] = 0
        if self.parallel:
            among[at, place] = 1
        sizes = among.sum(1)
        own = (1 / (sizes + 1)).clamp(min=self.own)
        own = torch.where(sizes > 0, own, torch.ones_like(own))
        among = among * ((1 - own) / sizes.clamp(min=1))[:, None]
        among[at, place] += own
        merged.means(centres, around[None], among)

    def left(self, tokens: int) -> None:
        """Up to what they show."""

    def most_bytes(self, places: int, hidden: int, bytes_per_number: int) -> int:
        """Nothing is carried."""
        return 0

    def flops(self, tokens: int, hidden: int) -> int:
        """At most, since segments depend on what is shown: one product for each pair, and a mean of each step."""
        return 2 * tokens * tokens * hidden + 4 * tokens * hidden


def _shared(count: int, among: int) -> list[int]:
    """So many, shared evenly, the first ones getting what is over."""
    each, over = divmod(count, among)
    return [each + (number < over) for number in range(among)]
