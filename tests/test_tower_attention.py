"""What the vision tower hands over: attention that tokens receive, held against the tower's own eager weights."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import hybrids
import omni
import pytest
import torch
from families import build, video
from more_families import MORE
from torch import Tensor
from torch.testing import assert_close
from transformers.vision_utils import get_vision_window_index

from pdrop_video import VideoLM
from pdrop_video.models import received
from pdrop_video.models.loading import ADAPTERS
from pdrop_video.models.received import BOTH, attending, sums

BLOCKS = ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5", "exaone4_5", *omni.OMNI, "video_llama_3", "glm4v", "glm_ocr"]
BLOCKS += ["cosmos3_edge"] if "cosmos3_edge" in MORE else []
"""Families whose tower gets the patches of a token one behind another."""
PICTURES = ["llava_onevision", "llava_next_video", "internvl", "smolvlm", "video_llava"]


@cache
def made(family: str, attn: str = "sdpa") -> VideoLM:
    if family in omni.OMNI:
        return omni.build(family, attn)
    return hybrids.build(family, attn=attn) if family in hybrids.HYBRIDS else build(family, attn)


def frames_of(lm: VideoLM, steps: int = 3) -> tuple[Tensor, tuple[float, ...]]:
    frames = video(steps * lm.adapter.frames_per_step, height=60, width=100)
    return frames, tuple(0.5 * i for i in range(len(frames)))


@contextmanager
def weights(lm: VideoLM) -> Iterator[dict[int, list[Tensor]]]:
    """The weights of the tower's own eager attention, by layer: [items, heads, rows, rows] of each call."""
    layers = attending(lm.adapter.vision)
    module = sys.modules[type(layers[0]).__module__]
    eager, seen = module.eager_attention_forward, {i: [] for i in range(len(layers))}
    numbers = {id(layer): i for i, layer in enumerate(layers)}

    def recording(layer: Any, *args: Any, **kwargs: Any) -> Any:
        made = eager(layer, *args, **kwargs)
        seen[numbers[id(layer)]].append(made[1])
        return made

    module.eager_attention_forward = recording
    try:
        yield seen
    finally:
        module.eager_attention_forward = eager


def by_patch(lm: VideoLM, seen: list[Tensor], grid: tuple[int, int, int]) -> Tensor:
    """Attention that each patch receives [steps, rows of the tower], mean over heads and over all rows of its step."""
    t, h, w = grid
    columns = torch.cat([each.mean(1).sum(1).flatten() for each in seen])
    vision, rows = lm.model.config.vision_config, len(columns) // t
    if hasattr(vision, "window_size"):
        merge = vision.spatial_merge_size
        sizes = dict(spatial_merge_size=merge, window_size=vision.window_size, patch_size=vision.patch_size)
        order = get_vision_window_index(torch.tensor([[t, h * merge, w * merge]]), **sizes)[0]
        plain = torch.empty_like(columns).view(-1, merge**2)
        plain[order] = columns.view(-1, merge**2)
        columns = plain.flatten()
    return columns.view(t, rows) / rows


