"""What a schedule costs: the paper's formula, and an exact count of every matrix product.

Knows sizes and schedules. Refuses to know tensors and to measure anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..pyramid import Schedule


def paper_flops(tokens_per_layer: Iterable[int], hidden: int, mlp: int) -> float:
    """FLOPs as PyramidDrop counts them (arXiv 2410.17247, section 3.4): visual tokens only.

    The sum over layers of ``4 n d^2 + 2 n^2 d + 3 n d m``. The formula takes a multiply-add as one operation and
    all attention heads as having their own keys; use `prefill_flops` for the cost of a real model.

    Parameters
    ----------
    tokens_per_layer : iterable of int
        Visual tokens n that enter each layer, for example ``Pyramid().resolve(32).per_layer(576)``.
    hidden, mlp : int
        Hidden size d and MLP size m.

    Examples
    --------
    >>> from pdrop_video import Pyramid
    >>> per_layer = Pyramid().resolve(32).per_layer(576)
    >>> f"{paper_flops(per_layer, hidden=4096, mlp=11008) / 1e12:.2f} T"
    '1.78 T'
    """
    return float(sum(4 * n * hidden**2 + 2 * n**2 * hidden + 3 * n * hidden * mlp for n in tokens_per_layer))


@dataclass(frozen=True, slots=True)
class DecoderShape:
    """The sizes of a decoder stack that its cost depends on.

    Attributes
    ----------
    layers, hidden, heads, kv_heads, head_dim, mlp, vocabulary : int
    gated : bool
        Whether the MLP has a gate (three matrices) or not (two).
    """

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    vocabulary: int
    gated: bool = True

    @classmethod
    def of(cls, config: Any) -> DecoderShape:
        """Read a transformers config, of a text model or of a model that has one inside."""
        text = config.get_text_config()
        heads = text.num_attention_heads
        return cls(
            layers=text.num_hidden_layers,
            hidden=text.hidden_size,
            heads=heads,
            kv_heads=getattr(text, "num_key_value_heads", None) or heads,
            head_dim=getattr(text, "head_dim", None) or text.hidden_size // heads,
            mlp=text.intermediate_size,
            vocabulary=text.vocab_size,
        )

    def kv_bytes_per_token(self, bytes_per_number: int = 2) -> int:
        """Bytes of keys and values that one token takes in all layers together."""
        return 2 * self.layers * self.kv_heads * self.head_dim * bytes_per_number


def layer_flops(shape: DecoderShape, rows: int, past: int = 0, causal: bool = True) -> int:
    """FLOPs of one decoder layer's matrix products, a multiply-add as two.

    Parameters
    ----------
    shape : DecoderShape
    rows : int
        Rows that run through the layer.
    past : int
        Columns that it already holds.
    causal : bool
        Count only columns that a row may see, as fused kernels compute them; False counts the full square, as eager
        attention computes it.
    """
    wide, narrow = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    projections = 2 * rows * shape.hidden * (2 * wide + 2 * narrow)
    columns = rows * past + (rows * (rows + 1) // 2 if causal else rows * rows)
    attention = 2 * 2 * columns * wide
    return projections + attention + 2 * rows * shape.hidden * shape.mlp * (3 if shape.gated else 2)


def ranking_flops(shape: DecoderShape, rows: int, past: int = 0, probes: int = 1) -> int:
    """FLOPs of ranking at one boundary: keys of all rows, queries of the probe rows, and their products."""
    wide, narrow = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    return 2 * shape.hidden * (rows * narrow + probes * wide) + 2 * probes * (rows + past) * wide


def prefill_flops(
    shape: DecoderShape,
    schedule: Schedule,
    visual: int,
    text: int,
    past: tuple[int, ...] | None = None,
    causal: bool = True,
) -> int:
    """FLOPs of one prefill under a schedule, ranking and the last row's logits included.

    Parameters
    ----------
    shape : DecoderShape
    schedule : Schedule
        Resolved for this depth.
    visual, text : int
        Rows of each kind that enter.
    past : tuple of int, optional
        Columns that each layer already holds.
    causal : bool
        See `layer_flops`.
    """
    past = past or (0,) * shape.layers
    per_layer, counts = schedule.per_layer(visual), schedule.counts(visual)
    total = sum(layer_flops(shape, n + text, held, causal) for n, held in zip(per_layer, past, strict=True))
    for stage, layer in enumerate(schedule.layers):
        total += ranking_flops(shape, counts[stage] + text, past[layer])
    return total + 2 * shape.hidden * shape.vocabulary


def decode_flops(shape: DecoderShape, cached: tuple[int, ...], tokens: int = 1) -> int:
    """FLOPs of decoding `tokens` tokens one by one when layer i holds ``cached[i]`` columns at the start."""
    step = sum(layer_flops(shape, 1, held + done) for done in range(tokens) for held in cached)
    return step + tokens * 2 * shape.hidden * shape.vocabulary
