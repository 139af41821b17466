"""Tiny random models of every supported family, built in code, with tokenizers and chat templates of their kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers as tf
from tokenizers import Tokenizer, models, pre_tokenizers

from pdrop_video import VideoLM
from pdrop_video.models import Pixels, Prompt, adapter_for

TEXT = dict(
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=6,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=200,
    max_position_embeddings=4096,
    bos_token_id=None,
    eos_token_id=None,
    pad_token_id=None,
)
WORDS = "what is shown first last red blue how many user assistant system <im_start> <im_end> ? . seven".split(" ")  # noqa: SIM905
QWEN_TEMPLATE = (
    "{% for m in messages %}<im_start> {{ m['role'] }} {% for c in m['content'] %}{% if c['type'] == 'video' %}"
    "<|vision_start|><|video_pad|><|vision_end|>{% else %}{{ c['text'] }}{% endif %}{% endfor %} <im_end> {% endfor %}"
    "{% if add_generation_prompt %}<im_start> assistant {% endif %}"
)
LLAVA_TEMPLATE = (
    "{% for m in messages %}<im_start> {{ m['role'] }} {% for c in m['content'] %}{% if c['type'] == 'video' %}"
    "<video>{% else %} {{ c['text'] }}{% endif %}{% endfor %} <im_end> {% endfor %}"
    "{% if add_generation_prompt %}<im_start> assistant {% endif %}"
)


def tokenizer(specials: list[str], template: str) -> Any:
    """Words separated by spaces; `specials` get the ids 190, 191, ..."""
    fill = [f"<{i}>" for i in range(190 - len(WORDS) - 1)]
    vocabulary = {word: i for i, word in enumerate(["<unk>", *WORDS, *fill, *specials])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = tf.PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>", extra_special_tokens=specials)
    fast.chat_template = template
    return fast


def qwen2_5_vl() -> tuple[Any, Any, dict[str, Any]]:
    specials = ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"]
    config = tf.Qwen2_5_VLConfig(
        text_config=dict(TEXT, rope_parameters=dict(rope_type="default", rope_theta=10000.0, mrope_section=[2, 3, 3])),
        vision_config=dict(
            depth=2,
            hidden_size=32,
            intermediate_size=64,
            num_heads=2,
            patch_size=8,
            spatial_merge_size=2,
            temporal_patch_size=2,
            window_size=32,
            out_hidden_size=64,
            fullatt_block_indexes=[1],
            tokens_per_second=2,
        ),
        image_token_id=190,
        video_token_id=191,
        vision_start_token_id=192,
        vision_end_token_id=193,
    )
    preprocessor = dict(size={"shortest_edge": 48 * 64, "longest_edge": 48 * 64})
    return tf.Qwen2_5_VLForConditionalGeneration(config), tokenizer(specials, QWEN_TEMPLATE), preprocessor


def llava_onevision() -> tuple[Any, Any, dict[str, Any]]:
    config = tf.LlavaOnevisionConfig(
        vision_config=dict(
            model_type="siglip_vision_model",
            hidden_size=32,
            intermediate_size=64,
            patch_size=8,
            image_size=56,
            num_hidden_layers=2,
            num_attention_heads=2,
            vision_use_head=False,
        ),
        text_config=dict(TEXT, model_type="qwen2"),
        image_token_index=190,
        video_token_index=191,
    )
    preprocessor = dict(size={"height": 56, "width": 56}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    return (
        tf.LlavaOnevisionForConditionalGeneration(config),
        tokenizer(["<image>", "<video>"], LLAVA_TEMPLATE),
        preprocessor,
    )


FAMILIES: dict[str, Callable[[], tuple[Any, Any, dict[str, Any]]]] = {
    "qwen2_5_vl": qwen2_5_vl,
    "llava_onevision": llava_onevision,
}


def build(name: str, attn: str = "sdpa", seed: int = 0, dtype: torch.dtype = torch.float64) -> VideoLM:
    """A random model of a family as `load` would return it, with weights large enough that attention discriminates."""
    torch.manual_seed(seed)
    model, words, preprocessor = FAMILIES[name]()
    model = model.to(dtype).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    model.set_attn_implementation(attn)
    adapter = adapter_for(model.config.model_type)
    return VideoLM(model, adapter(model, Pixels.of(preprocessor)), Prompt(words, adapter.video_token), name)


def video(frames: int, seed: int = 0, height: int = 60, width: int = 72) -> torch.Tensor:
    """Random pictures [frames, height, width, 3]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (frames, height, width, 3), generator=generator, dtype=torch.uint8)
