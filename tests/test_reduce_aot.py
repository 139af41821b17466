"""AOT: the specification's examples, its formulas written out, and what holds of any tokens."""

from __future__ import annotations

import doctest
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import plain_aot as plain
import pytest
import torch
from torch import Tensor

from pdrop_video.reduce import Tokens, segments
from pdrop_video.reduce.aot import AOT
from pdrop_video.reduce.segments import flowing, parts
from pdrop_video.reduce.transport import cosines, sinkhorn


def made(
    features: Tensor, step: Sequence[int], place: Sequence[int], grid: tuple[int, int], steps: int, **tower: Tensor
) -> Tokens:
    at, where = torch.tensor(step), torch.tensor(place)
    return Tokens(
        features, at, where // grid[1], where % grid[1], tuple(map(float, range(steps))), grid, tower=tower or {}
    )


def seen(attention: Tensor) -> dict[str, Tensor]:
    """The same attention in both layers."""
    return {"attention": attention, "attention_early": attention}


def drawn(seed: int, steps: int, grid: tuple[int, int], hidden: int = 5, holes: float = 0.0) -> Tokens:
    """Random tokens and attention; `holes` of the places are left out, and the steps 1 and 6 whole."""
    torch.manual_seed(seed)
    places = grid[0] * grid[1]
    step, place = torch.arange(steps).repeat_interleave(places), torch.arange(places).repeat(steps)
    if holes:
        there = (torch.rand(len(step)) >= holes) & (step != 1) & (step != 6)
        step, place = step[there], place[there]
    features = torch.randn(places, hidden).repeat(steps, 1)[: len(step)].double() + torch.randn(len(step), hidden)
    early, late = torch.rand(2, len(step), dtype=torch.float64)
    return made(features, step.tolist(), place.tolist(), grid, steps, attention=late, attention_early=early)


# -- the specification's examples --------------------------------------------------------------------------------------

STILL = torch.tensor([[1, 0], [0.8, 0.6], [0.6, 0.8], [0, 1]], dtype=torch.float64)
MOVING = torch.tensor([[1, 0], [0, 1], [1, 0.1], [0.7, 0.7], [0.1, 1], [0.9, 0.4]], dtype=torch.float64)


@pytest.mark.parametrize(
    "mean, want",
    [(0.0, [[0.925386, 0.207947], [0.207947, 0.925386]]), (0.1, [[0.922848, 0.217152], [0.217152, 0.922848]])],
)
def test_the_others_of_a_step_flow_into_its_anchors(mean: float, want: list[list[float]]) -> None:
    """Spec, test I: 2 x 2 tokens, anchors 0 and 3."""
    tokens = made(STILL, [0] * 4, range(4), (2, 2), 1, **seen(torch.tensor([1.0, 0, 0, 0.9])))
    reduced, carried = AOT(keep=0.5, mean=mean)(tokens, {})
    assert reduced.kept.tolist() == [0, 3] and carried == {} and reduced.weights is not None
    torch.testing.assert_close(reduced.weights @ STILL, torch.tensor(want).double(), atol=5e-7, rtol=0)


def test_the_plan_within_a_step() -> None:
    """Its costs and masses."""
    x, y = STILL[None, 1:3], STILL[None, [0, 3]]
    cost = 1 - cosines(x, y) + 0.5  # either anchor is one side away
    torch.testing.assert_close(cost[0], torch.tensor([[0.7, 0.9], [0.9, 0.7]], dtype=torch.float64), atol=1e-12, rtol=0)
    there = torch.ones(1, 2, dtype=torch.bool)
    want = torch.tensor([[0.440399, 0.059601], [0.059601, 0.440399]], dtype=torch.float64)
    torch.testing.assert_close(sinkhorn(cost, there, there, 0.1, 100)[0], want, atol=5e-7, rtol=0)


def test_a_later_step_flows_into_the_first_ones_anchors() -> None:
    """Spec, test II: two anchors, four tokens a step later, of which the second is new."""
    attention = torch.arange(6.0)
    tokens = made(MOVING, [0, 0, 1, 1, 1, 1], [0, 1, 0, 1, 2, 3], (2, 2), 2, **seen(attention))
    reduced, _ = AOT(keep=0.5, quantile=0.3)(tokens, {})
    assert reduced.kept.tolist() == [0, 1, 3] and reduced.weights is not None
    want = torch.tensor([[0.936541, 0.176270], [0.239559, 0.846720], [0.7, 0.7]], dtype=torch.float64)
    torch.testing.assert_close(reduced.weights @ MOVING, want, atol=5e-7, rtol=0)
    cost = 1 - cosines(MOVING[None, 2:], MOVING[None, :2]).clamp(max=1 - 1e-6)
    masks = torch.ones(1, 4, dtype=torch.bool), torch.ones(1, 2, dtype=torch.bool)
    plan = sinkhorn((cost - cost.min()) * (1 - math.exp(-1 / 4.5)), *masks, 0.1, 100)[0]
    sure = (plan / plan.sum(1, keepdim=True)).amax(1)
    torch.testing.assert_close(
        sure, torch.tensor([0.811737, 0.580086, 0.891639, 0.665628], dtype=torch.float64), atol=5e-7, rtol=0
    )
    assert sure.quantile(0.3).item() == pytest.approx(0.657074, abs=5e-7)


