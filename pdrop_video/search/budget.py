"""Schedules brought to a budget of FLOPs. Knows what schedules cost; refuses to know what they are good for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from ..costs.decoder import DecoderShape, prefill_flops
from ..pyramid import Pyramid
from ..pyramid.spacing import SMALLEST_RATIO, even_layers, moved

SMALLEST = 0.01
"""Least share of the visual tokens that a fitted stage keeps."""


class Costs:
    """Schedules by what they cost on a model.

    Parameters
    ----------
    shape : DecoderShape
    visual : int
        Visual tokens of a prefill.
    """

    def __init__(self, shape: DecoderShape, visual: int) -> None:
        self.shape, self.visual = shape, visual
        self._full = self._flops(Pyramid(stages=1))

    def share(self, pyramid: Pyramid) -> float:
        """FLOPs of a prefill under a schedule, of those without drops."""
        return self._flops(pyramid) / self._full

    def _flops(self, pyramid: Pyramid) -> int:
        schedule = pyramid.resolve(self.shape.layers, self.shape.rank_at)
        return prefill_flops(self.shape, schedule, self.visual, 0)

    def fitted(self, make: Callable[[float], Pyramid], budget: float) -> Pyramid | None:
        """The most expensive ``make(x)``, x in [0, 1], within a budget; None if none is.

        `make` must give more expensive schedules for larger x.
        """
        x = largest(lambda x: self.share(make(x)), budget)
        return None if x is None else make(x)

    def scaled(self, base: Pyramid, layers: Sequence[int], ratios: Sequence[float], budget: float) -> Pyramid | None:
        """Boundaries, and ratios in these proportions to each other where they are below 1, that use up a budget."""

        def make(x: float) -> Pyramid:
            factor = x / (1 - x) if x < 1 else math.inf
            return shaped(base, layers, [min(1.0, max(SMALLEST, ratio * factor)) for ratio in ratios])

        return self.fitted(make, budget)

    def paper(self, base: Pyramid, stages: int, budget: float) -> Pyramid | None:
        """PyramidDrop's shape, brought to a budget: each boundary keeps the same share of what reached it.

        Stages are of equal depth where a share of a quarter or more meets the budget; for less, the boundaries move
        towards the shallow layers, as in `Pyramid.for_average`.
        """
        spread = [self._even(stages, percent / 100) for percent in range(100, 0, -1)]

        def made(powers: dict[int, int], share: float) -> Pyramid:
            return shaped(base, list(powers), [share**power for power in powers.values()])

        powers = next((each for each in spread if self.share(made(each, SMALLEST_RATIO)) <= budget), spread[-1])
        return self.fitted(lambda x: made(powers, max(SMALLEST, x)), budget)

    def _even(self, stages: int, depth: float) -> dict[int, int]:
        """Boundaries of even stages, moved to layers that can rank, and how many stages end there or before."""
        layers = moved(even_layers(self.shape.layers, stages, depth), self.shape.rank_at)
        return {layer: stage for stage, layer in enumerate(layers, 1)}


def largest(cost: Callable[[float], float], most: float, least: float = 0.0, greatest: float = 1.0) -> float | None:
    """The largest x from `least` to `greatest` whose cost, which rises with x, is no more than `most`; None if none.

    By bisection, to 2**-30 of the range.
    """
    if cost(least) > most:
        return None
    if cost(greatest) <= most:
        return greatest
    low, high = least, greatest
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(middle) <= most else (low, middle)
    return low


def shaped(base: Pyramid, layers: Sequence[int], ratios: Sequence[float]) -> Pyramid:
    """A pyramid with these boundaries and ratios; all else is the base's."""
    return replace(base, stages=None, ratio=None, average=None, layers=tuple(layers), ratios=tuple(ratios))
