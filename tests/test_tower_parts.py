"""Vision towers that leave patches out: what is encoded equals the whole tower under a mask that hides the rest."""

from __future__ import annotations

from functools import cache

import hybrids
import omni
import pytest
import torch
from families import build, cases, video
from more_families import MORE
from reference import hidden
from torch import Tensor
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

import pdrop_video as pv
from pdrop_video import VideoLM
from pdrop_video.models.loading import ADAPTERS

SHAPES = [(5, 60, 72), (6, 100, 60), (5, 40, 200), (6, 20, 90)]
"""Frames, height, width: grids of 3 x 3, 4 x 2, 1 x 7 and 2 x 8 tokens; windows of Qwen2.5-VL are 2 x 2."""
PARTS = ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", *{"qwen3_vl_moe", "cosmos3_omni", "video_llama_3"} & MORE.keys()]
PARTS = [*sorted(PARTS), "qwen3_5", "exaone4_5", *omni.OMNI]


@cache
def made(family: str, attn: str = "sdpa", dtype: torch.dtype = torch.float64) -> VideoLM:
    if family in omni.OMNI:
        return omni.build(family, attn, dtype)
    return hybrids.build(family, attn=attn, dtype=dtype) if family in hybrids.HYBRIDS else build(family, attn, 0, dtype)


