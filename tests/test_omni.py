"""The families that hear, seeing: text, positions, pixels, checkpoints, and equality with the thinker's own forward."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers as tf
from families import cases, video
from omni import OMNI, between_marks, build
from reference import masked_forward, recorded, stream_masks
from safetensors.torch import load_file, save_file
from test_exact import chunks, next_logits
from test_families import CHATML, processor_of, trained
from torch.utils.flop_counter import FlopCounterMode

import pdrop_video as pv
from pdrop_video.costs.decoder import DecoderShape
from pdrop_video.models import Pixels, adapter_for, describe
from pdrop_video.pyramid import LayerLoop

QUESTION = "what is shown first ?"
CLOSE = {"qwen2_5_omni_thinker": 1e-9, "qwen3_omni_moe_thinker": 1e-6}  # a router takes its softmax in float32
TEMPLATES = {
    "qwen2_5_omni_thinker": CHATML.replace("VIDEO", "<|vision_bos|><|VIDEO|><|vision_eos|>"),
    "qwen3_omni_moe_thinker": CHATML.replace("VIDEO", "<|vision_start|><|video_pad|><|vision_end|>"),
}
SPECIALS = {
    "qwen2_5_omni_thinker": [
        "<|VIDEO|>",
        "<|AUDIO|>",
        "<|vision_bos|>",
        "<|vision_eos|>",
        "<|audio_bos|>",
        "<|audio_eos|>",
    ],
    "qwen3_omni_moe_thinker": ["<|video_pad|>", "<|audio_pad|>", "<|vision_start|>", "<|vision_end|>"],
}
SPECIALS["qwen3_omni_moe_thinker"] += ["<|audio_start|>", "<|audio_end|>"]


def inputs_of(lm: pv.VideoLM, frames: torch.Tensor, apart: float) -> tuple[dict[str, Any], int]:
    """What transformers' thinker takes for a video of steps `apart` seconds and a question; the prefix's length.

    Positions are not among it: the model makes its own.
    """
    frames = torch.cat([frames, frames[-1:]]) if len(frames) % 2 else frames
    values, (t, h, w) = lm.adapter.preprocess(frames)
    before, after = lm.prompt.before(), lm.prompt.after(QUESTION)
    ids = torch.tensor([[*before, *[lm.model.config.video_token_id] * (t * h * w), *after]])
    inputs = dict(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        pixel_values_videos=values.double(),
        video_grid_thw=torch.tensor([[t, 2 * h, 2 * w]]),
        video_second_per_grid=torch.tensor([apart], dtype=torch.float64),
    )
    return inputs, len(before)


@pytest.mark.parametrize(
    ("family", "sizes"),
    cases(OMNI, ([1] * 9, [2, 2, 2, 2, 1], [5, 4], [9]), fast=lambda f, s: s in (f, f + 2)),
)
def test_nothing_dropped_equals_one_forward(family: str, sizes: list[int]) -> None:
    """With an odd last frame, and positions as the model's own forward makes them."""
    lm, frames, seconds = build(family), video(9), [0.5 * i for i in range(9)]
    want = masked_forward(lm, inputs_of(lm, frames, 1.0)[0], None)[-1]
    stream = lm.stream(pv.Pyramid(ratios=(1.0, 1.0)), pv.Memory(tokens=None))
    for part, times in chunks(frames, seconds, sizes):
        stream.push(part, times)
    torch.testing.assert_close(next_logits(stream), want, atol=CLOSE[family], rtol=0)