def by_token(lm: VideoLM, patches: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """The same of tokens, by each family's own way of making them of patches."""
    (t, h, w), family, model = grid, lm.model.config.model_type, lm.model.model
    if hasattr(lm.adapter, "merge"):
        return patches.view(t * h * w, -1).sum(1)
    if family == "video_llava":
        return patches.flatten()
    if family == "llava_onevision":  # a mean over patches, that counts for as many as there are to a token
        return model.apply_pooling(patches[..., None]).flatten() * (patches.shape[1] / (h * w))
    side = patches.shape[1] - (family in ("llava_next_video", "internvl"))
    patches = patches[:, -side:, None]
    if family == "llava_next_video":
        return model.vision_resampler(patches).flatten() * (side / (h * w))
    if family == "smolvlm":
        return model.connector.pixel_shuffle(patches, lm.model.config.scale_factor).sum(-1).flatten()
    square = patches.view(t, round(side**0.5), -1, 1)
    return model.pixel_shuffle(square, lm.model.config.downsample_ratio).sum(-1).flatten()


@pytest.mark.parametrize("attn", ["sdpa", "eager"])
@pytest.mark.parametrize("family", [*BLOCKS, *PICTURES])
def test_it_is_what_the_towers_own_eager_attention_weighs(family: str, attn: str) -> None:
    lm, plainly = made(family, attn), made(family, "eager")
    frames, seconds = frames_of(lm)
    with torch.no_grad():
        chunk = lm.adapter.look(frames, seconds, knowing=BOTH)
        with weights(plainly) as seen:
            plain = plainly.adapter.look(frames, seconds)
    layers = lm.adapter.told(BOTH, len(attending(lm.adapter.vision)))
    grid = (len(chunk.steps), *chunk.size)
    assert set(chunk.tower) == set(BOTH) and set(layers.values()) <= set(seen)
    for name, layer in layers.items():
        got = chunk.tower[name]
        assert got.dtype == torch.float32 and got.shape == chunk.visual.shape
        assert not got[~chunk.visual].any()
        want = by_token(plainly, by_patch(plainly, seen[layer], grid), grid).float()
        assert_close(got[chunk.visual], want, rtol=1e-5, atol=1e-9)
        total = got.sum() / len(chunk.steps)
        if family != "llava_onevision":  # 7 x 7 patches are pooled to 4 x 4 tokens, unevenly
            marked = family in ("llava_next_video", "internvl")  # [CLS] receives, too
            assert (total < 1 - 1e-6) if marked else abs(total - 1) < 1e-6
    if len({*layers.values()}) > 1:
        assert (chunk.tower[BOTH[0]] - chunk.tower[BOTH[1]]).abs().max() > 1e-4
    assert_close(chunk.embeds, plain.embeds, rtol=0, atol=1e-6 if attn == "sdpa" else 0)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "llava_onevision", "internvl"])
def test_asking_changes_nothing_else(family: str) -> None:
    lm = made(family)
    frames, seconds = frames_of(lm)
    layers = attending(lm.adapter.vision)
    configs = [layer.config for layer in layers]
    with torch.no_grad():
        plain, asked = lm.adapter.look(frames, seconds), lm.adapter.look(frames, seconds, knowing=BOTH[:1])
        assert torch.equal(plain.embeds, asked.embeds) and not plain.tower and set(asked.tower) == {"attention"}
        with pytest.raises(RuntimeError), lm.adapter.telling(BOTH):
            assert any(layer.config is not config for layer, config in zip(layers, configs, strict=True))
            raise RuntimeError
    assert all(layer.config is config for layer, config in zip(layers, configs, strict=True))


def test_another_thread_notes_nothing() -> None:
    lm = made("qwen2_5_vl")
    frames, seconds = frames_of(lm)
    with torch.no_grad():
        plain = lm.adapter.look(frames, seconds)
    looked: list[Any] = []

    def look() -> None:
        with torch.no_grad():
            looked.append(lm.adapter.look(frames, seconds))

    with lm.adapter.telling(BOTH) as notes:
        other = threading.Thread(target=look)
        other.start()
        other.join()
        assert not any(notes.values())
    assert torch.equal(looked[0].embeds, plain.embeds)


def test_which_layers_are_asked() -> None:
    vision = {
        "llava_onevision": (26, {"attention": 24, "attention_early": 5}),  # as AOT's code does
        "llava_next_video": (24, {"attention": 21, "attention_early": 4}),  # of the 23 that are used
        "qwen2_vl": (32, {"attention": 31, "attention_early": 6}),
        "qwen3_vl": (27, {"attention": 26, "attention_early": 5}),
        "internvl": (24, {"attention": 23, "attention_early": 4}),
    }
    for family, (depth, want) in vision.items():
        adapter = made(family).adapter
        assert adapter.told(BOTH, depth) == want, family
    adapter = made("qwen2_5_vl").adapter
    whole = adapter.model.config.vision_config.fullatt_block_indexes
    try:
        adapter.model.config.vision_config.fullatt_block_indexes = [7, 15, 23, 31]
        assert adapter.told(BOTH, 32) == {"attention": 31, "attention_early": 7}
        adapter.model.config.vision_config.fullatt_block_indexes = []
        assert adapter.told(BOTH, 32) == {"attention": 31, "attention_early": 6}
    finally:
        adapter.model.config.vision_config.fullatt_block_indexes = whole


