"""Scaled RoPE (linear, YaRN, Llama 3's and others): drops, streams and moved keys are as transformers rotates."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as tf
from families import build, cases, video
from packaging.version import Version
from reference import full_prompt, masked_forward, recorded, stream_masks
from test_exact import QUESTION, next_logits
from test_one_shot import masks_of

import pdrop_video as pv
from pdrop_video import Pyramid, pyramid_drop
from pdrop_video.pyramid.heads import rotate

PYRAMID = Pyramid(layers=(2, 4), ratios=(0.5, 0.25))
FAMILIES = ("llava_onevision", "internvl", "smolvlm", "qwen2_5_vl", "qwen3_vl")
MOVABLE: dict[str, dict[str, Any]] = {
    "linear": dict(factor=4.0),
    "yarn": dict(factor=4.0, original_max_position_embeddings=16, attention_factor=1.3),
    "llama3": dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16),
}
BY_LENGTH: dict[str, dict[str, Any]] = {  # another length is another angle, for every key
    "dynamic": dict(factor=2.0),
    "longrope": dict(
        factor=4.0, original_max_position_embeddings=16, short_factor=[1.0 + i / 8 for i in range(8)],
        long_factor=[2.0 + i for i in range(8)],
    ),
}  # fmt: skip


def scaled(family: str, kind: str) -> pv.VideoLM:
    """A tiny model whose prompts reach past its trained range, with one of the scalings."""
    lm = build(family)
    text = lm.model.get_decoder()
    text.config.rope_parameters = {**text.config.rope_parameters, "rope_type": kind, **(MOVABLE | BY_LENGTH)[kind]}
    if kind == "dynamic":
        text.config.max_position_embeddings = 16
    plain, text.rotary_emb = text.rotary_emb, type(text.rotary_emb)(config=text.config).double()
    at, place = torch.zeros(1, 1, 64, dtype=torch.float64), torch.full((1, 1), 40)
    place = place.expand(3, 1, 1) if "qwen" in family else place
    counts = not torch.allclose(plain(at, place)[0], text.rotary_emb(at, place)[0])
    # before 5.17 Qwen2.5-VL's M-RoPE did not know it
    unknown = kind == "dynamic" and family == "qwen2_5_vl" and Version(tf.__version__) < Version("5.17")
    assert counts != unknown
    return lm


@pytest.mark.parametrize(("family", "kind"), cases(FAMILIES, [*MOVABLE, *BY_LENGTH], fast=lambda f, k: f == k))
@torch.no_grad()
def test_one_shot_equals_masks(family: str, kind: str) -> None:
    inputs, _, _ = full_prompt(scaled(family, kind), video(6), [0.5 * i for i in range(6)], QUESTION)
    lm, fresh = scaled(family, kind), scaled(family, kind)  # dynamic RoPE remembers the longest prompt
    visual = inputs["input_ids"][0] == lm.tokenizer.convert_tokens_to_ids(lm.adapter.video_token)
    with pyramid_drop(lm.model, PYRAMID) as trace:
        got = lm.model(**inputs).logits[0, -1]
    want = masked_forward(fresh, inputs, masks_of(trace, visual, lm.num_layers))[-1]
    torch.testing.assert_close(got, want, atol=1e-9, rtol=0)


@pytest.mark.parametrize(("family", "kind"), cases(FAMILIES, MOVABLE, fast=lambda f, k: (f + k) % 4 == 1))
def test_a_stream_equals_masks(family: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = scaled(family, kind)
    step = lm.adapter.frames_per_step
    frames, seconds = video(4 * step), [0.5 * i for i in range(4 * step)]
    inputs, prefix, _ = full_prompt(lm, frames, seconds, QUESTION)
    snapshots = recorded(monkeypatch, None)
    stream = lm.stream(PYRAMID, pv.Memory(tokens=None))
    for start in range(0, 4 * step, step):
        stream.push(frames[start : start + step], seconds[start : start + step])
    allowed = stream_masks(snapshots, prefix, inputs["input_ids"].shape[1], snapshots[-1])
    torch.testing.assert_close(next_logits(stream), masked_forward(lm, inputs, allowed)[-1], atol=1e-9, rtol=0)


@pytest.mark.parametrize("kind", MOVABLE)
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_moved_key_is_the_key_rotated_to_where_it_stands(family: str, kind: str) -> None:
    """Moving turns and does not scale anew, although YaRN's cos and sin are longer than 1; angles are float32's."""
    lm = scaled(family, kind)
    loop, text = lm.stream(PYRAMID).loop, lm.model.get_decoder()
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn(1, 2, 20, 16, generator=generator, dtype=torch.float64)
    first, by = (torch.randint(0, 90, (20, loop.axes), generator=generator) for _ in range(2))

    def rotated(positions: torch.Tensor) -> torch.Tensor:
        at = positions.T[:, None] if loop.axes == 3 else positions.T
        return rotate(text.layers[1].self_attn, raw, text.rotary_emb(raw, at))[0]

    torch.testing.assert_close(loop.turn(1, rotated(first), by), rotated(first + by), atol=2e-5, rtol=0)
    assert not torch.allclose(rotated(first), rotated(first + by))
