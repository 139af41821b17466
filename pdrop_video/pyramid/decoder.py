"""A decoder stack of transformers as a row of layers: what each is, and what it has to be given beside its rows.

Knows the names that transformers gives to the parts of a stack. Refuses to know what is dropped, and when.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from ..common.kinds import kinds_of
from .heads import Rope, attention_of, is_latent
from .rows import CACHE
from .stack import refuse_other_stacks

Lent = tuple[Tensor, Tensor]
"""Keys and values [batch, kv_heads, rows, head_dim] that a layer uses in place of its own."""


def stack_of(text: Any) -> Any:
    """The stack of decoder layers in what a model's ``get_decoder()`` gives, which may be a model around it."""
    return text if hasattr(text, "layers") else getattr(text, "model", text)


def embeddings_of(text: Any) -> Any:
    """A stack's table of token embeddings."""
    return text.embed_tokens if hasattr(text, "embed_tokens") else text.embeddings


def logits_of(model: Any, normed: Tensor) -> Tensor:
    """Logits [..., vocabulary] of rows that left a model's last norm."""
    text = model.config.get_text_config()
    logits: Tensor = model.get_output_embeddings()(normed)
    if (scale := getattr(text, "output_multiplier", None)) is not None:
        logits = logits * scale
    cap = getattr(text, "final_logit_softcapping", None)
    return logits if cap is None else cap * (logits / cap).tanh()


class Decoder:
    """A decoder stack.

    Parameters
    ----------
    text : nn.Module
        As `stack_of` finds it.

    Attributes
    ----------
    kinds : tuple of LayerKind
        Of each layer.
    axes : int
        Numbers in a position: 3 with M-RoPE (time, height, width), else 1.
    width : int
        Numbers in a row of hidden states. Rows that enter may be wider: see `widened`.

    Raises
    ------
    ModelError
        If the stack is of a kind that is not supported.
    """

    def __init__(self, text: Any) -> None:
        refuse_other_stacks(text)
        self.text, self.layers, self.kinds = text, text.layers, kinds_of(text.config)
        self.rotary = getattr(text, "rotary_emb", None)
        sections = "mrope_section" in (getattr(text.config, "rope_parameters", None) or {})
        mixing = ("mrope_section", "apply_interleaved_mrope")  # the second in older ones, where each kind has a section
        self.axes = 3 if sections or any(hasattr(self.rotary, name) for name in mixing) else 1
        self.width: int = text.config.hidden_size
        self.names: list[str] = list(getattr(text.config, "layer_types", None) or [])
        self.by_name = self.rotary is not None and "layer_type" in inspect.signature(self.rotary.forward).parameters
        self.without = {i for i, theta in enumerate(getattr(text.config, "layer_rope_theta", None) or []) if not theta}
        self.lends = any(kind.source is not None for kind in self.kinds)
        takes = inspect.signature(self.layers[0].forward).parameters  # Gemma's layers of 5.16 want it without lending
        self.shares = self.lends or "shared_kv_states" in takes
        self.latent = any(is_latent(attention_of(layer)) for layer in self.layers)

    def norm(self, hidden: Tensor) -> Tensor:
        """What follows the last layer."""
        names = ("norm", "embedding_norm", "norm_f")
        return next(getattr(self.text, name) for name in names if hasattr(self.text, name))(hidden)

    # -- positions --------------------------------------------------------------------------------------------------

    def rope_name(self, i: int) -> str | None:
        """By what layers are told whose RoPE is the same; None of a layer that has none."""
        if self.rotary is None or i in self.without or not self.kinds[i].holds:
            return None
        if not self.by_name:
            return ""
        return self.names[i] if self.names[i] in getattr(self.rotary, "layer_types", self.names) else None

    def rope(self, i: int, hidden: Tensor, positions: Tensor) -> Rope | None:
        """Cos and sin of layer `i` at some positions [batch, rows] or [3, batch, rows]; in the type of `hidden`."""
        if (name := self.rope_name(i)) is None:
            return None
        assert self.rotary is not None
        return self.rotary(hidden, positions, name) if self.by_name else self.rotary(hidden, positions)

    # -- rows that are wider than a hidden state ----------------------------------------------------------------------

    @property
    def extra(self) -> int:
        """Numbers that each layer gets of a row beside its hidden state (Gemma's per-layer embeddings)."""
        return getattr(self.text.config, "hidden_size_per_layer_input", None) or 0

    def widened(self, embeds: Tensor, ids: Tensor) -> Tensor:
        """Embeddings [..., rows, hidden] with what each layer gets of each row's token id behind them, if any does."""
        if not self.extra:
            return embeds
        return torch.cat([embeds, self.text.get_per_layer_inputs(ids, None).flatten(-2).to(embeds)], dim=-1)

    def parted(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """Hidden states [batch, rows, hidden] that enter, and what layers get beside [batch, rows, layers, extra]."""
        if not self.extra:
            return rows, None
        hidden, more = rows.split([self.width, rows.shape[-1] - self.width], dim=-1)
        more = more.unflatten(-1, (len(self.layers), self.extra))
        return hidden, self.text.project_per_layer_inputs(hidden, more)

    # -- one layer --------------------------------------------------------------------------------------------------

    def run(
        self,
        i: int,
        hidden: Tensor,
        mask: Any,
        rope: Rope | None,
        cache: Cache | None,
        extra: Tensor | None = None,
        lent: Lent | None = None,
    ) -> tuple[Tensor, Lent | None]:
        """Run layer `i`.

        Parameters
        ----------
        i : int
        hidden : Tensor [batch, rows, hidden]
        mask : Tensor or other, optional
            Of attention, or the rows that are no padding.
        rope : (cos, sin), optional
        cache : Cache, optional
            Grows by these rows.
        extra : Tensor [batch, rows, extra], optional
            What the layer gets beside them.
        lent : (Tensor, Tensor), optional
            All keys and values that it attends to, if they are those of another layer.

        Returns
        -------
        hidden : Tensor [batch, rows, hidden]
        lent : (Tensor, Tensor) or None
            Keys and values that other layers may use; None if nobody does.
        """
        given: dict[str, Any] = {CACHE: cache}
        shared: dict[str, Lent] = {} if lent is None else {self.names[i]: lent}
        if self.shares:
            given["shared_kv_states"] = shared
        if self.rotary is not None:
            given["position_embeddings"] = rope
        if extra is not None:
            given["per_layer_input"] = extra
        # position_ids stay out: RoPE is in position_embeddings, and gaps look like packed rows to flash attention
        hidden = self.layers[i](hidden, attention_mask=mask, position_ids=None, use_cache=cache is not None, **given)
        return hidden, shared.get(self.names[i]) if self.lends and shared else None