@pytest.mark.parametrize("family", ["qwen2_5_vl", "exaone4_5"])
def test_a_layer_with_windows_can_be_asked(family: str) -> None:
    """Queries of other windows give nothing; all that a step receives is 1 all the same."""
    lm = made(family, "eager")
    vision = lm.model.config.vision_config
    frames, seconds = frames_of(lm)
    windowed = next(i for i in range(8) if i not in vision.fullatt_block_indexes)
    whole, vision.fullatt_block_indexes = vision.fullatt_block_indexes, []
    try:
        assert lm.adapter.told(BOTH, len(attending(lm.adapter.vision)))["attention_early"] == windowed
        with torch.no_grad(), weights(lm) as seen:
            chunk = lm.adapter.look(frames, seconds, knowing=BOTH)
    finally:
        vision.fullatt_block_indexes = whole
    grid = (len(chunk.steps), *chunk.size)
    want = by_token(lm, by_patch(lm, seen[windowed], grid), grid).float()
    assert_close(chunk.tower["attention_early"], want, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("most", [1, 7, 2**24])
def test_blocks_of_queries_are_bounded_and_change_nothing(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(2, heads, 11, 8, generator=generator, dtype=torch.float64) for heads in (4, 2))
    seen = torch.rand(2, 1, 11, 11, generator=generator) < 0.7
    seen |= torch.eye(11, dtype=torch.bool)
    monkeypatch.setattr(received, "_MOST", most)
    wide = key.repeat_interleave(2, dim=1)
    products = query @ wide.transpose(2, 3) / 8**0.5
    for mask, added in ((None, 0), (seen, torch.zeros(2, 1, 11, 11).masked_fill(~seen, -1e30))):
        want = (products + added).softmax(-1).mean(1).sum(1)
        assert_close(sums(query, key, mask=mask), want, rtol=0, atol=1e-12)
        if mask is not None:
            assert_close(sums(query, key, mask=added.double()), want, rtol=0, atol=1e-12)
    flags = torch.ones(2, 11, dtype=torch.int64)
    flags[:, -2:] = 0
    want = products[..., :-2].softmax(-1).mean(1).sum(1)
    assert_close(sums(query, key, mask=flags), torch.nn.functional.pad(want, (0, 2)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_of_parts_it_is_what_they_receive_of_each_other(family: str) -> None:
    lm = made(family, "eager")
    frames, seconds = frames_of(lm)
    h, w = lm.adapter.grid(*frames.shape[1:3])
    worth = torch.rand(3, h, w, generator=torch.Generator().manual_seed(1)) < 0.6
    worth[1] = False
    with torch.no_grad(), weights(lm) as seen:
        chunk = lm.adapter.look(frames, seconds, 0, worth, BOTH)
    each = seen[
        lm.adapter.told(BOTH, len(attending(lm.adapter.vision)))["attention"]
    ]  # a call a step that has something
    got = chunk.tower["attention"][chunk.visual].split(worth.flatten(1).sum(1).tolist())
    assert len(each) == 2 and not len(got[1])
    for of, columns in zip((got[0], got[2]), each, strict=True):
        tokens = columns.mean((0, 1, 2)).view(len(of), -1).sum(1).float()
        assert_close(of.sort().values, tokens.sort().values, rtol=1e-5, atol=1e-9)
        assert_close(of.sum(), torch.tensor(1.0))


def test_the_families_that_know() -> None:
    says = {name for name, adapter in ADAPTERS.items() if adapter.knows}
    assert says >= set(PICTURES) | (set(BLOCKS) & ADAPTERS.keys())
    assert not {"molmo2", "perception_lm", "gemma4", "muse_glimmer", "minicpmv4_6"} & says
