"""What the layers of a decoder are, read from its configuration: what each mixes rows with, and what follows it.

Knows the names that transformers' configurations give to sizes. Refuses to count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..common.kinds import LayerKind
from .mixers import Alone, Attention, Convolution, Delta, Mamba, Mixer

_DOUBLED = ("qwen3_5_text", "qwen3_5_moe_text", "qwen3_next")
"""Whose queries have gates of the output beside them."""
_GATED = ("muse_glimmer_text", "muse_spark_text")
"""Whose output has as many gates as numbers."""
_UNGATED = ("relu2",)
"""Activations of MLPs of two matrices, in families that have one of these."""


class Uncounted(Exception):
    """A decoder whose cost does not follow from what is known of its configuration; the message ends a sentence."""


def layer_configs(text: Any) -> list[Any]:
    """The configuration of each layer, where layers differ."""
    return list(getattr(text, "per_layer_config", None) or [text] * text.num_hidden_layers)


def columns_of(text: Any) -> tuple[tuple[int, int, int], ...]:
    """What each layer holds of a token: heads, and the width of a key and of a value in each."""
    heads, count = text.num_attention_heads, text.num_hidden_layers
    if rank := getattr(text, "kv_lora_rank", None):  # latents, beside which stands the key that all heads share
        return ((1, text.qk_rope_head_dim, rank),) * count
    columns = []
    for each in layer_configs(text):
        dim = getattr(each, "head_dim", None) or text.hidden_size // heads
        columns.append((getattr(each, "num_key_value_heads", None) or heads, dim, dim))
    return tuple(columns)


def mixers_of(text: Any, kinds: Sequence[LayerKind]) -> tuple[Mixer, ...]:
    """What each layer mixes rows with.

    Raises
    ------
    Uncounted
    """
    columns = columns_of(text)
    return tuple(_mixer(text, kind, column) for kind, column in zip(kinds, columns, strict=True))


def _mixer(text: Any, kind: LayerKind, column: tuple[int, int, int]) -> Mixer:
    if kind.name == "state":
        return _state(text)
    if not kind.holds:
        return Alone()
    hidden, heads, family = text.hidden_size, text.num_attention_heads, text.model_type
    if rank := getattr(text, "kv_lora_rank", None):
        asked, value = getattr(text, "q_lora_rank", None), text.v_head_dim
        return Attention.latent(hidden, heads, text.qk_nope_head_dim, text.qk_rope_head_dim, value, rank, asked)
    kv_heads, dim, _ = column
    gates = heads * dim if family in _DOUBLED + _GATED else 0
    if getattr(text, "use_attention_gate", False):  # LFM3: one a head
        gates = heads
    return Attention.of(
        hidden,
        heads,
        kv_heads,
        dim,
        gates=gates,
        beside=family in _DOUBLED,
        lent=kind.source is not None,
        keys_are_values=bool(getattr(text, "attention_k_eq_v", False)) and kind.name == "full",
        window=kind.window,
    )


def _state(text: Any) -> Mixer:
    hidden = text.hidden_size
    if getattr(text, "linear_num_value_heads", None):
        return Delta(
            hidden,
            text.linear_num_key_heads,
            text.linear_num_value_heads,
            text.linear_key_head_dim,
            text.linear_value_head_dim,
            text.linear_conv_kernel_dim,
        )
    if getattr(text, "mamba_num_heads", None) and getattr(text, "ssm_state_size", None):
        heads, dim, state = text.mamba_num_heads, text.mamba_head_dim, text.ssm_state_size
        return Mamba(hidden, heads, dim, state, text.n_groups, text.conv_kernel, text.chunk_size)
    if text.model_type == "lfm3":
        return Convolution(hidden, text.conv_L_cache)
    raise Uncounted("some of its layers carry a state of which only the family's own code knows the size")


def behind_of(text: Any, kinds: Sequence[LayerKind]) -> tuple[int, ...]:
    """Multiply-adds of one row behind each layer's mixer: MLP or experts that run, router, per-layer inputs.

    Raises
    ------
    Uncounted
    """
    return tuple(_behind(text, i, kind) for i, kind in enumerate(kinds))


def entering_of(text: Any) -> int:
    """Multiply-adds of one row before all layers: what each of them gets of it beside its hidden state (Gemma)."""
    return text.hidden_size * text.num_hidden_layers * (getattr(text, "hidden_size_per_layer_input", None) or 0)


def _behind(text: Any, i: int, kind: LayerKind) -> int:
    if blocks := getattr(text, "layers_block_type", None):  # each layer is either a mixer or what else follows one
        return _nemotron(text, blocks[i])
    if text.model_type.startswith("gemma4"):
        return _gemma(text, kind)
    if not _routed(text, i):
        matrices = 2 if getattr(text, "hidden_act", None) in _UNGATED else 3
        return matrices * text.hidden_size * text.intermediate_size
    return _experts(text)


def _nemotron(text: Any, block: str) -> int:
    hidden = text.hidden_size
    if block == "mlp":
        return 2 * hidden * text.intermediate_size
    if block != "moe":
        return 0
    latent = text.moe_latent_size
    routed = 2 * text.num_experts_per_tok * (latent or hidden) * text.moe_intermediate_size
    shared = 2 * hidden * text.moe_shared_expert_intermediate_size
    return hidden * text.n_routed_experts + 2 * hidden * (latent or 0) + routed + shared


def _gemma(text: Any, kind: LayerKind) -> int:
    hidden, double = text.hidden_size, kind.source is not None and getattr(text, "use_double_wide_mlp", False)
    total = 3 * hidden * text.intermediate_size * (2 if double else 1)
    if getattr(text, "enable_moe_block", False):  # beside the MLP
        total += hidden * (text.num_experts + 3 * text.top_k_experts * text.moe_intermediate_size)
    return total + 2 * hidden * (getattr(text, "hidden_size_per_layer_input", None) or 0)


def _routed(text: Any, i: int) -> bool:
    """Whether layer `i` has experts."""
    if _number(text) < 2:
        return False
    if types := getattr(text, "mlp_layer_types", None):
        return bool(types[i] == "sparse")
    if i < (getattr(text, "first_k_dense_replace", None) or 0) or i in (getattr(text, "mlp_only_layers", None) or ()):
        return False
    return (i + 1) % (getattr(text, "decoder_sparse_step", None) or 1) == 0


def _number(text: Any) -> int:
    """Of experts among which a router chooses; 0 or 1 where there is none."""
    other = ("per_tok", "shared", "size")
    said = [n for key, n in text.to_dict().items() if "expert" in key and not any(part in key for part in other)]
    return max((n for n in said if isinstance(n, int)), default=0)


def _experts(text: Any) -> int:
    """Router, the experts that it chooses, and those that every row passes."""
    names = ("num_experts", "n_routed_experts", "num_local_experts")
    among = next((n for name in names if (n := getattr(text, name, None))), 0)
    chosen, hidden = getattr(text, "num_experts_per_tok", None) or 0, text.hidden_size
    size = getattr(text, "moe_intermediate_size", None) or text.intermediate_size
    if not (among and chosen and isinstance(size, int)) or among != _number(text):
        raise Uncounted("its experts are chosen, or sized, in a way that is not known here")
    inner = getattr(text, "moe_hidden_size", None)  # Muse Spark: rows are made narrower in front of the experts
    total = hidden * among + 3 * chosen * (inner or hidden) * size + 2 * hidden * (inner or 0)
    known = ("shared_expert_intermediate_size", "n_shared_experts")
    shared = {name: n for name, n in text.to_dict().items() if "shared" in name and n}
    if other := [name for name in shared if name not in known]:
        raise Uncounted(f"its experts are shared in a way that is not known here ({other[0]})")
    if wide := shared.get("shared_expert_intermediate_size"):  # with a gate
        total += 3 * hidden * wide + hidden
    return total + 3 * hidden * size * shared.get("n_shared_experts", 0)
