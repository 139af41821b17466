"""Relevance: what the probe attends to. PyramidDrop's own score (arXiv 2410.17247)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ...registry import Facts
from ..rank import attention_scores
from .base import Ranking


@dataclass(frozen=True, slots=True)
class Relevance:
    """The probe rows' attention in the next layer, averaged over heads (see `attention_scores`)."""

    facts: ClassVar[Facts] = Facts(
        says="tokens that the last token of the question, or of the template, attends to most in the next layer",
        paper="PyramidDrop, arXiv 2410.17247",
        formula=(
            "score = mean over heads of softmax(q k' / sqrt(d)) at the next layer, q of the last row of the\n"
            "    question or template"
        ),
        needs_question=True,
    )
    uses_probe: ClassVar[bool] = True
    uses_layout: ClassVar[bool] = False
    once: ClassVar[bool] = False

    def __call__(self, ranking: Ranking) -> Tensor:
        """Softmax weights, so that they are above 0 and sum to at most 1."""
        return attention_scores(ranking.layer, ranking.hidden, ranking.rope, ranking.probe, **ranking.past)
