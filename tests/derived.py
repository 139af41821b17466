"""Tiny random checkpoints with their processors' own files, as `save_pretrained` writes them; needs torchvision."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as tf
from families import (
    FAMILIES,
    LLAVA_TEMPLATE,
    QWEN_IDS,
    QWEN_TEMPLATE,
    QWEN_TEXT,
    QWEN_TOKENS,
    QWEN_VISION,
    SIGLIP,
    TEXT,
    TOWER,
    tokenizer,
)
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

PLAIN = ("unk_token", "eos_token", "pad_token")
Parts = tuple[Any, Any]
"""A model and its processor."""
ROOM = dict(size={"shortest_edge": 256, "longest_edge": 2**20})  # for a whole video, or for a frame
PATCHES = dict(patch_size=8, merge_size=2, temporal_patch_size=2, **ROOM)


def of(module: str, name: str) -> Any:
    """A class of transformers' modules for a family."""
    for kind in ("processing", "video_processing", "image_processing"):
        try:
            return getattr(importlib.import_module(f"transformers.models.{module}.{kind}_{module}"), name)
        except (ImportError, AttributeError):
            continue
    raise AssertionError(f"{name} is not in transformers' {module}")


def pictures() -> Any:
    return of("qwen2_vl", "Qwen2VLImageProcessor")(patch_size=8, merge_size=2)


def qwen2_vl() -> Parts:
    model, words, _ = FAMILIES["qwen2_vl"]()
    videos = of("qwen2_vl", "Qwen2VLVideoProcessor")(**PATCHES)
    return model, of("qwen2_vl", "Qwen2VLProcessor")(pictures(), words, videos)


def qwen2_5_vl() -> Parts:
    model, words, _ = FAMILIES["qwen2_5_vl"]()
    videos = of("qwen2_vl", "Qwen2VLVideoProcessor")(**PATCHES)
    return model, of("qwen2_5_vl", "Qwen2_5_VLProcessor")(pictures(), words, videos)


def qwen3_vl() -> Parts:
    model, words, _ = FAMILIES["qwen3_vl"]()
    videos = of("qwen3_vl", "Qwen3VLVideoProcessor")(**PATCHES, **SIGLIP)
    return model, of("qwen3_vl", "Qwen3VLProcessor")(pictures(), words, videos)


def llava_onevision() -> Parts:
    model, words, pixels = FAMILIES["llava_onevision"]()
    videos = of("llava_onevision", "LlavaOnevisionVideoProcessor")(**pixels)
    images = of("llava_onevision", "LlavaOnevisionImageProcessor")(**pixels)
    kind = of("llava_onevision", "LlavaOnevisionProcessor")
    return model, kind(images, words, videos, num_image_tokens=49, vision_feature_select_strategy="full")


def llava_next_video() -> Parts:
    model, words, pixels = FAMILIES["llava_next_video"]()
    videos = of("llava_next_video", "LlavaNextVideoVideoProcessor")(**pixels)
    images = of("llava_next", "LlavaNextImageProcessor")(**pixels)
    kind = of("llava_next_video", "LlavaNextVideoProcessor")
    return model, kind(videos, images, words, patch_size=8, vision_feature_select_strategy="default")


def internvl() -> Parts:
    model, words, pixels = FAMILIES["internvl"]()
    named = dict(start_image="<img>", end_image="</img>", context_image="<IMG_CONTEXT>", video="<video>")
    name(words, **named)
    videos = of("internvl", "InternVLVideoProcessor")(**pixels)
    images = of("got_ocr2", "GotOcr2ImageProcessor")(**pixels)
    return model, of("internvl", "InternVLProcessor")(images, words, videos, image_seq_length=16)


def smolvlm() -> Parts:
    model, words, pixels = FAMILIES["smolvlm"]()
    name(words, image="<image>", fake_image="<fake_token_around_image>", global_image="<global-img>")
    name(words, end_of_utterance="<end_of_utterance>")
    pixels["video_sampling"] |= dict(fps=1, max_frames=64)
    videos = of("smolvlm", "SmolVLMVideoProcessor")(**pixels)
    images = of("smolvlm", "SmolVLMImageProcessor")(**{k: v for k, v in pixels.items() if k != "video_sampling"})
    return model, of("smolvlm", "SmolVLMProcessor")(images, words, videos, image_seq_len=16)


# -- families that have no file of their own --------------------------------------------------------------------------

MROPE = dict(rope_type="default", rope_theta=10000.0, mrope_section=[2, 3, 3])
GLM_TEMPLATE = QWEN_TEMPLATE.replace(
    "<|vision_start|><|video_pad|><|vision_end|>", "<|begin_of_video|><|video|><|end_of_video|>"
)


def cosmos3_omni() -> Parts:
    model, processor = qwen3_vl()
    both = {part: getattr(model.config, part).to_dict() for part in ("text_config", "vision_config")}
    return tf.Cosmos3OmniForConditionalGeneration(tf.Cosmos3OmniConfig(**both, **QWEN_IDS)), processor


