"""Hearing: sound among frames equals the thinker's own forward on the whole, with drops as masks, saved and resumed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers as tf
from families import cases, video
from omni import OMNI, build
from reference import masked_forward
from test_exact import next_logits
from test_families import processor_of
from torch import Tensor

import pdrop_video as pv

QUESTION = "what is shown first ?"
CLOSE = {"qwen2_5_omni_thinker": 1e-9, "qwen3_omni_moe_thinker": 1e-6}  # a router takes its softmax in float32
RATE = 16000
UNITS = {"qwen2_5_omni_thinker": 2 * RATE, "qwen3_omni_moe_thinker": 2 * RATE}  # tiny Qwen3: 200 features, not 800


def noise(seconds: float, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(int(seconds * RATE), generator=generator) * 0.1


def whisper(samples: Tensor, bins: int) -> Tensor:
    """Transformers' features [bins, frames] of one stretch."""
    extract = tf.WhisperFeatureExtractor(feature_size=bins)
    return extract(samples.numpy(), sampling_rate=RATE, padding=False, return_tensors="pt")["input_features"][0]


def whole_inputs(lm: pv.VideoLM, frames: Tensor, sound: Tensor) -> dict[str, Any]:
    """What the thinker takes for frames at two a second and their sound, text and layout by the family's processor."""
    family, config = lm.model.config.model_type, lm.model.config
    frames = torch.cat([frames, frames[-1:]]) if len(frames) % 2 else frames
    values, (t, h, w) = lm.adapter.preprocess(frames)
    parts = [whisper(part, 16) for part in sound.split(UNITS[family])]
    features = torch.cat(parts, dim=1)[None]
    mask = torch.ones(1, features.shape[2], dtype=torch.long)
    grid, apart = torch.tensor([[t, 2 * h, 2 * w]]), torch.tensor([1.0], dtype=torch.float64)
    processing = f"transformers.models.{family.removesuffix('_thinker')}.processing_{family.removesuffix('_thinker')}"
    lengths = __import__(processing, fromlist=["x"])._get_feat_extract_output_lengths
    words = lm.tokenizer
    named = {
        name: words.convert_ids_to_tokens(getattr(config, f"{name}_id")) for name in ("video_token", "audio_token")
    }
    ears = lm.adapter.ears
    processor = processor_of(
        family.removesuffix("_thinker"),
        words,
        video_processor=SimpleNamespace(merge_size=2, temporal_patch_size=2),
        audio_bos_token=ears.opening,
        audio_eos_token=ears.ending,
        **named,
    )
    written = processor.replace_video_token(
        {"video_grid_thw": grid, "video_second_per_grid": [1.0]},
        0,
        processed_audio={"num_audio_tokens": lengths(mask.sum(-1))},
        video_to_audio_indices=[0],
        load_audio_from_video=True,
        position_id_per_seconds=config.position_id_per_seconds,
        seconds_per_chunk=2.0,
    )
    for token in (*named.values(), ears.opening, ears.ending):
        written = written.replace(token, f" {token} ")
    between = words(written, add_special_tokens=False)["input_ids"]
    ids = torch.tensor([[*lm.prompt.before(), *between, *lm.prompt.after(QUESTION)]])
    return dict(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        pixel_values_videos=values.double(),
        video_grid_thw=grid,
        video_second_per_grid=apart,
        input_features=features.double(),
        feature_attention_mask=mask,
        use_audio_in_video=True,
    )


def push_all(stream: pv.VideoStream, frames: Tensor, sound: Tensor, sizes: list[int]) -> list[Any]:
    """Frames at two a second in pushes of so many, each with its sound, the last with all that is left."""
    done, first = [], 0
    for size in sizes:
        last = first + size
        part = sound[first * RATE // 2 : None if last == len(frames) else last * RATE // 2]
        done.append(stream.push(frames[first:last], [0.5 * i for i in range(first, last)], sound=part, rate=RATE))
        first = last
    assert first == len(frames)
    return done


@pytest.mark.parametrize(
    ("family", "sizes", "length"),
    cases(OMNI, ([1] * 9, [2, 2, 2, 2, 1], [5, 4], [9]), (4.5, 4.9), fast=lambda f, s, n: s == 2 * f + n),
)
def test_nothing_dropped_equals_one_forward(family: str, sizes: list[int], length: float) -> None:
    """Of the whole video with its sound, whose last stretch is not whole; its last step neither."""
    lm, frames, sound = build(family), video(9), noise(length)
    inputs = whole_inputs(lm, frames, sound)
    want = masked_forward(lm, inputs, None)[-1]
    stream = lm.stream(pv.Pyramid(ratios=(1.0, 1.0)), pv.Memory(tokens=None))
    push_all(stream, frames, sound, sizes)
    torch.testing.assert_close(next_logits(stream), want, atol=CLOSE[family], rtol=0)
