"""A real checkpoint of every family in `hybrids`, as `true_sizes` has them for the rest."""

from __future__ import annotations

from typing import Any

import transformers as tf
from true_sizes import BOTH, HALF, ONE, QWEN3_IMAGE, QWEN3_VIDEO, QWEN_PATCHES, TWO, TrueSize

PARTIAL = dict(rope_type="default", rope_theta=1e7, mrope_section=[11, 11, 10], mrope_interleaved=True)
QWEN3_5 = dict(max_position_embeddings=262144, rope_parameters=PARTIAL | dict(partial_rotary_factor=0.25))
QWEN9 = dict(QWEN3_5, hidden_size=4096, intermediate_size=12288, num_hidden_layers=32, num_attention_heads=16)
QWEN35 = dict(QWEN3_5, hidden_size=2048, num_hidden_layers=40, num_attention_heads=16, num_key_value_heads=2)
QWEN35 |= dict(num_experts=256, num_experts_per_tok=8, moe_intermediate_size=512, shared_expert_intermediate_size=512)
QWEN1 = dict(QWEN3_5, hidden_size=1024, intermediate_size=3584, num_hidden_layers=24, num_attention_heads=8)
QWEN1 |= dict(num_key_value_heads=2, linear_num_value_heads=16, tie_word_embeddings=True, model_type="qwen3_5_text")
SIGLIP2 = dict(hidden_size=1152, intermediate_size=4304, num_hidden_layers=27, num_attention_heads=16)
SIGLIP2 |= dict(image_size=980, patch_size=14)
MINICPM = dict(HALF, scale_resolution=448, patch_size=14, max_slice_nums=9, slice_mode=True, use_image_id=True)
MINICPM |= dict(image_processor_type="MiniCPMV4_6ImageProcessor")
MINICPM_IDS = dict(image_token_id=248056, video_token_id=248057, image_size=1120, tie_word_embeddings=True)

E4B = dict(hidden_size=2560, intermediate_size=10240, num_hidden_layers=42, num_attention_heads=8)
E4B |= dict(num_key_value_heads=2, num_kv_shared_layers=18, final_logit_softcapping=30.0, sliding_window=512)
A4B = dict(hidden_size=2816, intermediate_size=2112, num_hidden_layers=30, num_attention_heads=16)
A4B |= dict(num_key_value_heads=8, num_global_key_value_heads=2, attention_k_eq_v=True, enable_moe_block=True)
A4B |= dict(num_experts=128, top_k_experts=8, moe_intermediate_size=704, hidden_size_per_layer_input=0)
A4B |= dict(use_bidirectional_attention="vision", sliding_window=1024, final_logit_softcapping=30.0)
A4B |= dict(max_position_embeddings=262144)
G12B = dict(hidden_size=3840, intermediate_size=15360, num_hidden_layers=48, num_attention_heads=16)
G12B |= dict(num_key_value_heads=8, num_global_key_value_heads=1, attention_k_eq_v=True, final_logit_softcapping=30.0)
GEMMA = dict(do_convert_rgb=True, do_rescale=True, do_resize=True, image_mean=[0.0] * 3, image_std=[1.0] * 3)
GEMMA |= dict(patch_size=16, pooling_kernel_size=3, resample=3, rescale_factor=1 / 255)
GEMMA_TOWER = dict(hidden_size=1152, intermediate_size=4304, num_hidden_layers=27, num_attention_heads=16)
GEMMA_TOWER |= dict(num_key_value_heads=16, head_dim=72, standardize=True)
EXAONE = dict(model_type="exaone4", hidden_size=5120, intermediate_size=27392, num_hidden_layers=64)
EXAONE |= dict(num_attention_heads=40, num_key_value_heads=8, head_dim=128, vocab_size=153600, sliding_window=4096)
EXAONE |= dict(max_position_embeddings=262144, sliding_window_pattern=4)
EXAONE_TOWER = dict(hidden_size=2048, intermediate_size=5120, depth=28, out_hidden_size=5120)
MUSE = dict(HALF, patch_size=14, merge_size=2, temporal_patch_size=2, resample=1, max_video_frame_tokens=144)
MUSE |= dict(video_processor_type="MuseGlimmerVideoProcessor", do_resize=True, do_rescale=True, do_normalize=True)


def _config(name: str, **sizes: Any) -> Any:
    """None where transformers is too old for it."""
    return getattr(tf, name)(**sizes) if hasattr(tf, name) else None


def _gemma(kind: str) -> dict[str, dict[str, object]]:
    image = dict(GEMMA, do_normalize=False, image_processor_type=f"{kind}ImageProcessor", max_soft_tokens=280)
    video = dict(GEMMA, do_normalize=True, video_processor_type=f"{kind}VideoProcessor", max_soft_tokens=70)
    sound = dict(feature_extractor_type=f"{kind}AudioFeatureExtractor", sampling_rate=16000)
    parts = dict(image_processor=image, video_processor=video, feature_extractor=sound)
    return {BOTH: dict(parts, processor_class=f"{kind}Processor")}


def _muse(**more: object) -> dict[str, dict[str, object]]:
    image = dict(HALF, image_processor_type="MuseGlimmerImageProcessor")
    return {BOTH: dict(image_processor=image, video_processor=MUSE, **more)}


