"""Where stages of equal depth, or of a mean share of tokens, end; and to which layers boundaries move.

Knows numbers. Refuses to know models.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from ..errors import ConfigError

SMALLEST_RATIO = 0.25
"""`for_mean` drops to no less than this per stage before it moves the boundaries to shallower layers."""


def even_layers(num_layers: int, stages: int, depth: float = 1.0) -> tuple[int, ...]:
    """Boundaries of `stages` stages over the first `depth` share of the layers, distinct and from 1."""
    layers: list[int] = []
    for stage in range(1, stages):
        layers.append(max(int(num_layers * depth * stage / stages), layers[-1] + 1 if layers else 1))
    return tuple(layers)


def moved(layers: Sequence[int], rank_at: Sequence[int] | None, *, strict: bool = False) -> tuple[int, ...]:
    """Boundaries moved forward to layers before which tokens can be ranked; several may meet at one.

    Parameters
    ----------
    layers : sequence of int
        Ascending.
    rank_at : sequence of int or None
        The layers that can rank, ascending; None for all.
    strict : bool
        Whether it is an error that none comes behind a boundary, which is left out otherwise.

    Raises
    ------
    ConfigError
    """
    if rank_at is None:
        return tuple(layers)
    found = [next((at for at in rank_at if at >= layer), None) for layer in layers]
    if strict and None in found:
        said = f"the last that does is layer {rank_at[-1]}" if rank_at else "no layer does"
        raise ConfigError(
            f"before layer {layers[found.index(None)]} tokens were to be dropped, but from there on no layer of this "
            f"model attends to all that came before, by which they are ranked ({said}); let boundaries end there."
        )
    return tuple(at for at in found if at is not None)


def for_mean(
    average: float, stages: int, num_layers: int, rank_at: Sequence[int] | None = None
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Layers and ratios of the deepest boundaries at which `SMALLEST_RATIO` a stage, or more, gives the mean share."""

    def mean(layers: tuple[int, ...], ratio: float) -> float:
        edges = (0, *layers, num_layers)
        return sum((b - a) * ratio**s for s, (a, b) in enumerate(pairwise(edges))) / num_layers

    for percent in range(100, 0, -1):  # of the depth over which the stages are spread
        layers = tuple(dict.fromkeys(moved(even_layers(num_layers, stages, percent / 100), rank_at)))
        if mean(layers, SMALLEST_RATIO) <= average:
            break
    low, high = 0.0, 1.0
    for _ in range(60):  # bisection: the mean rises with the ratio
        middle = (low + high) / 2
        low, high = (middle, high) if mean(layers, middle) < average else (low, middle)
    if not math.isclose(mean(layers, high), average, rel_tol=1e-6) or (stages > 1 and high < 1e-3):
        least = mean(layers, 0.0)
        raise ConfigError(
            f"an average of {average:.3f} can't be reached with {stages} stages on {num_layers} layers: the layers "
            f"before the first boundary alone make {least:.3f}; ask for more, or for 2 stages or more."
        )
    return layers, tuple(high**s for s in range(1, len(layers) + 1))