def cosmos3_edge() -> Parts:
    vision = dict(TOWER, patch_size=8, num_patches=64, spatial_merge_size=2)
    ids = dict(QWEN_IDS)
    text = dict(QWEN_TEXT, head_dim=16)
    config = tf.Cosmos3EdgeConfig(text_config=text, vision_config=vision, projector_hidden_size=64, **ids)
    model = tf.Cosmos3EdgeForConditionalGeneration(config)
    videos = of("cosmos3_edge", "Cosmos3EdgeVideoProcessor")(patch_size=8, merge_size=2, **ROOM, **SIGLIP)
    words = tokenizer(QWEN_TOKENS, QWEN_TEMPLATE)
    return model, of("cosmos3_edge", "Cosmos3EdgeProcessor")(pictures(), words, videos)


def cohere_compass() -> Parts:
    vision = dict(QWEN_VISION, depth=4, hidden_size=32, intermediate_size=64, out_hidden_size=TEXT["hidden_size"])
    vision |= dict(num_position_embeddings=64, deepstack_visual_indexes=[1, 2, 3])
    kinds = ["sliding_attention", "sliding_attention", "full_attention"] * 2
    text = dict(TEXT, logit_scale=0.5, layer_types=kinds, sliding_window=24)
    text |= dict(rope_parameters={"sliding_attention": MROPE, "full_attention": None})
    config = tf.CohereCompassConfig(text_config=text, vision_config=vision, **QWEN_IDS)
    tokens = ["<|IMAGE_PAD|>", "<|VIDEO_PAD|>", "<|VISION_START|>", "<|VISION_END|>"]
    words = tokenizer(tokens, QWEN_TEMPLATE.replace("<|video_pad|>", "<|VIDEO_PAD|>").replace("vision_", "VISION_"))
    words.chat_template = words.chat_template.replace("_start", "_START").replace("_end", "_END")
    words.chat_template = words.chat_template.replace("im_START", "im_start").replace("im_END", "im_end")
    videos = of("cohere_compass", "CohereCompassVideoProcessor")(**PATCHES)
    return tf.CohereCompassForConditionalGeneration(config), of("cohere_compass", "CohereCompassProcessor")(
        pictures(), words, videos
    )


def hyperclovax_vision_v2() -> Parts:
    vision = dict(QWEN_VISION, model_type="qwen2_5_vl_vision", depth=2, hidden_size=32, intermediate_size=64)
    vision |= dict(window_size=32, out_hidden_size=TEXT["hidden_size"], fullatt_block_indexes=[1])
    text = dict(TEXT, model_type="hyperclovax")
    config = tf.HyperCLOVAXVisionV2Config(
        text_config=text, vision_config=vision, image_token_id=190, video_token_id=191, tie_word_embeddings=False
    )
    videos = of("qwen2_vl", "Qwen2VLVideoProcessor")(**PATCHES)
    words = tokenizer(QWEN_TOKENS, QWEN_TEMPLATE)
    return tf.HyperCLOVAXVisionV2ForConditionalGeneration(config), of(
        "hyperclovax_vision_v2", "HyperCLOVAXVisionV2Processor"
    )(pictures(), words, videos)


def ernie4_5_vl_moe() -> Parts:
    vision = dict(depth=2, hidden_size=32, num_heads=2, patch_size=8, intermediate_size=64)
    text = dict(TEXT, moe_intermediate_size=[32, 32], moe_num_experts=4, moe_k=2, moe_num_shared_experts=1)
    text |= dict(rope_parameters=dict(rope_type="default", rope_theta=10000.0, mrope_section=[3, 3, 2]))
    ids = dict(image_token_id=190, video_token_id=191, image_start_token_id=192, image_end_token_id=193)
    ids |= dict(video_start_token_id=194, video_end_token_id=195)
    config = tf.Ernie4_5_VLMoeConfig(text_config=text, vision_config=vision, **ids)
    tokens = ["<|image_pad|>", "<|video_pad|>", "<|is|>", "<|ie|>", "<|vs|>", "<|ve|>"]
    words = tokenizer(tokens, QWEN_TEMPLATE.replace("<|vision_start|>", "<|vs|>").replace("<|vision_end|>", "<|ve|>"))
    name(words, image="<|image_pad|>", video="<|video_pad|>", image_start="<|is|>", image_end="<|ie|>")
    name(words, video_start="<|vs|>", video_end="<|ve|>")
    videos = of("ernie4_5_vl_moe", "Ernie4_5_VLMoeVideoProcessor")(
        patch_size=8, merge_size=2, draw_on_frames=False, **ROOM
    )
    return tf.Ernie4_5_VLMoeForConditionalGeneration(config), of("ernie4_5_vl_moe", "Ernie4_5_VLMoeProcessor")(
        pictures(), words, videos
    )


