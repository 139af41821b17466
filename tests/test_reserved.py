"""What is reserved: the storages themselves, summed, against what a stream may remember, whatever it does."""

from __future__ import annotations

import gc
from typing import Any

import families
import hybrids
import pytest
import torch
from families import video
from reserved import Alive, column, reserved
from torch import Tensor

import pdrop_video as pv
from pdrop_video.memory import KeyValueLayer
from pdrop_video.memory.columns import Columns, roomy
from pdrop_video.memory.room import Arrangement

PYRAMID = pv.Pyramid(stages=3)
QUESTION = "what is shown first ?"
CASES = [
    ("qwen2_5_vl", dict(tokens=60), 4096),
    pytest.param("qwen2_5_vl", dict(tokens=256), 4096, marks=pytest.mark.slow),
    ("qwen2_5_vl", dict(tokens=256, shape="pyramid", evictor="two_tier"), 200),
    ("qwen2_5_vl", dict(tokens=256, positions="compact", evictor="stream_mem"), 4096),
    pytest.param("qwen2_5_vl", dict(bytes=800_000, evictor="oldest", archive=10**5), 4096, marks=pytest.mark.slow),
    ("qwen2_5_vl", dict(bytes=800_000, storage="full"), 100),
    pytest.param("internvl", dict(bytes=800_000, evictor="hermes", storage="full"), 400, marks=pytest.mark.slow),
    pytest.param("qwen2_5_vl", dict(tokens=200, storage="int8_per_token"), 4096, marks=pytest.mark.slow),
    pytest.param("qwen2_5_vl", dict(bytes=800_000, storage="int8"), 4096, marks=pytest.mark.slow),
    ("qwen2_5_vl", dict(bytes=800_000, storage="int4"), 300),
    pytest.param("qwen2_5_vl", dict(tokens=200, storage="int4"), 4096, marks=pytest.mark.slow),
    pytest.param("qwen2_5_vl", dict(bytes=800_000, storage="rotatek"), 4096, marks=pytest.mark.slow),
    ("qwen3_5", dict(bytes=600_000), 4096),
    ("gemma4", dict(tokens=200), 4096),
    pytest.param("exaone4_5", dict(bytes=800_000, storage="int4"), 4096, marks=pytest.mark.slow),
]


def built(family: str, trained: int) -> pv.VideoLM:
    module: Any = families if family in families.FAMILIES else hybrids
    lm: pv.VideoLM = module.build(family)
    lm.model.config.get_text_config().max_position_embeddings = trained
    return lm


def in_flight(stream: pv.VideoStream, tokens: int) -> int:
    """Bytes of so many columns in all layers with a window, which forget by themselves and only behind them."""
    layers = zip(stream._state.cache.layers, stream.loop.kinds, stream._ingest.sizes.moved, strict=True)
    return sum(size for _, kind, size in layers if kind.window is not None) * tokens


