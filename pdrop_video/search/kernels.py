"""Kernels: curves of two numbers, a depth and a ratio, that say which share of the visual tokens each layer sees.

Knows layer numbers and shares; refuses to know models and what a schedule is good for. VisPCO (arXiv 2604.15188)
learns the two numbers by a network. At a fixed budget a kernel is a curve instead: for each depth one ratio uses the
budget up, which bisection finds. That, and the forms of all kernels but the smooth step, which is the one of its
released code, are ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import TypeAlias

from ..common import checks
from ..errors import ConfigError
from ..pyramid import Pyramid
from .budget import SMALLEST, Costs, largest, shaped

Kernel: TypeAlias = Callable[[int, float, float], list[float]]
"""``kernel(layers, depth, ratio)``: the share of the original tokens in each layer, falling; rises with the ratio."""

STEEPNESS = 10.0
"""Of the smooth step, as the released code has it: half a layer from its middle it is within .7 % of its end."""
LEAST_DROP = 0.01
"""A layer that sees no less than so much below the last boundary's share is none: each boundary costs a ranking."""
STEPS = 3
"""Of the multi-step kernel."""


def smooth_step(layers: int, depth: float, ratio: float) -> list[float]:
    """1 + (ratio - 1) * sigmoid(10 (i - depth)): one step, whose middle is at `depth`.

    Examples
    --------
    >>> [round(share, 6) for share in smooth_step(8, 2.5, 0.3)]
    [1.0, 1.0, 0.995315, 0.304685, 0.3, 0.3, 0.3, 0.3]
    """
    return [1 + (ratio - 1) / (1 + math.exp(-min(max(STEEPNESS * (i - depth), -700), 700))) for i in range(layers)]


def linear(layers: int, depth: float, ratio: float) -> list[float]:
    """Falls evenly from 1 in front of `depth` to `ratio` in the last layer.

    Examples
    --------
    >>> linear(5, 1, 0.2)
    [1.0, 0.8, 0.6, 0.4, 0.2]
    """
    return [round(1 + (ratio - 1) * along, 12) for along in _along(layers, depth)]


def exponential(layers: int, depth: float, ratio: float) -> list[float]:
    """Keeps the same share of what came from layer to layer, from 1 in front of `depth` to `ratio` in the last.

    Examples
    --------
    >>> exponential(4, 1, 0.125)
    [1.0, 0.5, 0.25, 0.125]
    """
    return [round(ratio**along, 12) for along in _along(layers, depth)]


def multi_step(layers: int, depth: float, ratio: float) -> list[float]:
    """`STEPS` steps of equal depth from `depth` on, each of which keeps the same share, down to `ratio`.

    Examples
    --------
    >>> [round(share, 4) for share in multi_step(8, 2, 0.125)]
    [1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125]
    """
    width = (layers - depth) / STEPS
    done = [min(max(math.floor((i - depth) / width + 1e-9) + 1, 0), STEPS) for i in range(layers)]
    return [ratio ** (steps / STEPS) for steps in done]


def _along(layers: int, depth: float) -> list[float]:
    """How far each layer is from in front of `depth`, 0, to the last, 1."""
    span = layers - depth
    return [min(max((i + 1 - depth) / span, 0.0), 1.0) for i in range(layers)]


KERNELS: dict[str, Kernel] = {
    "step": smooth_step,
    "linear": linear,
    "exponential": exponential,
    "multi_step": multi_step,
}
"""By name. The depth of a boundary b is b - .5 for a smooth step, and b for the others."""


def middle(kernel: str, boundary: int) -> float:
    """The depth at which a kernel's first drop is in front of layer `boundary`."""
    return boundary - 0.5 if kernel == "step" else float(boundary)


def kernel_named(name: str) -> Kernel:
    """A kernel by its name; `ConfigError` if there is none of that name."""
    return KERNELS[checks.choice("kernel", name, tuple(KERNELS))]


