"""VidCom2: the formula as plain loops, streams, and what is left of both behind a gate."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from peers import clip, ragged, some, sound, streamed
from test_front import tokens_of
from torch import Tensor

import pdrop_video as pv
from pdrop_video.reduce.vidcom2 import VidCom2

GRID = (3, 4)


def unique(token: list[float], centre: list[float]) -> float:
    square = sum((a - b) ** 2 for a, b in zip(token, centre, strict=True))
    return sum(1 - math.exp(-square / (2 * 2.0**k)) for k in range(-3, 2))


def mean(rows: list[list[float]]) -> list[float]:
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def by_formula(chunks: list[Tensor], keep: float, temperature: float, places: int) -> list[int]:
    """Chunk by chunk [steps * places, hidden], the video's mean over all so far."""
    channels: list[int] = []
    seen: list[list[float]] = []
    kept: list[int] = []
    for chunk in chunks:
        rows = chunk.tolist()
        if not channels:
            spread = [sum((x - sum(c) / len(c)) ** 2 for x in c) for c in zip(*rows, strict=True)]
            channels = sorted(range(len(spread)), key=lambda c: spread[c])[: len(spread) // 2]
        tokens = [[row[c] for c in channels] for row in rows]
        tokens = [[x / math.sqrt(sum(y * y for y in token)) for x in token] for token in tokens]
        begin = len(seen)
        seen += tokens
        video = mean(seen)
        steps = [tokens[i : i + places] for i in range(0, len(tokens), places)]
        in_video = [[unique(token, video) for token in step] for step in steps]
        exponents = [math.exp((sum(u) / places - 5) / temperature) for u in in_video]
        for number, step in enumerate(steps):
            scale = keep * (1 + exponents[number] / sum(exponents) - 1 / len(steps))
            count = max(round(min(scale, 1) * places), 1)
            centre = mean(step)
            score = [in_video[number][i] + unique(token, centre) for i, token in enumerate(step)]
            best = sorted(range(places), key=lambda i: -score[i])[:count]
            kept += [begin + number * places + i for i in sorted(best)]
    return kept


@pytest.mark.parametrize(("keep", "temperature"), [(0.25, 0.01), (0.1, 0.05), (0.55, 0.02), (1.0, 0.01)])
@pytest.mark.parametrize("cuts", [[], [3], [1, 2, 6]])
def test_by_formula(keep: float, temperature: float, cuts: list[int]) -> None:
    features = clip(8, 12, seed=5)
    ends = [0, *cuts, 8]
    chunks = [features[12 * a : 12 * b] for a, b in pairwise(ends)]
    reducer = VidCom2(keep, temperature=temperature)
    assert streamed(reducer, features, GRID, cuts) == by_formula(chunks, keep, temperature, 12)


@pytest.mark.parametrize("keep", [0.1, 0.25, 0.5])
def test_the_budget_holds_however_a_stream_is_cut(keep: float) -> None:
    """Half a token a step is all that a rounded budget can miss."""
    for seed in range(5):
        features = clip(12, 30, seed=seed)
        for cuts in ([], [1], [4, 8], list(range(1, 12))):
            kept = streamed(VidCom2(keep), features, (5, 6), cuts)
            assert abs(len(kept) - 12 * 30 * keep) <= 12 / 2 + 1e-9


def test_units_do_not_depend_on_chunks() -> None:
    """Steps of a unit come together, as a stream gives them; which call brings them does not matter."""
    features = clip(12, 12, seed=7)
    reducer = VidCom2(0.3, unit=3)
    whole = streamed(reducer, features, GRID, [])
    assert streamed(reducer, features, GRID, [3, 6, 9]) == streamed(reducer, features, GRID, [9]) == whole
    assert whole == streamed(VidCom2(0.3), features, GRID, [3, 6, 9]) != streamed(VidCom2(0.3), features, GRID, [])


def test_frames_that_are_equal_share_alike() -> None:
    """3.5 tokens of 14 each: rounded alike, whatever the last bits of their scores are."""
    features = torch.randn(14, 8, dtype=torch.float64).repeat(6, 1)
    features *= 1 + 1e-14 * torch.randn(84, 1, dtype=torch.float64)
    kept = VidCom2(0.25)(tokens_of(features, (2, 7)), {})[0].kept
    assert (kept // 14).bincount().tolist() == [4] * 6


def test_what_stands_out_stays() -> None:
    """In a still video, the frame that is another and the token that is another."""
    features = torch.ones(60, 8, dtype=torch.float64) + 0.01 * clip(5, 12)
    features[24:36] = -features[24:36]
    features[7] = -features[7]
    kept = VidCom2(0.25)(tokens_of(features, GRID), {})[0].kept
    assert 7 in kept and (kept // 12).bincount().argmax() == 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_ragged_chunks_and_zeros(dtype: torch.dtype) -> None:
    features = clip(6, 12, seed=8).to(dtype)
    features[12:24] = 0
    tokens = ragged(features, GRID, empty=(0, 3))
    reduced, carried = VidCom2(0.2)(tokens, {})
    sound(reduced, tokens)
    sizes, kept = tokens.step.bincount(minlength=6), tokens.step[reduced.kept].bincount(minlength=6)
    assert ((kept > 0) == (sizes > 0)).all()
    assert all(tensor.isfinite().all() for tensor in carried.values())
    one = some(tokens_of(features, GRID), torch.tensor([30]))
    assert VidCom2(0.2)(one, {})[0].kept.tolist() == VidCom2(0.2)(one, carried)[0].kept.tolist() == [0]


def test_settings() -> None:
    assert VidCom2().left(100) is None
    for bad in ({"keep": 0}, {"temperature": 0}, {"channels": 2}, {"unit": 0}):
        with pytest.raises(pv.ConfigError):
            VidCom2(**bad)  # type: ignore[arg-type]
