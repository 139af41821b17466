"""StreamingTOM's causal temporal reduction: a quota of each step, shared by what stands still and what changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..common.checks import choice, real, share, switch, whole
from ..common.ties import settled
from ..registry import Facts
from .base import Reduced, Tokens
from .density import distances, peaks
from .likeness import line_at, precisely
from .merging import Merged
from .past import change_of, last_of, newest
from .steps import SALIENT, best_of_each, salience


@dataclass(frozen=True, slots=True)
class StreamingTOM:
    """StreamingTOM's half before the language model, CTR, arXiv 2510.18269.

    A token stands still if its cosine to the same place in the step before is above a threshold; those of a first step
    all change. Of a step's quota q = int(n * keep), still tokens get int(q * still / n), the others the rest; what one
    kind can't use the other gets. Of the others the salient stay as they are. Of the still ones the peaks of density
    (DPC-kNN) stay, each mixed with the mean of those of them nearest to it: `own` of itself and 1 - `own` of that mean.

    The half behind the language model (OQM: four bits, and groups of one step's tokens that a question brings back by
    their mean key) is what ``Memory(storage="int4", archive=...)`` and ``ask(retrieve=...)`` do.

    Ours: salient is what is least like the mean of its step, so that every family can do it; with
    ``salient="attention"`` it is what the release goes by, the attention that a token receives in the tower's last
    layer. In the release a peak is far from any *sparser* token (the comparison of densities is turned round, which we
    take for a slip), and it adds random noise to densities: here it is far from any denser one, and equal densities go
    by an order spread over the picture. At least one token of a step stays. A place that a gate left out is compared
    with what was last seen of it; cosines are rounded before they meet the threshold, and one equal to it changes.

    The last step is carried from chunk to chunk, one step's tokens in all. What goes on does not depend on where chunks
    begin and end.

    Parameters
    ----------
    keep : float
        Share of each step's tokens that goes on; the release's 50 of 196 are .256.
    threshold : float
        Cosine above which a token stands still.
    nearest : int
        Neighbours that make density, the token itself among them: the release's k.
    own : float
        Weight of a peak beside the mean of what is merged into it: its beta.
    salient : str
        "features", or "attention" that a token receives in the tower's last layer, for families that hand it over.
    release : bool
        Peaks as the release has them.

    Raises
    ------
    ConfigError
        If one of them is out of range.
    """

    facts: ClassVar[Facts] = Facts(
        says="of each step density peaks among tokens that stand still, and salient ones among the others",
        paper="StreamingTOM, arXiv 2510.18269",
        formula=(
            "still: cos(x[t, p], x[t-1, p]) > threshold; of a step's quota q = int(n * keep) still tokens get\n"
            "    int(q * still / n)\n"
            "still ones: density peaks, own * itself + (1 - own) * mean of those nearest; others: the most\n"
            "    salient"
        ),
        ours=True,
        carries="the last step's tokens",
    )
    keep: float = 0.256
    threshold: float = 0.9
    nearest: int = 7
    own: float = 0.6
    salient: str = "features"
    release: bool = False

    def __post_init__(self) -> None:
        """Check all of them."""
        object.__setattr__(self, "salient", choice("salient", self.salient, SALIENT))
        object.__setattr__(self, "keep", share("keep", self.keep))
        object.__setattr__(self, "threshold", real("threshold", self.threshold, -1, 1))
        object.__setattr__(self, "nearest", whole("nearest", self.nearest))
        object.__setattr__(self, "own", real("own", self.own, 0, 1))
        switch("release", self.release)

    @property
    def needs(self) -> tuple[str, ...]:
        """The tower's attention, if that is what is salient."""
        return ("attention",) if self.salient == "attention" else ()

    @torch.no_grad()
    def __call__(self, tokens: Tokens, carried: Mapping[str, Tensor]) -> tuple[Reduced, dict[str, Tensor]]:
        """Step by step."""
        dtype, steps = tokens.features.dtype, len(tokens.seconds)
        last = last_of(tokens, carried.get("last"))
        change, seen = change_of(tokens, last)
        still = (settled(change, dtype) < line_at(self.threshold, dtype).to(change)) & seen
        calm, moving = (tokens.step[kind].bincount(minlength=steps).tolist() for kind in (still, ~still))
        quotas = [self._quotas(*both) for both in zip(calm, moving, strict=True)]
        counts = torch.tensor([*(of_moving for _, of_moving in quotas), 0], device=tokens.step.device)
        chosen = best_of_each(tokens, salience(tokens, self.salient), counts, tokens.step.masked_fill(still, steps))
        merged = Merged(tokens)
        merged.alone(chosen.nonzero()[:, 0])
        turn = tokens.turn()
        for step, (of_still, _) in enumerate(quotas):
            if of_still:
                self._peaks(tokens, turn, (still & (tokens.step == step)).nonzero()[:, 0], of_still, merged)
        return merged.reduced(self.salient), {"last": newest(tokens, last)}

    def _quotas(self, still: int, moving: int) -> tuple[int, int]:
        """How many of a step's tokens of each kind go on."""
        if not still + moving:
            return 0, 0
        quota = self.left(still + moving)
        most = min(int(quota * still / (still + moving)), still)
        least = min(quota - most, moving)
        return quota - least, least

    def _peaks(self, tokens: Tokens, turn: Tensor, own: Tensor, count: int, merged: Merged) -> None:
        """So many peaks of the tokens `own` of one step, and what is nearest to each."""
        dtype, features = tokens.features.dtype, precisely(tokens.features[own])
        distance = distances(features, dtype)
        nearest = max(min(self.nearest, len(own) - 1), 1)
        centres = peaks(distance, turn[own], count, nearest, dtype, sparser=self.release)
        joins = settled(distance[:, centres], dtype).argmin(1)
        others = torch.ones_like(own, dtype=torch.bool).index_fill(0, centres, False)
        among = torch.zeros(count, len(own), dtype=features.dtype, device=features.device)
        among[joins[others], others.nonzero()[:, 0]] = 1
        sizes = among.sum(1)
        among *= ((1 - self.own) / sizes.clamp(min=1))[:, None]
        among[torch.arange(count, device=own.device), centres] = torch.where(sizes > 0, self.own, 1.0).to(among)
        merged.means(own[centres], own[None], among)

    def left(self, tokens: int) -> int:
        """Of a step's tokens, the share of them, one at least; of several steps it is this, or fewer by rounding."""
        return max(int(tokens * self.keep), 1)

    def most_bytes(self, places: int, hidden: int, bytes_per_number: int) -> int:
        """One step's tokens."""
        return places * hidden * bytes_per_number

    def flops(self, tokens: int, hidden: int) -> int:
        """At most, since it depends on what stands still: one distance for each pair, a cosine and a mean."""
        return 2 * tokens * tokens * hidden + 8 * tokens * hidden