def video_llava() -> Parts:
    vision, text = (
        dict(TOWER, model_type="clip_vision_model", patch_size=8, image_size=64),
        dict(TEXT, model_type="llama"),
    )
    config = tf.VideoLlavaConfig(
        vision_config=vision | dict(projection_dim=32), text_config=text, image_token_index=190, video_token_index=191
    )
    words = tokenizer(["<image>", "<video>"], LLAVA_TEMPLATE)
    pixels = dict(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64})
    videos = of("video_llava", "VideoLlavaVideoProcessor")(**pixels)
    images = of("video_llava", "VideoLlavaImageProcessor")(**pixels)
    return tf.VideoLlavaForConditionalGeneration(config), of("video_llava", "VideoLlavaProcessor")(
        images, videos, words, patch_size=8
    )


def glm4v() -> Parts:
    vision = dict(depth=2, hidden_size=32, num_heads=2, patch_size=8, image_size=64, intermediate_size=64)
    vision |= dict(out_hidden_size=TEXT["hidden_size"], spatial_merge_size=2, temporal_patch_size=2)
    text = dict(TEXT, pad_token_id=None, rope_parameters=dict(MROPE, partial_rotary_factor=1.0))
    tokens = [
        "<|image|>",
        "<|video|>",
        "<|begin_of_image|>",
        "<|end_of_image|>",
        "<|begin_of_video|>",
        "<|end_of_video|>",
    ]
    names = ("image", "video", "image_start", "image_end", "video_start", "video_end")
    config = tf.Glm4vConfig(
        text_config=text, vision_config=vision, **{f"{name}_token_id": 190 + i for i, name in enumerate(names)}
    )
    videos = of("glm4v", "Glm4vVideoProcessor")(**PATCHES)
    words = tokenizer(tokens, GLM_TEMPLATE)
    return tf.Glm4vForConditionalGeneration(config), of("glm4v", "Glm4vProcessor")(pictures(), words, videos)


def video_llama_3() -> Parts:
    vision, text = dict(TOWER, patch_size=8), dict(TEXT, model_type="qwen2")
    config = tf.VideoLlama3Config(text_config=text, vision_config=vision, image_token_id=190, video_token_id=191)
    videos = of("video_llama_3", "VideoLlama3VideoProcessor")(patch_size=8, use_token_compression=False, **ROOM)
    images = of("video_llama_3", "VideoLlama3ImageProcessor")(patch_size=8)
    words = tokenizer(QWEN_TOKENS, QWEN_TEMPLATE)
    return tf.VideoLlama3ForConditionalGeneration(config), of("video_llama_3", "VideoLlama3Processor")(
        images, words, videos
    )


PARTS: dict[str, Callable[[], Parts]] = {
    make.__name__: make
    for make in (
        *(qwen2_vl, qwen2_5_vl, qwen3_vl, llava_onevision, llava_next_video, internvl, smolvlm),
        *(cosmos3_omni, cosmos3_edge, cohere_compass, hyperclovax_vision_v2, ernie4_5_vl_moe, video_llava, glm4v),
        video_llama_3,
    )
}


def name(words: Any, **tokens: str) -> None:
    """Give a tokenizer named tokens, as the families' own have them."""
    words._set_model_specific_special_tokens(special_tokens={f"{each}_token": token for each, token in tokens.items()})


def spelled(words: Any) -> Any:
    """A tokenizer that reads every character, line breaks and commas too, with the special tokens of another one."""
    specials = [token for token, number in sorted(words.get_vocab().items(), key=lambda each: each[1]) if number >= 190]
    letters = ["<unk>", "\n", *map(chr, range(32, 127))]
    fill = [f"<{number:03}>" for number in range(190 - len(letters))]
    vocabulary = {token: number for number, token in enumerate([*letters, *fill, *specials])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    raw.decoder = decoders.Fuse()
    named = {key: str(getattr(words, key)) for key in ("eos_token", "pad_token") if getattr(words, key)}
    fast = tf.PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>", extra_special_tokens=specials, **named)
    fast.chat_template = words.chat_template
    others = {key: token for key, token in words.special_tokens_map.items() if isinstance(token, str)}
    name(
        fast,
        **{
            key.removesuffix("_token"): token
            for key, token in others.items()
            if key not in fast.SPECIAL_TOKENS_ATTRIBUTES
        },
    )
    return fast


def parts(family: str, seed: int = 0, dtype: torch.dtype = torch.float64) -> Parts:
    """A random model whose attention discriminates, and its processor with the tokenizer's template."""
    torch.manual_seed(seed)
    model, processor = PARTS[family]()
    model = model.to(dtype).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    processor.tokenizer = spelled(processor.tokenizer)
    processor.chat_template = processor.tokenizer.chat_template
    return model, processor


def saved(family: str, folder: Path, seed: int = 0) -> Path:
    """The checkpoint's folder."""
    model, processor = parts(family, seed)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    words = json.loads(file.read_text())
    if named := {key: token for key, token in words.items() if key.endswith("_token") and key not in PLAIN}:
        file.write_text(json.dumps(words | {"extra_special_tokens": named}))  # as the families' own files have them
    return folder
