"""Tiny random models of the families whose decoders are not full attention alone, as `families` has them for the rest.

Eight layers each, full attention at 3 and 7, so that a schedule has a boundary to snap to and a window to lie in.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers as tf
from families import (
    LLAVA_TEMPLATE,
    QWEN_IDS,
    QWEN_PIXELS,
    QWEN_TEMPLATE,
    QWEN_TOKENS,
    QWEN_VISION,
    SIGLIP,
    TEXT,
    TOWER,
    Built,
    tokenizer,
)

from pdrop_video import VideoLM
from pdrop_video.models import Pixels, adapter_for

SIZES = dict(TEXT, num_hidden_layers=8, head_dim=16)
LINEAR = dict(linear_key_head_dim=8, linear_value_head_dim=8, linear_num_key_heads=2, linear_num_value_heads=4)
# six numbers of each head are rotated: three angles, one a time, a row and a column
PARTIAL = dict(rope_type="default", rope_theta=10000.0, mrope_section=[1, 1, 1], partial_rotary_factor=0.375)
QWEN3_5 = dict(SIZES, **LINEAR, rope_parameters=PARTIAL)
EXPERTS = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, shared_expert_intermediate_size=32)
SLIDING = dict(layer_types=["sliding_attention", "sliding_attention", "sliding_attention", "full_attention"] * 2)


def _qwen3_5(config: Any, model: Any, text: dict[str, Any]) -> Built:
    vision = dict(QWEN_VISION, depth=2, hidden_size=32, intermediate_size=64, out_hidden_size=64)
    made = config(text_config=text, vision_config=dict(vision, num_position_embeddings=64), **QWEN_IDS)
    return model(made), tokenizer(QWEN_TOKENS, QWEN_TEMPLATE), QWEN_PIXELS | SIGLIP


def qwen3_5() -> Built:
    return _qwen3_5(tf.Qwen3_5Config, tf.Qwen3_5ForConditionalGeneration, QWEN3_5)


def qwen3_5_moe() -> Built:
    return _qwen3_5(tf.Qwen3_5MoeConfig, tf.Qwen3_5MoeForConditionalGeneration, QWEN3_5 | EXPERTS)


MINICPM_TOKENS = ["<|image_pad|>", "<|video_pad|>", "<image>", "</image>", "<slice>", "</slice>", "<break>"]
MINICPM_TEMPLATE = LLAVA_TEMPLATE.replace("<video>", "<|video_pad|>")
MINICPM_MARKS = dict(image_start_id=192, image_end_id=193, slice_start_id=194, slice_end_id=195, newline_id=196)


def _minicpmv(config: Any, model: Any, mode: str = "16x", **more: Any) -> Built:
    vision = dict(TOWER, num_hidden_layers=3, image_size=64, patch_size=8)
    text = dict(QWEN3_5, model_type="qwen3_5_text")
    tokens = dict(image_token_id=190, video_token_id=191, downsample_mode=mode, insert_layer_id=1)
    made = model(config(vision_config=vision, text_config=text, **tokens, **more))
    return made, tokenizer(MINICPM_TOKENS, MINICPM_TEMPLATE), dict(scale_resolution=96, max_slice_nums=9, **SIGLIP)


def minicpmv4_6() -> Built:
    return _minicpmv(tf.MiniCPMV4_6Config, tf.MiniCPMV4_6ForConditionalGeneration)


def minicpmv4_6_4x() -> Built:
    return _minicpmv(tf.MiniCPMV4_6Config, tf.MiniCPMV4_6ForConditionalGeneration, "4x")


def minicpmv4_7() -> Built:
    """With what stands for two line breaks behind a video: the model counts them with the last frame."""
    built = _minicpmv(tf.MiniCPMV4_7Config, tf.MiniCPMV4_7ForConditionalGeneration, **MINICPM_MARKS)
    built[1].chat_template = MINICPM_TEMPLATE.replace("<|video_pad|>", "<|video_pad|><break><break>")
    return built


GEMMA_TOKENS = ["<|image|>", "<|video|>", "<|image>", "<image|>", "<|audio|>", "<|audio>", "<audio|>"]
GEMMA_IDS = dict(image_token_id=190, video_token_id=191, boi_token_id=192, eoi_token_id=193, audio_token_id=194)
GEMMA_IDS |= dict(boa_token_id=195, eoa_token_index=196, audio_config=None)
GEMMA_TEMPLATE = LLAVA_TEMPLATE.replace("<video>", "<|video|>")
GEMMA_PIXELS = dict(image_mean=[0.0] * 3, image_std=[1.0] * 3, max_soft_tokens=9)
GEMMA = dict(SIZES, pad_token_id=3, sliding_window=24, global_head_dim=32, final_logit_softcapping=30.0, **SLIDING)
LARGE = dict(use_bidirectional_attention="vision", attention_k_eq_v=True, num_global_key_value_heads=1)


def _gemma4(text: dict[str, Any]) -> Built:
    vision = dict(TOWER, num_key_value_heads=2, head_dim=16, patch_size=8, position_embedding_size=64)
    config = tf.Gemma4Config(text_config=text, vision_config=vision, **GEMMA_IDS)
    return tf.Gemma4ForConditionalGeneration(config), tokenizer(GEMMA_TOKENS, GEMMA_TEMPLATE), GEMMA_PIXELS


def gemma4() -> Built:
    """As E2B and E4B: what layers read from ids, and four layers whose keys are those of layers 2 and 3."""
    small = dict(hidden_size_per_layer_input=8, vocab_size_per_layer_input=200, num_kv_shared_layers=4)
    return _gemma4(dict(GEMMA, **small, use_double_wide_mlp=True))


def gemma4_moe() -> Built:
    """As 26B-A4B: experts beside the MLP, values that are keys, frames whose tokens see each other."""
    experts = dict(enable_moe_block=True, num_experts=4, top_k_experts=2, moe_intermediate_size=32)
    return _gemma4(dict(GEMMA, **LARGE, **experts, hidden_size_per_layer_input=0))


def gemma4_unified() -> Built:
    """As 12B."""
    vision = dict(patch_size=8, mm_embed_dim=64, mm_posemb_size=64, output_proj_dims=64)
    config = tf.Gemma4UnifiedConfig(text_config=dict(GEMMA, **LARGE), vision_config=vision, **GEMMA_IDS)
    return tf.Gemma4UnifiedForConditionalGeneration(config), tokenizer(GEMMA_TOKENS, GEMMA_TEMPLATE), GEMMA_PIXELS


def exaone4_5() -> Built:
    vision = dict(QWEN_VISION, depth=2, hidden_size=32, intermediate_size=64, window_size=32, num_key_value_heads=1)
    vision |= dict(out_hidden_size=64, fullatt_block_indexes=[1])
    text = dict(TEXT, model_type="exaone4", num_hidden_layers=8, sliding_window=24, **SLIDING)
    config = tf.Exaone4_5_Config(text_config=text, vision_config=vision, image_token_id=190, video_token_id=191)
    return tf.Exaone4_5_ForConditionalGeneration(config), tokenizer(QWEN_TOKENS, QWEN_TEMPLATE), QWEN_PIXELS


MUSE_TOKENS = ["<|patch|>", "<|video|>", "<|vid_start|>", "<|vid_end|>", "<|vid_frame_separator|>", "<|audio|>", "Time"]
MUSE_PIXELS = dict(max_video_frame_tokens=9, resample=1, **SIGLIP)


def _muse(config: Any, model: Any, text: dict[str, Any], **more: Any) -> Built:
    vision = dict(TOWER, num_hidden_layers=4, patch_size=8, pos_emb_height=4, pos_emb_width=4)
    tokens = dict(image_token_id=190, video_token_id=191, out_hidden_size=128, projector_hidden_size=48)
    text = dict(SIZES, sliding_window=24, **text)
    made = model(config(text_config=text, vision_config=vision, **tokens, **more))
    return made, tokenizer(MUSE_TOKENS, GEMMA_TEMPLATE), MUSE_PIXELS


def muse_glimmer() -> Built:
    return _muse(tf.MuseGlimmerConfig, tf.MuseGlimmerForConditionalGeneration, {})


def muse_spark_moe() -> Built:
    experts = dict(num_local_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, moe_hidden_size=32)
    sound = dict(patch_sizes=[4], hidden_sizes=[8], depths=[1], num_hidden_layers=1, out_hidden_size=64)
    sound |= dict(hidden_act="gelu")
    return _muse(
        tf.MuseSparkConfig, tf.MuseSparkForConditionalGeneration, experts, audio_config=sound, audio_token_id=195
    )


KINDS: dict[Callable[[], Built], str] = {
    qwen3_5: "qwen3_5",
    qwen3_5_moe: "qwen3_5_moe",
    minicpmv4_6: "minicpmv4_6",
    minicpmv4_6_4x: "minicpmv4_6",
    minicpmv4_7: "minicpmv4_7",
    gemma4: "gemma4",
    gemma4_moe: "gemma4",
    gemma4_unified: "gemma4_unified",
    exaone4_5: "exaone4_5",
    muse_glimmer: "muse_glimmer",
    muse_spark_moe: "muse_spark",
}
HYBRIDS = {
    family.__name__: family for family, kind in KINDS.items() if kind in tf.CONFIG_MAPPING
}  # older ones lack some


def adapted(name: str, seed: int = 0, dtype: torch.dtype = torch.float64, attn: str = "sdpa") -> tuple[Any, Any]:
    """A random model of a family, with weights large enough that attention discriminates, and its adapter."""
    torch.manual_seed(seed)
    model, words, preprocessor = HYBRIDS[name]()
    model = model.to(dtype).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    model.set_attn_implementation(attn)
    if "moe" in name:
        model.set_experts_implementation("eager")  # the others don't know float64
    return model, adapter_for(model.config.model_type)(model, Pixels.of(preprocessor), words)


def build(name: str, **how: Any) -> VideoLM:
    """The same as `load` would return it."""
    model, adapter = adapted(name, **how)
    return VideoLM(model, adapter, adapter.prompt(adapter.tokenizer), name)


def inputs_of(lm: VideoLM, frames: torch.Tensor, seconds: list[float], question: str) -> dict[str, Any]:
    """A whole prompt as the family's processor makes it and the unmodified model takes it, positions left to it.

    Gemma's frames are filled up with empty patches, as its processor fills them.
    """
    adapter, model = lm.adapter, lm.model
    family, token = model.config.model_type, model.config.video_token_id
    if missing := -len(frames) % adapter.frames_per_step:
        frames = torch.cat([frames, frames[-1:].expand(missing, -1, -1, -1)])
    values, (t, h, w) = adapter.preprocess(frames)
    ids = lm.prompt.before()
    for number, second in enumerate(adapter.times(tuple(seconds))):
        before, after = adapter.glue(number, second)
        ids += [*adapter.ids(before), *[token] * (h * w), *adapter.ids(after)]
    ids += lm.prompt.after(question)
    given = {"input_ids": torch.tensor([ids]), "pixel_values_videos": values.to(model.dtype)}
    if family not in ("minicpmv4_6", "exaone4_5", "muse_glimmer", "muse_spark"):
        given["mm_token_type_ids"] = (given["input_ids"] == token).int() * 2
    if family in ("qwen3_5", "qwen3_5_moe", "exaone4_5"):
        merge = model.config.vision_config.spatial_merge_size
        given["video_grid_thw"] = torch.tensor([[t, h * merge, w * merge]])
    elif "minicpm" in family:
        given["target_sizes_videos"] = torch.tensor([[h * adapter.merge, w * adapter.merge]] * t, dtype=torch.int32)
    elif "muse" in family:
        given["video_grid_thw"] = torch.tensor([[t, 2 * h, 2 * w]])
    else:
        pool = 1 if family == "gemma4_unified" else model.config.vision_config.pooling_kernel_size
        places = torch.tensor([[x, y] for y in range(h * pool) for x in range(w * pool)]).expand(t, -1, -1)
        empty = (adapter.pixels.tokens - h * w) * pool**2
        given["pixel_values_videos"] = F.pad(given["pixel_values_videos"], (0, 0, 0, empty))
        given["video_position_ids"] = F.pad(places, (0, 0, 0, empty), value=-1)
        if "num_frames_per_video" in inspect.signature(model.model.get_video_features).parameters:
            given["num_frames_per_video"] = torch.tensor([t])
        else:  # older ones want frames one axis deeper, in their video
            for name in ("pixel_values_videos", "video_position_ids"):
                given[name] = given[name][None]
        if family == "gemma4_unified":  # by its rule for static caches, see `Gemma4Unified`
            blank = torch.zeros(1, len(ids), 1, dtype=model.dtype)
            how = dict(attention_mask=None, past_key_values=None, position_ids=None)
            how["mm_token_type_ids"] = given["mm_token_type_ids"]
            given["attention_mask"] = model.create_masks_for_generate(model.config, blank, **how)
    return given


def plain_rule(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    g: torch.Tensor,
    beta: torch.Tensor,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The gated delta rule, row by row in the type of its input; transformers' own computes in float32.

    Queries and keys [batch, rows, key heads, numbers], values [batch, rows, heads, numbers], decay and rate [batch,
    rows, heads]; the state is [batch, heads, key's numbers, value's numbers].
    """
    share = value.shape[2] // key.shape[2]
    unit = [x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt() for x in (query, key)]
    q, k = (x.repeat_interleave(share, 2) for x in unit)
    shape = (len(value), value.shape[2], key.shape[3], value.shape[3])
    state = value.new_zeros(shape) if initial_state is None else initial_state.to(value)
    out = []
    for i in range(value.shape[1]):
        state = state * g[:, i, :, None, None].to(state).exp()
        known = torch.einsum("bhkv,bhk->bhv", state, k[:, i])
        new = (value[:, i] - known) * beta[:, i, :, None]
        state = state + torch.einsum("bhk,bhv->bhkv", k[:, i], new)
        out.append(torch.einsum("bhkv,bhk->bhv", state, q[:, i]) / q.shape[-1] ** 0.5)
    return torch.stack(out, 1), state if output_final_state else None


def exact_linear_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let linear attention compute in float64 where a model does, so that chunks of any size give the same numbers."""
    for family in ("qwen3_5", "qwen3_5_moe"):  # MiniCPM's text part is the first
        module = importlib.import_module(f"transformers.models.{family}.modeling_{family}")
        for name in ("torch_chunk_gated_delta_rule", "torch_recurrent_gated_delta_rule"):
            monkeypatch.setattr(module, name, plain_rule)
