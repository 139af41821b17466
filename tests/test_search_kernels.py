"""VisPCO's kernels: its numbers, curves that use a budget up, and its way of counting."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

import pdrop_video as pv
from pdrop_video.costs.decoder import DecoderShape
from pdrop_video.search.budget import Costs, largest
from pdrop_video.search.judge import divergence
from pdrop_video.search.kernels import (
    KERNELS,
    as_pyramid,
    frontier,
    middle,
    smooth_step,
    solved,
    vispco_flops,
    vispco_ratio,
    vispco_target,
)

SIZES = dict(visual=100, text=20, hidden=64, mlp=128)
SHAPE = DecoderShape(layers=12, hidden=128, heads=4, kv_heads=2, head_dim=32, mlp=256, vocabulary=1000)


def test_the_released_kernel_by_its_numbers() -> None:
    retention = smooth_step(8, 2.5, 0.3)
    assert retention == pytest.approx([1, 1, 0.995315, 0.304685, 0.3, 0.3, 0.3, 0.3], abs=1e-6)
    full, none = (vispco_flops([share] * 8, **SIZES) for share in (1.0, 0.0))
    target, spent = vispco_target(0.5, full, none), vispco_flops(retention, **SIZES)
    assert (full, none, target) == (46_202_880, 5_652_480, 25_927_680)  # no half of the total: 23,101,440 would be
    assert spent == pytest.approx(27_109_740.3, abs=0.05) and target - spent == pytest.approx(-1_182_060.3, abs=0.05)


def test_a_ratio_that_meets_a_budget_counted_as_vispco_counts() -> None:
    full, none = (vispco_flops([share] * 8, **SIZES) for share in (1.0, 0.0))
    for kernel in KERNELS:
        ratio = vispco_ratio(kernel, 2.0, 0.7, layers=8, **SIZES)
        assert ratio is not None
        spent = vispco_flops(KERNELS[kernel](8, 2.0, ratio), **SIZES)
        assert spent == pytest.approx(vispco_target(0.7, full, none), rel=1e-6)
    assert vispco_ratio("step", 6.0, 0.1, layers=8, **SIZES) is None  # six whole layers cost more


def test_divergence_by_its_numbers() -> None:
    p, q = (torch.tensor([row], dtype=torch.float64).log() for row in ((0.7, 0.2, 0.1), (0.6, 0.3, 0.1)))
    assert divergence(p, q) == pytest.approx(0.026812, abs=5e-7)
    assert divergence(q, p) == pytest.approx(0.029149, abs=5e-7)
    both = divergence(torch.cat([p, q]), torch.cat([q, p]))  # of several tokens the mean
    assert both == pytest.approx((0.026812 + 0.029149) / 2, abs=5e-7)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("layers", [4, 12, 28])
def test_curves_fall_from_everything_to_the_ratio_and_rise_with_it(kernel: str, layers: int) -> None:
    for boundary in range(1, layers):
        depth = middle(kernel, boundary)
        low, high = (KERNELS[kernel](layers, depth, ratio) for ratio in (0.2, 0.6))
        assert all(a >= b for a, b in pairwise(low)) and all(a <= b + 1e-12 for a, b in zip(low, high, strict=True))
        assert low[: boundary - 1] == pytest.approx([1] * (boundary - 1), abs=1e-3)
        if boundary < layers - 4:
            assert low[-1] == pytest.approx(0.2, abs=0.006)
        assert low[boundary] < 0.99  # the first drop is where it was said to be


def test_curves_in_closed_form() -> None:
    for i, (line, power) in enumerate(
        zip(KERNELS["linear"](10, 4, 0.3), KERNELS["exponential"](10, 4, 0.3), strict=True)
    ):
        along = 0 if i < 4 else (i - 3) / 6
        assert line == pytest.approx(1 - 0.7 * along) and power == pytest.approx(math.pow(0.3, along))
    assert KERNELS["multi_step"](9, 3, 0.125) == pytest.approx([1] * 3 + [0.5] * 2 + [0.25] * 2 + [0.125] * 2)


def test_a_smooth_step_is_one_boundary_and_others_are_several() -> None:
    step = as_pyramid(pv.Pyramid(scorer="novelty"), smooth_step(8, 2.5, 0.3), range(8))
    assert step.layers == (3,) and step.ratios == pytest.approx((0.304685,), abs=1e-6) and step.scorer == "novelty"
    line = as_pyramid(pv.Pyramid(), KERNELS["linear"](5, 1, 0.2), range(5))
    assert line.layers == (1, 2, 3, 4) and line.ratios == pytest.approx((0.8, 0.6, 0.4, 0.2))
    assert as_pyramid(pv.Pyramid(scorer="novelty"), [1.0] * 5, range(5)) == pv.Pyramid(stages=1, scorer="novelty")
    # a layer that can't rank hands its drop on to the next that can
    some = as_pyramid(pv.Pyramid(), KERNELS["linear"](6, 1, 0.5), (0, 3))
    assert some.layers == (3,) and some.ratios == pytest.approx((0.7,))
    with pytest.raises(pv.ConfigError, match="rise"):
        as_pyramid(pv.Pyramid(), [0.5, 0.7], range(2))


@pytest.mark.parametrize("budget", [0.4, 0.7])
def test_each_kernel_at_each_boundary_uses_the_budget_up(budget: float) -> None:
    costs, seen = Costs(SHAPE, 1024), {}
    for kernel in KERNELS:
        seen[kernel] = list(frontier([kernel], costs, pv.Pyramid(), budget))
        for pyramid in seen[kernel]:
            assert 0.98 * budget < costs.share(pyramid) <= budget, (kernel, pyramid)
    # of one step: a boundary each, up to the one in front of which whole layers alone cost too much
    boundaries = [pyramid.layers[0] for pyramid in seen["step"]]
    assert boundaries == list(range(1, len(boundaries) + 1)) and len(boundaries) == int(12 * budget)
    assert all(len(pyramid.layers) <= 3 for pyramid in seen["multi_step"])
    assert solved("step", 11, costs, pv.Pyramid(), 0.4) is None


def test_bisection() -> None:
    assert largest(lambda x: x * x, 0.25) == pytest.approx(0.5)
    assert largest(lambda x: x, 2.0) == 1.0 and largest(lambda x: x + 3, 2.0) is None
    assert largest(lambda x: x, 0.3, least=0.2, greatest=0.9) == pytest.approx(0.3)
    assert largest(lambda x: x, 0.1, least=0.2) is None
