"""Rows in flight through the layers, what happened to them, and the columns that they meet.

Knows tensors and the lengths of a transformers cache. Refuses to know layers and schedules.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutputWithPast

from ..common.taking import rows_at
from .scorers import Layout


@dataclass(frozen=True, slots=True)
class Boundary:
    """What happened where a stage ended; rows are numbered as they entered the loop.

    Attributes
    ----------
    ranked : Tensor [batch, rows before]
        Row numbers before the drop (-1 where padding).
    scores : Tensor [batch, rows before]
        Their scores; meaningful for visual rows.
    settled : Tensor [batch, rows before]
        The same for comparing them with those of other chunks; see `pdrop_video.common.ties.settled`.
    kept : Tensor [batch, rows after]
        Row numbers after the drop (-1 where padding).
    """

    ranked: Tensor
    scores: Tensor
    settled: Tensor
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
    layout : Layout
        Where the rows stand in time and space.
    usual : dict of Tensor
        What a scorer that learns has learned, these rows included, by the layer before which it ranked.
    group : Tensor [batch, rows] or None
        The step that a visual row is of, -1 of text; None if there are none, or no layer asks.
    numbers : Tensor [batch, rows] or None
        By which sliding windows are counted, where positions do not count tokens (M-RoPE); None where they do.
    boundaries : list of Boundary
    """

    hidden: Tensor
    positions: Tensor
    visual: Tensor
    valid: Tensor | None
    origin: Tensor
    layout: Layout
    usual: dict[int, Tensor] = field(default_factory=dict)
    group: Tensor | None = None
    numbers: Tensor | None = None
    boundaries: list[Boundary] = field(default_factory=list)

    def move(self, device: torch.device) -> None:
        """Go on on another device, with all that is known of them."""
        if self.hidden.device == device:
            return
        for name in ("hidden", "positions", "visual", "valid", "origin", "group", "numbers"):
            setattr(self, name, moved(getattr(self, name), device))
        self.layout = self.layout.to(device)
        self.usual = {i: usual.to(device) for i, usual in self.usual.items()}
        self.boundaries = [
            Boundary(*(getattr(each, of.name).to(device) for of in fields(each))) for each in self.boundaries
        ]


def moved(tensor: Tensor | None, device: torch.device) -> Tensor | None:
    """A tensor on a device, if there is one."""
    return None if tensor is None else tensor.to(device)


CACHE = "cache" if "cache" in {each.name for each in fields(BaseModelOutputWithPast)} else "past_key_values"
"""What transformers calls the cache, in arguments and outputs: `cache` from 5.24 on, `past_key_values` before."""


class Passage(Protocol):
    """What a stream's memory has to say while rows pass through the layers."""

    def where(self, layer: int) -> Hashable:
        """The same for layers in which rows have the same positions."""

    def positions(self, layer: int, rows: Rows) -> Tensor:
        """Position ids of the rows in a layer, in the shape of `Rows.positions`."""

    def places(self, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        """Step of the stream, row and column of each column that a layer sees, each [columns]; -1 of text.

        The same object for layers in which all of it is the same.
        """

    def before(
        self, layer: int, module: Any, rows: Rows, rope: Callable[[], Any], lent: tuple[Tensor, Tensor] | None
    ) -> None:
        """Called before a layer (`module`) runs, with the rows that enter it; `rope` makes their RoPE as it is then.

        `lent` are their keys and values, where the layer uses those of another one.
        """


def count(rows: Rows) -> tuple[list[int], list[int]]:
    """Visual and text rows of each sample, on the host: the one synchronisation of a prefill."""
    text = ~rows.visual if rows.valid is None else ~rows.visual & rows.valid
    visual, other = torch.stack([rows.visual.sum(1), text.sum(1)]).tolist()
    return visual, other


def past_columns(cache: Cache | None, i: int) -> int:
    """Columns that layer `i` already holds."""
    return 0 if cache is None else cache.get_seq_length(i)


def allowed_columns(rows: Rows, cache: Cache | None, i: int, past_valid: Tensor | None) -> Tensor | None:
    """Validity [batch, past + rows] of the columns that the rows meet in layer `i`; None if all are valid."""
    if past_valid is None and rows.valid is None:
        return None
    real = torch.ones_like(rows.visual) if rows.valid is None else rows.valid
    batch, past = real.shape[0], past_columns(cache, i)
    before = real.new_ones(batch, past) if past_valid is None else past_valid.to(real.device)
    return torch.cat([before, real], dim=1)


def still_here(entered: Tensor, rows: Rows) -> Tensor:
    """Of what entered [batch, rows, numbers] that which is left, in the rows' order."""
    entered = entered.to(rows.hidden.device)
    if not rows.boundaries:
        return entered
    if len(entered) == 1:  # whole rows are copied faster than numbers are gathered
        return entered.index_select(1, rows.origin[0])
    return rows_at(entered, rows.origin)


def begins_anew(position_ids: Tensor | None) -> bool:
    """Whether transformers would take a row for several samples, by its text positions."""
    if position_ids is None or (position_ids.ndim == 3 and len(position_ids) != 4):
        return False
    text = position_ids if position_ids.ndim == 2 else position_ids[0]
    return bool((text.diff(dim=-1) != 1).any())


def dense(features: list[Tensor] | None, at: Tensor | None, hidden: Tensor) -> list[Tensor] | None:
    """Deepstack features scattered over all rows: one [batch, rows, hidden] for each of the first layers."""
    if features is None or at is None:
        return None
    return [torch.zeros_like(hidden).masked_scatter(at[..., None].to(hidden.device), f.to(hidden)) for f in features]


def counted_on(rows: Rows, past: int, past_valid: Tensor | None) -> Tensor:
    """Positions [batch, rows] without gaps, on from what a layer holds."""
    before = past if past_valid is None else past_valid.sum(1, keepdim=True).to(rows.hidden.device)
    positions = torch.arange(rows.hidden.shape[1], device=rows.hidden.device).expand(rows.origin.shape)
    if rows.valid is not None:
        positions = (rows.valid.long().cumsum(1) - 1).clamp(min=0)
    return positions + before
