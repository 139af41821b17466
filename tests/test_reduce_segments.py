"""HoliTom and FastVID: runs, density peaks and budgets against plain loops, streams, and ragged chunks."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from peers import clip, ragged, some, sound, streamed
from test_front import tokens_of
from torch import Tensor

import pdrop_video as pv
from pdrop_video.reduce import Reducer
from pdrop_video.reduce.density import distances, peaks
from pdrop_video.reduce.fastvid import FastVID
from pdrop_video.reduce.holitom import HoliTom, runs_of

GRID = (4, 4)
METHODS = [HoliTom(0.3), HoliTom(0.4, 0.9, context=0.5, own=None), FastVID(0.3), FastVID(0.3, parallel=True)]


def divisions(steps: int, longest: int) -> list[list[tuple[int, int]]]:
    """All ways to cut so many steps into runs."""
    found = []
    for cut in product([False, True], repeat=steps - 1):
        ends = [i for i, each in enumerate(cut) if each] + [steps - 1]
        runs = [(a + 1, b) for a, b in pairwise([-1, *ends])]
        found += [runs] if max(b - a + 1 for a, b in runs) <= longest else []
    return found


def saved(alike: np.ndarray, runs: list[tuple[int, int]]) -> int:
    return sum((b - a) * int(alike[a:b].all(0).sum()) for a, b in runs if b > a)


@pytest.mark.parametrize("longest", [1, 2, 3, 1024])
def test_runs_save_the_most(longest: int) -> None:
    """Of all divisions, for what changes often and what hardly does."""
    generator = np.random.default_rng(0)
    for chance in (0.3, 0.6, 0.9):
        for steps in (1, 2, 5, 7):
            alike = generator.random((steps - 1, 9)) < chance
            runs, count = runs_of(alike, longest)
            assert runs in divisions(steps, longest)
            assert saved(alike, runs) == count == max(saved(alike, each) for each in divisions(steps, longest))


def test_of_divisions_that_save_as_much_the_first_runs_stay_short() -> None:
    """Nothing alike: single steps. One place alike and then another: the earlier two steps are the run."""
    assert runs_of(np.zeros((3, 4), bool), 1024) == ([(0, 0), (1, 1), (2, 2), (3, 3)], 0)
    assert runs_of(np.eye(2, dtype=bool), 1024) == ([(0, 1), (2, 2)], 1)


def dpc(points: list[list[float]], count: int, nearest: int) -> list[int]:
    """DPC-kNN as plain loops, for points of which no two are equally dense."""
    far = [[math.dist(a, b) / math.sqrt(len(a)) for b in points] for a in points]
    density = [math.exp(-sum(d * d for d in sorted(row)[:nearest]) / nearest) for row in far]
    score = []
    for i, row in enumerate(far):
        above = [d for j, d in enumerate(row) if density[j] > density[i]]
        score.append(density[i] * (min(above) if above else max(map(max, far))))
    return sorted(sorted(range(len(points)), key=lambda i: -score[i])[:count])


@pytest.mark.parametrize("nearest", [3, 4, 7])
def test_density_peaks(nearest: int) -> None:
    for seed in range(5):
        points = clip(1, 20, seed=seed)
        turn = torch.randperm(20)
        found = peaks(distances(points, torch.float64), turn, 6, nearest, torch.float64)
        assert found.tolist() == dpc(points.tolist(), 6, nearest)


def test_of_equals_the_first_in_turn_is_a_peak() -> None:
    """Three places with four tokens each, a last bit apart: one peak of each, and no more while there is another."""
    points = clip(1, 3, seed=1).repeat_interleave(4, 0)
    turn = torch.tensor([3, 1, 2, 4, 9, 8, 7, 6, 11, 15, 10, 12])
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        noisy = points * (1 + 1e-15 * torch.randn(12, 1, dtype=torch.float64, generator=generator))
        distance = distances(noisy, torch.float64)
        assert not distance[:4, :4].any()
        assert peaks(distance, turn, 3, 4, torch.float64).tolist() == [1, 7, 10]


def test_holitom_by_hand() -> None:
    """Four steps of three places: one stands still, one jumps in the middle, one always changes."""
    one, two = torch.eye(4, dtype=torch.float64)[:2]
    jump = [one, one, two, two]
    change = [one + two, one - two, -one - two, two - one]
    still = [torch.tensor([0, 0, 1, 0.1 * i], dtype=torch.float64) for i in range(4)]
    features = torch.stack([torch.stack([still[i], jump[i], change[i]]) for i in range(4)]).flatten(0, 1)
    tokens = tokens_of(features, (1, 3))
    # two runs of two steps save 2 * 2 tokens, one run of four saves 3: of 8 left each that stands still stays
    reduced, _ = HoliTom(1.0)(tokens, {})
    assert reduced.kept.tolist() == [0, 1, 2, 5, 6, 7, 8, 11]
    assert reduced.weights is not None
    merged = reduced.weights.double() @ features
    torch.testing.assert_close(merged[0], (still[0] + still[1]) / 2)
    torch.testing.assert_close(merged[4], (still[2] + still[3]) / 2)
    torch.testing.assert_close(merged[3], change[1])


def test_fastvid_budgets() -> None:
    """Of 40 tokens that stay of ten steps, 16 go to the anchors, which count from a segment's end."""
    sizes = [16] * 10
    assert FastVID(0.25)._budgets(sizes) == ([3, 3, 3, 3, 2, 2, 2, 2, 2, 2], [0, 5, 0, 0, 0, 5, 0, 0, 0, 6])
    assert FastVID(0.25, parallel=True)._budgets(sizes) == ([3] * 10, [0, 3, 0, 0, 0, 3, 0, 0, 0, 3])
    # no step is asked for more than it has
    salient, peaked = FastVID(1.0)._budgets([16, 3, 5])
    assert all(a + b <= size for a, b, size in zip(salient, peaked, [16, 3, 5], strict=True))


