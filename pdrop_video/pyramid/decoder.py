"""A decoder stack of transformers as a row of layers: what each is, and what it has to be given beside its rows.

Knows the names that transformers gives to the parts of a stack. Refuses to know what is dropped, and when.
"""

from __future__ import annotations

import inspect
from collections import UserDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from ..common.hooks import computes_on
from ..common.kinds import kinds_of
from ..common.ties import working
from .heads import Rope, attention_of, is_latent, rotate_held, turned
from .rank import distinct_rows
from .rows import CACHE
from .stack import MARKS, refuse_other_stacks

Lent = tuple[Tensor, Tensor]
"""Keys and values [batch, kv_heads, rows, head_dim] that a layer uses in place of its own."""


class _Shared(UserDict[str, Lent]):
    """Keys and values that layers share. No dict, of which accelerate would hand a layer a copy to write into."""

    def to(self, device: Any, **_: Any) -> _Shared:
        """Move all of them, as accelerate does for a layer on another device."""
        for name, (keys, values) in list(self.items()):
            self[name] = keys.to(device), values.to(device)
        return self


def stack_of(text: Any) -> Any:
    """The stack of decoder layers in what a model's ``get_decoder()`` gives, which may be a model around it."""
    return text if hasattr(text, "layers") else getattr(text, "model", text)


def embeddings_of(text: Any) -> Any:
    """A stack's table of token embeddings."""
    return text.embed_tokens if hasattr(text, "embed_tokens") else text.embeddings


def some_rows(text: Any, rows: int) -> tuple[Tensor, Tensor]:
    """Embeddings of a few tokens [1, rows, hidden], and their ids; drawn without touching anybody's generator."""
    table = embeddings_of(text)
    ids = torch.randint(text.config.vocab_size, (1, rows), generator=torch.Generator().manual_seed(0))
    device = next((each.device for each in table.parameters() if not each.is_meta), ids.device)
    ids = ids.to(device)
    return table(ids), ids


