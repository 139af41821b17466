"""Tiny random models of every supported family, built in code, with tokenizers and chat templates of their kind."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
import transformers as tf
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from pdrop_video import VideoLM
from pdrop_video.models import Pixels, adapter_for

Built = tuple[Any, Any, dict[str, Any]]
"""A model, its tokenizer, the numbers of its preprocessor file."""

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
GLUE = ["User", "Assistant", ":", "<", "seconds>", "Frame", "from", "video.", *map(str, range(10))]
QWEN_TEMPLATE = (
    "{% for m in messages %}<im_start> {{ m['role'] }} {% for c in m['content'] %}{% if c['type'] == 'video' %}"
    "<|vision_start|><|video_pad|><|vision_end|>{% else %}{{ c['text'] }}{% endif %}{% endfor %} <im_end> {% endfor %}"
    "{% if add_generation_prompt %}<im_start> assistant {% endif %}"
)
LLAVA_TEMPLATE = (  # InternVL writes the same, but a line break behind its video
    "{% for m in messages %}<im_start> {{ m['role'] }} {% for c in m['content'] %}{% if c['type'] == 'video' %}"
    "<video>{% else %} {{ c['text'] }}{% endif %}{% endfor %} <im_end> {% endfor %}"
    "{% if add_generation_prompt %}<im_start> assistant {% endif %}"
)


def tokenizer(specials: list[str], template: str) -> Any:
    """Words separated by spaces, digits by themselves; `specials` get the ids 190, 191, ..."""
    words = ["<unk>", *WORDS, *GLUE]
    fill = [f"<{chr(97 + i // 26)}{chr(97 + i % 26)}>" for i in range(190 - len(words))]
    vocabulary = {word: i for i, word in enumerate([*words, *fill, *specials])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    digits = pre_tokenizers.Split(Regex(r"\d|:"), "isolated")
    raw.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), digits])
    fast = tf.PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>", extra_special_tokens=specials)
    fast.chat_template = template
    return fast


QWEN_TOKENS = ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"]
QWEN_IDS = dict(image_token_id=190, video_token_id=191, vision_start_token_id=192, vision_end_token_id=193)
QWEN_TEXT = dict(TEXT, rope_parameters=dict(rope_type="default", rope_theta=10000.0, mrope_section=[2, 3, 3]))
QWEN_VISION = dict(num_heads=2, patch_size=8, spatial_merge_size=2, temporal_patch_size=2)
QWEN_PIXELS = dict(size={"shortest_edge": 48 * 64, "longest_edge": 48 * 64})
SIGLIP = dict(image_mean=[0.5] * 3, image_std=[0.5] * 3)
TOWER = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)


def qwen2_vl() -> Built:
    vision = dict(QWEN_VISION, depth=2, embed_dim=32, hidden_size=QWEN_TEXT["hidden_size"], mlp_ratio=2)
    config = tf.Qwen2VLConfig(text_config=QWEN_TEXT, vision_config=vision, **QWEN_IDS)
    return tf.Qwen2VLForConditionalGeneration(config), tokenizer(QWEN_TOKENS, QWEN_TEMPLATE), QWEN_PIXELS


def qwen2_5_vl() -> Built:
    vision = dict(QWEN_VISION, depth=2, hidden_size=32, intermediate_size=64, window_size=32)
    vision |= dict(out_hidden_size=QWEN_TEXT["hidden_size"], fullatt_block_indexes=[1], tokens_per_second=2)
    config = tf.Qwen2_5_VLConfig(text_config=QWEN_TEXT, vision_config=vision, **QWEN_IDS)
    return tf.Qwen2_5_VLForConditionalGeneration(config), tokenizer(QWEN_TOKENS, QWEN_TEMPLATE), QWEN_PIXELS


def qwen3_vl() -> Built:
    vision = dict(QWEN_VISION, depth=4, hidden_size=32, intermediate_size=64, out_hidden_size=QWEN_TEXT["hidden_size"])
    vision |= dict(num_position_embeddings=64, deepstack_visual_indexes=[1, 2, 3])
    config = tf.Qwen3VLConfig(text_config=dict(QWEN_TEXT, head_dim=16), vision_config=vision, **QWEN_IDS)
    words = tokenizer(QWEN_TOKENS, QWEN_TEMPLATE)
    return tf.Qwen3VLForConditionalGeneration(config), words, QWEN_PIXELS | SIGLIP


def llava_onevision() -> Built:
    vision = dict(TOWER, model_type="siglip_vision_model", patch_size=8, image_size=56, vision_use_head=False)
    text = dict(TEXT, model_type="qwen2")
    config = tf.LlavaOnevisionConfig(
        vision_config=vision, text_config=text, image_token_index=190, video_token_index=191
    )
    model, words = tf.LlavaOnevisionForConditionalGeneration(config), tokenizer(["<image>", "<video>"], LLAVA_TEMPLATE)
    return model, words, dict(size={"height": 56, "width": 56}, **SIGLIP)


def llava_next_video() -> Built:
    vision = dict(TOWER, model_type="clip_vision_model", patch_size=8, image_size=64, projection_dim=32)
    text = dict(TEXT, model_type="llama")
    config = tf.LlavaNextVideoConfig(
        vision_config=vision, text_config=text, image_token_index=190, video_token_index=191
    )
    words = tokenizer(["<image>", "<video>"], LLAVA_TEMPLATE)
    pixels = dict(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64})
    return tf.LlavaNextVideoForConditionalGeneration(config), words, pixels


def internvl() -> Built:
    vision, text = dict(TOWER, image_size=[64, 64], patch_size=[8, 8]), dict(TEXT, model_type="qwen2")
    config = tf.InternVLConfig(vision_config=vision, text_config=text, image_token_id=190, tie_word_embeddings=False)
    words = tokenizer(["<IMG_CONTEXT>", "<video>", "<img>", "</img>"], LLAVA_TEMPLATE.replace("<video>", "<video>\n"))
    return tf.InternVLForConditionalGeneration(config), words, dict(size={"height": 64, "width": 64})


def smolvlm() -> Built:
    vision, text = dict(TOWER, image_size=64, patch_size=8), dict(TEXT, model_type="llama")
    config = tf.SmolVLMConfig(
        vision_config=vision, text_config=text, image_token_id=190, scale_factor=2, pad_token_id=None
    )
    specials = ["<image>", "<fake_token_around_image>", "<global-img>", "<|im_start|>", "<end_of_utterance>"]
    sizes = dict(max_image_size={"longest_edge": 64}, video_sampling={"video_size": {"longest_edge": 72}})
    return (
        tf.SmolVLMForConditionalGeneration(config),
        tokenizer(specials, LLAVA_TEMPLATE),
        dict(sizes, resample=1, **SIGLIP),
    )


FAMILIES: dict[str, Callable[[], Built]] = {
    family.__name__: family
    for family in (qwen2_vl, qwen2_5_vl, qwen3_vl, llava_onevision, llava_next_video, internvl, smolvlm)
}


def build(
    name: str, attn: str = "sdpa", seed: int = 0, dtype: torch.dtype = torch.float64, device: str = "cpu"
) -> VideoLM:
    """A random model of a family as `load` would return it, with weights large enough that attention discriminates."""
    from more_families import MORE, OTHERS  # which stand on this file

    torch.manual_seed(seed)
    model, words, preprocessor = (FAMILIES | MORE | OTHERS)[name]()
    model = model.to(dtype).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    (model if model.device.type == "meta" else model.to(device)).set_attn_implementation(attn)
    adapter = adapter_for(model.config.model_type)
    return VideoLM(model, adapter(model, Pixels.of(preprocessor), words), adapter.prompt(words), name)


def video(frames: int, seed: int = 0, height: int = 60, width: int = 72) -> torch.Tensor:
    """Random pictures [frames, height, width, 3]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (frames, height, width, 3), generator=generator, dtype=torch.uint8)


def budget(lm: VideoLM, steps: float | None) -> int | None:
    """Tokens of prompt, probe and so many steps of `video`; None for no limit."""
    if steps is None:
        return None
    adapter = lm.adapter
    # not the first step: InternVL's others have a line break more
    step = adapter.look(video(adapter.frames_per_step), (60.0, 60.5)[: adapter.frames_per_step], first=9)
    prompt = len(lm.prompt.before()) + len(adapter.closing()) + len(lm.prompt.after(""))
    return prompt + math.ceil(steps * len(step))


def cases(*axes: Iterable[Any], fast: Callable[..., bool]) -> list[Any]:
    """The product of `axes` as pytest parameters; slow where `fast`, which gets the places on the axes, is false."""
    import pytest  # only here: the models are built where there are no tests, too

    made = []
    for places in itertools.product(*(list(enumerate(axis)) for axis in axes)):
        number, value = zip(*places, strict=True)
        made.append(pytest.param(*value, marks=[] if fast(*number) else pytest.mark.slow))
    return made
