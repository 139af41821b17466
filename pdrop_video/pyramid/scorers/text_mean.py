"""Relevance to the whole question: the mean attention of its rows, as LearnPruner's second half ranks by it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from ...registry import Facts
from ..rank import attention_scores
from .asked import Remembered
from .base import Ranking


@dataclass(frozen=True, slots=True)
class TextMean:
    """The attention of all rows of the question, averaged over them and over heads (LearnPruner, arXiv 2604.23950).

    It differs from `Relevance` in who asks: every row of text behind the visual ones, and not the last one alone. The
    paper does so at one layer, number 12 of 32, and keeps a third of what its first half left:
    ``Pyramid(layers=(12,), ratios=(1 / 3,), scorer="text_mean")`` behind ``reducer="learnpruner"``; as a scorer's name
    "learnpruner" means the same.

    Ours: the attention is that of the layer to come, before it runs, as PyramidDrop takes it; the paper does not say
    which side of the layer is meant. Rows of the template behind the question ask as well, and without a question those
    alone. So is a question's ranking of what is remembered, asked with a pyramid that names this scorer.
    """

    facts: ClassVar[Facts] = Facts(
        says="tokens that the question, or the template, attends to most on average in the next layer",
        paper="LearnPruner, arXiv 2604.23950",
        formula="score = mean over rows of text, and over heads, of softmax(q k' / sqrt(d)) at the next layer",
        needs_question=True,
    )
    uses_probe: ClassVar[bool] = True
    uses_layout: ClassVar[bool] = False
    once: ClassVar[bool] = False
    asks: ClassVar[Literal["last", "all"]] = "all"

    def __call__(self, ranking: Ranking) -> Tensor:
        """Softmax weights, so that they are above 0 and sum to at most 1."""
        return attention_scores(ranking.layer, ranking.hidden, ranking.rope, ranking.probe, **ranking.past)

    def remembered(self, memory: Remembered) -> Tensor:
        """The same of columns that are remembered."""
        return memory.attention().mean(0)
