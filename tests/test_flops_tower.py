"""FLOPs of vision towers: what PyTorch counts while frames are encoded, for every family and several shapes."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
import transformers as tf
from families import FAMILIES, build, video
from torch.utils.flop_counter import FlopCounterMode

import pdrop_video as pv
from pdrop_video import VideoLM
from pdrop_video.models import Adapter, describe

SIZES = [(2, 60, 72), (5, 100, 60), (3, 40, 200), (1, 20, 90)]
"""Frames, height, width: grids of 3 x 3, 4 x 2, 1 x 7 and 2 x 8 tokens, an odd number of frames among them."""


def counted(lm: VideoLM, frames: int, height: int, width: int) -> tuple[int, int]:
    """FLOPs of a look as PyTorch counts them, and as the tower's sizes say."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        chunk = lm.adapter.look(video(frames, height=height, width=width), tuple(map(float, range(frames))))
    tower = lm.adapter.tower(*chunk.size)
    assert tower is not None
    named = counter.get_flop_counts().items()  # older ones make the angles of RoPE by a product, which sizes leave out
    angles = sum(sum(of.values()) for name, of in named if name.endswith("rotary_emb"))
    return counter.get_total_flops() - angles, tower.flops(len(chunk.steps))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_costs_what_pytorch_counts(family: str) -> None:
    lm = build(family, "eager", dtype=torch.float32)  # PyTorch does not count its fused attention on a CPU
    for frames, height, width in SIZES:
        want, got = counted(lm, frames, height, width)
        assert got == want, (frames, height, width)


def test_the_built_in_model_costs_what_pytorch_counts() -> None:
    """Windows of 4 x 4 tokens on a picture of 6 x 5: all four kinds of border."""
    pixels = 168 * 140
    lm = pv.load(attn="eager", dtype="float32", min_pixels=pixels, max_pixels=pixels)
    assert lm.adapter.preprocess(video(4, height=168, width=140))[1] == (2, 6, 5)
    want, got = counted(lm, 4, 168, 140)
    assert got == want
    _, adapter = describe()
    assert adapter.tower(6, 5) == lm.adapter.tower(6, 5)  # without weights


def _feature_layers(config: Any) -> None:
    config.vision_feature_layer = [-2, -1]


def _pooling_head(config: Any) -> None:
    config.vision_config.vision_use_head = True


def _convolution(config: Any) -> None:
    config.spatial_pool_mode = "conv"


def _siglip(config: Any) -> None:
    sizes = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2, patch_size=8)
    config.vision_config = tf.SiglipVisionConfig(**sizes, image_size=64, vision_use_head=False)
    config.vision_feature_select_strategy = "full"


@pytest.mark.parametrize(
    ("family", "change"),
    [
        ("llava_onevision", _feature_layers),
        ("llava_onevision", _pooling_head),
        ("llava_next_video", _feature_layers),
        ("llava_next_video", _convolution),
        ("llava_next_video", _siglip),
    ],
)
def test_what_a_checkpoint_may_choose(family: str, change: Callable[[Any], None]) -> None:
    lm = build(family, "eager", dtype=torch.float32)
    config = deepcopy(lm.model.config)
    change(config)
    lm.adapter.model = type(lm.model)(config).eval()
    lm.adapter.model.set_attn_implementation("eager")
    want, got = counted(lm, 3, 60, 72)
    assert got == want


def test_a_tower_that_nobody_described_has_no_figure() -> None:
    class Other(Adapter):
        positions = preprocess = encode = None  # type: ignore[assignment]

    adapter = build("llava_onevision").adapter
    assert adapter.tower(4, 4) is not None
    adapter.model.config.vision_config.model_type = "dinov2"
    assert adapter.tower(4, 4) is None
    assert Other(adapter.model, adapter.pixels).tower(4, 4) is None
