"""A real checkpoint of every family: its configuration, its preprocessor files, what follows from them by hand."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers as tf

QWEN7 = dict(hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28)
QWEN7 |= dict(num_key_value_heads=4, vocab_size=152064, max_position_embeddings=32768)
MROPE7 = dict(QWEN7, rope_parameters=dict(rope_type="default", rope_theta=1e6, mrope_section=[16, 24, 24]))
QWEN8 = dict(hidden_size=4096, intermediate_size=12288, num_hidden_layers=36, num_attention_heads=32, head_dim=128)
QWEN8 |= dict(num_key_value_heads=8, vocab_size=151936, max_position_embeddings=262144)
QWEN8 |= dict(rope_parameters=dict(rope_type="default", rope_theta=5e6, mrope_section=[24, 20, 20]))
LLAMA7 = dict(hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32)
LLAMA7 |= dict(num_key_value_heads=32, vocab_size=32064, model_type="llama", max_position_embeddings=4096)
SMOL = dict(hidden_size=2048, intermediate_size=8192, num_hidden_layers=24, num_attention_heads=32)
SMOL |= dict(num_key_value_heads=32, vocab_size=49280, model_type="llama", max_position_embeddings=8192)
CLIP336 = dict(model_type="clip_vision_model", hidden_size=1024, intermediate_size=4096, num_hidden_layers=24)
CLIP336 |= dict(num_attention_heads=16, image_size=336, patch_size=14, projection_dim=768)
SIGLIP = dict(hidden_size=1152, intermediate_size=4304, num_attention_heads=16, image_size=384, patch_size=14)

OPENAI = dict(image_mean=[0.48145466, 0.4578275, 0.40821073], image_std=[0.26862954, 0.26130258, 0.27577711])
IMAGENET = dict(image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225])
HALF = dict(image_mean=[0.5] * 3, image_std=[0.5] * 3)
DO = dict(do_resize=True, do_rescale=True, do_normalize=True, do_convert_rgb=True, rescale_factor=1 / 255)

QWEN_PATCHES = dict(temporal_patch_size=2, merge_size=2, image_processor_type="Qwen2VLImageProcessor")
QWEN2 = dict(QWEN_PATCHES, min_pixels=3136, max_pixels=12845056, patch_size=14, **OPENAI)
QWEN3 = dict(QWEN_PATCHES, patch_size=16, **HALF)
QWEN3_IMAGE = dict(QWEN3, size={"longest_edge": 16777216, "shortest_edge": 65536})
QWEN3_VIDEO = dict(QWEN3, size={"longest_edge": 25165824, "shortest_edge": 4096})
QWEN3_VIDEO |= dict(video_processor_type="Qwen3VLVideoProcessor", fps=2, min_frames=4, max_frames=768)
ONEVISION = dict(DO, size={"height": 384, "width": 384}, resample=3, do_pad=True, **HALF)
ONEVISION |= dict(image_grid_pinpoints=[[384, 384], [384, 768]], image_processor_type="LlavaOnevisionImageProcessor")
ONEVISION_VIDEO = dict(DO, size={"height": 384, "width": 384}, resample=3, **HALF)
ONEVISION_VIDEO |= dict(video_processor_type="LlavaOnevisionVideoProcessor")
NEXT = dict(DO, size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}, do_center_crop=True, **OPENAI)
NEXT |= dict(resample=3, image_grid_pinpoints=[[336, 672], [672, 336]])
NEXT |= dict(image_processor_type="LlavaNextImageProcessor")
INTERN = dict(DO, size={"height": 448, "width": 448}, crop_size=None, do_center_crop=None, resample=3, **IMAGENET)
INTERN |= dict(image_processor_type="GotOcr2ImageProcessor", video_processor_type="InternVLVideoProcessor")
SMOLVLM = dict(DO, size={"longest_edge": 1536}, max_image_size={"longest_edge": 384}, resample=1, do_pad=True, **HALF)
SMOLVLM |= dict(do_image_splitting=True, image_processor_type="SmolVLMImageProcessor")
SMOLVLM |= dict(video_sampling={"fps": 1, "max_frames": 64, "video_size": {"longest_edge": 384}})

ONE, TWO, BOTH = "preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json"


@dataclass(frozen=True)
class TrueSize:
    """A real checkpoint without its weights.

    Attributes
    ----------
    config : PreTrainedConfig
    files : dict of str to dict
        Its preprocessor files.
    boundaries : tuple of int
        Layers before which four stages of equal depth drop.
    tokens : (h, w)
        Visual tokens of a step of 720 x 1280 frames.
    kv_bytes : int
        Of one token in all layers, at 16 bit.
    billions : float
        Parameters as published, in thousand millions.
    minute : int
        Visual tokens of a minute at the family's own frame rate.
    positions : int
        Trained positions.
    """

    config: Any
    files: dict[str, dict[str, Any]]
    boundaries: tuple[int, ...]
    tokens: tuple[int, int]
    kv_bytes: int
    billions: float
    minute: int
    positions: int

    def write(self, folder: Path) -> Path:
        """The checkpoint's folder, without weights and tokenizer."""
        self.config.save_pretrained(folder)
        for file, content in self.files.items():
            (folder / file).write_text(json.dumps(content))
        return folder


