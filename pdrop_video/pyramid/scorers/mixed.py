"""Relevance and novelty together: as a product, or by their ranks (as EventPrune, arXiv 2605.19506, fuses two cues)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from ...common.ties import comparable
from ...registry import Facts
from .base import Ranking, normalised, ranks
from .novelty import Novelty
from .relevance import Relevance


@dataclass(frozen=True, slots=True)
class Product:
    """Relevance times novelty, each moved to [0, 1] first."""

    facts: ClassVar[Facts] = Facts(
        says="tokens that are relevant to the question and new at their place, by the product of both",
        paper="",
        formula="score = relevance * novelty, each scaled to [0, 1] over the visual tokens",
        needs_question=True,
        ours=True,
        carries="the latest row at each place: (1 + places) x hidden, before each boundary",
    )
    uses_probe: ClassVar[bool] = True
    uses_layout: ClassVar[bool] = True
    once: ClassVar[bool] = False
    novelty: Novelty = field(default_factory=Novelty)

    def learn(self, ranking: Ranking) -> Tensor:
        """What `novelty` learns."""
        return self.novelty.learn(ranking)

    def __call__(self, ranking: Ranking) -> Tensor:
        """Scores in [0, 1]."""
        relevance, novelty = _both(ranking, self.novelty)
        return normalised(relevance, ranking.visual) * normalised(novelty, ranking.visual)


@dataclass(frozen=True, slots=True)
class RankFusion:
    """A weighted mean of the ranks by relevance and by novelty, which no scale of either can upset.

    Parameters
    ----------
    weight : float
        Of relevance; the rest is novelty's.
    """

    facts: ClassVar[Facts] = Facts(
        says="tokens that are relevant to the question and new at their place, by the mean of both ranks",
        paper="EventPrune, arXiv 2605.19506",
        formula=(
            "score = weight * R(relevance) + (1 - weight) * R(novelty), R = (count - rank) / count, 1 for the\n    best"
        ),
        needs_question=True,
        ours=True,
        carries="the latest row at each place: (1 + places) x hidden, before each boundary",
    )
    uses_probe: ClassVar[bool] = True
    uses_layout: ClassVar[bool] = True
    once: ClassVar[bool] = False
    weight: float = 0.5
    novelty: Novelty = field(default_factory=Novelty)

    def learn(self, ranking: Ranking) -> Tensor:
        """What `novelty` learns."""
        return self.novelty.learn(ranking)

    def __call__(self, ranking: Ranking) -> Tensor:
        """Scores in (0, 1]."""
        relevance, novelty = _both(ranking, self.novelty)
        return self.weight * ranks(relevance, ranking.visual) + (1 - self.weight) * ranks(novelty, ranking.visual)


def _both(ranking: Ranking, novelty: Novelty) -> tuple[Tensor, Tensor]:
    """Relevance and novelty [batch, rows], equal where they tie: a rank or a range would make much of a last bit."""
    dtype = ranking.hidden.dtype
    relevance = comparable(Relevance()(ranking), ranking.visual, dtype)
    return relevance, comparable(novelty(ranking), ranking.visual, dtype)
