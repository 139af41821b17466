"""The built-in model before training: its configuration, its initial weights, its files, its positions."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from .bank import PIXELS
from .tokenizer import save_tokenizer

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
SIDE = 4
"""Merged tokens along each side of a grid, so 16 visual tokens a grid."""
TEXT_LAYERS, VISION_LAYERS = 8, 4
HEADS, KEY_HEADS, HEAD = 4, 2, 64
MERGER_GAIN = 0.15
RESIDUAL_GAIN = 0.1


def build_config(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLConfig:
    """A tiny Qwen2.5-VL: 8 layers of width 256, a vision tower of 4 layers of width 128.

    `mrope_section` deals out a head's frequencies, from fast to slow, to time, row, column, and again. Places need fast
    ones, and the order of moments slower ones; the slowest lie on an axis that stays the same over a video, where
    content is compared whatever the distance.
    """
    token = tokenizer.get_vocab()
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": (len(tokenizer) + 7) // 8 * 8,
            "hidden_size": 256,
            "intermediate_size": 704,
            "num_hidden_layers": TEXT_LAYERS,
            "num_attention_heads": HEADS,
            "num_key_value_heads": KEY_HEADS,
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 3, 6, 0, 21]},
            "tie_word_embeddings": True,
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "depth": VISION_LAYERS,
            "hidden_size": 128,
            "intermediate_size": 344,
            "num_heads": 4,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "tokens_per_second": 1,
            "window_size": PIXELS,
            "out_hidden_size": 256,
            "fullatt_block_indexes": [3],
        },
        image_token_id=token["<|image_pad|>"],
        video_token_id=token["<|video_pad|>"],
        vision_start_token_id=token["<|vision_start|>"],
        vision_end_token_id=token["<|vision_end|>"],
        tie_word_embeddings=True,
    )


@torch.no_grad()
def initialise(model: Qwen2_5_VLForConditionalGeneration, seed: int) -> None:
    """Weights by width: linear std fan_in^-.5, embeddings std width^-.5, small residual outputs, a smaller last merger.

    The library's default of .02 is far too small for layers this narrow: training stays at chance with it. In all
    layers but the first, one key head and its query heads begin with the same projection, so that tokens begin by
    attending to what is like them: lookups by content are found by training from there.
    """
    source = torch.Generator().manual_seed(seed)
    depths = {"visual": VISION_LAYERS, "language_model": TEXT_LAYERS}
    for name, weight in model.named_parameters():
        if weight.ndim == 1:
            weight.fill_(0.0 if name.endswith("bias") else 1.0)
            continue
        std = weight[0].numel() ** -0.5
        if name.endswith(("attn.proj.weight", "o_proj.weight", "down_proj.weight")):
            part = "visual" if ".visual." in name else "language_model"
            std *= (2 * depths[part]) ** -0.5 * (RESIDUAL_GAIN if part == "language_model" else 1.0)
        if name.endswith("merger.mlp.2.weight"):
            std *= MERGER_GAIN
        weight.copy_(torch.randn(weight.shape, generator=source) * std)
    for layer in model.model.language_model.layers[1:]:
        same = layer.self_attn.k_proj.weight[:HEAD]
        for head in range(HEADS // KEY_HEADS):
            layer.self_attn.q_proj.weight[head * HEAD : (head + 1) * HEAD] = same


def build_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> Qwen2_5_VLForConditionalGeneration:
    """A fresh model in float32."""
    model = Qwen2_5_VLForConditionalGeneration(build_config(tokenizer)).float()
    initialise(model, seed)
    return model


def save_model(model: Qwen2_5_VLForConditionalGeneration, folder: Path) -> None:
    """Write the model in bf16 with all files that loading needs: configs, tokenizer, template, preprocessor."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = save_tokenizer(folder)
    model = model.bfloat16()
    model.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"].pop("rope_parameters", None)  # the default; its name differs between library versions
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    pixels = PIXELS * PIXELS
    preprocessor = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "resample": 3,
        "rescale_factor": 1 / 255,
        "image_mean": MEAN,
        "image_std": STD,
        "patch_size": 14,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "min_pixels": pixels,
        "max_pixels": pixels,
        "size": {"shortest_edge": pixels, "longest_edge": pixels},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor, indent=2) + "\n")


def video_positions(start: int, seconds: Tensor, tokens_per_second: float = 1.0) -> tuple[Tensor, int]:
    """M-RoPE positions of a video's tokens, and the position of the text that follows.

    Parameters
    ----------
    start : int
        The largest position so far + 1.
    seconds : Tensor
        `[grids]`, time of each grid's first frame.

    Returns
    -------
    positions : Tensor
        `[3, grids * 16]`: t = start + floor((s - s_0) * tokens_per_second), h = start + row, w = start + column.
    after : int
        The largest of them + 1.

    Examples
    --------
    Three text tokens (0, 1, 2), then grids at 5.0 s, 6.0 s and 11.0 s: t is 3, 4 and 9, h and w run from 3 to 6, and
    the text goes on at 10. Had the video only the first grid, the text would go on at 7.
    """
    t = start + torch.floor((seconds - seconds[0]) * tokens_per_second).long()
    row, column = torch.arange(SIDE * SIDE) // SIDE, torch.arange(SIDE * SIDE) % SIDE
    grids = len(seconds)
    positions = torch.stack([t.repeat_interleave(SIDE * SIDE), start + row.repeat(grids), start + column.repeat(grids)])
    return positions, int(positions.max()) + 1


def arrange(frames: Tensor) -> Tensor:
    """Frames `[grids, 2, 112, 112, 3]` as patches `[grids, 64, 1176]` in groups of 2 x 2; each is (c, t, y, x)."""
    return rearrange(frames, "g t (H mh p) (W mw q) c -> g (H W mh mw) (c t p q)", H=SIDE, W=SIDE, mh=2, mw=2)


def patches(frames: Tensor, gain: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
    """Frames as the patch embedding takes them: arranged, then normalised.

    Parameters
    ----------
    frames : Tensor
        `[grids, 2, 112, 112, 3]`, uint8.
    gain, shift : Tensor, optional
        `[grids, 3]`: contrast around middle grey, and brightness in steps of 255, per colour channel (training only).

    Returns
    -------
    Tensor
        `[grids, 64, 1176]`, float32; bfloat16 where `gain` and `shift` are given.
    """
    scale, offset = 1 / (255 * torch.tensor(STD)), -torch.tensor(MEAN) / torch.tensor(STD)
    values = rearrange(arrange(frames), "g n (c x) -> g n c x", c=3)
    if gain is None or shift is None:
        return (values.float() * scale[:, None] + offset[:, None]).flatten(2)
    factor, term = gain * scale, (110 * (1 - gain) + shift) * scale + offset
    return (values.bfloat16() * factor[:, None, :, None].bfloat16() + term[:, None, :, None].bfloat16()).flatten(2)
