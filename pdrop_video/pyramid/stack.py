"""What a decoder stack must be made of, as far as one can see without running it.

Knows the names that transformers gives to the parts of a stack. Refuses to know what they compute; see `acceptance`.
"""

from __future__ import annotations

from inspect import signature
from typing import Any

from torch import nn

from ..common.kinds import kinds_of
from ..errors import ModelError
from .heads import attention_of, is_latent

MARKS = "moe_mm_token_type_ids"
"""The argument by which layers are told which rows are visual."""


def refuse_other_stacks(text: Any) -> None:
    """Unless its layers stand in a row and keep queries and keys apart, where they attend."""
    parts = ("layers",), ("norm", "embedding_norm", "norm_f"), ("embed_tokens", "embeddings")
    for names in parts:
        if not any(hasattr(text, name) for name in names):
            raise ModelError(
                f"{type(text).__name__} has no `{names[0]}`; expected a decoder stack of transformers such as "
                "LlamaModel or Qwen2_5_VLTextModel. Pass the whole model; its get_decoder() must find the stack."
            )
    kinds = kinds_of(text.config)
    if not any(kind.ranks for kind in kinds):
        raise ModelError(
            f"no layer of {type(text).__name__} attends to all that came before, by which tokens are ranked; only "
            "decoders with some full attention are supported."
        )
    for layer, kind in zip(text.layers, kinds, strict=False):
        attention = attention_of(layer)
        if kind.source is not None or not kind.holds or (attention is not None and is_latent(attention)):
            continue
        if not (hasattr(attention, "q_proj") and hasattr(attention, "k_proj")):
            raise ModelError(
                f"{type(layer).__name__} has no self_attn with q_proj and k_proj, by which rows are ranked; only "
                "layers that keep queries and keys apart are supported."
            )
        # a try with text alone, as `acceptance` makes it, would not show it
        taken = signature(type(layer).forward).parameters
        if told := [name for name in taken if name.endswith("token_type_ids") and name != MARKS]:
            raise ModelError(
                f"{type(layer).__name__} is told by {told[0]} which rows are visual and treats them in another way; "
                f"only layers that treat all rows alike, or are told by {MARKS}, are supported."
            )


def sharded(text: nn.Module) -> bool:
    """Whether weights are there only while the whole model runs (FSDP2)."""
    return any(hasattr(module, "unshard") for module in text.modules())


def checkpointed(text: Any) -> bool:
    """Whether layers run under gradient checkpointing, in which they keep no keys and values."""
    return any(getattr(layer, "gradient_checkpointing", False) and layer.training for layer in text.layers)


def refuse_checkpointing(text: Any) -> None:
    """Where a cache is to grow."""
    if checkpointed(text):
        raise ModelError(
            "the model is in train() with gradient checkpointing, whose layers keep no keys and values; call "
            "model.eval() or model.gradient_checkpointing_disable() before it watches or generates."
        )


def refuse_meta(module: nn.Module) -> None:
    """Weights without numbers, unless a hook of accelerate brings them when they are needed."""
    for name, each in module.named_modules():
        if getattr(each, "_hf_hook", None) is None and any(p.is_meta for p in each.parameters(recurse=False)):
            raise ModelError(
                f"the weights of {name or type(module).__name__} are on the meta device, which holds no numbers; load "
                "the model with from_pretrained, without torch.device('meta') or init_empty_weights()."
            )
