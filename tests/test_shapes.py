"""Proofs 1, 2 and 3, and one-shot use, on decoders and vision towers of other shapes than the other tests have."""

from __future__ import annotations

from typing import Any

import families
import pytest
import torch
from families import FAMILIES, budget, build, cases, video
from reference import full_prompt, masked_forward, recorded, stream_masks
from test_exact import QUESTION, chunks, next_logits
from test_one_shot import masks_of

import pdrop_video as pv

LINEAR = dict(rope_type="linear", factor=4.0, rope_theta=5e5)
SHAPES: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[int, ...]]] = {  # of text and of Qwen's vision; stages
    "three layers, three heads that share one key": (
        dict(hidden_size=48, intermediate_size=50, num_hidden_layers=3, num_attention_heads=3, num_key_value_heads=1),
        dict(patch_size=7, spatial_merge_size=3),
        (1, 2),
    ),
    "five layers, six heads on three keys, slower RoPE": (
        dict(hidden_size=96, intermediate_size=33, num_hidden_layers=5, num_attention_heads=6, num_key_value_heads=3)
        | dict(rope_parameters=LINEAR),
        dict(patch_size=14, spatial_merge_size=1, num_heads=4),
        (4,),
    ),
    "nine layers, no shared keys, one head": (
        dict(hidden_size=16, num_hidden_layers=9, num_attention_heads=1, num_key_value_heads=1),
        dict(patch_size=4, num_heads=1),
        (1, 2, 3, 8),
    ),
}


def shaped(monkeypatch: pytest.MonkeyPatch, family: str, shape: str) -> pv.VideoLM:
    """A model of a family in another shape, whose head reads with the embeddings' weights."""
    text, vision, _ = SHAPES[shape]
    rope = text.get("rope_parameters", {})
    for name, value in text.items():
        monkeypatch.setitem(families.TEXT, name, value)
        monkeypatch.setitem(families.QWEN_TEXT, name, value)
    sections = [1, 1, 1, 2, 1, 2] if text.get("num_attention_heads") == 1 else [2, 3, 3]  # dealt out once, or twice
    monkeypatch.setitem(families.QWEN_TEXT, "rope_parameters", LINEAR | rope | dict(mrope_section=sections))
    for name, value in vision.items():
        monkeypatch.setitem(families.QWEN_VISION, name, value)
    monkeypatch.setitem(families.TOWER, "num_attention_heads", 4)
    lm = build(family)
    lm.model.get_output_embeddings().weight = lm.model.get_input_embeddings().weight
    return lm


@pytest.mark.parametrize(
    ("family", "shape", "evictor"),
    cases(FAMILIES, SHAPES, ("oldest", "uniform", "pyramid"), fast=lambda f, s, e: s == f % 3 and e == (f // 3) % 3),
)
def test_other_shapes_equal_masks(family: str, shape: str, evictor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lm, layers = shaped(monkeypatch, family, shape), SHAPES[shape][2]
    step = lm.adapter.frames_per_step
    frames, seconds = video(5 * step, height=50, width=90), [0.5 * i for i in range(5 * step)]
    inputs, prefix, _ = full_prompt(lm, frames, seconds, QUESTION)
    sizes = [step, 3 * step, step]
    whole = lm.stream(pv.Pyramid(stages=1), pv.Memory(tokens=None))
    for part, times in chunks(frames, seconds, sizes):
        whole.push(part, times)
    torch.testing.assert_close(next_logits(whole), masked_forward(lm, inputs, None)[-1], atol=1e-9, rtol=0)

    pyramid = pv.Pyramid(layers=layers, ratios=[0.6 ** (s + 1) for s in range(len(layers))])
    one = lm.adapter.look(frames[:step], tuple(seconds[:step]), first=9)
    tokens = (budget(lm, 0) or 0) + int(2.6 * len(one))
    snapshots = recorded(monkeypatch, tokens)
    stream = lm.stream(pyramid, pv.Memory(tokens=tokens, evictor=evictor))
    for part, times in chunks(frames, seconds, sizes):
        stream.push(part, times)
    allowed = stream_masks(snapshots, prefix, inputs["input_ids"].shape[1], snapshots[-1])
    got = next_logits(stream)
    torch.testing.assert_close(got, masked_forward(lm, inputs, allowed)[-1], atol=1e-9, rtol=0)
    assert (got - masked_forward(lm, inputs, allowed.roll(1, 0))[-1]).abs().max() > 1e-5  # the control

    visual = inputs["input_ids"][0] == lm.tokenizer.convert_tokens_to_ids(lm.adapter.video_token)
    with torch.no_grad(), pv.pyramid_drop(lm.model, pyramid) as trace:
        got = lm.model(**inputs).logits[0, -1]
    want = masked_forward(lm, inputs, masks_of(trace, visual, lm.num_layers, layers))[-1]
    torch.testing.assert_close(got, want, atol=1e-9, rtol=0)