def wanted(lm: VideoLM, shape: tuple[int, int, int], seed: int = 0) -> Tensor:
    """Which tokens are worth having: some of each step, but nothing of the second one."""
    frames, height, width = shape
    step = lm.adapter.frames_per_step
    generator = torch.Generator().manual_seed(seed)
    worth = torch.rand(-(-frames // step), *lm.adapter.grid(height, width), generator=generator) < 0.5
    worth[0, 0, -1] = True
    worth[1:2] = False
    return worth


def times(frames: int) -> tuple[float, ...]:
    return tuple(0.5 * i for i in range(frames))


@pytest.mark.parametrize(
    ("family", "shape"), cases(PARTS, SHAPES, fast=lambda f, s: s == f % 4 or PARTS[f] in ("qwen2_5_vl", "qwen3_vl"))
)
def test_what_is_encoded_sees_nothing_else(family: str, shape: tuple[int, int, int]) -> None:
    lm = made(family)
    frames = video(*shape[:1], height=shape[1], width=shape[2])
    worth = wanted(lm, shape)
    with torch.no_grad():
        got = lm.adapter.look(frames, times(len(frames)), 3, worth)
        plain = lm.adapter.look(frames, times(len(frames)), 3)
        with hidden(lm, worth):
            whole = lm.adapter.look(frames, times(len(frames)), 3)
    want = whole.keep(worth.flatten().nonzero()[:, 0])
    assert got.visual_steps == tuple(worth.flatten(1).sum(1).tolist())
    assert got.steps == want.steps and got.whole_steps == whole.steps and got.seconds == want.seconds
    assert torch.equal(got.visual, want.visual) and torch.equal(got.place(), want.place())
    assert torch.equal(got.origin, want.origin)
    assert_close(got.embeds, want.embeds, rtol=0, atol=1e-12)
    assert len(got.deepstack) == len(want.deepstack)
    for ours, theirs in zip(got.deepstack, want.deepstack, strict=True):
        assert_close(ours, theirs, rtol=0, atol=1e-12)
    seen_whole = plain.keep(worth.flatten().nonzero()[:, 0]).embeds  # and what is hidden is missed
    assert (got.embeds - seen_whole).abs().max() > 1e-6
    for ours, theirs in zip(
        lm.adapter.place(got, pv.models.Place()), lm.adapter.place(want, pv.models.Place()), strict=True
    ):
        assert torch.equal(ours, theirs) if isinstance(ours, Tensor) else ours == theirs


@pytest.mark.parametrize("family", PARTS)
def test_with_nothing_left_out_it_is_the_tower_itself(family: str) -> None:
    lm = made(family)
    frames = video(5)
    values, grid = lm.adapter.preprocess(frames[:4])
    everything = torch.ones(grid, dtype=torch.bool)
    with torch.no_grad():
        whole = lm.adapter.encode(values.double(), grid)
        some = lm.adapter.encode_some(values.double(), grid, everything)
        plain = lm.adapter.look(frames, times(5))
        worth = torch.ones(len(plain.steps), *plain.size, dtype=torch.bool)
        looked = lm.adapter.look(frames, times(5), 0, worth)
    assert len(some) == len(whole)
    for ours, theirs in zip(some, whole, strict=True):
        assert_close(ours, theirs, rtol=0, atol=1e-12)
    assert torch.equal(looked.embeds, plain.embeds)


@pytest.mark.parametrize("family", PARTS)
def test_with_all_left_out_the_tower_does_not_run(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = made(family)
    worth = torch.zeros(2, *lm.adapter.grid(60, 72), dtype=torch.bool)
    frames = video(2 * lm.adapter.frames_per_step)
    monkeypatch.setattr(lm.model.get_encoder("image"), "forward", None)
    chunk = lm.adapter.look(frames, times(len(frames)), 0, worth, lm.adapter.knows)
    assert chunk.visual_steps == (0, 0) and len(chunk) == sum(chunk.glue_steps)


@pytest.mark.parametrize(("family", "shape"), cases(PARTS, SHAPES, fast=lambda f, s: s == (f + 1) % 4))
def test_it_costs_what_pytorch_counts(family: str, shape: tuple[int, int, int]) -> None:
    lm = made(family, "eager", torch.float32)
    frames, worth = video(shape[0], height=shape[1], width=shape[2]), wanted(lm, shape)
    both = lm.adapter.knows
    for some, knowing in ((worth, ()), (worth, both[:1]), (worth, both), (torch.ones_like(worth), both)):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            lm.adapter.look(frames, times(len(frames)), 0, some, knowing)
        named = counter.get_flop_counts().items()  # older transformers make RoPE's angles by a product
        angles = sum(sum(of.values()) for name, of in named if name.endswith("rotary_emb"))
        assert counter.get_total_flops() - angles == lm.adapter.look_flops(worth.shape[1:], len(worth), some, knowing)
    assert lm.adapter.look_flops(worth.shape[1:], len(worth), torch.zeros_like(worth), both) == 0
    whole, part = (lm.adapter.look_flops(worth.shape[1:], len(worth), some) for some in (None, worth))
    assert 0 < part < whole


def test_the_built_in_model_leaves_patches_out_of_its_windows() -> None:
    pixels = 168 * 140
    lm = pv.load(attn="sdpa", dtype="float64", min_pixels=pixels, max_pixels=pixels)
    frames = video(6, height=168, width=140)
    worth = wanted(lm, (6, 168, 140))
    with torch.no_grad():
        got = lm.adapter.look(frames, times(6), 0, worth)
        with hidden(lm, worth):
            want = lm.adapter.look(frames, times(6)).keep(worth.flatten().nonzero()[:, 0])
    assert_close(got.embeds, want.embeds, rtol=0, atol=1e-12)


@pytest.mark.parametrize("family", ["llava_onevision", "internvl", "smolvlm", "glm4v"])
def test_other_towers_encode_everything_first(family: str) -> None:
    lm = build(family)
    frames = video(4)
    with torch.no_grad():
        whole = lm.adapter.look(frames, times(4))
        worth = torch.rand(len(whole.steps), *whole.size) < 0.5
        got = lm.adapter.look(frames, times(4), 0, worth)
    assert not lm.adapter.parts
    assert torch.equal(got.embeds, whole.keep(worth.flatten().nonzero()[:, 0]).embeds)
    assert lm.adapter.look_flops(whole.size, len(whole.steps), worth) == lm.adapter.look_flops(
        whole.size, len(whole.steps)
    )


def test_the_families_that_leave_patches_out() -> None:
    says = {name for name, adapter in ADAPTERS.items() if adapter.parts}
    assert says == set(PARTS) | {"qwen3_vl", "qwen3_vl_moe", "cosmos3_omni", "qwen3_5", "qwen3_5_moe", "video_llama_3"}