@pytest.mark.parametrize(("family", "memory", "trained"), CASES)
def test_storages_of_a_stream_alone_and_of_a_question_beside_it(
    family: str, memory: dict[str, Any], trained: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1.15 times the bound and 16 columns a layer; while a question is open 1.3 times, and the question's columns."""
    lm, alive = built(family, trained), Alive(monkeypatch)
    stream, step = lm.stream(PYRAMID, pv.Memory(**memory)), lm.adapter.frames_per_step
    cache, many = stream._state.cache, 2 * step
    for i in range(16):
        alive.forget()
        before = stream.visual_tokens
        stream.push(video(many, seed=i), [4.0 * many * i + j for j in range(many)])
        assert stream._state.cache is cache
        beside = 16 * column(cache) + in_flight(stream, stream.visual_tokens - before + 40)  # and a probe
        alone = 1.15 * stream.cache_bound + beside
        assert alive.rooms <= alone
        assert alive.most <= alone + stream.cache_bound  # and what goes, set aside until the push is over
        assert reserved(alive.caches) <= alone
        if i % 8 != 7:
            continue
        pieces = stream.ask(QUESTION, 24, stream=True)
        alive.forget()
        said = sum(1 for _ in zip(pieces, range(12), strict=False))
        asked = max(layer.length for each in alive.caches for layer in each.layers) - max(map(len, cache.tables))
        assert said == 12 and asked > 12
        assert alive.most <= 1.3 * stream.cache_bound + beside + asked * column(cache)
        del pieces
        gc.collect()
        assert reserved(alive.caches) <= alone
    assert max(stream.cache_tokens) >= 0.9 * (stream.memory.tokens or 0)
    assert any(layer.moved for layer in cache.layers) == (trained < 4096 or memory.get("positions") == "compact")

    twin = stream.fork()  # in the same storages, until one of them goes its own way
    assert reserved([cache, twin._state.cache]) <= alone
    twin.push(video(many, seed=99), [4.0 * many * 16 + j for j in range(many)])
    twin.next_logits(QUESTION)
    assert reserved([cache, twin._state.cache]) <= 2 * alone
    del twin
    gc.collect()
    assert reserved(alive.caches) <= alone


@pytest.mark.parametrize("at_once", [1, 7, 300, 1000])
def test_a_question_behind_a_full_memory_has_its_room_and_copies_little(at_once: int) -> None:
    """Behind 1000 moved columns: 1000 rows one by one, in one storage for both; it moves once in 78 rows."""
    layer, rows = KeyValueLayer(limit=1000), torch.randn(1, 2, 1000, 4)
    column = 3 * 2 * 4 * rows.itemsize

    def bytes_of(layer: KeyValueLayer) -> int:
        assert layer.columns.room is not None
        return sum(part.untyped_storage().nbytes() for part in layer.columns.room.parts)

    for first in range(0, 1000, at_once):
        layer.update(*[rows[:, :, first : first + at_once]] * 2)
    layer.rotate(lambda keys, by: keys + by, torch.ones(1000, 1))
    assert bytes_of(layer) <= roomy(1000) * column == (1000 + 62 + 16) * column
    fork, places = layer.fork(), set()
    for i in range(1000):
        fork.update(*[rows[:, :, i : i + 1]] * 2)
        places.add((fork.values.shape[-2] - 1000, fork.columns.room.values[0].data_ptr()))
        parts = zip((layer.keys, layer.values, layer.entered), (fork.keys, fork.values, fork.entered), strict=True)
        assert all(mine.data_ptr() == theirs.data_ptr() for mine, theirs in parts)
        assert bytes_of(layer) <= roomy(roomy(1001 + i)) * column
    moves = sum(a[1] != b[1] for a, b in zip(sorted(places), sorted(places)[1:], strict=False))
    assert 1 <= moves <= 1000 // 78
    assert torch.equal(layer.keys, rows + 1) and torch.equal(layer.entered, rows)
    assert torch.equal(fork.keys, torch.cat([rows + 1, rows], 2)) and torch.equal(
        fork.entered, torch.cat([rows] * 2, 2)
    )
    layer.trim()
    assert bytes_of(layer) > 2000 * column  # not while it is read
    fork.release(layer)
    layer.trim()
    assert bytes_of(layer) == roomy(1000) * column
    assert torch.equal(layer.keys, rows + 1) and torch.equal(layer.values, rows) and torch.equal(layer.entered, rows)


def test_a_push_sets_aside_no_more_than_the_memory_it_began_with() -> None:
    """Forty lots go through 100 columns: set aside one by one they would be twelve memories; and all is taken back."""
    layer, generator = KeyValueLayer(limit=100), torch.Generator().manual_seed(0)

    def some(count: int) -> Tensor:
        return torch.randn(1, 2, count, 64, generator=generator)

    layer.update(some(100), some(100))
    whole, before = reserved_by(layer), [layer.keys.clone(), layer.values.clone()]
    for taken_back in (True, False):
        layer.begin()
        for lot in range(40):
            stay = torch.randperm(100, generator=generator)[:70].sort().values
            want = torch.cat([layer.keys[:, :, Arrangement.of(stay, 100).order], new := some(30)], 2)
            layer.keep(Arrangement.of(stay, 100))
            layer.update(new, new)
            assert torch.equal(layer.keys, want)
            assert reserved_by(layer) <= 2 * whole
            assert lot or reserved_by(layer) <= 1.3 * whole  # one lot: what goes, once
        if taken_back:
            layer.rollback()
            assert torch.equal(layer.keys, before[0]) and torch.equal(layer.values, before[1])
        else:
            layer.commit()
            assert torch.equal(layer.keys, want)
        assert reserved_by(layer) == whole


def reserved_by(layer: KeyValueLayer) -> int:
    """Bytes of all storages that one layer leads to."""

    class Only:
        layers = (layer,)

    return reserved([Only()])


def test_a_layer_that_holds_keys_twice_has_room_for_fewer() -> None:
    """Of 90 columns 60 stay within the same bytes: while there is a way back the old room stays, and then goes."""
    column = 2 * 4 * 4
    for taken_back in (True, False):
        columns, data = Columns(90, 60), torch.randn(1, 2, 90, 4)
        columns.append((data,), (-data,))
        columns.begin()
        columns.keep(Arrangement.of(torch.arange(30, 90), 90))
        held = columns.held(columns.room.keys)[0].clone()
        columns.replace_keys((held + 1,))
        columns.trim()
        assert [part.shape[2] for part in columns.room.parts] == [roomy(60), roomy(90), roomy(90)]
        if taken_back:
            columns.rollback()
            columns.trim()
            assert torch.equal(columns.held(columns.room.keys)[0], data) and columns.room.entered is None
            assert sum(part.nbytes for part in columns.room.parts) == 2 * roomy(90) * column
        else:
            columns.commit()
            columns.trim()
            assert sum(part.nbytes for part in columns.room.parts) == 3 * roomy(60) * column
            assert torch.equal(columns.held(columns.room.keys)[0], held + 1)
            assert torch.equal(columns.held(columns.room.entered)[0], held)
            assert torch.equal(columns.held(columns.room.values)[0], -held)
