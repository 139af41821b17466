"""Streams whose older columns are stored in 8 or 4 bits: against full ones overwritten by hand, in bytes, in files."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import families
import hybrids
import plain
import pytest
import torch
from families import budget, video
from test_grids import plain_tokens
from torch import Tensor

import pdrop_video as pv
from pdrop_video.memory import STORAGES, KeyValueLayer, StreamCache
from pdrop_video.memory.tiered import TieredLayer
from pdrop_video.stream import saved

QUESTION = "what is shown first ?"
PYRAMID = pv.Pyramid(stages=3)
BITS = {"int8": 8, "int4": 4}


def push(stream: pv.VideoStream, i: int, pictures: Callable[..., Tensor] = video) -> None:
    step = stream.lm.adapter.frames_per_step
    stream.push(pictures(2 * step, seed=i), [9.0 * i + 0.37 * j for j in range(2 * step)])


class ByHand:
    """Quantises columns of a full stream when, and only when, another stream let the same tokens settle."""

    def __init__(self, stream: pv.VideoStream, bits: int) -> None:
        self.stream, self.bits, self.learned = stream, bits, {}
        self.settled: list[tuple[int, Tensor]] = []

    def __call__(self, cache: StreamCache) -> None:
        for i, index in self.settled:
            layer, table = cache.layers[i], cache.tables[i]
            slots = torch.cat([(table.index == number).nonzero()[:, 0] for number in index])
            keys = (layer.entered if layer.moved else layer.keys)[0][:, slots]
            came, now, turn = table.entered[slots], table.now[slots], self.stream.loop.turn
            bare, values = turn(i, keys, -came), layer.values[0][:, slots]
            if i not in self.learned:
                mean, square = bare.mean(1, keepdim=True), bare.var(1, unbiased=False, keepdim=True)
                spread = torch.maximum(square, square.mean(-1, keepdim=True) / 10**4).sqrt().float()
                self.learned[i] = mean.float().double(), spread.double()
            mean, spread = self.learned[i]
            groups = [max(n for n in range(1, 65) if not width % n) for width in (bare.shape[-1], values.shape[-1])]
            bare = plain_tokens((bare - mean) / spread, self.bits, groups[0])[0] * spread + mean
            values = plain_tokens(values.contiguous(), self.bits, groups[1])[0]
            layer.overwrite(slots, turn(i, bare, now), values)
            if layer.moved:  # what it was as it came is rounded, too
                layer.columns.room.entered[0][0][:, slots] = turn(i, bare, came)
        self.settled = []


CASES = [
    ("qwen2_5_vl", "window", "pyramid", 60),
    ("qwen2_5_vl", "compact", "pyramid", 4096),
    ("internvl", "window", "oldest", 260),
    ("internvl", "original", "uniform", 4096),
    ("gemma4", "window", "pyramid", 4096),
    ("exaone4_5", "compact", "oldest", 4096),
    ("deepseek_v3", "compact", "pyramid", 4096),
    ("qwen2_5_vl", "window", "infinipot_v", 4096),
]


@pytest.mark.parametrize(("family", "positions", "evictor", "trained"), CASES)
@pytest.mark.parametrize("storage", ["int4", pytest.param("int8", marks=pytest.mark.slow)])
def test_a_stream_is_a_full_one_overwritten_at_the_same_moments(
    storage: str, family: str, positions: Any, evictor: str, trained: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With evictions and moves; sliding windows, lent keys and latents included. Settled is what left the window."""
    module: Any = next(
        m
        for m, of in ((families, families.FAMILIES), (hybrids, hybrids.HYBRIDS), (plain, plain.DECODERS))
        if family in of
    )
    lm, pictures = module.build(family), plain.video if module is plain else video
    lm.model.config.get_text_config().max_position_embeddings = trained
    tokens = 44 if module is plain else budget(lm, 5)
    two, full = (
        lm.stream(PYRAMID, pv.Memory(tokens=tokens, evictor=evictor, positions=positions, storage=each))
        for each in (storage, "full")
    )
    by_hand, settle, make_room = ByHand(full, BITS[storage]), TieredLayer.settle, StreamCache.make_room
    counted = 0

    def settling(layer: TieredLayer, columns: Tensor, entered: Tensor) -> Tensor:
        nonlocal counted
        cache = two._state.cache if any(layer is each for each in two._state.cache.layers) else caches[-1]
        i = next(n for n, each in enumerate(cache.layers) if each is layer)
        table, limits = cache.tables[i], cache.limits
        newest = table.index[layer.settled :][table.chunk[layer.settled :] >= 0].sort().values
        assert table.index[columns].sort().values.tolist() == newest[: -limits.tier.recent[i]].tolist()
        by_hand.settled.append((i, table.index[columns]))
        counted += len(columns)
        return settle(layer, columns, entered)

    def making(cache: StreamCache, *args: Any) -> None:
        caches.append(cache)
        if cache.storage == STORAGES["full"]:
            by_hand(cache)
        make_room(cache, *args)

    caches: list[StreamCache] = []
    monkeypatch.setattr(TieredLayer, "settle", settling)
    monkeypatch.setattr(StreamCache, "make_room", making)
    for i in range(8):
        before = len(caches)
        push(two, i, pictures)
        assert len(caches) == before + 1  # one piece a push: the moments are the same
        push(full, i, pictures)
        for ours, theirs in zip(two._state.cache.tables, full._state.cache.tables, strict=True):
            assert ours.index.sort().values.tolist() == theirs.index.sort().values.tolist()
        if i % 3 == 2:
            one, other = (stream.next_logits(QUESTION) for stream in (two, full))
            # once positions moved: one turn from the key without RoPE, or a second one; angles are float32
            torch.testing.assert_close(one, other, atol=1e-8 if positions == "original" else 1e-4, rtol=0)
    assert counted > 50
    if positions != "original" and trained < 4096:
        assert any(layer.moved for layer in full._state.cache.layers)
    untouched = lm.stream(PYRAMID, pv.Memory(tokens=tokens, evictor=evictor, positions=positions))
    monkeypatch.undo()
    for i in range(8):
        push(untouched, i, pictures)
    assert (untouched.next_logits(QUESTION) - two.next_logits(QUESTION)).abs().max() > 5e-4  # the control: it rounds


