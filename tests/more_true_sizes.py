"""A real checkpoint of each family of `more_families.py`, as `true_sizes.py` has them for the first ones.

GLM-GA's is made up of GLM-4.6V-Flash and its own video processor's numbers: no checkpoint was published.
"""

from __future__ import annotations

from typing import Any

import transformers as tf
from families import FAMILIES
from more_families import MORE
from transformers import CONFIG_MAPPING
from true_sizes import (
    BOTH,
    CLIP336,
    DO,
    HALF,
    INTERN,
    LLAMA7,
    ONE,
    OPENAI,
    QWEN3_IMAGE,
    QWEN3_VIDEO,
    QWEN7,
    QWEN8,
    SIGLIP,
    TWO,
    TrueSize,
)

GLM_PATCHES = dict(patch_size=14, temporal_patch_size=2, merge_size=2, **OPENAI)
GLM_ROPE = dict(rope_type="default", rope_theta=10000.0, mrope_section=[8, 12, 12], partial_rotary_factor=0.5)
GLM9 = dict(hidden_size=4096, intermediate_size=13696, num_hidden_layers=40, num_attention_heads=32)
GLM9 |= dict(num_key_value_heads=2, vocab_size=151552, rope_parameters=GLM_ROPE)
GLM106 = dict(hidden_size=4096, intermediate_size=10944, num_hidden_layers=46, num_attention_heads=96, head_dim=128)
GLM106 |= dict(num_key_value_heads=8, vocab_size=151552, max_position_embeddings=65536, attention_bias=True)
GLM106 |= dict(n_routed_experts=128, n_shared_experts=1, num_experts_per_tok=8, moe_intermediate_size=1408)
GLM106 |= dict(first_k_dense_replace=1, n_group=1, topk_group=1, rope_parameters=GLM_ROPE)
QWEN30 = dict(QWEN8, hidden_size=2048, intermediate_size=6144, num_hidden_layers=48, num_key_value_heads=4)
QWEN30 |= dict(num_experts=128, num_experts_per_tok=8, moe_intermediate_size=768, tie_word_embeddings=False)
LLAMA1 = dict(hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32, head_dim=64)
LLAMA1 |= dict(num_key_value_heads=8, vocab_size=128256, max_position_embeddings=131072, model_type="llama")
LLAMA1 |= dict(tie_word_embeddings=True)
PERCEPTION = dict(DO, size={"height": 448, "width": 448}, resample=3, tile_size=448, max_num_tiles=36, **HALF)
PERCEPTION_VIDEO = dict(PERCEPTION, video_processor_type="PerceptionLMVideoProcessor")
PERCEPTION |= dict(image_processor_type="PerceptionLMImageProcessor")
EDGE = dict(patch_size=16, temporal_patch_size=1, merge_size=2, **HALF)
EDGE_VIDEO = dict(EDGE, size=QWEN3_VIDEO["size"], video_processor_type="Cosmos3EdgeVideoProcessor")
EDGE |= dict(size=QWEN3_IMAGE["size"], image_processor_type="Cosmos3EdgeImageProcessor")
MOLMO = dict(DO, patch_size=14, size={"height": 378, "width": 378}, resample=2, pooling_size=[3, 3], **HALF)
MOLMO_VIDEO = dict(MOLMO, video_processor_type="Molmo2VideoProcessor", max_fps=2, num_frames=64)
MOLMO |= dict(image_processor_type="Molmo2ImageProcessor", max_crops=8, overlap_margins=[4, 4])
MOLMO_ROPE = dict(rope_type="default", rope_theta=1e6)
MOLMO_POOLER = dict(intermediate_size=12288, text_hidden_size=4096)
VIDEO_LLAVA = dict(DO, size={"shortest_edge": 224}, crop_size={"height": 224, "width": 224}, do_center_crop=True)
VIDEO_LLAVA |= dict(resample=3, **OPENAI)
QWEN3_ROPE = dict(rope_type="default", rope_theta=1e6)
OCR = dict(hidden_size=1536, intermediate_size=4608, num_hidden_layers=16, num_attention_heads=16, head_dim=128)
OCR |= dict(num_key_value_heads=8, vocab_size=59392, max_position_embeddings=131072)
OCR |= dict(rope_parameters=dict(GLM_ROPE, mrope_section=[16, 24, 24], partial_rotary_factor=1.0))
LLAMA3 = dict(patch_size=14, temporal_patch_size=1, merge_size=2, **HALF)
LLAMA3 |= dict(size={"shortest_edge": 12544, "longest_edge": 12845056})
LLAMA3_VIDEO = dict(LLAMA3, video_processor_type="VideoLlama3VideoProcessor", use_token_compression=True)


