"""The decoder's layer loop, run in stages with fewer visual rows in each.

Knows a decoder stack as transformers builds it (``layers``, ``norm``, ``rotary_emb``, ``config``) and a
transformers cache whose layers may hold different lengths. Refuses to know model families, pixels and streams.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache
from transformers.masking_utils import create_causal_mask

from ..errors import ConfigError, ModelError
from .allocators import allocator_named
from .rank import Rope
from .schedule import Pyramid, Schedule
from .scorers import Ranking, scorer_named
from .select import keep_best


@dataclass(frozen=True, slots=True)
class Boundary:
    """What happened where a stage ended; rows are numbered as they entered the loop.

    Attributes
    ----------
    ranked : Tensor [batch, rows before]
        Row numbers before the drop (-1 where padding).
    scores : Tensor [batch, rows before]
        Their scores; meaningful for visual rows.
    kept : Tensor [batch, rows after]
        Row numbers after the drop (-1 where padding).
    """

    ranked: Tensor
    scores: Tensor
    kept: Tensor


@dataclass(slots=True)
class Rows:
    """The rows in flight through the layers.

    Attributes
    ----------
    hidden : Tensor [batch, rows, hidden]
    positions : Tensor [batch, rows] or [3, batch, rows]
        Position ids for RoPE.
    visual : Tensor [batch, rows]
        Rows that compete at boundaries.
    valid : Tensor [batch, rows] or None
        False where padding; None if nothing is.
    origin : Tensor [batch, rows]
        The row number with which each row entered.
    frame, place : Tensor [batch, rows]
        Of visual rows, the step of time within the call and the place in the picture; -1 for text.
    boundaries : list of Boundary
    """

    hidden: Tensor
    positions: Tensor
    visual: Tensor
    valid: Tensor | None
    origin: Tensor
    frame: Tensor
    place: Tensor
    boundaries: list[Boundary] = field(default_factory=list)


class LayerLoop:
    """Runs rows through a decoder stack and drops visual rows at the schedule's boundaries.

    Parameters
    ----------
    text : nn.Module
        The decoder stack, ``model.get_decoder()``.
    pyramid : Pyramid
        Where and how much to drop.

    Raises
    ------
    ModelError
        If the stack is not one of full-attention decoder layers.
    ConfigError
        If the schedule does not fit the model.
    """

    def __init__(self, text: Any, pyramid: Pyramid) -> None:
        for part in ("layers", "norm", "rotary_emb", "embed_tokens"):
            if not hasattr(text, part):
                raise ModelError(
                    f"{type(text).__name__} has no `{part}`; expected a decoder stack of transformers such as "
                    "LlamaModel or Qwen2_5_VLTextModel. Pass the whole model; its get_decoder() must find the stack."
                )
        if sliding := set(getattr(text.config, "layer_types", None) or []) - {"full_attention"}:
            raise ModelError(f"{type(text).__name__} uses {sorted(sliding)} layers; only full attention is supported.")
        self.text = text
        self.schedule: Schedule = pyramid.resolve(len(text.layers))
        self.axes = 3 if "mrope_section" in (getattr(text.config, "rope_parameters", None) or {}) else 1
        self.scorer, self.allocator = scorer_named(pyramid.scorer or "relevance"), allocator_named(pyramid.allocator)
        self.compact = pyramid.positions == "compact"
        if self.compact and self.axes == 3:
            raise ConfigError(
                'positions="compact" renumbers tokens in one dimension, but this model has M-RoPE (time, height, '
                'width), which needs positions="original".'
            )

    def run(
        self,
        hidden: Tensor,
        positions: Tensor,
        visual: Tensor | None,
        *,
        probe: Tensor | None = None,
        transient: Tensor | None = None,
        frame: Tensor | None = None,
        place: Tensor | None = None,
        valid: Tensor | None = None,
        cache: Cache | None = None,
        cached_valid: list[Tensor | None] | None = None,
        deepstack: list[Tensor] | None = None,
    ) -> Rows:
        """Run all layers; the final norm is left to the caller.

        Parameters
        ----------
        hidden : Tensor [batch, rows, hidden]
            Input embeddings.
        positions : Tensor [batch, rows] or [3, batch, rows]
            Position ids (ignored for RoPE in compact mode).
        visual : Tensor [batch, rows], bool, or None
            Rows that compete; None drops nothing.
        probe : Tensor [batch, probes], optional
            Rows that rank; negative places are empty, and a sample without any is not dropped.
        transient : Tensor [batch, rows], bool, optional
            Rows that leave at the last boundary: a probe that nobody needs once it has ranked.
        frame, place : Tensor [batch, rows], optional
            Of visual rows, the step of time and the place in the picture, for scorers and allocators that tell them
            apart; all one frame, and no two at the same place, when left out.
        valid : Tensor [batch, rows], bool, optional
            False where padding.
        cache : Cache, optional
            Grows by the rows that each layer saw.
        cached_valid : list of Tensor or None, optional
            Per layer the validity [batch, past] of what `cache` holds; brought up to date in place.
        deepstack : list of Tensor [batch, rows, hidden], optional
            Features that Qwen3-VL adds after its first layers.

        Returns
        -------
        Rows
            What left the last layer.
        """
        batch, length = hidden.shape[:2]
        origin = torch.arange(length, device=hidden.device).expand(batch, -1)
        drops = visual is not None and probe is not None
        nothing = torch.zeros_like(origin, dtype=torch.bool)
        kind = nothing if visual is None or not drops else visual
        frame = torch.where(kind, 0, -1) if frame is None else frame
        place = torch.where(kind, origin, -1) if place is None else place
        rows = Rows(hidden, positions, kind, valid, origin, frame, place)
        n_visual, n_text = _count(rows) if drops else ([], [])
        asked = (probe >= 0).any(1).tolist() if probe is not None and drops else []
        ratio_of = dict(zip(self.schedule.layers, self.schedule.ratios, strict=True)) if drops else {}
        last = max(ratio_of, default=-1)
        memo: dict[Any, Any] = {}  # RoPE and masks are the same for neighbouring layers
        for i, layer in enumerate(self.text.layers):
            past_valid = cached_valid[i] if cached_valid is not None else None
            if i in ratio_of:
                leaving = transient if i == last else None
                # int() of the float64 product with the *original* count, as the released code has it
                wanted = [int(n * ratio_of[i]) if ask else n for n, ask in zip(n_visual, asked, strict=True)]
                self._drop(rows, i, wanted, n_text, probe, leaving, cache, past_valid)
                memo.clear()
                if rows.hidden.shape[1] == 0:  # a small chunk at a small ratio: nothing is left for deeper layers
                    break
            rope = self._rope(rows, cache, i, past_valid, memo)
            mask, allowed = self._mask(rows, cache, i, past_valid, memo)
            # position_ids stay out: RoPE is in position_embeddings, and gaps look like packed rows to flash attention
            rows.hidden = layer(
                rows.hidden,
                attention_mask=mask,
                position_ids=None,
                position_embeddings=rope,
                past_key_values=cache,
                use_cache=cache is not None,
            )
            if cached_valid is not None:
                cached_valid[i] = allowed
            if deepstack is not None and i < len(deepstack):
                rows.hidden = rows.hidden + deepstack[i].take_along_dim(rows.origin[..., None], 1)
        return rows

    def _drop(
        self,
        rows: Rows,
        i: int,
        wanted: list[int],
        n_text: list[int],
        probe: Tensor | None,
        leaving: Tensor | None,
        cache: Cache | None,
        past_valid: Tensor | None,
    ) -> None:
        """Rank with layer `i`, keep the best `wanted` visual rows of each sample, and gather everything."""
        assert probe is not None
        real = torch.ones_like(rows.visual) if rows.valid is None else rows.valid
        # where the probe rows are now: text is never dropped before the last boundary, so each is found
        here = (rows.origin[:, None] == probe[..., None]) & real[:, None]
        probe_now = here.long().argmax(-1).masked_fill(probe < 0, -1)
        competing = rows.visual & real
        scores = self.scorer(
            Ranking(
                layer=self.text.layers[i],
                hidden=rows.hidden,
                rope=self._rope(rows, cache, i, past_valid, {}),
                probe=probe_now,
                visual=competing,
                frame=rows.frame,
                place=rows.place,
                past_keys=_held(cache, i),
                allowed=_allowed(rows, cache, i, past_valid),
            )
        )
        priority = self.allocator(scores, competing, rows.frame)
        staying = ~rows.visual & real
        if leaving is not None:
            gone = leaving.gather(1, rows.origin)
            staying, n_text = staying & ~gone, [n - m for n, m in zip(n_text, leaving.sum(1).tolist(), strict=True)]
        totals = [v + t for v, t in zip(wanted, n_text, strict=True)]
        index, valid = keep_best(priority, competing, staying, totals)
        before = rows.origin.masked_fill(~real, -1)
        rows.hidden = rows.hidden.take_along_dim(index[..., None], 1)
        rows.positions = rows.positions.gather(-1, index.expand(*rows.positions.shape[:-1], -1))
        rows.visual, rows.origin, rows.valid = rows.visual.gather(1, index), rows.origin.gather(1, index), valid
        rows.frame, rows.place = rows.frame.gather(1, index), rows.place.gather(1, index)
        after = rows.origin if valid is None else rows.origin.masked_fill(~valid, -1)
        rows.boundaries.append(Boundary(before, scores, after))

    def _rope(self, rows: Rows, cache: Cache | None, i: int, past_valid: Tensor | None, memo: dict[Any, Any]) -> Rope:
        """Cos and sin for the rows as they are; in compact mode numbered on from what layer `i` holds."""
        past = _past(cache, i)
        key = ("rope", past if self.compact else 0, id(past_valid) if self.compact else 0)
        if key not in memo:
            positions = rows.positions
            if self.compact:
                before = past if past_valid is None else past_valid.sum(1, keepdim=True)
                positions = torch.arange(rows.hidden.shape[1], device=rows.hidden.device).expand(rows.origin.shape)
                if rows.valid is not None:
                    positions = (rows.valid.long().cumsum(1) - 1).clamp(min=0)
                positions = positions + before
            memo[key] = self.text.rotary_emb(rows.hidden, positions)
        return memo[key]

    def _mask(self, rows: Rows, cache: Cache | None, i: int, past_valid: Tensor | None, memo: dict[Any, Any]) -> Any:
        """The attention mask of layer `i` and the validity of its columns, by transformers' own function."""
        key = ("mask", _past(cache, i), id(past_valid))
        if key not in memo:
            allowed = _allowed(rows, cache, i, past_valid)
            mask = create_causal_mask(
                config=self.text.config,
                inputs_embeds=rows.hidden,
                attention_mask=allowed,
                past_key_values=cache,
                layer_idx=i,
            )
            memo[key] = mask, allowed
        return memo[key]


