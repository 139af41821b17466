"""Global: all tokens of a chunk compete. PyramidDrop itself, for which a prompt is one picture."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Global:
    """The score is the priority; a frame may vanish."""

    def __call__(self, scores: Tensor, visual: Tensor, frame: Tensor) -> Tensor:
        """The scores."""
        return scores
