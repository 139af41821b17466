"""DTD: what a place shows much as it did in the step before goes."""

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
from .likeness import line_at
from .past import change_of, last_of, newest
from .steps import best_of_each


@dataclass(frozen=True, slots=True)
class DTD:
    """Differential Token Drop of TimeChat-Online, arXiv 2504.17343, at feature level: a token much like its past goes.

    A token goes if its cosine to the token at the same place in the step before is above a threshold, whether or not
    that one went itself. A video's first step has no past and stays whole. How many go is up to what is shown: nothing
    of a still picture stays, and no budget is promised.

    With `keep` a step loses int(tokens * (1 - keep)) of its tokens instead, those most like their past, as the release
    has it with ``drop_absolute=False``. Its pixel level compares pictures, which a reducer does not see: that is a
    gate's task (`static`).

    The last step is carried from chunk to chunk, one step's tokens in all. What stays does not depend on where chunks
    begin and end.

    Ours: a place that a gate left out is compared with what was last seen of it; cosines are rounded before they meet
    the threshold, and one equal to it keeps its token; equals go in an order spread evenly over time and space.

    Parameters
    ----------
    threshold : float
        Cosine above which a token goes, from -1 to 1. The release's example has 0.5, its demo 0.25.
    keep : float, optional
        Share of each step's tokens that stays, in place of the threshold.

    Raises
    ------
    ConfigError
        If one of them is out of range.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    facts: ClassVar[Facts] = Facts(
        says="visual tokens whose cosine to the same place in the step before is below a threshold",
        paper="TimeChat-Online, arXiv 2504.17343",
        formula="x[t, p] is dropped if cos(x[t, p], x[t-1, p]) > threshold",
        carries="the last step's tokens",
    )
    threshold: float = 0.5
    keep: float | None = None

    def __post_init__(self) -> None:
        """Check both."""
        object.__setattr__(self, "threshold", real("threshold", self.threshold, -1, 1))
        if self.keep is not None:
            object.__setattr__(self, "keep", share("keep", self.keep))

    @torch.no_grad()
    def __call__(self, tokens: Tokens, carried: Mapping[str, Tensor]) -> tuple[Reduced, dict[str, Tensor]]:
        """Tokens that differ, and those without a past."""
        last = last_of(tokens, carried.get("last"))
        change, seen = change_of(tokens, last)
        if self.keep is None:
            line = line_at(self.threshold, tokens.features.dtype).to(change)
            stays = (settled(change, tokens.features.dtype) >= line) | ~seen
        else:
            sizes = tokens.step.bincount(minlength=len(tokens.seconds))
            counts = sizes - (sizes * (1 - self.keep)).to(torch.int64)
            # in front of all that have a past: twice the most that a cosine changes
            stays = best_of_each(tokens, change.masked_fill(~seen, 4.0), counts) | ~seen
        return Reduced(stays.nonzero()[:, 0]), {"last": newest(tokens, last)}

    def left(self, tokens: int) -> None:
        """Up to what they show, or to how they are spread over steps."""

    def most_bytes(self, places: int, hidden: int, bytes_per_number: int) -> int:
        """One step's tokens."""
        return places * hidden * bytes_per_number

    def flops(self, tokens: int, hidden: int) -> int:
        """A product with the token before, and two lengths."""
        return 6 * tokens * hidden
