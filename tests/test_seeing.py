"""What parts that reach into the vision tower learn from: weights, targets and their loss, against plain loops."""

from __future__ import annotations

import pytest
import torch
from families import build
from torch.testing import assert_close

from pdrop_video.parts.standby import StandbyPart
from pdrop_video.parts.uhd import UHDPart
from pdrop_video.training.seeing import missed, shares


def test_shares_are_a_softmax_of_what_differs() -> None:
    features = torch.randn(3, 6, 5, dtype=torch.float64)
    owned = torch.tensor([[1, 1, 0, 0, 0, 1], [0, 0, 1, 1, 1, 0]], dtype=torch.bool)
    for sharp in (0.0, 2.0):
        got = shares(features, owned, sharp)
        for step in range(3):
            apart = [float((each - features[step].mean(0)).norm()) for each in features[step]]
            for few in range(2):
                weight = [
                    float(torch.tensor(sharp * apart[i] / (sum(apart) / 6)).exp()) if owned[few, i] else 0.0
                    for i in range(6)
                ]
                want = torch.tensor([each / sum(weight) for each in weight], dtype=torch.float64)
                assert_close(got[step, few], want, atol=1e-6, rtol=0)
    assert_close(shares(features, owned, 0.0)[0, 0], owned[0].double() / 3)


def test_what_stands_out_counts() -> None:
    target, few = torch.randn(8, 5, dtype=torch.float64), torch.randn(8, 5, dtype=torch.float64)
    above = weights = 0.0
    for token in range(8):
        step = target[token // 4 * 4 : token // 4 * 4 + 4]
        weight = float((target[token] - step.mean(0)).square().sum())
        above, weights = above + weight * float((few[token] - target[token]).square().sum()), weights + weight
    energy = float(target.square().sum()) / 8
    assert float(missed(few, target, 2)) == pytest.approx(above / (weights * energy), rel=1e-9)
    assert float(missed(target, target, 2)) == 0
    still = target[:1].expand(8, -1)
    assert float(missed(few, still, 2)) < 1e6  # where nothing stands out nothing is divided by nothing


def test_for_which_tokens_each_of_the_few_stands() -> None:
    """Every token for exactly one of them; where there are fewer tokens than these, one of its own for each."""
    model = build("qwen2_5_vl").model
    standby, uhd = StandbyPart.of(model, n=4), UHDPart.of(model, after=1)
    quadrants = [[r // 2 * 2 + c // 2 == few for r in range(4) for c in range(4)] for few in range(4)]
    assert standby.owned((7, 4, 4)).tolist() == quadrants == uhd.owned((7, 4, 4)).tolist()
    for grid in ((1, 3, 5), (1, 2, 7), (1, 5, 2)):
        for part in (standby, uhd):
            assert part.owned(grid).sum(0).tolist() == [1] * (grid[1] * grid[2])
            assert bool(part.owned(grid).any(1).all())
    assert StandbyPart.of(model, n=8).owned((1, 1, 3)).sum(1).tolist() == [1] * 8
