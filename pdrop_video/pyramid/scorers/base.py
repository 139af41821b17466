"""What a scorer is given, and what it gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from torch import Tensor

from ..rank import Rope


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
    frame : Tensor [batch, rows]
        Which step of time a visual row shows, counted within the chunk; -1 for text.
    place : Tensor [batch, rows]
        Where in the picture a visual row stands, the same number at the same place; -1 for text.
    past_keys : Tensor [batch, kv_heads, past, head_dim] or None
        What the layer remembers.
    allowed : Tensor [batch, past + rows] or None
        Columns that are not padding.
    """

    layer: Any
    hidden: Tensor
    rope: Rope
    probe: Tensor
    visual: Tensor
    frame: Tensor
    place: Tensor
    past_keys: Tensor | None = None
    allowed: Tensor | None = None


class Scorer(Protocol):
    """Ranks visual rows: a frozen dataclass that can be called. Higher scores stay.

    Attributes
    ----------
    uses_probe : bool
        Whether it looks at `Ranking.probe`. Streams leave the probe out where nobody does.
    """

    uses_probe: ClassVar[bool]

    def __call__(self, ranking: Ranking) -> Tensor:
        """Scores [batch, rows], at least float32; what stands at text rows does not matter."""


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
