"""Random decoders of the families that a benchmark can be told: about 0.5 B of weights active in each, or tiny.

Knows configurations. Refuses to know what is measured. The large ones' vision towers are not meant to be used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import transformers

from pdrop_video import VideoLM, load
from pdrop_video.models import Pixels, adapter_for

from .common import usual_type

TEXT: dict[str, Any] = dict(vocab_size=151_936, hidden_size=1024, num_hidden_layers=24)
VISION: dict[str, Any] = dict(depth=1, hidden_size=32, intermediate_size=32, num_heads=2)


def _qwen3_5() -> Any:
    """Qwen3.5-0.8B's layers: three of linear attention, one that attends to everything, and so on."""
    rope = dict(rope_type="default", rope_theta=1e7, mrope_section=[11, 11, 10], partial_rotary_factor=0.25)
    text = dict(TEXT, intermediate_size=3584, num_attention_heads=8, num_key_value_heads=2, head_dim=256)
    text |= dict(linear_num_key_heads=16, linear_num_value_heads=16, rope_parameters=rope, eos_token_id=None)
    return transformers.Qwen3_5Config(
        text_config=text, vision_config=dict(VISION, out_hidden_size=1024), tie_word_embeddings=True
    )


def _gemma4() -> Any:
    """Gemma 4's layers: five with a window of 512 positions, one that attends to everything, and so on."""
    text = dict(TEXT, intermediate_size=5120, num_attention_heads=4, num_key_value_heads=2, head_dim=256)
    text |= dict(global_head_dim=512, sliding_window=512, hidden_size_per_layer_input=256, eos_token_id=None)
    text |= dict(vocab_size=32_768, vocab_size_per_layer_input=32_768, num_kv_shared_layers=0)
    vision = dict(hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, head_dim=16)
    return transformers.Gemma4Config(text_config=text, vision_config=vision, audio_config=None)


def _qwen3_vl_moe() -> Any:
    """Qwen3-VL-30B-A3B's layers, four of sixteen experts active."""
    rope = dict(rope_type="default", rope_theta=5e6, mrope_section=[24, 20, 20])
    text = dict(TEXT, intermediate_size=3072, num_attention_heads=16, num_key_value_heads=4, head_dim=128)
    text |= dict(num_experts=16, num_experts_per_tok=4, moe_intermediate_size=1024, rope_parameters=rope)
    text |= dict(eos_token_id=None)
    vision = dict(VISION, out_hidden_size=1024, deepstack_visual_indexes=[])
    return transformers.Qwen3VLMoeConfig(text_config=text, vision_config=vision, tie_word_embeddings=True)


FAMILIES: Mapping[str, Callable[[], Any]] = {
    "qwen3_5": _qwen3_5,
    "gemma4": _gemma4,
    "qwen3_vl_moe": _qwen3_vl_moe,
}
"""Configurations by ``model_type``; beside them benchmarks know `qwen2_5_vl`, see `common.random_model`."""


def random_of(family: str, dtype: torch.dtype | None = None) -> Any:
    """A random model, its weights those that transformers begins training with."""
    torch.manual_seed(0)
    config = FAMILIES[family]()
    return transformers.AutoModelForImageTextToText.from_config(config, dtype=dtype or usual_type()).eval()


def _tiny_qwen3_5(ids: dict[str, Any], vocabulary: int) -> Any:
    """Eight layers, of which two attend to everything."""
    rope = dict(rope_type="default", rope_theta=1e6, mrope_section=[2, 1, 1], partial_rotary_factor=0.25)
    text: dict[str, Any] = dict(
        vocab_size=vocabulary, hidden_size=128, intermediate_size=352, num_hidden_layers=8, head_dim=32
    )
    text |= dict(num_attention_heads=4, num_key_value_heads=2, linear_num_key_heads=4, linear_num_value_heads=4)
    text |= dict(linear_key_head_dim=16, linear_value_head_dim=16, rope_parameters=rope, eos_token_id=2)
    vision = dict(VISION, depth=2, hidden_size=64, intermediate_size=128, out_hidden_size=128)
    return transformers.Qwen3_5Config(text_config=text, vision_config=vision, **ids)


TINY: Mapping[str, Callable[[dict[str, Any], int], Any]] = {"qwen3_5": _tiny_qwen3_5}


def tiny_of(family: str) -> VideoLM:
    """A tiny random model with the built-in model's words, for streams whose answers mean nothing."""
    lm = load()
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    torch.manual_seed(0)
    config = TINY[family]({name: getattr(lm.model.config, name) for name in names}, len(lm.tokenizer))
    model: Any = transformers.AutoModelForImageTextToText.from_config(config, dtype=usual_type()).eval()
    adapter = adapter_for(family)
    pixels = Pixels(size={"shortest_edge": 1, "longest_edge": 1 << 40})  # frames are taken in the size they come in
    return VideoLM(model, adapter(model, pixels, lm.tokenizer), adapter.prompt(lm.tokenizer), f"tiny random {family}")
