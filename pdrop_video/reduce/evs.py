"""EVS: what a place shows anew stays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..common.checks import share
from ..registry import Facts
from .base import Reduced, Tokens
from .past import change_of, last_of, newest

_FIRST = 255.0
"""Score of a token without a past: above every change, which is 2 at most."""


@dataclass(frozen=True, slots=True)
class EVS:
    """Efficient Video Sampling, arXiv 2510.14624, as vLLM ships it: the tokens of least cosine to the step before stay.

    A token's score is 1 - cosine to the token at the same place in the step before. The globally highest of a chunk
    stay, int(tokens * keep) of them. A video's first step has no past and stays whole, whatever the share: of a first
    chunk at least so many tokens stay as a step has. For a chunk that holds a whole video this is what vLLM keeps.

    Ours: the last step is carried from chunk to chunk, so that a later chunk's first step has a past as well; equals go
    in an order spread evenly over time and space, and not the first ones first; a place that a gate left out is
    compared with what was last seen of it.

    Parameters
    ----------
    keep : float
        Share of the tokens of each chunk that stays; vLLM's ``video_pruning_rate`` is 1 - keep.

    Raises
    ------
    ConfigError
        If it is no share in (0, 1].
    """

    needs: ClassVar[tuple[str, ...]] = ()
    facts: ClassVar[Facts] = Facts(
        says="visual tokens least similar to the same place in the step before",
        paper="EVS, arXiv 2510.14624",
        formula="score = 1 - cos(x[t, p], x[t-1, p]); the int(tokens * keep) highest of a chunk stay",
        carries="the last step's tokens",
    )
    keep: float = 0.5

    def __post_init__(self) -> None:
        """Check the share."""
        object.__setattr__(self, "keep", share("keep", self.keep))

    @torch.no_grad()
    def __call__(self, tokens: Tokens, carried: Mapping[str, Tensor]) -> tuple[Reduced, dict[str, Tensor]]:
        """Scores of all tokens, and the best of them."""
        last = last_of(tokens, carried.get("last"))
        change, seen = change_of(tokens, last)
        scores = change.masked_fill(~seen, _FIRST)
        # on the host: how many stay follows from what came, and no device is asked
        count = self.left(len(tokens))
        count = max(count, min(len(tokens), tokens.places)) if last is None else count
        return Reduced(tokens.best(scores, count)), {"last": newest(tokens, last)}

    def left(self, tokens: int) -> int:
        """The share of them, one at least."""
        return max(int(tokens * self.keep), 1)

    def most_bytes(self, places: int, hidden: int, bytes_per_number: int) -> int:
        """One step's tokens."""
        return places * hidden * bytes_per_number

    def flops(self, tokens: int, hidden: int) -> int:
        """A product with the token before, and two lengths."""
        return 6 * tokens * hidden
