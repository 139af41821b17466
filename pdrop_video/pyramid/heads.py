"""A decoder layer's queries, keys and values, as the layer itself makes them, from its own weights and functions.

Knows the parts that transformers' layers are made of: an input norm, projections, norms of queries and keys, RoPE by
the module's own function, latents that keys are expanded from. Refuses to know what is done with them.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from transformers.cache_utils import Cache

from ..common.taking import rows_at

Rope = tuple[Tensor, Tensor]
"""cos and sin, each [..., batch, rows, head_dim] (some families and versions put M-RoPE axes in front)."""

_NORMS = ("input_layernorm", "operator_norm", "norm")


def attention_of(layer: Any) -> Any:
    """A layer's attention; None of one that has none."""
    found = getattr(layer, "self_attn", None)
    found = getattr(layer, "mixer", None) if found is None else found
    return found if hasattr(found, "o_proj") else None


def normed(layer: Any, hidden: Tensor) -> Tensor:
    """Rows behind a layer's input norm, if it has one, from which its queries, keys and values are made."""
    norm = next((getattr(layer, name) for name in _NORMS if hasattr(layer, name)), None)
    return hidden if norm is None else norm(hidden)


def query_heads(attention: Any) -> int:
    """How many heads ask."""
    return attention.o_proj.in_features // (attention.v_head_dim if is_latent(attention) else attention.head_dim)


def is_latent(attention: Any) -> bool:
    """Whether keys and values are expanded from a latent, which is what its cache holds (MLA)."""
    return hasattr(attention, "expand_kv")


def rotate(attention: Any, states: Tensor, rope: Rope | None) -> Tensor:
    """RoPE applied to `states` [batch, heads, rows, head_dim] by the family's own function; none in layers without."""
    if rope is None or not _has_rope(attention):
        return states
    if is_latent(attention):  # the last channels carry the position
        rest, states = states.split([states.shape[-1] - rope[0].shape[-1], rope[0].shape[-1]], dim=-1)
        return torch.cat([rest, _applied(attention, states, rope)], dim=-1)
    return _applied(attention, states, rope)


def rotate_held(attention: Any, states: Tensor, rope: Rope) -> Tensor:
    """The same for what a cache holds of keys, which may stand in another order than what a layer rotates."""
    if not _has_rope(attention):
        return states
    return _applied(attention, states, rope, held=True)


def _has_rope(attention: Any) -> bool:
    """EXAONE 4 has positions in its sliding layers alone."""
    return not (hasattr(attention, "sliding_window_pattern") and attention.sliding_window) or attention.is_sliding


def _applied(attention: Any, states: Tensor, rope: Rope, held: bool = False) -> Tensor:
    module = sys.modules[type(attention).__module__]
    nothing = states[:, :0]  # the functions rotate a query and a key together; an empty query costs nothing
    if (multimodal := getattr(module, "apply_multimodal_rotary_pos_emb", None)) is not None:  # until transformers 5.16
        sections = attention.config.rope_parameters["mrope_section"]
        return multimodal(nothing, states, *rope, sections)[1]
    interleaved = is_latent(attention) and attention.config.rope_interleave and not held
    function = module.apply_rotary_pos_emb_interleave if interleaved else module.apply_rotary_pos_emb
    return function(states, *rope) if _takes_one(function) else function(nothing, states, *rope)[1]


@cache
def _takes_one(function: Callable[..., Any]) -> bool:
    """Whether a function rotates one tensor, and not queries and keys together."""
    return "k" not in inspect.signature(function).parameters


def turned(rope: Rope) -> Rope:
    """The same angles with cos and sin of length 1: a pure rotation, also where a family scales its RoPE (YaRN)."""
    length = torch.hypot(*rope)
    return rope[0] / length, rope[1] / length


def rope_at(rope: Rope, rows: Tensor) -> Rope:
    """Cos and sin of some rows [batch, chosen] alone."""
    cos, sin = (rows_at(part, rows) for part in rope)
    return cos, sin


