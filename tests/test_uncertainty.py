"""How sure a choice is, and what nothing beats: both by their definitions."""

from __future__ import annotations

import numpy as np
import pytest

import pdrop_video as pv
from pdrop_video.search.results import pareto
from pdrop_video.search.uncertainty import uncertainty


def test_uncertainty_by_its_definition() -> None:
    rng = np.random.default_rng(3)
    table = rng.normal(size=(4, 9)) + np.array([[0.0], [0.1], [0.5], [3.0]])
    sure = uncertainty(table, seed=5, resamples=400)
    draws = np.random.default_rng(5).integers(9, size=(400, 9))
    winners = [int(table[:, draw].mean(1).argmin()) for draw in draws]
    assert sure.wins == pytest.approx([winners.count(i) / 400 for i in range(4)]) and sure.wins[3] == 0
    assert sure.best == int(table.mean(1).argmin())
    assert sure.standard_error == pytest.approx(table.std(1, ddof=1) / 3)
    assert sure.behind_error == pytest.approx((table - table[sure.best]).std(1, ddof=1) / 3)
    left = [[v for v in range(9) if v not in draw] for draw in draws.tolist()]
    elsewhere = [table[winner, some].mean() for winner, some in zip(winners, left, strict=True) if some]
    assert sure.elsewhere == pytest.approx(np.mean(elsewhere))
    same = uncertainty([[1.0, 2.0], [1.0, 2.0]])  # two names of one thing share it
    assert same.wins == (0.5, 0.5) and same.behind_error == (0.0, 0.0)
    for wrong in ([], [[1.0, float("nan")]]):
        with pytest.raises(pv.ConfigError, match="finite numbers"):
            uncertainty(wrong)


def test_fronts() -> None:
    rng = np.random.default_rng(0)
    points = [tuple(map(int, rng.integers(0, 6, 3))) for _ in range(60)]
    for one, front in zip(points, pareto(points), strict=True):
        assert front == (not any(all(a <= b for a, b in zip(o, one, strict=True)) and o != one for o in points))