def glm(processor: str, **video: Any) -> dict[str, dict[str, Any]]:
    """Preprocessor files of a GLM, whose text `processor` writes."""
    image = dict(GLM_PATCHES, size={"shortest_edge": 12544, "longest_edge": 9633792}, processor_class=processor)
    image["image_processor_type"] = processor.replace("Processor", "ImageProcessor")
    whole = dict(GLM_PATCHES, size={"shortest_edge": 12544, "longest_edge": 47040000}, processor_class=processor)
    whole["video_processor_type"] = processor.replace("Processor", "VideoProcessor")
    return {ONE: image, TWO: whole | video}


def qwen() -> dict[str, dict[str, Any]]:
    return {ONE: QWEN3_IMAGE, TWO: QWEN3_VIDEO, BOTH: dict(processor_class="Qwen3VLProcessor")}


def _of(name: str, **parts: Any) -> Any:
    return CONFIG_MAPPING[name](**parts)


_MADE: dict[str, Any] = {
    "Qwen3-VL-30B-A3B": lambda: TrueSize(
        tf.Qwen3VLMoeConfig(text_config=QWEN30, vision_config=dict(out_hidden_size=2048)),
        qwen(),
        boundaries=(12, 24, 36),
        tokens=(20, 36),
        kv_bytes=98304,  # 2 * 48 * 4 * 128 * 2
        billions=31.07,
        minute=43200,
        positions=262144,
    ),
    "Cosmos3-Nano": lambda: TrueSize(
        _of("cosmos3_omni", text_config=QWEN8, vision_config=dict(out_hidden_size=4096)),
        qwen(),
        boundaries=(9, 18, 27),
        tokens=(20, 36),
        kv_bytes=147456,
        billions=8.77,
        minute=43200,
        positions=262144,
    ),
    "GLM-4.1V-9B": lambda: TrueSize(
        tf.Glm4vConfig(text_config=dict(GLM9, max_position_embeddings=65536), vision_config={}),
        glm("Glm4vProcessor"),
        boundaries=(10, 20, 30),
        tokens=(20, 36),  # 602112 pixels: 720 / 1.2372 = 581.9 -> 20 * 28, 1280 / 1.2372 = 1034.6 -> 36 * 28
        kv_bytes=40960,  # 2 * 40 * 2 * 128 * 2
        billions=10.29,
        minute=43200,
        positions=65536,
    ),
    "GLM-4.5V": lambda: TrueSize(
        tf.Glm4vMoeConfig(text_config=GLM106, vision_config=dict(intermediate_size=10944)),
        glm("Glm4vProcessor"),
        boundaries=(11, 23, 34),
        tokens=(20, 36),
        kv_bytes=188416,  # 2 * 46 * 8 * 128 * 2
        billions=107.71,
        minute=43200,
        positions=65536,
    ),
    "GLM-4.6V-Flash": lambda: TrueSize(
        _of("glm46v", text_config=dict(GLM9, max_position_embeddings=131072), vision_config={}),
        glm("Glm46VProcessor"),
        boundaries=(10, 20, 30),
        tokens=(20, 36),
        kv_bytes=40960,
        billions=10.29,
        minute=43200,
        positions=131072,
    ),
    "GLM-GA": lambda: TrueSize(
        _of("glmga", text_config=dict(GLM9, max_position_embeddings=131072), vision_config={}),
        glm("Glm46VProcessor", video_processor_type="GlmgaVideoProcessor", patch_expand_factor=2),
        boundaries=(10, 20, 30),
        tokens=(20, 36),  # sides in multiples of 56
        kv_bytes=40960,
        billions=10.29,
        minute=43200,
        positions=131072,
    ),
    "GLM-OCR": lambda: TrueSize(
        _of("glm_ocr", text_config=OCR, vision_config={}),
        glm("Glm46VProcessor"),
        boundaries=(4, 8, 12),
        tokens=(20, 36),
        kv_bytes=65536,  # 2 * 16 * 8 * 128 * 2
        billions=1.11,  # and two tenths in a layer that guesses ahead, which transformers leaves out
        minute=43200,
        positions=131072,
    ),
    "VideoLLaMA3-7B": lambda: TrueSize(
        tf.VideoLlama3Config(
            text_config=dict(QWEN7, model_type="qwen2"),
            vision_config={k: v for k, v in SIGLIP.items() if k != "image_size"} | dict(num_hidden_layers=27),
        ),
        {ONE: dict(LLAMA3, image_processor_type="VideoLlama3ImageProcessor"), TWO: LLAMA3_VIDEO},
        boundaries=(7, 14, 21),
        tokens=(20, 36),
        kv_bytes=57344,
        billions=8.04,
        minute=43200,  # 60 frames
        positions=32768,
    ),
    "PerceptionLM-1B": lambda: TrueSize(  # with CLIP's tower of the same sizes in place of timm's
        tf.PerceptionLMConfig(
            text_config=LLAMA1,
            vision_config=dict(CLIP336, num_hidden_layers=23, image_size=448, model_args=dict(embed_dim=1024)),
            projector_pooling_ratio=2,
        ),
        {ONE: PERCEPTION, TWO: PERCEPTION_VIDEO, BOTH: dict(patch_size=14, pooling_ratio=2)},
        boundaries=(4, 8, 12),
        tokens=(16, 16),  # 448 / 14 = 32, pooled two by two
        kv_bytes=32768,  # 2 * 16 * 8 * 64 * 2
        billions=1.53,
        minute=15360,
        positions=131072,
    ),
    "Cosmos3-Edge": lambda: TrueSize(
        _of("cosmos3_edge", text_config={}, vision_config={}),
        {ONE: EDGE, TWO: EDGE_VIDEO, BOTH: dict(processor_class="Cosmos3EdgeProcessor")},
        boundaries=(7, 14, 21),
        tokens=(20, 36),
        kv_bytes=114688,  # 2 * 28 * 8 * 128 * 2
        billions=2.44,
        minute=86400,  # 120 frames
        positions=131072,
    ),
    "Molmo2-8B": lambda: TrueSize(
        _of("molmo2", text_config=dict(rope_parameters=MOLMO_ROPE), vision_config={}, adapter_config=MOLMO_POOLER),
        {ONE: MOLMO, TWO: MOLMO_VIDEO, BOTH: dict(processor_class="Molmo2Processor")},
        boundaries=(9, 18, 27),
        tokens=(9, 9),  # 378 / 14 = 27, pooled three by three
        kv_bytes=147456,
        billions=8.66,
        minute=9720,  # 120 frames
        positions=36864,
    ),
    "Video-LLaVA-7B": lambda: TrueSize(
        tf.VideoLlavaConfig(text_config=dict(LLAMA7, vocab_size=32064), vision_config=dict(CLIP336, image_size=224)),
        {
            ONE: dict(VIDEO_LLAVA, image_processor_type="VideoLlavaImageProcessor"),
            TWO: dict(VIDEO_LLAVA, video_processor_type="VideoLlavaVideoProcessor"),
            BOTH: dict(patch_size=14, vision_feature_select_strategy="default"),
        },
        boundaries=(8, 16, 24),
        tokens=(1, 257),  # 224 / 14 = 16, and one for the whole
        kv_bytes=524288,
        billions=7.37,
        minute=15420,  # 60 frames
        positions=4096,
    ),
    "InternVL3.5-8B": lambda: TrueSize(
        tf.InternVLConfig(
            text_config=dict(QWEN8, model_type="qwen3", max_position_embeddings=40960, rope_parameters=QWEN3_ROPE),
            vision_config=dict(image_size=[448, 448], patch_size=[14, 14]),
            tie_word_embeddings=False,
        ),
        {ONE: INTERN, TWO: INTERN, BOTH: dict(image_seq_length=256)},
        boundaries=(9, 18, 27),
        tokens=(16, 16),
        kv_bytes=147456,
        billions=8.53,
        minute=15360,
        positions=40960,
    ),
}
_TYPES = ("qwen3_vl_moe", "cosmos3_omni", "glm4v", "glm4v_moe", "glm46v", "glmga", "glm_ocr")
_TYPES += ("video_llama_3", "perception_lm", "cosmos3_edge", "molmo2", "video_llava", "internvl")
MORE_SIZES = {name: made() for (name, made), kind in zip(_MADE.items(), _TYPES, strict=True) if kind in FAMILIES | MORE}
