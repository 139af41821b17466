"""What a schedule costs: the paper's formula, and an exact count of every matrix product.

Knows sizes and schedules. Refuses to know tensors and to measure anything. FLOPs are those of matrix products, a
multiply-add as two, as PyTorch's ``FlopCounterMode`` counts them; what goes row by row (norms, activations, RoPE and
its angles, softmax, the sums and comparisons of scorers and evictors) is not counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..common.kinds import LayerKind, kinds_of, rank_at
from ..errors import ModelError
from ..pyramid import Schedule
from ..pyramid.scorers import RankingSize, Scorer, scorer_named


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
    experts : int
        MLPs that each row passes; 0 where layers have experts in a way that is not counted.
    router : int
        Experts among which a router chooses for each row; 0 without one.
    kinds : tuple of LayerKind
        Of each layer; empty where all attend to everything.
    columns : tuple of (int, int, int)
        What each layer holds of a token: heads, and the width of a key and of a value in each; empty where they are
        `kv_heads` and `head_dim`.
    """

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    vocabulary: int
    gated: bool = True
    experts: int = 1
    router: int = 0
    kinds: tuple[LayerKind, ...] = ()
    columns: tuple[tuple[int, int, int], ...] = ()

    @classmethod
    def of(cls, config: Any) -> DecoderShape:
        """Read a transformers config, of a text model or of a model that has one inside."""
        text = config.get_text_config()
        heads = text.num_attention_heads
        experts, router = _experts(text)
        kinds, layers = kinds_of(text), _layer_configs(text)
        one = layers[rank_at(kinds)[0]]  # of the layers whose columns a budget bounds
        return cls(
            layers=text.num_hidden_layers,
            hidden=text.hidden_size,
            heads=heads,
            kv_heads=getattr(one, "num_key_value_heads", None) or heads,
            head_dim=getattr(one, "head_dim", None) or text.hidden_size // heads,
            mlp=(getattr(text, "moe_intermediate_size", None) if router else None) or text.intermediate_size,
            vocabulary=text.vocab_size,
            gated=text.model_type not in _UNGATED,
            experts=experts,
            router=router,
            kinds=kinds,
            columns=_columns(text),
        )

    def kind(self, layer: int) -> LayerKind:
        """What a layer does with the rows that came before."""
        return self.kinds[layer] if self.kinds else LayerKind()

    def column(self, layer: int) -> tuple[int, int, int]:
        """Heads of what a layer holds of a token, and the width of a key and of a value in each."""
        return self.columns[layer] if self.columns else (self.kv_heads, self.head_dim, self.head_dim)

    def kv_bytes_per_token(self, bytes_per_number: int = 2) -> int:
        """Bytes of keys and values that one token takes in all layers together."""
        return 2 * self.layers * self.kv_heads * self.head_dim * bytes_per_number


_UNGATED = ("cosmos3_edge_text",)
"""Decoders whose MLPs have no gate, which no config says."""


def _layer_configs(text: Any) -> list[Any]:
    """The configuration of each layer, where layers differ."""
    return list(getattr(text, "per_layer_config", None) or [text] * text.num_hidden_layers)


def _columns(text: Any) -> tuple[tuple[int, int, int], ...]:
    """What each layer holds of a token; see `DecoderShape`."""
    heads, count = text.num_attention_heads, text.num_hidden_layers
    if rank := getattr(text, "kv_lora_rank", None):  # latents, beside which stands the key that all heads share
        return ((1, text.qk_rope_head_dim, rank),) * count
    columns = []
    for each in _layer_configs(text):
        dim = getattr(each, "head_dim", None) or text.hidden_size // heads
        columns.append((getattr(each, "num_key_value_heads", None) or heads, dim, dim))
    return tuple(columns)


def _experts(text: Any) -> tuple[int, int]:
    """How many experts each row passes in every layer, and among how many; see `DecoderShape`."""
    said = {name: value for name, value in text.to_dict().items() if "expert" in name}
    number = max((value for name, value in said.items() if isinstance(value, int) and "per_tok" not in name), default=0)
    if number < 2:
        return 1, 0
    shared = any(value for name, value in said.items() if "shared" in name)
    among = said.get("num_experts") or said.get("num_local_experts") or 0
    dense = getattr(text, "mlp_only_layers", None) or getattr(text, "decoder_sparse_step", 1) != 1
    chosen = said.get("num_experts_per_tok") or 0
    return (chosen, among) if among and chosen and not (shared or dense) else (0, 0)


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

    Raises
    ------
    ModelError
        If the layers have experts in a way that is not counted: shared ones, or in some layers only.
    """
    if not shape.experts:
        raise ModelError(
            "the FLOPs of this decoder are not counted: its layers have experts of which some are shared, or that only "
            "some layers have. Compare schedules on it by the tokens that they leave."
        )
    wide, narrow = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    projections = 2 * rows * shape.hidden * (2 * wide + 2 * narrow)
    columns = rows * past + (rows * (rows + 1) // 2 if causal else rows * rows)
    attention = 2 * 2 * columns * wide
    mlp = shape.experts * shape.mlp * (3 if shape.gated else 2) + shape.router
    return projections + attention + 2 * rows * shape.hidden * mlp


def ranking_flops(
    shape: DecoderShape,
    rows: int,
    past: int = 0,
    probes: int = 1,
    scorer: str | Scorer = "relevance",
    wanted: int = 0,
) -> int:
    """FLOPs of ranking at one boundary; by relevance those of the probe's attention.

    Parameters
    ----------
    shape : DecoderShape
    rows : int
        That wait at the boundary, text and probe included.
    past : int
        Columns that the next layer holds.
    probes : int
        Rows that ask.
    scorer : str or Scorer
        See `pdrop_video.pyramid.scorers.Scorer`.
    wanted : int
        Visual rows that stay, for scorers that look at the budget.
    """
    method = scorer_named(scorer)
    wide, narrow = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    size = RankingSize(rows, past, probes, shape.hidden, wide, narrow, wanted)
    if (said := getattr(method, "flops", None)) is not None:
        return said(size)
    return size.attention() if method.uses_probe else 0


def logits_flops(shape: DecoderShape, rows: int = 1) -> int:
    """FLOPs of so many rows' logits."""
    return 2 * rows * shape.hidden * shape.vocabulary


def prefill_flops(
    shape: DecoderShape,
    schedule: Schedule,
    visual: int,
    text: int,
    past: tuple[int, ...] | None = None,
    causal: bool = True,
    scorer: str | Scorer = "relevance",
) -> int:
    """FLOPs of one prefill under a schedule, ranking and the last row's logits included.

    What a stream runs in place of that, chunk after chunk, `pdrop_video.costs.stream` counts.

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
    scorer : str or Scorer
        What ranks.
    """
    past = past or (0,) * shape.layers
    per_layer, counts = schedule.per_layer(visual), schedule.counts(visual)
    total = sum(layer_flops(shape, n + text, held, causal) for n, held in zip(per_layer, past, strict=True))
    ranked = schedule.layers[:1] if scorer_named(scorer).once else schedule.layers
    for stage, layer in enumerate(ranked):
        total += ranking_flops(shape, counts[stage] + text, past[layer], scorer=scorer, wanted=counts[stage + 1])
    return total + logits_flops(shape)


def decode_flops(shape: DecoderShape, cached: tuple[int, ...], tokens: int = 1) -> int:
    """FLOPs of decoding `tokens` tokens one by one when layer i holds ``cached[i]`` columns at the start."""
    step = sum(layer_flops(shape, 1, held + done) for done in range(tokens) for held in cached)
    return step + tokens * logits_flops(shape)
