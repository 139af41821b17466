"""RotateK in streams: against keys that are overwritten in full, as queries turned, weighed, saved and taken back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import hybrids
import plain
import pytest
import torch
from families import FAMILIES, budget, build, cases, video
from more_families import MORE
from rawkeys import small
from test_storages import parts
from torch import Tensor

import pdrop_video as pv
from pdrop_video.memory import STORAGES, StreamCache, cache
from pdrop_video.memory.storages.rotatek import Directions, RotateK
from pdrop_video.memory.subspace import channel_weights, rotated_pairs
from pdrop_video.memory.tiered import TieredLayer

QUESTION = "what is shown first ?"
PYRAMID = pv.Pyramid(stages=3)


@contextmanager
def simulated(real: pv.VideoStream, full: pv.VideoStream, keep: float) -> Iterator[list[int]]:
    """Whatever settles in `real` is overwritten in `full`, whose pushes must follow those of `real` one by one."""
    settle, make_room = cache.settle, StreamCache.make_room
    events: list[list[Tensor]] = []
    known: dict[int, tuple[Tensor, Tensor]] = {}
    count = [0]

    def noted(kinds: Any, layers: Any, tables: Any, *rest: Any) -> None:
        if not any(isinstance(layer, TieredLayer) for layer in layers):
            return settle(kinds, layers, tables, *rest)
        before = [layer.settled for layer in layers]
        settle(kinds, layers, tables, *rest)
        events.append([t.index[n : layer.settled] for t, n, layer in zip(tables, before, layers, strict=True)])
        return None

    def overwritten(self: StreamCache, *args: Any) -> None:
        if self.storage == STORAGES["full"]:
            turn = full.loop.turn
            for i, numbers in enumerate(events.pop(0)):
                if not len(numbers):
                    continue
                table, layer = self.tables[i], self.layers[i]
                slots = torch.stack([(table.index == n).nonzero()[0, 0] for n in numbers])
                came = layer.keys if layer.entered is None else layer.entered
                bare = turn(i, came[0][:, slots], -table.entered[slots])
                if i not in known:  # what its first keys have in common, number by number
                    kept = bare.shape[-1] - int(bare.shape[-1] * (1 - keep))
                    mean = bare.mean(1)
                    off = bare - mean[:, None]
                    vectors = [torch.linalg.eigh(sum(k[:, None] * k[None] for k in head)).eigenvectors for head in off]
                    known[i] = mean, torch.stack([v[:, -kept:] @ v[:, -kept:].T for v in vectors])
                mean, projection = known[i]
                less = (bare - mean[:, None]) @ projection + mean[:, None]
                layer.overwrite(slots, turn(i, less, table.entered[slots]), layer.values[0][:, slots])
                layer.columns.room.keys[0][0][:, slots] = turn(i, less, table.now[slots])
                count[0] += len(slots)
        make_room(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "settle", noted)
        patch.setattr(StreamCache, "make_room", overwritten)
        yield count
    assert not events


def exact_angles(rotary: Any) -> None:
    """RoPE's angles in float64: transformers has them in float32, in which two rotations are one but for 1e-7."""
    of, both = (
        rotary.forward,
        getattr(rotary, "recomposition_frequencies", lambda angles: torch.cat((angles, angles), -1)),
    )

    def forward(x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        angles = position_ids[..., None].double() * rotary.inv_freq.double()
        found = both(angles.cos()), both(angles.sin())
        for mine, theirs in zip(found, of(x, position_ids), strict=True):
            torch.testing.assert_close(mine, theirs.double(), atol=1e-4, rtol=0)
        return found

    rotary.forward = forward


def watched(lm: pv.VideoLM, memory: pv.Memory, pictures: Any) -> tuple[pv.VideoStream, int]:
    """A stream that stores coordinates, as good as one whose whole keys are overwritten when they settle; its moves."""
    step = lm.adapter.frames_per_step
    real, full = lm.stream(PYRAMID, memory), lm.stream(PYRAMID, replace(memory, storage="full"))

    def push(stream: pv.VideoStream, i: int) -> None:
        stream.push(pictures(step, seed=i), [2.0 * step * i + j + (500 if i > 8 else 0) for j in range(step)])

    with simulated(real, full, 0.25) as count:
        for i in range(14):
            for stream in (real, full):
                push(stream, i)
    held, other_held = (zip(each._state.cache.layers, each._state.cache.tables, strict=True) for each in (real, full))
    moved = 0
    for (mine, table), (theirs, same) in zip(held, other_held, strict=True):
        if not len(table):
            continue
        order, other = table.index.argsort(), same.index.argsort()
        assert torch.equal(table.index[order], same.index[other]) and torch.equal(table.now[order], same.now[other])
        torch.testing.assert_close(mine.keys[:, :, order], theirs.keys[:, :, other], atol=1e-9, rtol=0)
        torch.testing.assert_close(mine.values[:, :, order], theirs.values[:, :, other], atol=1e-9, rtol=0)
        moved += int((table.now != table.entered).any())
    assert count[0] > 20
    got = real.next_logits(QUESTION)
    torch.testing.assert_close(got, full.next_logits(QUESTION), atol=1e-9, rtol=0)
    whole = lm.stream(PYRAMID, replace(memory, storage="full"))
    for i in range(14):
        push(whole, i)
    assert (got - whole.next_logits(QUESTION)).abs().max() > 1e-3  # the control: it does leave something out
    return real, moved


@pytest.mark.parametrize(
    ("family", "positions"),
    [
        *(("qwen2_5_vl", positions) for positions in ("window", "compact")),
        ("llava_onevision", "window"),
        *cases([*FAMILIES, *MORE], ["original"], fast=lambda f, _: f == 2),
    ],
)
def test_what_is_stored_is_what_overwriting_would_be(family: str, positions: Any) -> None:
    """Also where positions move, one rotation in place of another."""
    lm = build(family) if positions == "original" else small(family)
    if positions != "original":
        exact_angles(lm.model.get_decoder().rotary_emb)
    memory = pv.Memory(budget(lm, 3), storage="rotatek:recent=12", evictor="uniform", positions=positions)
    _, moved = watched(lm, memory, video)
    assert bool(moved) == (positions != "original")


@pytest.mark.parametrize(
    "family",
    ["gemma4", "deepseek_v3", *(pytest.param(f, marks=pytest.mark.slow) for f in ("exaone4_5", "nemotron_h", "lfm3"))],
)
def test_layers_of_every_kind(family: str) -> None:
    """Windows stay whole, lent keys are read by all that borrow them, states are left alone, latents have one key."""
    module: Any = hybrids if family in hybrids.HYBRIDS else plain
    lm = module.build(family)
    tokens = 44 if module is plain else budget(lm, 4)
    memory = pv.Memory(tokens, storage="rotatek:recent=12", evictor="oldest", positions="original")
    stream, _ = watched(lm, memory, plain.video if module is plain else video)
    layers = stream._state.cache.layers
    for kind, layer in zip(stream.loop.kinds, layers, strict=True):
        assert isinstance(layer, TieredLayer) == kind.ranks
        assert not kind.ranks or layer.settled > 8


def test_reading_keys_is_turning_queries_back() -> None:
    """Step 6 of the paper on what is stored: q' = RoPE(-D) q with coordinates, and q' with what all keys share."""
    lm = small("qwen2_5_vl")
    exact_angles(lm.model.get_decoder().rotary_emb)
    stream = lm.stream(PYRAMID, pv.Memory(tokens=90, storage="rotatek:recent=12"))
    for i in range(20):
        stream.push(video(4, seed=i), [4 * i + j for j in range(4)])
    query = torch.randn(2, 1, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for i, (layer, table) in enumerate(zip(stream._state.cache.layers, stream._state.cache.tables, strict=True)):
        settled = layer.settled
        assert settled > 10 and (table.now != table.entered).any() and layer.far.room.entered is None
        (coordinates,), (axes, rest) = layer.far.held(layer.far.room.keys), layer.form.learned[0]
        back = stream.loop.turn(i, query.expand(-1, settled, -1), -table.now[:settled])  # one for each column's shift
        logits = (back @ axes[0] * coordinates[0]).sum(-1) + (back * rest[0]).sum(-1)
        torch.testing.assert_close(logits, (query @ layer.keys[0].mT)[:, 0, :settled], atol=1e-12, rtol=0)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava_onevision", "glm4v"])
def test_what_is_asked_weighs_channels_whatever_the_rotation(family: str) -> None:
    """Pairs that a rotation mixes count alike, by their mean square; so queries may stand anywhere."""
    loop = build(family).stream(PYRAMID).loop
    generator = torch.Generator().manual_seed(1)
    queries = torch.randn(4, 6, 16, generator=generator, dtype=torch.float64) * torch.linspace(0.1, 3, 16).double()
    pairs = rotated_pairs(lambda keys, by: loop.turn(0, keys, by), queries[:2], loop.axes)
    assert torch.equal(pairs, pairs.T) and set(pairs.sum(0).tolist()) <= {1, 2} and pairs.diagonal().all()
    bare = channel_weights(queries, 2, pairs)
    by = torch.full((6, loop.axes), 37)
    there = torch.cat([loop.turn(0, each, by) for each in queries.split(2)])
    torch.testing.assert_close(channel_weights(there, 2, pairs), bare, atol=1e-12, rtol=0)
    assert (channel_weights(there, 2) - channel_weights(queries, 2)).abs().max() > 1e-2  # without pairs they do not
    mean = queries.view(2, 2, 6, 16).mean(1)
    for head in range(2):
        for c in range(16):
            both = [d for d in range(16) if pairs[c, d]]
            want = sum(float(mean[head, :, d].square().sum()) for d in both) / len(both)
            assert float(bare[head, c]) == pytest.approx(want**0.5)


@pytest.mark.parametrize("standing", [None, "what is red ?"])
def test_a_stream_weighs_by_its_probe_or_by_the_standing_question(standing: str | None) -> None:
    """Directions are those of the keys and queries that were there when the first of them settled."""
    lm = build("qwen2_5_vl")
    memory = pv.Memory(tokens=150, storage="rotatek:recent=12,asked=true")
    stream = lm.stream(pv.Pyramid(stages=1), memory, standing_question=standing)
    learn, seen = Directions.learn, []

    def watched(self: Directions, states: Tensor, weight: Tensor | None = None) -> Any:
        seen.append((states, weight))
        return learn(self, states, weight)

    asked: dict[int, Tensor] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Directions, "learn", watched)
        for i in range(4):
            if not seen:
                asked = dict(stream._state.cache.queries or {})
            stream.push(video(4, seed=i), [4 * i + j for j in range(4)])
    assert len(seen) == len(asked) == 6
    for i, (states, weight) in enumerate(seen):
        pairs = rotated_pairs(lambda keys, by, i=i: stream.loop.turn(i, keys, by), states[0], 3)
        assert weight is not None and torch.equal(weight, channel_weights(asked[i], 2, pairs))
        axes = stream._state.cache.layers[i].form.learned[0][0][0]
        torch.testing.assert_close(axes @ axes.mT, projection_of(states[0], weight), atol=1e-9, rtol=0)


def projection_of(keys: Tensor, weight: Tensor) -> Tensor:
    """Onto the four directions of the largest weighted spread, with the paper's ridge."""
    off = keys - keys.mean(1, keepdim=True)
    spread = (off.mT @ off) * weight[:, :, None] * weight[:, None]
    spread += 1e-4 * spread.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None] * torch.eye(16).double()
    axes = torch.linalg.eigh(spread).eigenvectors[..., -4:]
    return axes @ axes.mT


