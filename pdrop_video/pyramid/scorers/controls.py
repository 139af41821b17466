"""Controls: scores that mean nothing, for telling what a ranking is worth at an equal number of tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from ...common.ties import exactly
from ...registry import Facts
from .base import Ranking
from .contrast import Contrast


@dataclass(frozen=True, slots=True)
class Random:
    """A noise that follows from a token's place in time and space alone, on every machine and in every chunk the same.

    In [0, 1). Drawn once: what is dropped at later boundaries is a random part of what was left.

    Parameters
    ----------
    seed : int
        Another one draws other lots.
    """

    facts: ClassVar[Facts] = Facts(
        says="tokens at random (a control)",
        paper="",
        formula="score = a hash of the token's step, row and column, in [0, 1)",
    )
    uses_probe: ClassVar[bool] = False
    uses_layout: ClassVar[bool] = False
    once: ClassVar[bool] = True
    exact: ClassVar[bool] = True
    seed: int = 0

    @torch.no_grad()
    def __call__(self, ranking: Ranking) -> Tensor:
        """A hash of step, row and column, in which nothing of their order is left."""
        x = (ranking.layout.spread() + self.seed * 40503) & 0xFFFFFFFF
        for _ in range(2):
            x = ((x >> 16) ^ x) * 0x045D9F3B & 0xFFFFFFFF
        return exactly((x >> 16) ^ x) / 2**32


@dataclass(frozen=True, slots=True)
class Even:
    """Evenly spread over time and space, whatever is shown and however many are kept: the order of ties, by itself.

    In (0, 1].
    """

    facts: ClassVar[Facts] = Facts(
        says="tokens spread evenly over time and space (a control)",
        paper="",
        formula="score = place in a fixed order that is evenly spread over time and space",
    )
    uses_probe: ClassVar[bool] = False
    uses_layout: ClassVar[bool] = False
    once: ClassVar[bool] = True
    exact: ClassVar[bool] = True

    @torch.no_grad()
    def __call__(self, ranking: Ranking) -> Tensor:
        """Scores by the token's place; see `pdrop_video.common.ties.spread`."""
        return 1 - exactly(ranking.layout.spread()) / 2**32


@dataclass(frozen=True, slots=True)
class Shuffled:
    """The scores of `contrast`, dealt out to visual rows in a random order.

    Parameters
    ----------
    of : Contrast
    """

    facts: ClassVar[Facts] = Facts(
        says="tokens by the scores of contrast, given to others at random (a control)",
        paper="",
        formula="score = the score of `contrast` that another visual token got, drawn at random",
        carries="what is usual at each place: (1 + places) x hidden, before the first boundary",
    )
    uses_probe: ClassVar[bool] = False
    uses_layout: ClassVar[bool] = True
    once: ClassVar[bool] = True
    of: Contrast = field(default_factory=Contrast)

    def learn(self, ranking: Ranking) -> Tensor:
        """What `contrast` learns."""
        return self.of.learn(ranking)

    @torch.no_grad()
    def __call__(self, ranking: Ranking) -> Tensor:
        """The same scores at other rows."""
        scores, last = self.of(ranking), float("inf")
        to = Random()(ranking).masked_fill(~ranking.visual, last).argsort(dim=1, stable=True)
        rows = torch.arange(scores.shape[1], device=scores.device).expand_as(scores)
        given = rows.masked_fill(~ranking.visual, scores.shape[1]).argsort(dim=1, stable=True)
        return scores.scatter(1, to, scores.gather(1, given))
