"""Tiny random models of the families whose decoders are plain full attention as well, by model_type.

They run the core proofs (`test_more_families.py`); what `families.py` has runs all of them. What the installed
transformers does not have yet is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import transformers as tf
from families import (
    LLAVA_TEMPLATE,
    QWEN_IDS,
    QWEN_PIXELS,
    QWEN_TEMPLATE,
    QWEN_TEXT,
    QWEN_TOKENS,
    QWEN_VISION,
    SIGLIP,
    TEXT,
    TOWER,
    Built,
    internvl,
    tokenizer,
)
from transformers import CONFIG_MAPPING

MOLMO_TOKENS = ["<im_patch>", "<|video|>", "<frame_start>", "<frame_end>", "<|image|>"]
EXPERTS = dict(moe_intermediate_size=32, num_experts_per_tok=2)
GLM_TOKENS = ["<|image|>", "<|video|>", "<|begin_of_image|>", "<|end_of_image|>"]
GLM_TOKENS += ["<|begin_of_video|>", "<|end_of_video|>"]
GLM_IDS = dict(image_token_id=190, video_token_id=191, image_start_token_id=192, image_end_token_id=193)
GLM_IDS |= dict(video_start_token_id=194, video_end_token_id=195)
GLM_TEMPLATE = QWEN_TEMPLATE.replace(
    "<|vision_start|><|video_pad|><|vision_end|>", "<|begin_of_video|><|video|><|end_of_video|>"
)
GLM_ROPE = dict(rope_type="default", rope_theta=10000.0, mrope_section=[1, 1, 2], partial_rotary_factor=0.5)
GLM_TEXT = dict(QWEN_TEXT, rope_parameters=GLM_ROPE)
GLM_VISION = dict(QWEN_VISION, depth=2, hidden_size=32, intermediate_size=96, out_hidden_size=64, image_size=64)


def modelled(config: Any) -> Any:
    """The model that `AutoModelForImageTextToText` makes of a config."""
    model = tf.AutoModelForImageTextToText.from_config(config)
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("eager")  # torch's grouped product knows no float64
    return model


def qwen3_vl_moe() -> Built:
    vision = dict(QWEN_VISION, depth=4, hidden_size=32, intermediate_size=64, out_hidden_size=64)
    vision |= dict(num_position_embeddings=64, deepstack_visual_indexes=[1, 2, 3])
    text = dict(QWEN_TEXT, head_dim=16, num_experts=4, **EXPERTS)
    config = tf.Qwen3VLMoeConfig(text_config=text, vision_config=vision, **QWEN_IDS)
    return modelled(config), tokenizer(QWEN_TOKENS, QWEN_TEMPLATE), QWEN_PIXELS | SIGLIP


def cosmos3_omni() -> Built:
    vision = dict(QWEN_VISION, depth=3, hidden_size=32, intermediate_size=64, out_hidden_size=64)
    vision |= dict(num_position_embeddings=64, deepstack_visual_indexes=[0, 1, 2])
    config = CONFIG_MAPPING["cosmos3_omni"](text_config=dict(QWEN_TEXT, head_dim=16), vision_config=vision, **QWEN_IDS)
    return modelled(config), tokenizer(QWEN_TOKENS, QWEN_TEMPLATE), QWEN_PIXELS | SIGLIP


def _glm(name: str, text: dict[str, Any], **vision: Any) -> Built:
    config = CONFIG_MAPPING[name](text_config=text, vision_config=GLM_VISION | vision, **GLM_IDS)
    return modelled(config), tokenizer(GLM_TOKENS, GLM_TEMPLATE), dict(QWEN_PIXELS)


def glm4v() -> Built:
    return _glm("glm4v", GLM_TEXT)


def glm4v_moe() -> Built:
    text = dict(GLM_TEXT, head_dim=16, n_routed_experts=4, n_shared_experts=1, first_k_dense_replace=1, **EXPERTS)
    return _glm("glm4v_moe", text)


def glm46v() -> Built:
    return _glm("glm46v", GLM_TEXT)


def glmga() -> Built:
    return _glm("glmga", GLM_TEXT)


def glm_ocr() -> Built:
    return _glm("glm_ocr", dict(GLM_TEXT, head_dim=16), intermediate_size=48)


def video_llama_3() -> Built:
    vision, text = dict(TOWER, patch_size=8), dict(TEXT, model_type="qwen2")
    config = tf.VideoLlama3Config(text_config=text, vision_config=vision, image_token_id=190, video_token_id=191)
    words = tokenizer(QWEN_TOKENS, LLAVA_TEMPLATE.replace("<video>", "<|video_pad|>"))
    return modelled(config), words, QWEN_PIXELS | SIGLIP


def perception_lm() -> Built:
    """CLIP's tower in place of one of timm, which is not installed here."""
    vision = dict(TOWER, model_type="clip_vision_model", patch_size=8, image_size=64, projection_dim=32)
    vision |= dict(model_args=dict(embed_dim=32, img_size=[64, 64], ref_feat_shape=[8, 8]))
    text, ids = dict(TEXT, model_type="llama"), dict(image_token_id=190, video_token_id=191)
    config = tf.PerceptionLMConfig(vision_config=vision, text_config=text, projector_pooling_ratio=2, **ids)
    words = tokenizer(["<|image|>", "<|video|>"], LLAVA_TEMPLATE.replace("<video>", "<|video|>"))
    return modelled(config), words, dict(size={"height": 64, "width": 64}, **SIGLIP)