def test_the_release_emits_the_first_step_twice() -> None:
    """As it was, and merged where its places are seen last and free."""
    tokens = made(MOVING, [0, 0, 1, 1, 1, 1], [0, 1, 0, 3, 1, 2], (2, 2), 2, **seen(torch.arange(6.0)))
    reduced, _ = AOT(keep=5 / 6, quantile=0.3, duplicate_first=True)(tokens, {})
    assert reduced.kept.tolist() == [0, 1, 2, 3, 4] and reduced.weights is not None
    want = torch.tensor([[1, 0], [0, 1], [0.936541, 0.176270], [0.7, 0.7], [0.239559, 0.846720]], dtype=torch.float64)
    torch.testing.assert_close(reduced.weights @ MOVING, want, atol=5e-7, rtol=0)


# -- the formulas ------------------------------------------------------------------------------------------------------


def by_hand(tokens: Tokens, aot: AOT) -> tuple[list[int], list[np.ndarray]]:
    """Which tokens go on, and as what, by loops."""
    how = {"eps": aot.eps, "rounds": aot.rounds, "mean": aot.mean, "spatial": aot.spatial}
    kept: dict[int, np.ndarray] = {}
    for begin in range(0, len(tokens.seconds), aot.unit):
        steps = [t for t in range(begin, begin + aot.unit) if bool((tokens.step == t).any())]
        numbers = [(tokens.step == t).nonzero()[:, 0].tolist() for t in steps]
        left = max(1, int(sum(map(len, numbers)) * aot.keep))
        if aot.across and len(steps) > 1:
            wanted, going = flowing([len(n) for n in numbers], left, aot.quantile)
        else:
            wanted = going = parts(left, [len(n) for n in numbers])
        now, heads = list[np.ndarray](), list[int]()
        for t, mine, count, new in zip(steps, numbers, wanted, going, strict=True):
            if not count:
                continue
            places = [(int(tokens.row[i]), int(tokens.column[i])) for i in mine]
            scores = [[float(tokens.tower[name][i]) for i in mine] for name in ("attention_early", "attention")]
            anchors = plain.chosen(places, *scores, count, tokens.grid, aot.windows)
            x = [tokens.features[i].numpy() for i in mine]
            y = plain.within(x, places, anchors, tokens.grid, **how) if aot.within else [x[a] for a in anchors]
            if t == steps[0]:
                heads, now = [mine[a] for a in anchors], y
            elif aot.across:
                now, stay = plain.across(now, y, t - steps[0], new, **how)
                kept |= {mine[anchors[i]]: y[i] for i in stay}
            else:
                kept |= {mine[a]: each for a, each in zip(anchors, y, strict=True)}
        kept |= dict(zip(heads, now, strict=True))
    return sorted(kept), [kept[i] for i in sorted(kept)]


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"keep": 0.08, "windows": 2},
        {"keep": 0.6, "quantile": 0.1, "eps": 0.03},
        {"mean": 0.0, "spatial": 0.0, "rounds": 3},
        {"within": False},
        {"across": False},
        {"keep": 0.02, "across": False},
        {"unit": 3, "quantile": 0.9},
    ],
    ids=str,
)
@pytest.mark.parametrize("holes", [0.0, 0.4])
def test_it_is_its_formula(how: dict[str, Any], holes: float) -> None:
    """Steps of two segments and a part of a third; behind a gate some places are empty, and two steps."""
    tokens, aot = drawn(7, 9, (5, 4), holes=holes), AOT(**how)
    reduced, _ = aot(tokens, {})
    kept, features = by_hand(tokens, aot)
    assert reduced.kept.tolist() == kept and reduced.weights is not None
    torch.testing.assert_close(reduced.weights @ tokens.features, torch.tensor(np.array(features)))
    assert (reduced.weights >= 0).all()
    torch.testing.assert_close(reduced.weights.sum(1), torch.ones(len(kept)).double())


