"""What a scorer is given, and what it gives."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..rank import Rope


@dataclass(frozen=True, slots=True)
class Layout:
    """Where rows stand in time and space.

    Attributes
    ----------
    frame : Tensor [batch, rows]
        Which step of time a visual row shows, counted within the chunk; -1 for text.
    place : Tensor [batch, rows]
        Where in the picture a visual row stands, the same number at the same place; -1 for text.
    steps, places : int
        How many of each the chunk has.
    """

    frame: Tensor
    place: Tensor
    steps: int
    places: int

    @classmethod
    def one_picture(cls, visual: Tensor) -> Layout:
        """Rows of which no more is known than that they are visual [batch, rows]: one frame, a place for each."""
        rows = torch.arange(visual.shape[1], device=visual.device)
        return cls(torch.where(visual, 0, -1), torch.where(visual, rows, -1), 1, visual.shape[1])

    def gather(self, index: Tensor) -> Layout:
        """The layout of the rows `index` [batch, kept]."""
        return replace(self, frame=self.frame.gather(1, index), place=self.place.gather(1, index))


@dataclass(frozen=True, slots=True)
class Ranking:
    """Rows that wait at a stage boundary, before the next layer runs.

    Attributes
    ----------
    layer : nn.Module
        That layer.
    hidden : Tensor [batch, rows, hidden]
        Its input.
    rope : (cos, sin)
        Of all rows.
    probe : Tensor [batch, probes]
        Rows that ask; negative places are empty.
    visual : Tensor [batch, rows], bool
        Rows that compete.
    layout : Layout
        Where the rows stand in time and space.
    past_keys : Tensor [batch, kv_heads, past, head_dim] or None
        What the layer remembers.
    allowed : Tensor [batch, past + rows] or None
        Columns that are not padding.
    usual : Tensor or None
        What the scorer learned from earlier chunks, if it learns; see `Scorer.learn`.
    """

    layer: Any
    hidden: Tensor
    rope: Rope
    probe: Tensor
    visual: Tensor
    layout: Layout
    past_keys: Tensor | None = None
    allowed: Tensor | None = None
    usual: Tensor | None = None


class Scorer(Protocol):
    """Ranks visual rows: a frozen dataclass that can be called. Higher scores stay.

    Attributes
    ----------
    uses_probe : bool
        Whether it looks at `Ranking.probe`. Streams leave the probe out where nobody does.
    uses_layout : bool
        Whether it needs to know frames and places, which one-shot use does not.
    once : bool
        Whether it ranks at the first boundary only; later boundaries then drop by the same scores.
    """

    uses_probe: ClassVar[bool]
    uses_layout: ClassVar[bool]
    once: ClassVar[bool]

    def __call__(self, ranking: Ranking) -> Tensor:
        """Scores [batch, rows], at least float32; what stands at text rows does not matter."""


@runtime_checkable
class Learner(Protocol):
    """A scorer that carries something from chunk to chunk."""

    def learn(self, ranking: Ranking) -> Tensor:
        """What it knows with these rows seen; the next chunk's `Ranking.usual`."""


def unit_rows(hidden: Tensor) -> Tensor:
    """Rows of length 1 [batch, rows, hidden], at least float32."""
    return F.normalize(hidden.to(torch.promote_types(hidden.dtype, torch.float32)), dim=-1)


def normalised(scores: Tensor, visual: Tensor) -> Tensor:
    """Scores over visual rows moved to [0, 1] by each sample's smallest and largest."""
    low = scores.masked_fill(~visual, scores.new_tensor(float("inf"))).amin(1, keepdim=True)
    high = scores.masked_fill(~visual, scores.new_tensor(float("-inf"))).amax(1, keepdim=True)
    return ((scores - low) / (high - low).clamp(min=1e-12)).masked_fill(~visual, 0)


def ranks(scores: Tensor, visual: Tensor) -> Tensor:
    """Ranks over visual rows in (0, 1], 1 for the best; of equal scores the earlier row ranks higher."""
    order = scores.masked_fill(~visual, -float("inf")).argsort(dim=1, descending=True, stable=True)
    rank = order.argsort(dim=1).to(scores.dtype)
    count = visual.sum(1, keepdim=True).clamp(min=1)
    return ((count - rank) / count).masked_fill(~visual, 0)