def cosmos3_edge() -> Built:
    vision = dict(TOWER, patch_size=8, num_patches=64)
    config = CONFIG_MAPPING["cosmos3_edge"](
        text_config=dict(QWEN_TEXT, head_dim=16), vision_config=vision, projector_hidden_size=80, **QWEN_IDS
    )
    return modelled(config), tokenizer(QWEN_TOKENS, QWEN_TEMPLATE), QWEN_PIXELS | SIGLIP


def molmo2() -> Built:
    """Pooled 3 x 3 from 8 x 8 patches: tokens at the border have fewer."""
    vision = dict(TOWER, num_key_value_heads=2, head_dim=16, patch_size=8, image_size=[64, 64])
    pooler = dict(vision_feature_layer=[1, 0], hidden_size=32, num_attention_heads=2, num_key_value_heads=2)
    pooler |= dict(head_dim=16, intermediate_size=48, text_hidden_size=64)
    parts = dict(vision_config=vision, adapter_config=pooler, text_config=dict(TEXT, head_dim=16))
    config = CONFIG_MAPPING["molmo2"](**parts, image_patch_id=190, frame_start_token_id=192, frame_end_token_id=193)
    words = tokenizer(MOLMO_TOKENS, LLAVA_TEMPLATE.replace("<video>", "<|video|>"))
    words.add_special_tokens({"eos_token": "<im_end>"})  # with which the processor begins every prompt
    return modelled(config), words, dict(size={"height": 64, "width": 64}, resample=2, **SIGLIP)


def video_llava() -> Built:
    vision = dict(TOWER, model_type="clip_vision_model", patch_size=16, image_size=48, projection_dim=32)
    parts = dict(vision_config=vision, text_config=dict(TEXT, model_type="llama"))
    config = tf.VideoLlavaConfig(**parts, image_token_index=190, video_token_index=191)
    pixels = dict(size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48})
    return modelled(config), tokenizer(["<image>", "<video>"], LLAVA_TEMPLATE), pixels


def internvl_qwen3() -> Built:
    """InternVL3.5, whose queries and keys are normed."""
    return _internvl(dict(TEXT, model_type="qwen3", head_dim=24))


def internvl_qwen3_moe() -> Built:
    """InternVL3.5-30B-A3B."""
    return _internvl(dict(TEXT, model_type="qwen3_moe", head_dim=24, num_experts=4, **EXPERTS))


def _internvl(text: dict[str, Any]) -> Built:
    first, words, pixels = internvl()
    config = tf.InternVLConfig(**first.config.to_dict() | dict(text_config=text))
    return modelled(config), words, pixels


BUILDERS = (qwen3_vl_moe, cosmos3_omni, cosmos3_edge, glm4v, glm4v_moe, glm46v, glmga, glm_ocr)
BUILDERS += (video_llama_3, perception_lm, molmo2, video_llava)


def _known(name: str) -> bool:
    """Whether this transformers has the family, and lets PerceptionLM have another tower than timm's."""
    if name == "perception_lm":
        vision = tf.PerceptionLMConfig(vision_config=dict(model_type="clip_vision_model")).vision_config
        return isinstance(vision, tf.CLIPVisionConfig)
    return name in CONFIG_MAPPING


MORE: dict[str, Callable[[], Built]] = {made.__name__: made for made in BUILDERS if _known(made.__name__)}
OTHERS: dict[str, Callable[[], Built]] = {made.__name__: made for made in (internvl_qwen3, internvl_qwen3_moe)}
"""Known families around another decoder."""
