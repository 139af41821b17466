"""What a schedule costs: the paper's formula, and an exact count of every matrix product.

Knows sizes and schedules. Refuses to know tensors and to measure anything. FLOPs are those of matrix products, a
multiply-add as two, as PyTorch's ``FlopCounterMode`` counts them; what goes row by row (norms, activations, RoPE and
its angles, softmax, the sums and comparisons of scorers and evictors) is not counted. What a storage of 8 or 4 bits
computes for each number read is, beside them: every token pays it for every column.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..common.kinds import LayerKind, kinds_of, rank_at
from ..errors import ModelError
from ..pyramid import Schedule
from ..pyramid.scorers import Scorer, scorer_named
from .mixers import Attention, Mixer
from .reading import Uncounted, behind_of, columns_of, entering_of, layer_configs, mixers_of


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
        Where layers differ, `kv_heads` and `head_dim` are those of the first that attends to all columns.
    kinds : tuple of LayerKind
        Of each layer; empty where all attend to everything.
    columns : tuple of (int, int, int)
        What each layer holds of a token: heads, and the width of a key and of a value in each; empty where they are
        `kv_heads` and `head_dim`.
    mixers : tuple of Mixer
        What each layer mixes rows with; empty where it is attention of these sizes.
    behind : tuple of int
        Multiply-adds of one row behind each mixer; empty where it is an MLP of three matrices.
    entering : int
        Multiply-adds of one row before all layers.
    uncounted : str
        Why there are no FLOPs of this decoder; empty where there are.
    """

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    vocabulary: int
    kinds: tuple[LayerKind, ...] = ()
    columns: tuple[tuple[int, int, int], ...] = ()
    mixers: tuple[Mixer, ...] = ()
    behind: tuple[int, ...] = ()
    entering: int = 0
    uncounted: str = ""

    @classmethod
    def of(cls, config: Any) -> DecoderShape:
        """Read a transformers config, of a text model or of a model that has one inside."""
        text = config.get_text_config()
        heads, kinds, columns = text.num_attention_heads, kinds_of(text), columns_of(text)
        one = layer_configs(text)[rank_at(kinds)[0]]
        mixers: tuple[Mixer, ...] = ()
        behind: tuple[int, ...] = ()
        uncounted = ""
        try:
            mixers, behind = mixers_of(text, kinds), behind_of(text, kinds)
        except Uncounted as error:
            uncounted = str(error)
        return cls(
            layers=text.num_hidden_layers,
            hidden=text.hidden_size,
            heads=heads,
            kv_heads=getattr(one, "num_key_value_heads", None) or heads,
            head_dim=getattr(one, "head_dim", None) or text.hidden_size // heads,
            mlp=getattr(text, "intermediate_size", None) or 0,
            vocabulary=text.vocab_size,
            kinds=kinds,
            columns=columns,
            mixers=mixers,
            behind=behind,
            entering=entering_of(text),
            uncounted=uncounted,
        )

    @property
    def rank_at(self) -> tuple[int, ...]:
        """Numbers of the layers before which rows can be ranked; see `Pyramid.resolve`."""
        return rank_at([self.kind(i) for i in range(self.layers)])

    def kind(self, layer: int) -> LayerKind:
        """What a layer does with the rows that came before."""
        return self.kinds[layer] if self.kinds else LayerKind()

    def column(self, layer: int) -> tuple[int, int, int]:
        """Heads of what a layer holds of a token, and the width of a key and of a value in each."""
        return self.columns[layer] if self.columns else (self.kv_heads, self.head_dim, self.head_dim)

    def mixer(self, layer: int) -> Mixer:
        """What a layer mixes rows with.

        Raises
        ------
        ModelError
            If the decoder's FLOPs are not counted.
        """
        if self.uncounted:
            raise ModelError(
                f"the FLOPs of this decoder are not counted: {self.uncounted}. Compare schedules on it by the tokens "
                "that they leave."
            )
        if self.mixers:
            return self.mixers[layer]
        return Attention.of(self.hidden, self.heads, self.kv_heads, self.head_dim)

    def attention(self, layer: int) -> Attention:
        """The same of a layer before which rows can be ranked."""
        mixer = self.mixer(layer)
        assert isinstance(mixer, Attention)
        return mixer

    def kv_bytes_per_token(self, bytes_per_number: int = 2) -> int:
        """Bytes of keys and values that one token takes in all layers together that forget by a budget alone."""
        return sum(self._numbers(i) for i in self.rank_at) * bytes_per_number

    def window_bytes(self, bytes_per_number: int = 2) -> int:
        """Most bytes of keys and values in all layers together whose window forgets by itself."""
        windows = ((i, self.kind(i).window or 0) for i in range(self.layers))
        return sum(window * self._numbers(i) for i, window in windows) * bytes_per_number

    def _numbers(self, layer: int) -> int:
        """That a layer holds of one token."""
        heads, key, value = self.column(layer)
        return heads * (key + value)

    def state_bytes(self, bytes_per_number: int = 2) -> tuple[int, ...]:
        """Bytes of each layer's state, whatever it has seen; 0 of layers without, and where it is not known."""
        return tuple(mixer.state_bytes(bytes_per_number) for mixer in self.mixers) or (0,) * self.layers


