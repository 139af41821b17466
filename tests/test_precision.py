"""Sixteen bits: what evictors and the archive compute of keys, values and queries against the same in float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from families import budget, build, video
from test_memory import PREFIX, held

import pdrop_video as pv
from pdrop_video.common import ties
from pdrop_video.memory import EVICTORS, Archive, Held, Piece
from pdrop_video.memory.evictors import Merger, choose

HALVES = (torch.float16, torch.bfloat16)
USING_STATES = ("infinipot_v", "stream_mem", "hermes")


def large(dtype: torch.dtype, keys: float, query: float, seed: int = 0) -> Held:
    """A layer whose products are far beyond float16's 65,504, in `dtype`."""
    layer = held(seed=seed, drop=0.2, layer=9, layers=10)  # deep: HERMES goes by attention alone
    assert layer.query is not None
    return replace(
        layer,
        keys=(layer.keys * keys).clamp(-6e4, 6e4).to(dtype),
        values=(layer.values * keys).clamp(-6e4, 6e4).to(dtype),
        query=(layer.query * query).to(dtype),
    )


def in_double(layer: Held) -> Held:
    assert layer.query is not None
    return replace(layer, keys=layer.keys.double(), values=layer.values.double(), query=layer.query.double())


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("keys", "query"), [(1, 1), (3e4, 3e-5), (40, 40), (2e4, 30), (6e4, 2e4)])
def test_attention_is_that_of_float64(keys: float, query: float, dtype: torch.dtype) -> None:
    layer = large(dtype, keys, query)
    exact = in_double(layer)
    assert exact.query is not None
    want = torch.zeros(len(layer.table), dtype=torch.float64)
    for head in range(4):
        for row in range(3):
            want += (exact.keys[head // 2] @ exact.query[head, row] / 2).softmax(0) / 12
    got = layer.attention()
    assert got.dtype == torch.float32 and got.isfinite().all()
    # a logit of a million has lost .06 in float32; where one column is far ahead that makes no difference
    torch.testing.assert_close(got.double(), want, atol=2e-3, rtol=0)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("evictor", USING_STATES)
def test_evictors_choose_as_in_float64(evictor: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a grid so fine that the arithmetic shows; what the type's own takes for a tie is another proof's matter."""
    monkeypatch.setitem(ties._BITS, dtype, 16)
    for seed in range(8):
        layer, keep = large(dtype, 2e4, 3e-4, seed), 40
        method = EVICTORS[evictor]
        priority, wanted = method(layer, keep), method(in_double(layer), keep)
        assert priority.isfinite().all()
        stay = choose(priority, layer.table, keep)
        assert stay.tolist() == choose(wanted, layer.table, keep).tolist()
        if isinstance(method, Merger):
            merged, exact = method.merge(layer, stay, priority), method.merge(in_double(layer), stay, wanted)
            assert merged is not None and exact is not None and torch.equal(merged[0], exact[0])
            for mine, theirs in zip(merged[1:], exact[1:], strict=True):
                assert mine.dtype == dtype  # one rounding of the mean, to a number that is next to it
                torch.testing.assert_close(mine, theirs.to(dtype), atol=0, rtol=torch.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [*HALVES, torch.float32, torch.float64])
def test_a_frame_that_nothing_attends_to_leaves_a_prototype_of_numbers(dtype: torch.dtype) -> None:
    """One old token is so far ahead that all weights of the new frames are 0: then these count the same."""
    layer, keep = held(seed=1), 35
    assert layer.query is not None
    keys = layer.keys.clone()
    keys[:, PREFIX] = 3000.0
    layer = replace(layer, keys=keys.to(dtype), values=layer.values.to(dtype), query=layer.query.abs().to(dtype) * 10)
    method = EVICTORS["stream_mem"]
    assert isinstance(method, Merger)
    priority = method(layer, keep)
    stay = choose(priority, layer.table, keep)
    merged = method.merge(layer, stay, priority)
    assert merged is not None
    slots, keys, values = merged
    assert len(slots) == 3
    for slot, key, value in zip(slots.tolist(), keys.unbind(1), values.unbind(1), strict=True):
        frame = layer.table.visual & (layer.table.step == layer.table.step[slot])
        for mine, states in ((key, layer.keys), (value, layer.values)):
            torch.testing.assert_close(mine, states[:, frame].double().mean(1).to(dtype), atol=1e-6, rtol=1e-2)


def test_float64_stays_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys, values and attention that differ only beyond float32 are told apart, if the grid lets them."""
    monkeypatch.setitem(ties._BITS, torch.float64, 48)
    layer, keep = held(seed=3), 40
    assert layer.query is not None
    noise = torch.randperm(len(layer.table), generator=torch.Generator().manual_seed(0)).double() * 1e-12
    states = (1 + noise)[:, None].expand(2, -1, 4)
    layer = replace(layer, keys=states, values=states, query=torch.ones_like(layer.query).double())
    by_value = EVICTORS["infinipot_v"](layer, keep)
    older = layer.table.visual & (by_value < 2)
    assert by_value[older].argsort().tolist() == noise[older].argsort().tolist()
    assert layer.attention().argsort().tolist() == noise.argsort().tolist()


@pytest.mark.parametrize("dtype", HALVES)
def test_the_archive_finds_by_means_in_float32(dtype: torch.dtype) -> None:
    """Sums over many tokens of large keys are beyond float16, and their means are not."""
    generator = torch.Generator().manual_seed(0)
    layer = large(dtype, 2e4, 1.0)
    count = len(layer.table)
    archive = Archive(10**8, lambda i, keys, by: keys)
    for part in torch.arange(count).chunk(5):
        archive = archive.add({0: Piece(layer.table.take(part), layer.keys[:, part], layer.values[:, part])})
    query = torch.randn(4, 4, generator=generator).to(dtype)
    asked = torch.cat([query[:2].double().mean(0), query[2:].double().mean(0)])
    steps = layer.table.step.unique().tolist()
    means = [layer.keys[:, layer.table.step == step].double().mean(1).flatten() for step in steps]
    likeness = [float(F.cosine_similarity(mean, asked, dim=0)) for mean in means]
    best = sorted(range(len(steps)), key=lambda i: -likeness[i])[:4]
    found = archive.taken(0, archive.nearest(0, query, 4))
    assert found is not None and found.table.step.unique().tolist() == sorted(steps[i] for i in best)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("evictor", USING_STATES)
def test_streams_in_sixteen_bits_hold_numbers(evictor: str, dtype: torch.dtype) -> None:
    """With keys as large as real models have them, by biases of their projections: hundreds, in a few dimensions."""
    lm = build("qwen2_5_vl", dtype=dtype)
    for layer in lm.model.get_decoder().layers:
        for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj):
            projection.bias.data[::8] = 180.0
    step = lm.adapter.frames_per_step
    stream = lm.stream(pv.Pyramid(stages=3), pv.Memory(tokens=budget(lm, 2.6), evictor=evictor, archive=10**7))
    for i in range(6):
        stream.push(video(2 * step, seed=i), [4.0 * i + j for j in range(2 * step)])
    cache = stream._state.cache
    assert cache.layers[0].keys.abs().max() > 150
    for kept in cache.layers:
        assert kept.keys.isfinite().all() and kept.values.isfinite().all()
    assert stream.next_logits("what ?", retrieve=2).isfinite().all()