_ALL = {
    "Qwen3.5-9B": TrueSize(
        _config("Qwen3_5Config", text_config=QWEN9, vision_config=dict(out_hidden_size=4096)),
        {ONE: QWEN3_IMAGE, TWO: QWEN3_VIDEO},
        boundaries=(11, 19, 27),  # a quarter of 32 layers each, moved on to the next full attention
        tokens=(20, 36),
        kv_bytes=32768,  # 2 * 8 full layers * 4 heads * 256 numbers * 2 bytes
        billions=9.41,
        minute=43200,
        positions=262144,
    ),
    "Qwen3.5-35B-A3B": TrueSize(
        _config("Qwen3_5MoeConfig", text_config=QWEN35, vision_config=dict(out_hidden_size=2048)),
        {ONE: QWEN3_IMAGE, TWO: QWEN3_VIDEO},
        boundaries=(11, 23, 31),
        tokens=(20, 36),
        kv_bytes=20480,  # 2 * 10 full layers * 2 * 256 * 2
        billions=35.11,
        minute=43200,
        positions=262144,
    ),
    "MiniCPM-V-4.6": TrueSize(
        _config("MiniCPMV4_6Config", text_config=QWEN1, vision_config=SIGLIP2, **MINICPM_IDS),
        {ONE: MINICPM},
        boundaries=(7, 15, 19),
        tokens=(6, 11),  # 448 / sqrt(16 / 9) = 336 -> 6 * 56, 597 -> 11 * 56
        kv_bytes=12288,  # 2 * 6 full layers * 2 * 256 * 2
        billions=1.3,
        minute=3960,
        positions=262144,
    ),
    "MiniCPM-V-4.7": TrueSize(
        _config(
            "MiniCPMV4_7Config",
            text_config=QWEN1,
            vision_config=SIGLIP2,
            **MINICPM_IDS,
            image_start_id=248072,
            image_end_id=248073,
            slice_start_id=248074,
            slice_end_id=248075,
            newline_id=198,
        ),
        {ONE: MINICPM},
        boundaries=(7, 15, 19),
        tokens=(6, 11),
        kv_bytes=12288,
        billions=1.3,
        minute=3960,
        positions=262144,
    ),
    "gemma-4-E4B": TrueSize(
        _config("Gemma4Config", text_config=E4B, vision_config=dict(), audio_config=None),
        _gemma("Gemma4"),
        boundaries=(11, 23, 35),
        tokens=(6, 11),  # 630 patches: 720 * 0.4182 = 301 -> 6 * 48, 1280 * 0.4182 = 535 -> 11 * 48
        kv_bytes=57344,  # 24 layers of their own: 2 * 2 heads * (4 full * 512 + 20 * 256) numbers * 2 bytes
        billions=7.63,
        minute=3960,
        positions=131072,
    ),
    "gemma-4-26B-A4B": TrueSize(
        _config("Gemma4Config", text_config=A4B, vision_config=GEMMA_TOWER, audio_config=None),
        _gemma("Gemma4"),
        boundaries=(11, 17, 23),
        tokens=(6, 11),
        kv_bytes=225280,  # 2 * (5 full * 2 heads * 512 + 25 * 8 heads * 256) * 2
        billions=25.81,
        minute=3960,
        positions=262144,
    ),
    "gemma-4-12B": TrueSize(
        _config("Gemma4UnifiedConfig", text_config=G12B, vision_config=dict(), audio_config=None),
        _gemma("Gemma4Unified"),
        boundaries=(17, 29, 41),
        tokens=(6, 11),
        kv_bytes=344064,  # 2 * (8 full * 1 head * 512 + 40 * 8 heads * 256) * 2
        billions=11.96,
        minute=3960,
        positions=262144,
    ),
    "EXAONE-4.5-33B": TrueSize(
        _config("Exaone4_5_Config", text_config=EXAONE, vision_config=EXAONE_TOWER),
        {ONE: dict(QWEN_PATCHES, patch_size=14, min_pixels=3136, max_pixels=12845056, **HALF)},
        boundaries=(19, 35, 51),
        tokens=(20, 36),
        kv_bytes=262144,  # 2 * 64 * 8 * 128 * 2
        billions=33.87,
        minute=43200,
        positions=262144,
    ),
    "Muse-Glimmer-30B": TrueSize(
        _config("MuseGlimmerConfig"),
        _muse(),
        boundaries=(15, 27, 39),
        tokens=(9, 16),  # 144 tokens in 16 : 9
        kv_bytes=53248,  # 2 * 52 * 2 * 128 * 2
        billions=29.78,
        minute=8640,
        positions=131072,
    ),
    "Muse-Spark-816B-A42B": TrueSize(
        _config("MuseSparkConfig"),
        _muse(feature_extractor=dict(feature_extractor_type="MuseSparkFeatureExtractor")),
        boundaries=(17, 33, 49),
        tokens=(9, 16),
        kv_bytes=253952,  # 2 * 62 * 16 * 64 * 2
        billions=822.04,
        minute=8640,
        positions=1048576,
    ),
}
TRUE_HYBRIDS = {name: size for name, size in _ALL.items() if size.config is not None}