@pytest.mark.parametrize(("dtype", "asked"), [(torch.float64, True), (torch.bfloat16, False)])
def test_resumed_forked_and_taken_back(dtype: torch.dtype, asked: bool, tmp_path: Path) -> None:
    """Bit for bit, with an archive, moved positions and merges; coordinates are of the model's type."""
    lm, path = build("qwen2_5_vl", dtype=dtype), tmp_path / "a.pdrop"
    lm.model.config.get_text_config().max_position_embeddings = 60
    storage = f"rotatek:recent=12,asked={str(asked).lower()}"
    memory = pv.Memory(tokens=budget(lm, 3), evictor="two_tier_means:n=2", archive=10**6, storage=storage)
    streams = [lm.stream(PYRAMID, memory)]
    for i in range(8):
        if i == 5:
            streams[0].save(path)
            streams += [lm.resume(path), streams[0].fork()]
        for stream in streams:
            stream.push(video(4, seed=i), [9.0 * i + 0.37 * j for j in range(4)])
    layers = streams[0]._state.cache.layers
    assert all(layer.settled for layer in layers[:2])
    assert {layer.far.room.keys[0].dtype for layer in layers if layer.settled} == {dtype}
    logits = [stream.next_logits(QUESTION, retrieve=1) for stream in streams]
    for stream, got in zip(streams[1:], logits[1:], strict=True):
        assert all(map(torch.equal, parts(streams[0]), parts(stream))) and torch.equal(got, logits[0])
    before = [part.clone() for part in parts(streams[0])]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(lm.model.get_decoder().layers[5].mlp, "forward", lambda *a: 1 / 0)
        streams[0].push(video(4, seed=9), [90.0 + j for j in range(4)])
    assert all(map(torch.equal, parts(streams[0]), before))


def test_refused() -> None:
    for bad in ({"keep": 0}, {"keep": 1.5}, {"recent": 0}, {"asked": 1}):
        with pytest.raises(pv.ConfigError, match=next(iter(bad))):
            RotateK(**bad)  # type: ignore[arg-type]
    lm = build("llava_onevision")
    lm.model.config.get_text_config().rope_parameters = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    with pytest.raises(pv.ConfigError, match="without RoPE"):
        lm.stream(memory=pv.Memory(storage="rotatek"))
