"""Relevance to any word: the strongest attention of a row of the question, as COAST (arXiv 2605.09429) looks at it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from ...registry import Facts
from .asked import Remembered
from .base import Ranking


@dataclass(frozen=True, slots=True)
class RelevanceMax:
    """COAST's global score: what the row of text that attends to a token most gives it, averaged over heads.

    The formula is the paper's equation 3, as a port of it has it. To rank by it alone is ours, and so is the
    attention: that of the layer to come, as PyramidDrop takes it. COAST splits its budget by it, see `Coast`.
    """

    facts: ClassVar[Facts] = Facts(
        says="tokens that any token of the question, or of the template, attends to most in the next layer",
        paper="COAST, arXiv 2605.09429",
        formula="score = max over rows of text of (mean over heads of softmax(q k' / sqrt(d)) at the next layer)",
        needs_question=True,
        ours=True,
    )
    uses_probe: ClassVar[bool] = True
    uses_layout: ClassVar[bool] = False
    once: ClassVar[bool] = False
    asks: ClassVar[Literal["last", "all"]] = "all"

    def __call__(self, ranking: Ranking) -> Tensor:
        """Softmax weights, in [0, 1]."""
        return ranking.attention().amax(1)

    def remembered(self, memory: Remembered) -> Tensor:
        """The same of columns that are remembered."""
        return memory.attention().amax(0)
