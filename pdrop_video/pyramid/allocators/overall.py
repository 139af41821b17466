"""Global: all tokens of a chunk compete. PyramidDrop itself, for which a prompt is one picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ...registry import Facts


@dataclass(frozen=True, slots=True)
class Global:
    """The score is the priority; a frame may vanish."""

    facts: ClassVar[Facts] = Facts(
        says="the best tokens of the whole chunk, whichever frame they show",
        paper="PyramidDrop, arXiv 2410.17247",
        formula="priority = score",
    )

    def __call__(self, scores: Tensor, visual: Tensor, frame: Tensor) -> Tensor:
        """The scores."""
        return scores
