"""Golden traces of AOT's released functions (tests/golden/aot.json names them), which ran on random whole numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from test_reduce_aot import made
from torch import Tensor

from pdrop_video.reduce.aot import AOT
from pdrop_video.reduce.transport import sinkhorn

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "golden" / "aot.json").read_text(encoding="utf-8"))


def numbers(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64) / 1000


@pytest.mark.parametrize("case", range(3))
def test_the_releases_anchors(case: int) -> None:
    """Of one picture of 27 x 27 at 126, 108 and 180 anchors, and, of the first, what flows into them."""
    trace = GOLDEN["picture"]
    anchors = trace["cases"][case]["anchors"]
    attention = {"attention": numbers(trace["late"]), "attention_early": numbers(trace["early"])}
    features = numbers(trace["features"])
    tokens = made(features, [0] * 729, list(range(729)), (27, 27), 1, **attention)
    reduced, _ = AOT(keep=(len(anchors) + 0.5) / 729)(tokens, {})
    assert reduced.kept.tolist() == anchors and reduced.weights is not None
    if case == 0:
        want = torch.tensor(trace["cases"][0]["merged"], dtype=torch.float64)
        torch.testing.assert_close(reduced.weights @ features, want, atol=1e-6, rtol=0)


@pytest.mark.parametrize("case", range(3))
@pytest.mark.parametrize("twice", [False, True])
def test_the_releases_segments(case: int, twice: bool) -> None:
    """Of 4 steps of 5 x 5: who goes on by himself, and what the first step's anchors become."""
    trace = GOLDEN["segments"][case]
    count = len(trace["anchors"][0])
    new = sum(map(len, trace["kept"]))
    # the windows are one, so that attention may name whatever anchors the release was given
    attention = torch.zeros(4, 25)
    for step, anchors in enumerate(trace["anchors"]):
        attention[step, anchors] = torch.arange(count, 0, -1.0)
    seen = {"attention": attention.flatten(), "attention_early": attention.flatten()}
    features = numbers(trace["features"]).flatten(0, 1)
    step = torch.arange(4).repeat_interleave(25).tolist()
    tokens = made(features, step, list(range(25)) * 4, (5, 5), 4, **seen)
    total = count * (1 + twice) + new
    aot = AOT((total + 0.5) / 100, trace["quantile"], within=trace["within"], windows=1, duplicate_first=twice)
    reduced, _ = aot(tokens, {})
    assert reduced.weights is not None
    got = reduced.weights @ features
    own = [25 * (t + 1) + place for t, kept in enumerate(trace["kept"]) for place in kept]
    first = trace["anchors"][0]
    number = {token: i for i, token in enumerate(reduced.kept.tolist())}
    assert set(first) | set(own) <= set(number) and len(number) == total
    want = {name: torch.tensor(trace[name], dtype=torch.float64) for name in ("first", "new", "merged")}
    torch.testing.assert_close(got[[number[token] for token in own]], want["new"], atol=1e-6, rtol=0)
    before = got[[number[token] for token in first]]
    torch.testing.assert_close(before, want["first" if twice else "merged"], atol=1e-6, rtol=0)
    if twice:  # each merged one stands at its own place of a later step
        later = {token % 25: i for token, i in number.items() if token >= 25 and token not in own}
        assert sorted(later) == sorted(first)
        torch.testing.assert_close(got[[later[place] for place in first]], want["merged"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("case", range(4))
def test_the_releases_plans(case: int) -> None:
    """Of Sinkhorn at several sharpnesses, stopped early, by its rounds, or not at all."""
    trace = GOLDEN["sinkhorn"][case]
    cost = numbers(trace["cost"])[None]
    there = [torch.ones(1, n, dtype=torch.bool) for n in cost.shape[1:]]
    plan = sinkhorn(cost, *there, trace["eps"], trace["rounds"])
    torch.testing.assert_close(plan[0], torch.tensor(trace["plan"]).double(), atol=1e-8, rtol=0)