def _count(rows: Rows) -> tuple[list[int], list[int]]:
    """Visual and text rows of each sample, on the host: the one synchronisation of a prefill."""
    text = ~rows.visual if rows.valid is None else ~rows.visual & rows.valid
    visual, other = torch.stack([rows.visual.sum(1), text.sum(1)]).tolist()
    return visual, other


def _past(cache: Cache | None, i: int) -> int:
    """Columns that layer `i` already holds."""
    return 0 if cache is None else cache.get_seq_length(i)


def _held(cache: Cache | None, i: int) -> Tensor | None:
    """Keys [batch, kv_heads, past, head_dim] that layer `i` already holds."""
    if cache is None or not _past(cache, i):
        return None
    layer: Any = cache.layers[i]
    return layer.keys


def _allowed(rows: Rows, cache: Cache | None, i: int, past_valid: Tensor | None) -> Tensor | None:
    """Validity [batch, past + rows] of the columns that the rows meet in layer `i`; None if all are valid."""
    if past_valid is None and rows.valid is None:
        return None
    real = torch.ones_like(rows.visual) if rows.valid is None else rows.valid
    batch, past = real.shape[0], _past(cache, i)
    before = real.new_ones(batch, past) if past_valid is None else past_valid
    return torch.cat([before, real], dim=1)
