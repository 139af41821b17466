"""Keys and values stored smaller: against plain quantisation, unmodified models, and streams that were never saved."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from families import FAMILIES, budget, build, cases, video
from reference import full_prompt, masked_forward, recorded, stream_masks
from test_modes import remembered
from torch import Tensor
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

import pdrop_video as pv
from pdrop_video.memory import STORAGES, KeyValueLayer
from pdrop_video.memory.storages import AsIs, recent_in
from pdrop_video.stream import saved

QUESTION = "what is shown first ?"
PYRAMID = pv.Pyramid(stages=3)
SMALL = [name for name in STORAGES if name != "full"]
ALIKE = [name for name in SMALL if recent_in(STORAGES[name]) is None]


def plain(states: Tensor) -> Tensor:
    """Eight bits for every row of the last axis, number by number: 255 steps from the largest to its negative."""
    exact = states.to(torch.promote_types(states.dtype, torch.float32))
    back = torch.zeros_like(exact)
    for place in itertools.product(*map(range, states.shape[:-1])):
        scale = (max(abs(x) for x in exact[place]) / 127).float().to(exact)
        for i, x in enumerate(exact[place] if scale else ()):
            back[place][i] = min(max(round(float(x / scale)), -127), 127) * scale
    return back.to(states.dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_int8_per_token_by_its_rule(dtype: torch.dtype) -> None:
    states = (torch.randn(1, 2, 40, 16, generator=torch.Generator().manual_seed(0)) * 10).to(dtype)
    states[0, 0, 3], states[0, 1, 5] = 0, 1e-40
    codec = STORAGES["int8_per_token"]("keys")
    codes, scale = codec.encode(states, codec.learn(states))
    assert codes.dtype == torch.int8 and scale.dtype == torch.float32 and scale.shape == (1, 2, 40, 1)
    back = codec.decode((codes, scale), (), dtype)
    assert torch.equal(back, plain(states)) and not back[0, 0, 3].any()
    off = (back.double() - states.double()).abs() / states.double().abs().amax(-1, keepdim=True).clamp(min=1e-30)
    assert off.max() <= (0.5 / 127 if dtype != torch.bfloat16 else 0.5 / 127 + 2**-8) * (1 + 1e-6)


@pytest.fixture
def eight_bits() -> Any:
    """An attention that rounds keys and values to 8 bits before it does what transformers' own does."""

    def rounding(module: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
        codec = STORAGES["int8_per_token"]("keys")
        key, value = (codec.decode(codec.encode(each, ()), (), each.dtype) for each in (key, value))
        return ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, *args, **kwargs)

    ALL_ATTENTION_FUNCTIONS.register("eight_bits", rounding)
    AttentionMaskInterface.register("eight_bits", ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    return "eight_bits"


@pytest.mark.parametrize(
    ("family", "room"), cases(FAMILIES, (None, 3), fast=lambda f, r: r == f % 2 and f in (1, 2, 3, 5))
)
def test_a_stream_in_int8_is_one_pass_over_rounded_keys_and_values(
    family: str, room: float | None, eight_bits: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever frames were pushed together, with drops and evictions, in an unmodified model but for its rounding."""
    lm = build(family)
    tokens, step = budget(lm, room), lm.adapter.frames_per_step
    frames, seconds = video(6 * step), [0.5 * i for i in range(6 * step)]
    inputs, prefix, _ = full_prompt(lm, frames, seconds, QUESTION)
    snapshots = recorded(monkeypatch, tokens)
    stream = lm.stream(PYRAMID, pv.Memory(tokens=tokens, storage="int8_per_token"))
    for first, last in ((0, step), (step, 4 * step), (4 * step, 6 * step)):
        stream.push(frames[first:last], seconds[first:last])
    got = stream.next_logits(QUESTION)
    asked = [table.index for table in stream._state.cache.tables]
    allowed = stream_masks(snapshots, prefix, inputs["input_ids"].shape[1], asked)
    lm.model.get_decoder().config._attn_implementation = eight_bits
    torch.testing.assert_close(got, masked_forward(lm, inputs, allowed)[-1], atol=1e-9, rtol=0)
    lm.model.get_decoder().config._attn_implementation = "sdpa"
    exact = masked_forward(lm, inputs, allowed)[-1]
    assert 1e-6 < (got - exact).abs().max() < 0.2 * exact.abs().max()  # the control: it does round, by little


@pytest.mark.parametrize("evictor", ["pyramid", "stream_mem"])
def test_a_budget_of_bytes_counts_what_is_stored(evictor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every append, moved positions and keys held twice included; and it holds more tokens for the same bytes."""
    lm = build("qwen2_5_vl", dtype=torch.float32)
    lm.model.config.get_text_config().max_position_embeddings = 48
    given, held = 60 * 6 * 2 * 2 * 16 * 4, {}
    update = KeyValueLayer.update
    for storage, token in (("full", 2 * 2 * 16 * 4), ("int8_per_token", 2 * 2 * (16 + 4))):
        stream = lm.stream(PYRAMID, pv.Memory(bytes=given, evictor=evictor, storage=storage))
        assert stream.token_bytes == token
        assert stream._ingest.limits.tokens == (given // (6 * token),) * 6
        assert stream._ingest.limits.moved == (int(given / (6 * token * 1.5)),) * 6

        def watched(layer: KeyValueLayer, *args: Any, stream: pv.VideoStream = stream, **kwargs: Any) -> Any:
            result = update(layer, *args, **kwargs)
            layers = stream._state.cache.layers
            if any(layer is each for each in layers):
                stored = [part for each in layers for part in each.columns.held(each.columns.room.parts)]
                assert sum(part.nbytes for part in stored) == stream._state.cache.nbytes <= given
            return result

        monkeypatch.setattr(KeyValueLayer, "update", watched)
        for i in range(16):
            stream.push(video(4, seed=i), [4 * i + j for j in range(4)])
            moved = [layer.entered is not None for layer in stream._state.cache.layers]
            columns = zip(stream.cache_tokens, moved, strict=True)
            assert stream.cache_bytes == sum(n * token * (3 if twice else 2) // 2 for n, twice in columns)
            assert stream.cache_bytes <= stream.cache_bound <= given
        assert all(moved)
        held[storage] = stream.cache_tokens[0]
    assert held["int8_per_token"] > 1.8 * held["full"]  # up to what the trained range lets stand beside each other


@pytest.mark.parametrize("storage", ALIKE)
def test_keys_that_move_are_rotated_once_from_what_is_stored(storage: str) -> None:
    layer, generator = KeyValueLayer(storage=STORAGES[storage]), torch.Generator().manual_seed(0)
    codec = STORAGES[storage]("keys")

    def stored(states: Tensor) -> Tensor:
        return codec.decode(codec.encode(states, ()), (), states.dtype)

    keys = torch.randn(1, 2, 30, 16, generator=generator)
    layer.update(keys, keys)
    for _ in range(300):
        by = torch.randn(30, 1, generator=generator)
        layer.rotate(lambda keys, by: keys * (1 + by), by)
    assert torch.equal(layer.entered, stored(keys))
    assert torch.equal(layer.keys, stored(stored(keys) * (1 + by)))


def parts(stream: pv.VideoStream) -> list[Tensor]:
    """All that the layers store."""
    return [part for layer in stream._state.cache.layers for of in layer.stored().values() for part in of]


@pytest.mark.parametrize("storage", SMALL)
@pytest.mark.parametrize("evictor", ["pyramid", "stream_mem", "hermes"])
@pytest.mark.parametrize(("family", "dtype"), [("qwen2_5_vl", torch.bfloat16), ("internvl", torch.float64)])
def test_resumed_equals_never_saved(
    family: str, dtype: torch.dtype, evictor: str, storage: str, tmp_path: Path
) -> None:
    """With merges, an archive and moved positions; and a push that fails leaves every stored byte as it was."""
    lm, path = build(family, dtype=dtype), tmp_path / "a.pdrop"
    step = lm.adapter.frames_per_step
    lm.model.config.get_text_config().max_position_embeddings = 60 if family == "qwen2_5_vl" else 260
    memory = pv.Memory(tokens=budget(lm, 2.6), evictor=evictor, archive=10**6, storage=storage)
    streams = [lm.stream(PYRAMID, memory)]
    for i in range(7):
        if i in (3, 5):
            streams[0].save(path)
            streams[1:] = [lm.resume(path)]
        for stream in streams:
            stream.push(video(2 * step, seed=i), [9.0 * i + 0.37 * j for j in range(2 * step)])
        if len(streams) > 1:
            one, other = (parts(stream) for stream in streams)
            assert len(one) == len(other) and all(map(torch.equal, one, other))
            assert remembered(streams[0])[0] == remembered(streams[1])[0]
            first, second = (stream.next_logits(QUESTION, retrieve=1) for stream in streams)
            assert torch.equal(first, second)
    assert streams[1].memory.storage == storage
    assert any(layer.moved for layer in streams[1]._state.cache.layers)
    before, said = [part.clone() for part in parts(streams[0])], remembered(streams[0])
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(lm.model.get_decoder().layers[5].mlp, "forward", lambda *a: 1 / 0)
        streams[0].push(video(4 * step, seed=9), [90.0 + j for j in range(4 * step)])
    assert all(map(torch.equal, parts(streams[0]), before)) and remembered(streams[0]) == said


def test_the_file_names_the_storage_and_holds_what_is_stored(tmp_path: Path) -> None:
    lm = build("qwen2_5_vl")
    for storage in STORAGES:
        stream = lm.stream(PYRAMID, pv.Memory(tokens=None, storage=storage))
        stream.push(video(4), range(4))
        stream.save(tmp_path / storage)
    header, tensors = saved.read(tmp_path / "int8_per_token")
    assert header["memory"]["storage"] == "int8_per_token"
    assert tensors["keys.0"].dtype == torch.int8 and tensors["keys.0.1"].dtype == torch.float32
    with pytest.raises(pv.StreamError):  # codes without their scales
        saved.write(tmp_path / "torn", {n: t for n, t in tensors.items() if n != "values.2.1"}, header)
        lm.resume(tmp_path / "torn")
    with pytest.raises(pv.StreamError):  # codes under another name for the storage
        header["memory"]["storage"] = "full"
        saved.write(tmp_path / "renamed", tensors, header)
        lm.resume(tmp_path / "renamed")
    header, tensors = saved.read(tmp_path / "full")
    assert {name for name in tensors if name.startswith("keys.")} == {f"keys.{i}" for i in range(6)}
    del header["memory"]["storage"]  # as the version before wrote it
    saved.write(tmp_path / "before", tensors, header)
    resumed = lm.resume(tmp_path / "before")
    assert resumed.memory.storage == "full"
    full = lm.resume(tmp_path / "full")
    assert torch.equal(resumed.next_logits(QUESTION), full.next_logits(QUESTION))


@dataclass(frozen=True)
class Subspace:
    """Keys as coordinates in the axes of the first ones, as many as there are channels or fewer."""

    share: float = 1.0

    def learn(self, states: Tensor) -> tuple[Tensor, ...]:
        keys = states[0]
        axes = torch.linalg.eigh(keys.mT @ keys + torch.eye(keys.shape[-1], dtype=keys.dtype)).eigenvectors
        return (axes[None, :, :, -int(self.share * axes.shape[-1]) :],)

    def encode(self, states: Tensor, learned: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (states @ learned[0],)

    def decode(self, parts: tuple[Tensor, ...], learned: tuple[Tensor, ...], dtype: torch.dtype) -> Tensor:
        return parts[0] @ learned[0].mT


@dataclass(frozen=True)
class KeysInASubspace:
    """A storage of one's own: keys and values differ, and it learns from the first keys."""

    facts: ClassVar[None] = None
    share: float = 1.0

    def __call__(self, of: str) -> Any:
        return Subspace(self.share) if of == "keys" else AsIs()


def test_a_storage_of_ones_own_may_learn_and_treat_keys_and_values_differently(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All axes are the full storage; half of them take three quarters of the bytes, and go through a file."""
    lm = build("qwen2_5_vl")
    lm.model.config.get_text_config().max_position_embeddings = 60
    tokens = budget(lm, 2.6)
    streams = {s: lm.stream(PYRAMID, pv.Memory(tokens=tokens, storage=s)) for s in ("full", KeysInASubspace())}
    for i in range(6):
        for stream in streams.values():
            stream.push(video(4, seed=i), [4.0 * i + j for j in range(4)])
    full, all_axes = (stream.next_logits(QUESTION) for stream in streams.values())
    torch.testing.assert_close(full, all_axes, atol=1e-9, rtol=0)
    assert any(layer.moved for layer in streams["full"]._state.cache.layers)

    monkeypatch.setitem(STORAGES, "half", KeysInASubspace(0.5))
    stream = lm.stream(PYRAMID, pv.Memory(tokens=tokens, storage="half"))
    assert stream.token_bytes == 2 * (16 + 8) * 8 and set(stream._ingest.sizes.moved) == {2 * (16 + 8 + 8) * 8}
    stream.push(video(4), range(4))
    twin = stream.fork()
    stream.save(tmp_path / "a.pdrop")
    resumed = lm.resume(tmp_path / "a.pdrop")
    for each in (stream, twin, resumed):
        for i in range(2, 6):
            each.push(video(4, seed=i), [4.0 * i + j for j in range(4)])
    assert torch.equal(stream.next_logits(QUESTION), resumed.next_logits(QUESTION))
    assert torch.equal(stream.next_logits(QUESTION), twin.next_logits(QUESTION))
    assert (stream.next_logits(QUESTION) - full).abs().max() > 1e-3


@pytest.mark.parametrize(("storage", "said"), [("int3", "no storage 'int3'"), (8, "storage is 8"), ([], "storage is")])
def test_refused(storage: Any, said: str) -> None:
    with pytest.raises(pv.ConfigError, match=said):
        pv.Memory(storage=storage)
