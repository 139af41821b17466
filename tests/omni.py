"""Tiny random models of the families that hear as well as see. Apart from `families`: few tests run over both."""

from __future__ import annotations

import importlib
from typing import Any

import torch
import transformers as tf
from families import QWEN_IDS, QWEN_PIXELS, QWEN_TEMPLATE, QWEN_TEXT, QWEN_VISION, SIGLIP, Built, tokenizer
from torch import Tensor

from pdrop_video import VideoLM
from pdrop_video.models import Pixels, adapter_for

IDS = dict(QWEN_IDS, audio_token_id=194, audio_start_token_id=195, audio_end_token_id=196)
HEARING = dict(encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=64, d_model=32, num_mel_bins=16)
HEARING |= dict(output_dim=QWEN_TEXT["hidden_size"], max_source_positions=100)
TOKENS_2_5 = [
    "<|IMAGE|>",
    "<|VIDEO|>",
    "<|vision_bos|>",
    "<|vision_eos|>",
    "<|AUDIO|>",
    "<|audio_bos|>",
    "<|audio_eos|>",
]
TOKENS_3 = ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>", "<|audio_pad|>"]
TOKENS_3 += ["<|audio_start|>", "<|audio_end|>"]
TEMPLATE_2_5 = (
    QWEN_TEMPLATE.replace("<|video_pad|>", "<|VIDEO|>").replace("_start|>", "_bos|>").replace("_end|>", "_eos|>")
)


def qwen2_5_omni() -> Built:
    vision = dict(QWEN_VISION, depth=2, hidden_size=32, intermediate_size=64, window_size=32)
    vision |= dict(out_hidden_size=QWEN_TEXT["hidden_size"], fullatt_block_indexes=[1])
    audio = dict(HEARING, n_window=100)
    config = tf.Qwen2_5OmniThinkerConfig(text_config=QWEN_TEXT, vision_config=vision, audio_config=audio, **IDS)
    return tf.Qwen2_5OmniThinkerForConditionalGeneration(config), tokenizer(TOKENS_2_5, TEMPLATE_2_5), QWEN_PIXELS


def qwen3_omni() -> Built:
    vision = dict(QWEN_VISION, depth=4, hidden_size=32, intermediate_size=64, out_hidden_size=QWEN_TEXT["hidden_size"])
    vision |= dict(num_position_embeddings=64, deepstack_visual_indexes=[1, 2, 3])
    audio = dict(HEARING, n_window=50, n_window_infer=200, downsample_hidden_size=8)
    text = dict(QWEN_TEXT, head_dim=16, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32)
    config = tf.Qwen3OmniMoeThinkerConfig(
        text_config=text, vision_config=vision, audio_config=audio, position_id_per_seconds=13, **IDS
    )
    words = tokenizer(TOKENS_3, QWEN_TEMPLATE)
    return tf.Qwen3OmniMoeThinkerForConditionalGeneration(config), words, QWEN_PIXELS | SIGLIP


OMNI = {"qwen2_5_omni_thinker": qwen2_5_omni, "qwen3_omni_moe_thinker": qwen3_omni}


def build(name: str, attn: str = "sdpa", dtype: torch.dtype = torch.float64) -> VideoLM:
    """As `families.build`."""
    torch.manual_seed(0)
    model, words, preprocessor = OMNI[name]()
    model = model.to(dtype).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    model.set_attn_implementation(attn)
    model.set_experts_implementation("eager")  # the fast one knows no float64
    adapter: Any = adapter_for(model.config.model_type)
    return VideoLM(model, adapter(model, Pixels.of(preprocessor), words), adapter.prompt(words), name)


def between_marks(processor: Any, grid: Tensor, sounds: int = 0, **how: Any) -> str:
    """What a processor writes for a video between its two marks, with so many tokens of sound if any.

    Older ones write whole texts only, and with a method of another name.
    """
    if type(processor).replace_video_token is not tf.ProcessorMixin.replace_video_token:
        more = dict(processed_audio={"num_audio_tokens": torch.tensor([sounds])}, video_to_audio_indices=[0])
        given = {"video_grid_thw": grid, "video_second_per_grid": [1.0]}
        return processor.replace_video_token(
            given, 0, load_audio_from_video=sounds > 0, **(more if sounds else {}), **how
        )
    marks = dict(vision_bos_token="<v>", vision_eos_token="</v>", image_token="<image>")
    for name, value in dict(marks, image_processor=processor.video_processor).items():
        object.__setattr__(processor, name, value)
    if not hasattr(processor, "audio_token"):
        object.__setattr__(processor, "audio_token", "<sound>")
    given = dict(position_id_per_seconds=25, seconds_per_chunk=2.0) | how
    given |= dict(video_second_per_grid=iter([1.0]), use_audio_in_video=sounds > 0)
    text = [f"<v>{processor.video_token}</v>"]
    (made,) = processor.replace_multimodal_special_tokens(text, iter([sounds]), iter([]), iter(grid.numpy()), **given)
    return made.removeprefix("<v>").removesuffix("</v>")


def tokens_of_sound(processor: Any, features: int) -> int:
    """Tokens of so many features by the function beside a processor; older ones of Qwen2.5 have it in a line."""
    module = importlib.import_module(type(processor).__module__)
    if not hasattr(module, "_get_feat_extract_output_lengths"):
        return ((features - 1) // 2 + 1 - 2) // 2 + 1
    return int(module._get_feat_extract_output_lengths(torch.tensor(features)))
