"""Joint: time by the frames' summed scores, space by the tokens' own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ...registry import Facts
from .base import Frames, proportional


@dataclass(frozen=True, slots=True)
class Joint:
    """A frame's share follows the sum of its scores; no frame vanishes while the budget reaches.

    Parameters
    ----------
    floor : int
        Tokens that every frame gets first.
    """

    facts: ClassVar[Facts] = Facts(
        says="of each frame tokens in proportion to its summed score, and one at least",
        paper="",
        formula=(
            "a frame's r-th best token (from 0) has its turn at (r + 1/2) / (sum of the frame's scores); the\n"
            "    earliest turns stay\n"
            "the first `floor` tokens of each frame come before all others"
        ),
        ours=True,
    )
    floor: int = 1

    def __call__(self, scores: Tensor, visual: Tensor, frame: Tensor) -> Tensor:
        """Priorities."""
        lowest = scores.masked_fill(~visual, 0).amin(1, keepdim=True).clamp(max=0)  # some scorers give less
        frames = Frames.of(scores, visual, frame)
        sums = frames.sum((scores - lowest).masked_fill(~visual, 0))
        tiny = sums.amax(1, keepdim=True).clamp(min=1e-12) * 1e-4  # a frame of zeros has a turn too, the last
        return proportional(frames.rank(), sums + tiny, self.floor)