@pytest.mark.parametrize("family", OMNI)
def test_drops_and_evictions_equal_masks(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lm, frames, seconds = build(family), video(12), [0.5 * i for i in range(12)]
    inputs, prefix = inputs_of(lm, frames, 1.0)
    snapshots = recorded(monkeypatch, 50)
    stream = lm.stream(pv.Pyramid(layers=(1, 2, 5), ratios=(0.6, 0.6, 0.1)), pv.Memory(tokens=50))
    for part, times in chunks(frames, seconds, [2, 4, 4, 2]):
        stream.push(part, times)
    allowed = stream_masks(snapshots, prefix, inputs["input_ids"].shape[1], snapshots[-1])
    got, want = next_logits(stream), masked_forward(lm, inputs, allowed)[-1]
    torch.testing.assert_close(got, want, atol=CLOSE[family], rtol=0)
    assert (got - masked_forward(lm, inputs, allowed.roll(1, 0))[-1]).abs().max() > 1e-3


@pytest.mark.parametrize("apart", [1.0, 2.0, 0.65, 0.1])
@pytest.mark.parametrize("family", OMNI)
def test_positions_are_the_models(family: str, apart: float) -> None:
    """Steps `apart` seconds: get_rope_index's own numbers, their fractions cut off, the text behind included."""
    lm = build(family)
    inputs, _ = inputs_of(lm, video(18), apart)
    keys = ("input_ids", "video_grid_thw", "attention_mask")
    given = {key: inputs[key] for key in keys} | {"second_per_grids": inputs["video_second_per_grid"]}
    model = lm.model if hasattr(lm.model, "get_rope_index") else lm.model.model  # in older ones it is the thinker's
    want = model.get_rope_index(**given)[0][:, 0]
    got, place = lm.adapter.positions.text(len(lm.prompt.before()), pv.models.Place())
    made, first = [got], 0
    for size in (4, 6, 8):
        seconds = tuple(apart / 2 * i for i in range(first, first + size))
        ids, place = lm.adapter.place(lm.adapter.look(video(size), seconds), place)
        made, first = [*made, ids], first + size
    made.append(lm.adapter.positions.text(len(lm.prompt.after(QUESTION)), place)[0])
    whole = torch.cat(made, -1)[:, 0]
    after = len(lm.prompt.after(QUESTION))
    assert torch.equal(whole[:, :-after], want[:, :-after].long())
    if family == "qwen2_5_omni_thinker" or apart in (1.0, 2.0):  # else the text goes on from a fraction
        assert torch.equal(whole, want.long())


@pytest.mark.parametrize("family", OMNI)
def test_text_is_the_processors(family: str) -> None:
    words, kind = trained(family, TEMPLATES[family], SPECIALS[family]), adapter_for(family)
    prompt, token = kind.prompt(words), kind.video_token
    processor = processor_of(
        family.removesuffix("_thinker"),
        words,
        video_processor=SimpleNamespace(merge_size=2, temporal_patch_size=2),
        video_token=token,
    )
    grid = torch.tensor([[3, 4, 6]])
    replacement = between_marks(processor, grid)
    messages = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": QUESTION}]}]
    text = words.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    want = words(text.replace(token, replacement, 1))["input_ids"]
    got = [*prompt.before(), *[words.convert_tokens_to_ids(token)] * 18, *prompt.after(QUESTION)]
    assert got == want and kind.glue(None, 3, 1.0) == ("", "")


@pytest.mark.parametrize("family", OMNI)
def test_the_tower_costs_what_pytorch_counts(family: str) -> None:
    lm = build(family, "eager", dtype=torch.float32)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        chunk = lm.adapter.look(video(5, height=100, width=60), (0.0, 0.5, 1.0, 1.5, 2.0))
    assert lm.adapter.tower(*chunk.size).flops(len(chunk.steps)) == counter.get_total_flops()


# -- checkpoints ------------------------------------------------------------------------------------------------------


def written(family: str, folder: Path, whole: bool) -> Path:
    """A tiny checkpoint of the thinker alone, or of the whole model as it is published."""
    lm = build(family, dtype=torch.float32)
    folder.mkdir(exist_ok=True)
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    numbers = dict(patch_size=8, min_pixels=3136, max_pixels=12845056, temporal_patch_size=2, merge_size=2)
    (folder / "preprocessor_config.json").write_text(json.dumps(numbers))
    if whole:
        config = json.loads((folder / "config.json").read_text())
        outer = dict(model_type=family.removesuffix("_thinker"), thinker_config=config, enable_audio_output=True)
        (folder / "config.json").write_text(json.dumps(outer))
        weights = {f"thinker.{name}": value for name, value in load_file(folder / "model.safetensors").items()}
        weights["talker.thinker_to_talker_proj.weight"] = torch.zeros(2, 2)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("whole", [False, True], ids=["thinker", "whole"])
@pytest.mark.parametrize("family", OMNI)
def test_a_checkpoint_loads_the_thinker_alone(family: str, whole: bool, tmp_path: Path) -> None:
    folder, want = written(family, tmp_path, whole), build(family, dtype=torch.float32).model.state_dict()
    lm = pv.load(folder, dtype="float32", device="cpu", max_pixels=3072)
    assert lm.model.config.model_type == family
    got = lm.model.state_dict()
    assert got.keys() == want.keys() and all(torch.equal(got[name], want[name]) for name in want)
    stream = lm.stream()
    stream.push(video(4), [0, 1, 2, 3])
    assert stream.ask(QUESTION, 2).token_ids
    config, adapter = describe(folder)
    assert config.model_type == family and adapter.positions.tokens_per_second == config.position_id_per_seconds
    factor = 28 if "qwen2" in family else 32
    assert adapter.pixels.limits == (128 * factor**2, 768 * factor**2)


QWEN7 = dict(hidden_size=3584, num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4, vocab_size=152064)
QWEN30 = dict(hidden_size=2048, num_hidden_layers=48, num_attention_heads=32, num_key_value_heads=4, head_dim=128)
QWEN30 |= dict(moe_intermediate_size=768, num_experts=128, num_experts_per_tok=8, vocab_size=152064)


@pytest.mark.parametrize(
    ("config", "layers", "kv_bytes", "heard"),
    [
        (lambda: tf.Qwen2_5OmniThinkerConfig(text_config=QWEN7), (7, 14, 21), 57_344, (2.0, 50, 25)),
        (
            lambda: tf.Qwen3OmniMoeThinkerConfig(text_config=QWEN30, position_id_per_seconds=13),
            (12, 24, 36),
            98_304,
            (8.0, 104, 13),
        ),
    ],
    ids=["Qwen2.5-Omni-7B", "Qwen3-Omni-30B-A3B"],
)
def test_true_sizes(config: Any, layers: tuple[int, ...], kv_bytes: int, heard: tuple[float, int, int]) -> None:
    """Boundaries, bytes of a token, and the stretch that is heard at once: seconds, tokens, tokens a second."""
    made = config()
    with torch.device("meta"):
        model = tf.AutoModelForImageTextToText.from_config(made)
    assert LayerLoop(model.get_decoder(), pv.Pyramid()).schedule.layers == layers
    assert DecoderShape.of(made).kv_bytes_per_token() == kv_bytes
    ears = adapter_for(made.model_type)(model, Pixels()).ears
    assert (ears.seconds, ears.count(ears.unit), ears.rate) == heard
    assert ears.rate == made.position_id_per_seconds  # a token of sound takes one position


@pytest.mark.processors
@pytest.mark.parametrize("family", OMNI)
def test_pixels_are_the_processors(family: str) -> None:
    """The video processor that transformers gives to these checkpoints, under the limits of the omni processor."""
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

    module = getattr(tf.models, family.removesuffix("_thinker"))
    name = {"qwen2_5_omni": "Qwen2_5OmniProcessor", "qwen3_omni_moe": "Qwen3OmniMoeProcessor"}
    limits = getattr(module, name[family.removesuffix("_thinker")]).videos_kwargs["size"]
    patch = 14 if "qwen2" in family else 16
    mean = dict(image_mean=[0.5] * 3, image_std=[0.5] * 3) if patch == 16 else {}
    processor = Qwen2VLVideoProcessor(patch_size=patch, **mean)
    kind = adapter_for(family)
    vision = SimpleNamespace(patch_size=patch, spatial_merge_size=2, temporal_patch_size=2)
    config = SimpleNamespace(config=SimpleNamespace(vision_config=vision))
    adapter = kind(config, kind.per_frame(Pixels.of(dict(mean, min_pixels=3136, max_pixels=12845056))))
    for height, width in ((90, 160), (333, 501), (1080, 1920), (30, 2000)):
        frames = video(4, height=height, width=width)
        want = processor(
            frames.permute(0, 3, 1, 2),
            do_sample_frames=False,
            return_tensors="pt",
            size=limits,
            cap_pixels_per_frame=True,
        )
        got, (t, h, w) = adapter.preprocess(frames)
        assert want["video_grid_thw"].tolist() == [[t, 2 * h, 2 * w]]
        assert (got - want["pixel_values_videos"]).abs().max() < 0.0001