def logits_of(model: Any, normed: Tensor) -> Tensor:
    """Logits [..., vocabulary] of rows that left a model's last norm."""
    text = model.config.get_text_config()
    head = model.get_output_embeddings()
    head = model.get_decoder().get_output_embeddings() if head is None else head  # of a decoder that brings its own
    logits: Tensor = head(normed)
    for name in ("output_multiplier", "logit_scale"):  # Muse's, Cohere's
        if (scale := getattr(text, name, None)) is not None:
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
    counts : bool
        Whether windows count tokens by themselves, since positions (M-RoPE) do not.
    by_length : bool
        Whether a row's angles depend on how far the rows beside it reach.
    marked : bool
        Whether layers are told which rows are visual, to which they give experts of their own (ERNIE 4.5 VL).

    Raises
    ------
    ModelError
        If the stack is of a kind that is not supported.
    """

    def __init__(self, text: Any) -> None:
        refuse_other_stacks(text)
        self.text, self.layers, self.kinds = text, text.layers, kinds_of(text.config)
        self.rotary = getattr(text, "rotary_emb", None)
        self._last: tuple[Tensor, Any, Rope] | None = None
        sections = "mrope_section" in (getattr(text.config, "rope_parameters", None) or {})
        mixing = ("mrope_section", "apply_interleaved_mrope")  # the second in older ones, where each kind has a section
        self.axes = 3 if sections or any(hasattr(self.rotary, name) for name in mixing) else 1
        self.width: int = text.config.hidden_size
        self.names: list[str] = list(getattr(text.config, "layer_types", None) or [])
        self.by_name = (
            self.rotary is not None and "layer_type" in inspect.signature(type(self.rotary).forward).parameters
        )
        told = getattr(text.config, "rope_parameters", None) or {}
        self.by_length = any(
            isinstance(each, Mapping) and each.get("rope_type") in ("dynamic", "longrope")
            for each in (told, *told.values())
        )
        self.without = {i for i, theta in enumerate(getattr(text.config, "layer_rope_theta", None) or []) if not theta}
        self.lends = any(kind.source is not None for kind in self.kinds)
        takes = inspect.signature(type(self.layers[0]).forward).parameters
        # Gemma's layers of 5.16 want it without lending
        self.shares = self.lends or "shared_kv_states" in takes
        if self.by_name:  # types of layers that have none of the angles
            angles = text.config.rope_parameters
            self.without |= {i for i, name in enumerate(self.names) if name in angles and angles[name] is None}
        self.counts = self.axes == 3 and any(kind.window is not None for kind in self.kinds)
        self.marked = MARKS in inspect.signature(type(self.layers[0]).forward).parameters
        self.latent = any(is_latent(attention_of(layer)) for layer in self.layers)

    def norm(self, hidden: Tensor) -> Tensor:
        """What follows the last layer."""
        names = ("norm", "embedding_norm", "norm_f")
        return next(getattr(self.text, name) for name in names if hasattr(self.text, name))(hidden)

    def device(self, i: int) -> torch.device | None:
        """Where accelerate lets layer `i` compute; None where it has no say, and layers are where rows are."""
        return computes_on(self.layers[i])

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
        if self.axes == 3 and positions.ndim == 2:  # one number a token, which some versions take thrice alone
            positions = positions.expand(3, *positions.shape)
        cos, sin = self.rotary(hidden, positions, name) if self.by_name else self.rotary(hidden, positions)
        return cos.to(hidden.device), sin.to(hidden.device)  # accelerate may have it on another one

    def turn(self, layer: int, keys: Tensor, by: Tensor) -> Tensor:
        """Keys of a layer [kv_heads, tokens, head_dim] moved by so many positions [tokens, axes]: one rotation.

        In at least float32, whatever the keys' own type; what the keys were rotated by before stays in them.
        """
        states = working(keys[None])
        if (rope := self._angles(layer, states, by)) is None:
            return keys
        return rotate_held(attention_of(self.layers[layer]), states, rope)[0].to(keys)

    def _angles(self, layer: int, states: Tensor, by: Tensor) -> Rope | None:
        """Cos and sin of `by`; those of the last call if it had the same tensor, as layers one after another have."""
        known, key = self._last, (self.rope_name(layer), states.dtype, states.device)
        if known is not None and known[0] is by and known[1] == key:
            return known[2]
        # tokens between two gaps move together: few angles for many keys
        distinct, which = distinct_rows(by.to(states.device))
        delta = distinct.T[:, None] if self.axes == 3 else distinct.T
        if (rope := self.rope(layer, states, delta)) is None:
            return None
        cos, sin = turned(rope)
        angles = cos.index_select(-2, which), sin.index_select(-2, which)
        self._last = by, key, angles
        return angles

    def bare(self, layer: int, keys: Tensor, at: Tensor) -> Tensor:
        """Keys of a layer [kv_heads, tokens, head_dim] that were rotated to some positions [tokens, axes], un-rotated.

        As a layer's projection made them, also where a family scales its RoPE.
        """
        states = self.turn(layer, keys, -at)[None]
        start = at.new_zeros((3, 1, 1) if self.axes == 3 else (1, 1))
        if (rope := self.rope(layer, states, start)) is None:
            return keys
        cos, sin = turned(rope)
        unscaled = cos / torch.hypot(*rope), sin
        return rotate_held(attention_of(self.layers[layer]), states, unscaled)[0]

    # -- rows that are wider than a hidden state ----------------------------------------------------------------------

    @property
    def extra(self) -> int:
        """Numbers that each layer gets of a row beside its hidden state (Gemma's per-layer embeddings)."""
        return getattr(self.text.config, "hidden_size_per_layer_input", None) or 0

    @property
    def wider(self) -> bool:
        """Whether rows that enter have more than a hidden state."""
        return self.marked or bool(self.extra)

    def widened(self, embeds: Tensor, ids: Tensor | None, marks: Tensor | None = None) -> Tensor:
        """Embeddings [..., rows, hidden] with what layers get of each row behind them, if they get anything.

        That is something of its token id, or whether it is visual: `marks` [..., rows], nothing of which is where there
        are none.
        """
        if self.marked:
            flags = torch.zeros_like(embeds[..., 0]) if marks is None else marks.to(embeds.device) != 0
            return torch.cat([embeds, flags[..., None].to(embeds)], dim=-1)
        if not self.extra:
            return embeds
        return torch.cat([embeds, self.text.get_per_layer_inputs(ids, None).flatten(-2).to(embeds)], dim=-1)

    def parted(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """Hidden states [batch, rows, hidden] that enter, and what layers get beside [batch, rows, layers, extra]."""
        if not self.wider:
            return rows, None
        hidden, more = rows.split([self.width, rows.shape[-1] - self.width], dim=-1)
        if self.marked:
            return hidden, more[:, :, None].expand(-1, -1, len(self.layers), -1)
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
        shared: Any = {}
        if self.shares:
            shared = _Shared({} if lent is None else {self.names[i]: lent})
            given["shared_kv_states"] = shared
        if self.rotary is not None:
            given["position_embeddings"] = rope
        if extra is not None:
            given |= {MARKS: extra[..., 0].long()} if self.marked else {"per_layer_input": extra}
        # position_ids stay out: RoPE is in position_embeddings, and gaps look like packed rows to flash attention
        hidden = self.layers[i](hidden, attention_mask=mask, position_ids=None, use_cache=cache is not None, **given)
        return hidden, shared.get(self.names[i]) if self.lends and shared else None
