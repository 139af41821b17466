"""RotateK's subspace of keys: the specification's numbers, the release's, a plain formula, and blocks that move."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from families import build
from torch import Tensor

import pdrop_video as pv
from pdrop_video.memory.subspace import Subspace, channel_weights

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "golden" / "rotatek.json").read_text(encoding="utf-8"))
KEYS = torch.tensor([[3, 1, 0, 0], [1, 3, 0, 0], [2, 2, 1, 0], [3, 3, 0, 1], [1, 1, 0, 0]]).double()[None]
ASKED = torch.tensor([[1, 1, 0.5, 0.1], [1, 2, 0.1, 0.1]]).double()[None]


def logits(block: Subspace, keys: Tensor, query: Tensor, shared: bool = True) -> list[float]:
    """As the paper has them: the turned query with coordinates, and what all keys of the block share."""
    asked = query @ block.axes[0]
    return ((block.coordinates(keys)[0] @ asked + shared * (block.rest[0] @ query)) / math.sqrt(len(query))).tolist()


def test_the_example_of_the_specification() -> None:
    query = torch.tensor([1, -1, 0.5, 2]).double()
    close = partial(pytest.approx, abs=1.1e-6)
    assert (KEYS[0] @ query / 2).tolist() == [1, -1, 0.25, 1, 0]
    weight = channel_weights(ASKED, 1)
    assert weight[0].tolist() == close([1.414214, 2.236068, 0.509902, 0.141421])
    block = Subspace.of(KEYS, 2, weight)
    projection = block.axes[0] @ block.axes[0].T
    assert [float(projection[i, 3]) for i in (0, 1, 3)] == close([0.024997, 0.015802, 0.000875])
    assert block.rest[0].tolist() == close([-0.002949, -0.001868, 0.200116, 0.118227])
    assert logits(block, KEYS, query) == close([1.258053, -0.760234, 0.248891, 0.294979, 0.208312])
    assert logits(block, KEYS, query, shared=False) == close([1.090338, -0.92795, 0.081175, 0.127263, 0.040597])
    blind = Subspace.of(KEYS, 2)
    assert logits(blind, KEYS, query) == close([1.226492, -0.773508, 0.219845, 0.813408, -0.236237])
    # the key that stands for it gives the same logit
    assert (block.keys(block.coordinates(KEYS))[0] @ query / 2).tolist() == close(logits(block, KEYS, query))


@pytest.mark.parametrize("case", range(4))
def test_the_releases_logits(case: int) -> None:
    """`tests/golden/rotatek.json` says which code made them; groups of heads, one head a key, a channel nobody asks."""
    trace = GOLDEN["cases"][case]
    keys, queries = (torch.tensor(trace[name]).double() / 1000 for name in ("keys", "queries"))
    end = keys.shape[1] - trace["text"]
    keys = keys[:, trace["prompt"] : end]
    weight = channel_weights(queries, len(keys)) if trace["weighted"] else None
    block = Subspace.of(keys, trace["kept"], weight)
    torch.testing.assert_close(block.rest, torch.tensor(trace["rest"]).double(), atol=2e-5, rtol=1e-4)
    asked = torch.tensor(trace["asked"]).double().view(len(keys), -1, keys.shape[-1]) / 1000
    mine = asked @ block.keys(block.coordinates(keys)).mT
    torch.testing.assert_close(mine, torch.tensor(trace["logits"]).double(), atol=2e-4, rtol=1e-4)


def khat(keys: Tensor, kept: int, asked: Tensor | None) -> Tensor:
    """What each key of a head counts as, number by number but for the eigenvectors."""
    out = torch.empty_like(keys)
    group = 0 if asked is None else len(asked) // len(keys)
    for head, rows in enumerate(keys):
        count, dim = rows.shape
        mean = [sum(float(rows[s, c]) for s in range(count)) / count for c in range(dim)]
        weight = [1.0] * dim
        if asked is not None:
            mine = asked[head * group : (head + 1) * group, -32:]
            for c in range(dim):
                means = [sum(float(q[r, c]) for q in mine) / group for r in range(mine.shape[1])]
                weight[c] = math.sqrt(sum(x * x for x in means))
            least = 1e-3 * sorted(weight)[(dim - 1) // 2]
            weight = [max(w, least) for w in weight]
        spread = torch.zeros(dim, dim, dtype=torch.float64)
        for a in range(dim):
            for b in range(dim):
                off = sum((float(rows[s, a]) - mean[a]) * (float(rows[s, b]) - mean[b]) for s in range(count))
                spread[a, b] = off * weight[a] * weight[b]
        if asked is not None:
            spread += 1e-4 * sum(abs(float(spread[c, c])) for c in range(dim)) / dim * torch.eye(dim)
        values, vectors = torch.linalg.eigh(spread)
        axes = vectors[:, values.argsort(descending=True)[:kept]]
        projection = axes @ axes.T
        for s in range(count):
            off = rows[s] - torch.tensor(mean, dtype=torch.float64)
            out[head, s] = projection @ off + torch.tensor(mean, dtype=torch.float64)
    return out


@pytest.mark.parametrize("kept", [1, 3, 8])
@pytest.mark.parametrize("weighted", [False, True])
def test_by_the_formula(kept: int, weighted: bool) -> None:
    """Random keys of two heads, two queries each, more rows than count; all directions are the keys themselves."""
    generator = torch.Generator().manual_seed(kept)
    keys = torch.randn(2, 12, 8, generator=generator, dtype=torch.float64) * torch.linspace(3, 0.1, 8).double() + 1
    asked = torch.randn(4, 40, 8, generator=generator, dtype=torch.float64) if weighted else None
    block = Subspace.of(keys, kept, None if asked is None else channel_weights(asked, 2))
    got = block.keys(block.coordinates(keys))
    torch.testing.assert_close(got, khat(keys, kept, asked), atol=1e-9, rtol=0)
    off = (got - keys).abs().max()
    assert off < 1e-9 if kept == 8 else off > 1e-2
    # what a logit is off by: (k - mu) (I - P) q
    query = torch.randn(8, generator=generator, dtype=torch.float64)
    outside = torch.eye(8).double() - block.axes @ block.axes.mT
    want = -((keys - keys.mean(1, keepdim=True)) @ outside @ query)
    torch.testing.assert_close((got - keys) @ query, want, atol=1e-9, rtol=0)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava_onevision"])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_block_that_moves_turns_its_directions_or_the_query(family: str, weighted: bool) -> None:
    """The model's own rotation, by one shift for the whole block: coordinates stay, and three ways give one logit."""
    loop = build(family).stream(pv.Pyramid(stages=1)).loop
    generator = torch.Generator().manual_seed(3)
    keys = torch.randn(2, 30, 16, generator=generator, dtype=torch.float64)
    asked = torch.randn(4, 9, 16, generator=generator, dtype=torch.float64) if weighted else None
    query = torch.randn(2, 1, 16, generator=generator, dtype=torch.float64)
    block = Subspace.of(keys, 4, None if asked is None else channel_weights(asked, 2))
    by = torch.tensor([[-7, 3, 11]])[:, : loop.axes]

    def turn(states: Tensor, shift: Tensor = by) -> Tensor:
        return loop.turn(0, states, shift.expand(states.shape[1], -1))

    coordinates = block.coordinates(keys)
    there = turn(block.keys(coordinates))  # the keys that stand for them, moved one by one
    torch.testing.assert_close(block.turned(turn).keys(coordinates), there, atol=1e-12, rtol=0)
    direct = (query @ there.mT)[:, 0]
    back = turn(query, -by)
    fused = (back @ block.axes @ coordinates.mT + back @ block.rest[..., None])[:, 0]
    torch.testing.assert_close(fused, direct, atol=1e-12, rtol=0)
    assert (turn(keys) - keys).abs().max() > 0.1  # the control: it does move


def test_half_precision_is_the_projection_that_is_stored() -> None:
    """Directions are rounded once, and what is shared is outside of the rounded ones."""
    generator = torch.Generator().manual_seed(5)
    keys = (torch.randn(2, 60, 16, generator=generator) * 5 + 20).bfloat16()
    block = Subspace.of(keys, 6)
    assert block.axes.dtype == block.rest.dtype == torch.bfloat16
    axes, mean = block.axes.double(), keys.double().mean(1)
    want = mean - (axes @ axes.mT @ mean[..., None])[..., 0]
    torch.testing.assert_close(block.rest.double(), want, atol=2**-8 * float(want.abs().max()), rtol=0)
    exact = Subspace.of(keys.double(), 6)
    off = (block.keys(block.coordinates(keys)).double() - exact.keys(exact.coordinates(keys.double()))).abs().max()
    assert off < 2**-7 * float(block.coordinates(keys).abs().max())  # roundings of coordinates of keys off the origin