def test_fastvid_segments() -> None:
    """A cut at each change of scene, and the least alike where more are asked for."""
    scenes = torch.eye(8, dtype=torch.float64)[[0, 0, 0, 1, 1, 2, 2, 2]] * 10
    features = (scenes[:, None] + 0.01 * clip(8, 16).view(8, 16, 8)).flatten(0, 1)
    tokens = tokens_of(features, GRID)
    sizes = tokens.step.bincount()
    assert FastVID(segments=1)._segments(tokens, features, sizes) == [(0, 2), (3, 4), (5, 7)]
    assert FastVID(threshold=-1.0)._segments(tokens, features, sizes) in ([(0, 2), (3, 7)], [(0, 4), (5, 7)])
    assert FastVID(threshold=-1.0, segments=8)._segments(tokens, features, sizes) == [(i, i) for i in range(8)]


@pytest.mark.parametrize("reducer", METHODS)
def test_units_do_not_depend_on_chunks(reducer: Reducer) -> None:
    features = clip(12, 16, seed=7)
    by_units = replace(reducer, unit=4)  # type: ignore[type-var]
    whole = streamed(by_units, features, GRID, [])
    assert streamed(by_units, features, GRID, [4, 8]) == streamed(by_units, features, GRID, [8]) == whole
    assert whole == streamed(reducer, features, GRID, [4, 8])
    assert by_units(tokens_of(features, GRID), {})[0].weights.shape == (len(whole), 192)


@pytest.mark.parametrize("reducer", METHODS)
def test_shares_hold_however_a_stream_is_cut(reducer: Reducer) -> None:
    """HoliTom rounds up for each step, FastVID down; half of a run's still tokens may be rounded away."""
    for seed in range(3):
        features, steps = clip(12, 16, seed=seed), 12
        for cuts in ([], [1], [4, 8], list(range(1, 12))):
            kept, keep = len(streamed(reducer, features, GRID, cuts)), reducer.keep  # type: ignore[attr-defined]
            over = kept - steps * 16 * keep
            assert -steps <= over <= (steps * 1.5 if isinstance(reducer, HoliTom) else 0), (kept, cuts)


@pytest.mark.parametrize("reducer", METHODS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_ragged_chunks_zeros_and_one_token(reducer: Reducer, dtype: torch.dtype) -> None:
    features = clip(6, 16, seed=8).to(dtype)
    features[16:32] = 0
    tokens = ragged(features, GRID, empty=(0, 3))
    reduced, carried = reducer(tokens, {})
    sound(reduced, tokens)
    assert not carried and reduced.weights is not None and reduced.weights.dtype == torch.float32
    one = some(tokens_of(features, GRID), torch.tensor([20]))
    assert reducer(one, {})[0].kept.tolist() == [0]
    zeros = tokens_of(torch.zeros(48, 8, dtype=dtype), GRID)
    sound(reducer(zeros, {})[0], zeros)
    told = replace(zeros, tower={"attention": torch.ones(48)})
    sound(replace(reducer, salient="attention")(told, {})[0], told)  # type: ignore[type-var]


@pytest.mark.parametrize("reducer", METHODS)
def test_last_bits_do_not_matter(reducer: Reducer) -> None:
    """Of a video of equal tokens the same ones stay, whatever the rounding."""
    features = clip(1, 4, seed=2).repeat_interleave(4, 0).repeat(5, 1)
    found = set()
    for seed in range(4):
        noise = 1 + 1e-15 * torch.randn(80, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        found.add(tuple(reducer(tokens_of(features * noise, GRID), {})[0].kept.tolist()))
    assert len(found) == 1


@pytest.mark.parametrize("method", [HoliTom, FastVID])
def test_the_towers_attention_is_what_is_salient(method: type[HoliTom] | type[FastVID]) -> None:
    """Where it is asked for."""
    by_features, by_attention = method(0.2), method(0.2, salient="attention")
    assert by_features.needs == () and by_attention.needs == ("attention",)
    tokens = tokens_of(clip(4, 16, seed=3, still=0.1), GRID)
    attention = torch.zeros(64).index_fill(0, torch.tensor([3, 20, 40, 60]), 1.0)
    told = replace(tokens, tower={"attention": attention})
    assert {3, 20, 40, 60} <= set(by_attention(told, {})[0].kept.tolist())
    assert torch.equal(by_features(told, {})[0].kept, by_features(tokens, {})[0].kept)
    # what is least like the mean of its step: one token of each that points away from the others
    away = torch.ones(64, 8, dtype=torch.float64) + 0.1 * tokens.features
    away[[5, 30, 33, 50]] *= -1
    assert {5, 30, 33, 50} <= set(method(0.2, threshold=0.999)(replace(tokens, features=away), {})[0].kept.tolist())


def test_settings() -> None:
    for method, bad in (
        (HoliTom, {"keep": 0}),
        (HoliTom, {"threshold": 2}),
        (HoliTom, {"context": -1}),
        (HoliTom, {"own": 2}),
        (HoliTom, {"nearest": 0}),
        (HoliTom, {"salient": "norm"}),
        (FastVID, {"segments": 0}),
        (FastVID, {"period": 0}),
        (FastVID, {"parallel": 1}),
        (FastVID, {"own": None}),
    ):
        with pytest.raises(pv.ConfigError):
            method(**bad)
    assert HoliTom().left(100) is FastVID().left(100) is None


def test_a_tensor_is_left_as_it_was() -> None:
    features: Tensor = clip(4, 16)
    given = features.clone()
    for reducer in METHODS:
        reducer(tokens_of(features, GRID), {})
    assert torch.equal(features, given)
