"""Tiny random text decoders of transformers' own families, by the names of their configs."""

from __future__ import annotations

from typing import Any

import torch
import transformers as tf
from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

SIZES = dict(
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    vocab_size=120,
    max_position_embeddings=256,
    num_experts=4,
    num_local_experts=4,
    n_routed_experts=4,
    num_experts_per_tok=2,
    moe_intermediate_size=32,
    shared_expert_intermediate_size=32,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)
FULL = dict(layer_types=["full_attention"] * 4)
OWN = dict(  # what a family is about, where its config does not say so by itself
    granite=dict(embedding_multiplier=12.0),
    granitemoe=dict(embedding_multiplier=12.0),
    mistral=dict(sliding_window=4),
    mixtral=dict(sliding_window=None),
    cohere=dict(logit_scale=0.5, use_qk_norm=True),
    cohere2=dict(FULL, sliding_window=500),
    gemma2=dict(FULL, sliding_window=500),
    gpt_oss=dict(FULL, sliding_window=500),
    exaone4=FULL,
    gemma3_text=FULL,
)


def tiny(name: str, dtype: torch.dtype = torch.float32, std: float | None = 0.15, **changes: Any) -> Any:
    """A causal language model; weights as the family initialises them where `std` is None."""
    config = CONFIG_MAPPING[name]
    known = config()
    sizes = {key: value for key, value in SIZES.items() if hasattr(known, key)}
    torch.manual_seed(0)
    model = getattr(tf, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[name])(config(**sizes | OWN.get(name, {}) | changes))
    for parameter in model.parameters():
        if parameter.ndim > 1 and std is not None:
            torch.nn.init.normal_(parameter, std=std)
        elif parameter.ndim == 1:  # norms, biases and sinks that do something
            parameter.data += 0.3 * torch.randn_like(parameter)
    return model.to(dtype).eval()