def per_head(attention: Any, rows: Tensor, which: str) -> Tensor:
    """Queries, keys or values ("q", "k", "v") before RoPE [batch, heads, rows, head_dim], normed if the family does.

    Parameters
    ----------
    attention : nn.Module
        Of the decoder layer.
    rows : Tensor [batch, rows, hidden]
        Behind the layer's input norm.
    which : str
    """
    if is_latent(attention):
        return _from_latent(attention, rows, which)
    projection = getattr(attention, f"{which}_proj", None)
    states = (attention.k_proj if projection is None else projection)(rows)  # values that are the keys (Gemma 4)
    dim, heads = attention.head_dim, query_heads(attention)
    if which == "q" and states.shape[-1] == 2 * heads * dim:  # a gate of the output stands beside each head's query
        states = rearrange(states, "batch rows (heads two dim) -> batch rows heads two dim", two=2, dim=dim)[..., 0, :]
    else:
        states = rearrange(states, "batch rows (heads dim) -> batch rows heads dim", dim=dim)
    norm = getattr(attention, f"{which}_norm", None)
    if norm is None and which != "v" and isinstance(both := getattr(attention, "qk_norm", None), torch.nn.Module):
        norm = both
    states = states if norm is None else norm(states)
    if which == "q":
        states = states * getattr(attention, "qk_scale_factor", 1)
    return rearrange(states, "batch rows heads dim -> batch heads rows dim")


def _from_latent(attention: Any, rows: Tensor, which: str) -> Tensor:
    """The same where queries and keys are made in two steps, and all heads share the channels that are rotated."""
    if which == "q":
        one = attention.q_lora_rank is None
        states = (
            attention.q_proj(rows) if one else attention.q_b_proj(attention.q_a_layernorm(attention.q_a_proj(rows)))
        )
        return rearrange(states, "batch rows (heads dim) -> batch heads rows dim", dim=attention.qk_head_dim)
    latent, shared = attention.kv_a_proj_with_mqa(rows).split([attention.kv_lora_rank, attention.qk_rope_head_dim], -1)
    keys, values = attention.expand_kv(attention.kv_a_layernorm(latent)[:, None], shared[:, None])
    return keys if which == "k" else values


def project(attention: Any, rows: Tensor, which: str, rope: Rope | None) -> Tensor:
    """Queries (`which` "q") or keys ("k") after RoPE, as the layer itself makes them.

    Parameters
    ----------
    attention : nn.Module
        Of the decoder layer.
    rows : Tensor [batch, rows, hidden]
        Behind the layer's input norm.
    which : str
        "q" or "k".
    rope : (cos, sin) or None
        For exactly these rows.

    Returns
    -------
    Tensor [batch, heads, rows, head_dim]
    """
    return rotate(attention, per_head(attention, rows, which), rope)


def every_key(attention: Any, entering: Tensor, rope: Rope | None, past: Tensor | None, lent: Tensor | None) -> Tensor:
    """Keys (after RoPE) that a layer holds, then those of its rows [batch, kv_heads, past + rows, head_dim].

    Parameters
    ----------
    attention : nn.Module
    entering : Tensor [batch, rows, hidden]
        The rows, behind the layer's norm.
    rope : (cos, sin) or None
        Of the rows.
    past : Tensor [batch, kv_heads, past, head_dim], optional
    lent : Tensor [batch, kv_heads, rows, head_dim], optional
        Of the rows, in a layer that uses those of another one.
    """
    own = project(attention, entering, "k", rope) if lent is None else lent
    return own if past is None else torch.cat([past, own], dim=-2)


def held_keys(layer: Any, cache: Cache | None, i: int) -> Tensor | None:
    """Keys (after RoPE) that decoder layer `i` already holds [batch, kv_heads, past, head_dim], as it asks them."""
    return None if cache is None or not cache.get_seq_length(i) else keys_in(layer, cache.layers[i])


def keys_in(layer: Any, held: Any) -> Tensor:
    """Keys (after RoPE) in what a decoder layer's cache holds [batch, kv_heads, past, head_dim], as it asks them."""
    keys: Tensor
    if is_latent(attention := attention_of(layer)):
        keys, _ = attention.expand_kv(*(held.latents() if hasattr(held, "latents") else (held.keys, held.values)))
    else:
        keys = held.keys
    return keys