@pytest.mark.parametrize("how", [{}, {"keep": 0.1}, {"keep": 0.7}, {"across": False}, {"anchors": "features"}], ids=str)
def test_so_many_go_on_as_it_says(how: dict[str, Any]) -> None:
    """Of each segment, whatever it shows."""
    aot = AOT(**how)
    for seed, holes in ((1, 0.0), (2, 0.6)):
        tokens = drawn(seed, 8, (4, 4), holes=holes)
        of = torch.bincount(tokens.step // 4, minlength=2).tolist()
        going = torch.bincount(tokens.step[aot(tokens, {})[0].kept] // 4, minlength=2).tolist()
        assert going == [aot.left(n) for n in of]


def test_how_many_go_on() -> None:
    assert doctest.testmod(segments) == (0, 1)
    assert flowing([196] * 4, 50, 0.3) == ([26] * 4, [26, 8, 8, 8])  # as many as the release's 26 cells come to
    assert flowing([4, 4, 4, 4], 16, 0.3) == ([4, 4, 4, 4], [4, 4, 4, 4])
    assert flowing([2, 10], 6, 0.3) == ([2, 10], [2, 4])
    assert flowing([9, 9], 1, 0.5) == ([1, 1], [1, 0])
    for sizes in ([1, 7, 3, 9], [5, 1, 1], [6, 6, 6, 6]):
        for left in range(1, sum(sizes) + 1):
            anchors, going = flowing(sizes, left, 0.4)
            assert sum(going) == left and all(0 <= g <= a <= n for g, a, n in zip(going, anchors, sizes, strict=True))


def test_everything_kept_is_everything_unchanged() -> None:
    tokens = drawn(3, 5, (3, 3), holes=0.2)
    reduced, _ = AOT(keep=1.0)(tokens, {})
    assert reduced.weights is not None and torch.equal(reduced.weights, torch.eye(len(tokens)).double())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_nothing_is_ever_nan(dtype: torch.dtype) -> None:
    """Zeros, a still picture, one token, and attention of nothing."""
    for features in (torch.zeros(8, 3), torch.ones(8, 3), torch.eye(8, 3)):
        for number in (8, 1):
            tokens = made(
                features[:number].to(dtype),
                [0, 0, 0, 2, 2, 2, 3, 3][:number],
                [0, 1, 3, 0, 1, 2, 2, 3][:number],
                (2, 2),
                4,
            )
            tokens = replace(tokens, tower=seen(torch.zeros(number)))
            for aot in (
                AOT(keep=0.4),
                AOT(keep=0.4, eps=0.02, spatial=4.0),
                AOT(anchors="features"),
                AOT(duplicate_first=True),
            ):
                reduced, _ = aot(tokens, {})
                assert reduced.weights is not None and len(reduced.kept)
                assert reduced.weights.dtype == (torch.float32 if dtype == torch.bfloat16 else dtype)
                torch.testing.assert_close(reduced.weights.sum(1), torch.ones(len(reduced.kept)).to(reduced.weights))


@pytest.mark.parametrize("anchors", ["attention", "features"])
def test_a_last_bit_decides_nothing(anchors: str) -> None:
    """Of equals those go on that are spread evenly."""
    torch.manual_seed(0)
    tokens = made(
        torch.randn(4, 6).repeat(16, 1), torch.arange(4).repeat_interleave(16).tolist(), list(range(16)) * 4, (4, 4), 4
    )
    aot, kept = AOT(keep=0.3, anchors=anchors), set()
    for noise in (0.0, 1e-7, 1e-7):
        attention = torch.ones(64) + noise * torch.randn(64)
        features = tokens.features * (1 + noise * torch.randn(64, 6))
        noisy = replace(tokens, features=features, tower=seen(attention))
        kept.add(tuple(aot(noisy, {})[0].kept.tolist()))
    assert len(kept) == 1


def test_transport_stops_for_each_by_itself() -> None:
    """Easy and hard problems side by side, of other sizes: each is what it is alone."""
    torch.manual_seed(1)
    cost = torch.rand(3, 6, 5, dtype=torch.float64) * torch.tensor([0.01, 1.0, 3.0])[:, None, None]
    sources = torch.arange(6) < torch.tensor([6, 4, 6])[:, None]
    targets = torch.arange(5) < torch.tensor([5, 5, 2])[:, None]
    for rounds in (1, 2, 100):
        plan = sinkhorn(cost, sources, targets, 0.05, rounds)
        for i, (n, m) in enumerate(((6, 5), (4, 5), (6, 2))):
            want = torch.tensor(plain.sinkhorn(cost[i, :n, :m].tolist(), 0.05, rounds))
            torch.testing.assert_close(plan[i, :n, :m], want.double(), atol=1e-12, rtol=1e-5)
            assert plan[i].sum() == pytest.approx(1) and plan[i, n:].sum() == plan[i, :, m:].sum() == 0
    assert not sinkhorn(cost[:, :0], sources[:, :0], targets, 0.1, 9).numel()