def stored_in(cache: StreamCache) -> int:
    """Bytes, tensor by tensor."""
    total = 0
    for layer in cache.layers:
        for columns in (layer.columns, layer.far):
            room = columns.room
            total += sum(p[:, :, : columns.length].nbytes for p in (room.parts if room is not None else ()))
        total += sum(t.nbytes for t in (*layer.form.learned[0], *layer.form.learned[1])) if layer.form else 0
    return total


@pytest.mark.parametrize(
    ("storage", "shape"),
    families.cases(BITS, ("flat", "pyramid"), fast=lambda storage, shape: storage == shape + 1 == 1),
)
def test_bytes_over_a_long_stream(storage: str, shape: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every append of 80 pushes, moved positions included; and how many more tokens are held for the same bytes."""
    lm = families.build("qwen2_5_vl", dtype=torch.float32)
    lm.model.config.get_text_config().max_position_embeddings = 400
    given, peak = 120 * 6 * 2 * 2 * 16 * 4, 0
    memory = pv.Memory(bytes=given, storage=storage, shape=shape, archive=40_000)
    stream, full = lm.stream(PYRAMID, memory), lm.stream(PYRAMID, pv.Memory(bytes=given, shape=shape, storage="full"))
    update = KeyValueLayer.update

    def watched(layer: KeyValueLayer, *args: Any, **kwargs: Any) -> Any:
        nonlocal peak
        result, cache = update(layer, *args, **kwargs), stream._state.cache
        if layer is cache.layers[-1]:
            peak = max(peak, stored_in(cache))
            assert stored_in(cache) == cache.nbytes <= given
        return result

    for i in range(8):
        push(full, i)
    monkeypatch.setattr(KeyValueLayer, "update", watched)
    for i in range(80):
        push(stream, i)
        assert stream.cache_bytes == stored_in(stream._state.cache) <= given == stream.cache_bound
        assert stream.status.archive_bytes <= 40_000
    assert peak > 0.9 * given
    assert any(layer.moved for layer in stream._state.cache.layers)
    assert sum(stream.cache_tokens) > {"int8": 1.7, "int4": 2.0}[storage] * sum(full.cache_tokens)
    far = stream._state.cache.layers[0].far
    assert sum(p[:, :, :1].nbytes for p in far.room.parts) == stream.token_bytes == 2 * 2 * (2 * BITS[storage] + 3)
    archived = [p for b in stream._state.cache.archive.blocks for p in b.pieces.values()]
    assert all(sum(t.nbytes for t in p.parts) == len(p.table) * stream.token_bytes for p in archived)


def codes_of(stream: pv.VideoStream, layer: int) -> dict[int, list[Tensor]]:
    """By token, every part that it is stored in, whether remembered or archived."""
    cache = stream._state.cache
    held, table = cache.layers[layer], cache.tables[layer]
    found = {}
    if held.far.length:
        parts = [part[0] for part in held.far.held(held.far.room.parts)]
        found = {int(n): [part[:, c] for part in parts] for c, n in enumerate(table.index[: held.settled])}
    for block in cache.archive.blocks:
        piece = block.pieces[layer]
        found |= {int(n): [part[:, c] for part in piece.parts] for c, n in enumerate(piece.table.index)}
    return found


@pytest.mark.parametrize("folder", [None, "archive"])
def test_a_column_is_quantised_once(folder: str | None, tmp_path: Path) -> None:
    """Its codes are the same wherever it goes: evictions, moves, the archive, a file; and so it is brought back."""
    lm = families.build("qwen2_5_vl")
    lm.model.config.get_text_config().max_position_embeddings = 60
    where = None if folder is None else tmp_path / folder
    stream = lm.stream(PYRAMID, pv.Memory(tokens=budget(lm, 5), storage="int4", archive=10**7, archive_folder=where))
    seen: dict[int, list[Tensor]] = {}
    for i in range(10):
        push(stream, i)
        if i == 6:
            stream.save(tmp_path / "a")
            stream = lm.resume(tmp_path / "a")
        here = codes_of(stream, 1)
        for number, parts in here.items():
            first = seen.setdefault(number, [part.clone() for part in parts])
            assert all(map(torch.equal, parts, first))
    assert len(here) == len(seen) > 60  # nothing that settled is lost
    cache = stream._state.cache
    assert cache.layers[1].moved
    found = cache.archive.taken(1, cache.archive.nearest(1, torch.randn(4, 16, dtype=torch.float64), 3))
    form = cache.layers[1].form
    for column, number in enumerate(found.table.index.tolist()):
        parts = [part[None, :, None] for part in seen[number]]
        bare = form.keys.decode(parts[:3], form.learned[0], torch.float64)[0]
        keys = stream.loop.turn(1, bare, found.table.entered[column : column + 1])
        torch.testing.assert_close(found.keys[:, column : column + 1], keys, atol=1e-12, rtol=0)
        values = form.values.decode(parts[3:], (), torch.float64)[0]
        torch.testing.assert_close(found.values[:, column : column + 1], values, atol=1e-12, rtol=0)
    with_them, without = (stream.next_logits(QUESTION, retrieve=n) for n in (3, None))
    assert (with_them - without).abs().max() > 1e-4


def test_the_recent_window_and_the_prompt_stay_as_they_come() -> None:
    lm = families.build("qwen2_5_vl")
    stream = lm.stream(PYRAMID, pv.Memory(tokens=None, storage="int4:recent=8"))
    for i in range(5):
        push(stream, i)
    for layer, table in zip(stream._state.cache.layers, stream._state.cache.tables, strict=True):
        settled, rest = table.index[: layer.settled], table.index[layer.settled :]
        assert layer.settled and (table.chunk[: layer.settled] >= 0).all()  # of the prompt none
        visual = rest[table.chunk[layer.settled :] >= 0]
        assert visual.min() > settled.max() and len(visual) >= 8
        assert layer.columns.room.keys[0].dtype == torch.float64


def test_sessions_of_the_older_int8_are_read_and_torn_ones_refused(tmp_path: Path) -> None:
    """ "int8" once named what is "int8_per_token" now: its files say "int8" and hold int8 keys."""
    lm = families.build("qwen2_5_vl")
    for storage in ("int8_per_token", "int4"):
        stream = lm.stream(PYRAMID, pv.Memory(tokens=budget(lm, 5), storage=storage))
        for i in range(5):
            push(stream, i)
        stream.save(tmp_path / storage)
    header, tensors = saved.read(tmp_path / "int8_per_token")
    header["memory"]["storage"] = "int8"
    saved.write(tmp_path / "old", tensors, header)
    old = lm.resume(tmp_path / "old")
    assert old.memory.storage == "int8_per_token"
    assert torch.equal(old.next_logits(QUESTION), lm.resume(tmp_path / "int8_per_token").next_logits(QUESTION))
    header, tensors = saved.read(tmp_path / "int4")
    assert tensors["far_keys.0"].dtype == torch.uint8 and tensors["keys.0"].dtype == torch.float64
    for gone in ("far_learned_keys.0.1", "far_values.2", "far_keys.1.2", "far_values.3.1"):
        saved.write(tmp_path / "torn", {n: t for n, t in tensors.items() if n != gone}, header)
        with pytest.raises(pv.StreamError):
            lm.resume(tmp_path / "torn")
    for other in ("int8", "full", "int4:group=8"):
        header["memory"]["storage"] = other
        saved.write(tmp_path / "renamed", tensors, header)
        with pytest.raises(pv.StreamError):
            lm.resume(tmp_path / "renamed")


def test_a_rope_that_keys_cannot_be_taken_from_is_refused() -> None:
    lm = families.build("qwen2_5_vl")
    text = lm.model.config.get_text_config()
    text.rope_parameters = {**text.rope_parameters, "rope_type": "dynamic"}
    with pytest.raises(pv.ConfigError, match=r"'int4' keeps keys without RoPE.*int8_per_token"):
        lm.stream(memory=pv.Memory(storage="int4"))


def test_forks_go_their_own_ways() -> None:
    lm = families.build("internvl")
    stream, alone = (lm.stream(PYRAMID, pv.Memory(tokens=budget(lm, 5), storage="int4")) for _ in range(2))
    for i in range(5):
        push(stream, i)
        push(alone, i)
    twin = stream.fork()
    for i, (one, other) in itertools.product(range(5, 8), [(stream, alone)]):
        push(twin, 20 + i)
        push(one, i)
        push(other, i)
    assert torch.equal(stream.next_logits(QUESTION), alone.next_logits(QUESTION))
    assert not torch.equal(stream.next_logits(QUESTION), twin.next_logits(QUESTION))