def as_pyramid(base: Pyramid, retention: Sequence[float], rank_at: Sequence[int]) -> Pyramid:
    """The pyramid whose layers see these shares, with boundaries where they fall by `LEAST_DROP` or more.

    A drop in front of a layer that can't rank waits for the next one that can.

    Parameters
    ----------
    base : Pyramid
        Where scorer, allocator and positions come from.
    retention : sequence of float
        For each layer, falling.
    rank_at : sequence of int
        The layers that can rank.
    """
    if any(b > a + 1e-9 for a, b in pairwise(retention)):
        raise ConfigError(f"the shares {checks.shown(list(retention))} rise; expected shares that fall.")
    layers, ratios, now = [], [], 1.0
    for layer in rank_at:
        share = max(SMALLEST, min(now, retention[layer]))
        if now - share >= LEAST_DROP:
            layers.append(layer)
            ratios.append(share)
            now = share
    return (
        shaped(base, layers, ratios)
        if layers
        else Pyramid(stages=1, positions=base.positions, scorer=base.scorer, allocator=base.allocator)
    )


def solved(kernel: str, boundary: int, costs: Costs, base: Pyramid, budget: float) -> Pyramid | None:
    """The kernel with its first drop in front of a layer whose ratio uses up a budget; None if none does."""
    curve, layers, depth = kernel_named(kernel), costs.shape.layers, middle(kernel, boundary)
    return costs.fitted(lambda x: as_pyramid(base, curve(layers, depth, max(x, SMALLEST)), costs.shape.rank_at), budget)


def frontier(kernels: Sequence[str], costs: Costs, base: Pyramid, budget: float) -> Iterator[Pyramid]:
    """Of each kernel and each boundary the schedule that uses up a budget, if there is one: what VisPCO chooses from.

    Parameters
    ----------
    kernels : sequence of str
    costs : Costs
    base : Pyramid
    budget : float
        Share of the FLOPs of all visual tokens.
    """
    given: set[Pyramid] = set()
    for kernel in kernels:
        for boundary in costs.shape.rank_at:
            pyramid = solved(kernel, boundary, costs, base, budget) if boundary else None
            if pyramid is not None and pyramid.layers and pyramid not in given:
                given.add(pyramid)
                yield pyramid


def vispco_flops(retention: Sequence[float], visual: int, text: int, hidden: int, mlp: int) -> float:
    """Multiply-adds as VisPCO counts them: 4 n d^2 + 2 n^2 d + 2 n d m a layer, n = text + visual * share.

    Examples
    --------
    >>> full = vispco_flops([1.0] * 8, visual=100, text=20, hidden=64, mlp=128)
    >>> none = vispco_flops([0.0] * 8, visual=100, text=20, hidden=64, mlp=128)
    >>> full, none, vispco_target(0.5, full, none)
    (46202880.0, 5652480.0, 25927680.0)
    """
    rows = [text + visual * share for share in retention]
    return float(sum(4 * n * hidden**2 + 2 * n**2 * hidden + 2 * n * hidden * mlp for n in rows))


def vispco_target(budget: float, full: float, text: float) -> float:
    """What VisPCO's budget means: so far from text alone to everything, and no share of everything."""
    return text + budget * (full - text)


def vispco_ratio(
    kernel: str, depth: float, budget: float, *, layers: int, visual: int, text: int, hidden: int, mlp: int
) -> float | None:
    """The ratio with which a kernel spends a budget as VisPCO counts it, for comparisons with its tables; None if none.

    Examples
    --------
    >>> sizes = dict(layers=8, visual=100, text=20, hidden=64, mlp=128)
    >>> round(vispco_ratio("step", 2.5, 0.5, **sizes), 4)
    0.2474
    """
    curve = kernel_named(kernel)

    def cost(ratio: float) -> float:
        return vispco_flops(curve(layers, depth, ratio), visual, text, hidden, mlp)

    full, none = (vispco_flops([share] * layers, visual, text, hidden, mlp) for share in (1.0, 0.0))
    return largest(cost, vispco_target(budget, full, none))
