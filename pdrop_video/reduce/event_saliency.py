"""Event saliency: what nothing happened at does not go on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..common.checks import real, share
from ..common.ties import settled
from ..registry import Facts
from .base import Reduced, Tokens
from .past import change_of, last_of, newest
from .steps import rank


@dataclass(frozen=True, slots=True)
class EventSaliency:
    """EventPrune's (ECP, arXiv 2605.19506) motion saliency filter: tokens without events are dropped.

    Inferred throughout, from the paper's abstract: no code and no formula is public. A token is active if the gate
    ``event`` counted more than `least` events a pixel there since the last keyframe (`Tokens.saliency`). Inactive ones
    are dropped, but for a share `floor` of each step, and the first step of a stream stays whole. Of what is left, the
    int(tokens * keep) of a chunk with the most events stay, and no fewer than the first step has; there may be fewer.

    Ours: the floor is filled by the events themselves and evenly over the picture where there are none, since there is
    no attention yet. Behind a gate that counts no events, or none, a token's saliency is the change of its features,
    1 - cosine to what its place showed last, and `least` is a bound on that; a place that showed nothing yet is active
    and comes first.

    A stream carries nothing behind a gate that counts events, else what each place showed last: places x hidden
    numbers. The filter does not depend on where chunks begin and end; the budget is a chunk's own, so that with `keep`
    below 1 the choice does, as far as the filter leaves more than the budget.

    Parameters
    ----------
    keep : float
        Most of the tokens of each chunk that stay, as a share; 1 for the filter alone.
    least : float
        Saliency up to which a token is inactive.
    floor : float
        Share of each step's tokens that passes the filter, active or not; one at least.

    Raises
    ------
    ConfigError
        If `keep` is no share in (0, 1], `least` is below 0 or `floor` not from 0 to 1.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    facts: ClassVar[Facts] = Facts(
        says="visual tokens where the gate `event` counted events, or that changed",
        paper="EventPrune, arXiv 2605.19506",
        formula=(
            "saliency = events a pixel since the last keyframe; without the gate `event`: 1 - cos(x[t, p], x\n"
            "    last seen at p)\n"
            "active: saliency > least; of these the int(tokens * keep) highest of a chunk stay"
        ),
        ours=True,
        carries="the last step's tokens, without the gate `event`",
    )
    keep: float = 0.5
    least: float = 0.0
    floor: float = 0.1

    def __post_init__(self) -> None:
        """Check the shares."""
        object.__setattr__(self, "keep", share("keep", self.keep))
        object.__setattr__(self, "least", real("least", self.least, 0))
        object.__setattr__(self, "floor", real("floor", self.floor, 0, 1))

    @torch.no_grad()
    def __call__(self, tokens: Tokens, carried: Mapping[str, Tensor]) -> tuple[Reduced, dict[str, Tensor]]:
        """Filter, then budget."""
        scores, active, carry = self._saliency(tokens, carried)
        first = tokens.step + tokens.since == 0
        # best first: by saliency, equals spread over time and space
        order = tokens.turn().argsort(stable=True)
        order = order[scores[order].argsort(descending=True, stable=True)]
        passing = active | first | self._floored(tokens, order)
        order = order[(~first)[order].argsort(stable=True)]
        order = order[passing[order]]  # the device says how many
        count = max(int(len(tokens) * self.keep), 1)
        if not tokens.since:
            count = max(count, int(first.sum()))
        return Reduced(order[:count].sort().values), carry

    def _saliency(self, tokens: Tokens, carried: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Scores [tokens] that can be compared, which are active, and what to carry."""
        if tokens.saliency is not None:
            scores = settled(tokens.saliency, torch.float32)
            return scores, scores > self.least, {}
        last = last_of(tokens, carried.get("last"))
        change, seen = change_of(tokens, last)
        scores = settled(change, tokens.features.dtype).masked_fill(~seen, torch.inf)
        return scores, scores > self.least, {"last": newest(tokens, last)}

    def _floored(self, tokens: Tokens, order: Tensor) -> Tensor:
        """The best of each step, as many as always pass [tokens]."""
        size = torch.bincount(tokens.step, minlength=len(tokens.seconds))
        most = (size.double() * self.floor).floor().clamp(min=1)
        return rank(tokens.step, order) < most[tokens.step]

    def left(self, tokens: int) -> int | None:
        """As many as had events."""
        return None

    def most_bytes(self, places: int, hidden: int, bytes_per_number: int) -> int:
        """One step's tokens."""
        return places * hidden * bytes_per_number

    def flops(self, tokens: int, hidden: int) -> int:
        """Without events a product with the token before, and two lengths."""
        return 6 * tokens * hidden
