"""How strongly a probe row attends to every column, as a decoder layer that has not run yet would see it.

Knows queries and keys. Refuses to know which columns are visual and how many of them are kept.
"""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from ..common.taking import rows_at
from .heads import Rope, attention_of, every_key, normed, project, rope_at


def distinct_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The different rows [n, columns] of a table of whole numbers [rows, columns], and which of them each row is.

    ``Tensor.unique(dim=0)`` compares rows number by number; here each becomes one number, which sorts ten times faster.
    """
    if not len(rows):
        return rows, rows.new_empty(0)
    digits = rows - rows.amin(0)
    code = digits[:, 0]
    for column in range(1, rows.shape[1]):
        code = code * (digits[:, column].amax() + 1) + digits[:, column]
    codes, which = code.unique(return_inverse=True)
    return rows.new_empty(len(codes), rows.shape[1]).index_copy(0, which, rows), which


@torch.no_grad()
def attention_by_row(
    layer: Any,
    hidden: Tensor,
    rope: Rope | None,
    probe: Tensor,
    *,
    past_keys: Tensor | None = None,
    allowed: Tensor | None = None,
    lent: Tensor | None = None,
) -> Tensor:
    """What each probe row attends to in `layer`, before that layer runs.

    Softmax over all columns in at least float32, per head, causal; then the mean over heads.

    Parameters
    ----------
    layer : nn.Module
        The decoder layer that comes next.
    hidden : Tensor [batch, rows, hidden]
        Its input.
    rope : (cos, sin) or None
        Of all rows; None in a layer without positions.
    probe : Tensor [batch, probes]
        Row numbers that ask; negative entries are empty places.
    past_keys : Tensor [batch, kv_heads, past, head_dim], optional
        Keys (after RoPE) that the layer already holds.
    allowed : Tensor [batch, past + rows], optional
        Columns that are not padding.
    lent : Tensor [batch, kv_heads, rows, head_dim], optional
        Keys of the rows (after RoPE), of a layer that uses those of another one.

    Returns
    -------
    Tensor [batch, probes, past + rows]
        Of every column, at least float32; zeros at empty places.
    """
    attention, rows = attention_of(layer), normed(layer, hidden)
    at = probe.clamp(min=0)
    asking = rows_at(rows, at)
    query = project(attention, asking, "q", rope if rope is None else rope_at(rope, at))
    key = every_key(attention, rows, rope, past_keys, lent)
    weights = mean_weights(query, key, attention.scaling, at + key.shape[-2] - hidden.shape[1], allowed)
    return weights.masked_fill((probe < 0)[..., None], 0)


def attention_weights(layer: Any, hidden: Tensor, rope: Rope | None, probe: Tensor, **past: Tensor | None) -> Tensor:
    """PyramidDrop's relevance: the mean of `attention_by_row` over the probe rows.

    arXiv 2410.17247, section 3.2; rows, norm and RoPE as in its released code.

    Returns
    -------
    Tensor [batch, past + rows]
    """
    rows = attention_by_row(layer, hidden, rope, probe, **past)
    return rows.sum(1) / (probe >= 0).sum(1, keepdim=True).clamp(min=1)


def mean_weights(
    query: Tensor, key: Tensor, scaling: float, at: Tensor | None, allowed: Tensor | None = None
) -> Tensor:
    """Softmax weights of queries over the columns up to their own, the mean over heads.

    In at least float32: a product of float16 queries and keys may leave that type's range before it is scaled, and
    bfloat16 tells neighbouring columns apart by two digits.

    Parameters
    ----------
    query : Tensor [batch, heads, probes, head_dim]
    key : Tensor [batch, kv_heads, columns, head_dim]
    scaling : float
        Of their products.
    at : Tensor [batch, probes] or None
        The column of each query; None where all columns stand before it.
    allowed : Tensor [batch, columns], optional
        Columns that are not padding.

    Returns
    -------
    Tensor [batch, probes, columns]
    """
    kind = torch.promote_types(query.dtype, torch.float32)
    kv_heads, probes = key.shape[1], query.shape[-2]
    # heads of one group share a key: [batch, kv_heads, group * probes, columns]
    query = rearrange(query.to(kind) * scaling, "b (kv group) probes dim -> b kv (group probes) dim", kv=kv_heads)
    with torch.autocast(query.device.type, enabled=False):  # which would multiply in sixteen bits all the same
        product = query @ key.to(kind).mT
    logits = rearrange(product, "b kv (group p) columns -> b (kv group) p columns", p=probes)
    visible = None if allowed is None else allowed[:, None]  # [batch, probes or 1, columns]
    if at is not None:
        before = torch.arange(key.shape[-2], device=key.device) <= at[..., None]
        visible = before if visible is None else before & visible
    if visible is not None:
        logits = logits.masked_fill(~visible[:, None], -torch.inf)
    return logits.softmax(-1).mean(1)


def attention_scores(layer: Any, hidden: Tensor, rope: Rope | None, probe: Tensor, **past: Tensor | None) -> Tensor:
    """`attention_weights` of the rows of `hidden` alone [batch, rows]."""
    return attention_weights(layer, hidden, rope, probe, **past)[:, -hidden.shape[1] :]