def layer_flops(shape: DecoderShape, layer: int, rows: int, past: int = 0, causal: bool = True) -> int:
    """FLOPs of one decoder layer's matrix products, a multiply-add as two.

    Parameters
    ----------
    shape : DecoderShape
    layer : int
        Its number.
    rows : int
        Rows that run through it.
    past : int
        Columns that it already holds. Of a layer with a state, any number but 0 says that it has seen rows.
    causal : bool
        Count only columns that a row may see, as fused kernels compute them: those up to its own, and in a layer with a
        window no more than that, as if no token of it was dropped. False counts all rows over all columns held, as
        eager attention computes them, and fused kernels do that are given a mask.

    Raises
    ------
    ModelError
        If the layers are not counted.
    """
    mixed = shape.mixer(layer).flops(rows, past, causal)
    return mixed + 2 * rows * (shape.behind[layer] if shape.behind else 3 * shape.hidden * shape.mlp)


def entry_flops(shape: DecoderShape, rows: int) -> int:
    """FLOPs of so many rows before the first layer: the projection of what layers get beside them, if they get any."""
    return 2 * rows * shape.entering


def ranking_flops(
    shape: DecoderShape,
    layer: int,
    rows: int,
    past: int = 0,
    probes: int = 1,
    scorer: str | Scorer = "relevance",
    wanted: int = 0,
    remembered: bool = False,
) -> int:
    """FLOPs of ranking at one boundary; by relevance those of the probe's attention.

    Parameters
    ----------
    shape : DecoderShape
    layer : int
        That ranks: the one behind the boundary.
    rows : int
        That wait at the boundary, text and probe included.
    past : int
        Columns that the layer holds.
    probes : int
        Rows that ask.
    scorer : str or Scorer
        See `pdrop_video.pyramid.scorers.Scorer`.
    wanted : int
        Visual rows that stay, for scorers that look at the budget.
    remembered : bool
        Whether what competes are the columns, for a question of so many rows.

    Raises
    ------
    ModelError
        If the layers are not counted.
    """
    method, size = scorer_named(scorer), shape.attention(layer).ranking(rows, past, probes, wanted)
    if (said := getattr(method, "remembered_flops" if remembered else "flops", None)) is not None:
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
    newest: bool = False,
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
        Columns that each layer already holds; see `layer_flops`.
    causal : bool
        See `layer_flops`.
    scorer : str or Scorer
        What ranks.
    newest : bool
        Whether layers behind the last boundary which all use keys of others run the last row alone, as in `generate`.
    """
    past = past or (0,) * shape.layers
    per_layer, counts = schedule.per_layer(visual), schedule.counts(visual)
    total = entry_flops(shape, visual + text)
    own = max((i for i in range(shape.layers) if shape.kind(i).source is None), default=-1)
    for i, (n, held) in enumerate(zip(per_layer, past, strict=True)):
        rows = 1 if newest and i > own and i >= max(schedule.layers, default=0) else n + text
        total += layer_flops(shape, i, rows, held + n + text - rows, causal)
    ranked = schedule.layers[:1] if scorer_named(scorer).once else schedule.layers
    for stage, layer in enumerate(ranked):
        wait, wanted = counts[stage] + text, counts[stage + 1]
        total += ranking_flops(shape, layer, wait, past[layer], scorer=scorer, wanted=wanted)
    return total + logits_flops(shape)


def decode_flops(shape: DecoderShape, cached: tuple[int, ...], tokens: int = 1, causal: bool = True) -> int:
    """FLOPs of decoding `tokens` tokens one by one when layer i holds ``cached[i]`` columns at the start.

    Layers with a state have one, whatever is said of them, and those with a window forget nothing meanwhile.
    """
    begun = [held if shape.kind(i).holds else 1 for i, held in enumerate(cached)]
    step = sum(layer_flops(shape, i, 1, held + done, causal) for done in range(tokens) for i, held in enumerate(begun))
    return step + entry_flops(shape, tokens) + tokens * logits_flops(shape)