TRUE_SIZES = {
    "Qwen2-VL-7B": TrueSize(
        tf.Qwen2VLConfig(text_config=MROPE7, vision_config=dict(depth=32, embed_dim=1280, hidden_size=3584)),
        {ONE: QWEN2},
        boundaries=(7, 14, 21),
        tokens=(20, 36),  # 602112 pixels: 720 / 1.2372 = 581.9 -> 20 * 28, 1280 / 1.2372 = 1034.6 -> 36 * 28
        kv_bytes=57344,  # 2 * 28 layers * 4 heads * 128 numbers * 2 bytes
        billions=8.29,
        minute=43200,  # 60 pairs at 2 frames a second
        positions=32768,
    ),
    "Qwen2.5-VL-7B": TrueSize(
        tf.Qwen2_5_VLConfig(text_config=MROPE7, vision_config=dict(depth=32, hidden_size=1280, out_hidden_size=3584)),
        {ONE: QWEN2},
        boundaries=(7, 14, 21),
        tokens=(20, 36),
        kv_bytes=57344,
        billions=8.29,
        minute=43200,
        positions=32768,
    ),
    "Qwen3-VL-8B": TrueSize(
        tf.Qwen3VLConfig(text_config=QWEN8, vision_config=dict(out_hidden_size=4096)),
        {ONE: QWEN3_IMAGE, TWO: QWEN3_VIDEO},
        boundaries=(9, 18, 27),
        tokens=(20, 36),  # 786432 pixels: 720 / 1.0825 = 665.1 -> 20 * 32, 1280 / 1.0825 = 1182.4 -> 36 * 32
        kv_bytes=147456,  # 2 * 36 * 8 * 128 * 2
        billions=8.77,
        minute=43200,
        positions=262144,
    ),
    "LLaVA-OneVision-7B": TrueSize(
        tf.LlavaOnevisionConfig(
            text_config=dict(QWEN7, model_type="qwen2"),
            vision_config=dict(SIGLIP, num_hidden_layers=26, model_type="siglip_vision_model", vision_use_head=False),
        ),
        {ONE: ONEVISION, TWO: ONEVISION_VIDEO, BOTH: dict(num_image_tokens=729, vision_feature_select_strategy="full")},
        boundaries=(7, 14, 21),
        tokens=(14, 14),  # 384 / 14 = 27, pooled two by two and rounded up
        kv_bytes=57344,
        billions=8.03,
        minute=11760,  # 60 frames
        positions=32768,
    ),
    "LLaVA-NeXT-Video-7B": TrueSize(
        tf.LlavaNextVideoConfig(text_config=LLAMA7, vision_config=CLIP336),
        {
            ONE: NEXT,
            TWO: dict(NEXT, video_processor_type="LlavaNextVideoVideoProcessor"),
            BOTH: dict(patch_size=14, vision_feature_select_strategy="default"),
        },
        boundaries=(8, 16, 24),
        tokens=(12, 12),  # 336 / 14 = 24, pooled two by two
        kv_bytes=524288,  # 2 * 32 * 32 * 128 * 2
        billions=7.06,
        minute=8640,
        positions=4096,
    ),
    "InternVL3-8B": TrueSize(
        tf.InternVLConfig(
            text_config=dict(QWEN7, model_type="qwen2", vocab_size=151674),
            vision_config=dict(image_size=[448, 448], patch_size=[14, 14]),
            tie_word_embeddings=False,
        ),
        {
            ONE: dict(INTERN, image_processor_type="GotOcr2ImageProcessor"),
            TWO: INTERN,
            BOTH: dict(image_seq_length=256),
        },
        boundaries=(7, 14, 21),
        tokens=(16, 16),  # 448 / 14 = 32, shuffled two by two
        kv_bytes=57344,
        billions=7.94,
        minute=15360,
        positions=32768,
    ),
    "SmolVLM2-2.2B": TrueSize(
        tf.SmolVLMConfig(text_config=SMOL, vision_config=dict(SIGLIP, num_hidden_layers=27), scale_factor=3),
        {ONE: SMOLVLM, BOTH: dict(image_seq_len=81)},
        boundaries=(6, 12, 18),
        tokens=(9, 9),  # 384 / 14 = 27, shuffled three by three
        kv_bytes=196608,  # 2 * 24 * 32 * 64 * 2
        billions=2.25,
        minute=4860,
        positions=8192,
    ),
}
