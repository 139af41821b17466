"""Controls: scores that mean nothing, for telling what a ranking is worth at an equal number of tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from .base import Ranking
from .contrast import Contrast

GOLDEN = 0.6180339887498949


@dataclass(frozen=True, slots=True)
class Random:
    """A noise that follows from the row alone, so that it does not depend on chunks, padding or a generator's state.

    In [0, 1). Drawn once: what is dropped at later boundaries is a random part of what was left.
    """

    uses_probe: ClassVar[bool] = False
    uses_layout: ClassVar[bool] = False
    once: ClassVar[bool] = True

    @torch.no_grad()
    def __call__(self, ranking: Ranking) -> Tensor:
        """Scores by the digits of a fixed projection that are too small to mean anything."""
        hidden = ranking.hidden.to(torch.float64)
        angles = torch.arange(1, hidden.shape[-1] + 1, device=hidden.device, dtype=hidden.dtype)
        return (hidden @ angles.sin() * 43758.5453).remainder(1)


@dataclass(frozen=True, slots=True)
class Even:
    """Evenly spread over the rows, whatever they show and however many are kept.

    In [0, 1). Row i scores the fractional part of i times the golden ratio: the best n of these are spread evenly.
    """

    uses_probe: ClassVar[bool] = False
    uses_layout: ClassVar[bool] = False
    once: ClassVar[bool] = True

    @torch.no_grad()
    def __call__(self, ranking: Ranking) -> Tensor:
        """Scores by the row's number among visual rows."""
        return (ranking.visual.cumsum(1).to(torch.float64) * GOLDEN).remainder(1)


@dataclass(frozen=True, slots=True)
class Shuffled:
    """The scores of `contrast`, dealt out to visual rows in a random order.

    Parameters
    ----------
    of : Contrast
    """

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
        rows = torch.arange(scores.shape[1], device=scores.device).expand_as(scores).to(torch.float64)
        given = rows.masked_fill(~ranking.visual, last).argsort(dim=1, stable=True)
        return scores.scatter(1, to, scores.gather(1, given))
