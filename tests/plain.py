"""Causal language models with eyes of the simplest kind, for decoders whose own vision has no part in a proof."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import transformers as tf
from einops import rearrange
from families import QWEN_TEMPLATE, QWEN_TOKENS, TEXT, tokenizer
from torch import Tensor

from pdrop_video import VideoLM
from pdrop_video.models import Adapter, LinearPositions, Pixels, Positions

SIZES = dict(TEXT, num_hidden_layers=8, head_dim=16)


class Eyes(Adapter):
    """Squares of 24 pixels, projected at random; a word in front of each frame."""

    model_types: ClassVar[tuple[str, ...]] = ()
    video_token: ClassVar[str] = "<|video_pad|>"

    @property
    def positions(self) -> Positions:
        return LinearPositions()

    def preprocess(self, frames: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
        values = rearrange(frames.double() / 128 - 1, "t (h a) (w b) c -> (t h w) (a b c)", a=24, b=24)
        return values, (len(frames), frames.shape[1] // 24, frames.shape[2] // 24)

    def encode(self, values: Tensor, grid: tuple[int, int, int]) -> tuple[Tensor, ...]:
        weights = torch.randn(
            values.shape[1], self.model.config.hidden_size, generator=torch.Generator().manual_seed(5)
        )
        return (values @ weights.to(values) / 10,)

    def glue(self, number: int, seconds: float) -> tuple[str, str]:
        return "Frame", ""


def lfm3() -> Any:
    kinds = ["conv", "conv", "full_attention", "conv", "sliding_attention", "full_attention", "conv", "full_attention"]
    return tf.Lfm3Config(**SIZES, layer_types=kinds, sliding_window=24)


def nemotron_h() -> Any:
    kinds = ["linear_attention", "mlp", "full_attention", "linear_attention", "moe"]
    kinds += ["full_attention", "linear_attention", "full_attention"]
    mamba = dict(mamba_num_heads=4, mamba_head_dim=16, ssm_state_size=8, n_groups=2)
    experts = dict(n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, n_group=1, topk_group=1)
    sizes = {name: value for name, value in SIZES.items() if name != "num_hidden_layers"} | mamba | experts
    return tf.NemotronHConfig(**sizes, layers_block_type=kinds, moe_shared_expert_intermediate_size=32)


def deepseek_v3() -> Any:
    experts = dict(n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, n_group=1, topk_group=1)
    latent = dict(q_lora_rank=24, kv_lora_rank=16, qk_rope_head_dim=8, qk_nope_head_dim=16, v_head_dim=12)
    sizes = {name: value for name, value in SIZES.items() if name != "head_dim"} | dict(num_key_value_heads=4)
    return tf.DeepseekV3Config(**sizes, **experts, **latent, first_k_dense_replace=1)


def deepseek_v3_plain() -> Any:
    """Queries in one step, and angles that are not interleaved."""
    config = deepseek_v3()
    config.q_lora_rank, config.rope_interleave = None, False
    return config


DECODERS = {
    made.__name__: made
    for made in (lfm3, nemotron_h, deepseek_v3, deepseek_v3_plain)
    if made.__name__.removesuffix("_plain") in tf.CONFIG_MAPPING
}


def build(name: str, seed: int = 0) -> VideoLM:
    """A random model with weights large enough that attention discriminates."""
    torch.manual_seed(seed)
    model = tf.AutoModelForCausalLM.from_config(DECODERS[name](), experts_implementation="eager").double().eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    words = tokenizer(QWEN_TOKENS, QWEN_TEMPLATE)
    adapter = Eyes(model, Pixels(), words)
    return VideoLM(model, adapter, Eyes.prompt(words), name)


def video(frames: int, seed: int = 0) -> Tensor:
    """Random pictures of two rows and three columns [frames, 48, 72, 3]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (frames, 48, 72, 3), generator=generator, dtype=torch.uint8)


def whole(lm: VideoLM, frames: Tensor, question: str) -> tuple[Tensor, int]:
    """Embeddings [1, tokens, hidden] of a whole prompt, and the tokens of the prefix."""
    before, after = lm.prompt.before(), lm.prompt.after(question)
    chunk = lm.adapter.look(frames, tuple(map(float, range(len(frames)))))
    return torch.cat([lm.adapter.embed(before), chunk.embeds, lm.adapter.embed(after)])[None], len(before)
