"""What a scorer is given when a question ranks the memory: columns that are there, and the rows that ask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from ..heads import Rope
from ..rank import attention_by_row


@dataclass(frozen=True, slots=True, eq=False)
class Remembered:
    """A layer's columns, before that layer runs the question's rows.

    Attributes
    ----------
    layer : nn.Module
        That layer.
    hidden : Tensor [1, rows, hidden]
        Its input: the rows of the question, with the text that closes a video in front.
    rope : (cos, sin) or None
        Of these rows; None before a layer without positions.
    asking : int
        How many of them ask, the last ones: those of the question and of the template around it.
    keys : Tensor [1, kv_heads, columns, head_dim]
        What the layer remembers, as it asks it: after RoPE.
    visual : Tensor [columns], bool
        Which columns compete.
    bare : callable
        Gives the same keys un-rotated. Only for scorers that say `unrotates`.
    lent : Tensor [1, kv_heads, rows, head_dim], optional
        Keys of the rows (after RoPE), where the layer uses those of another one.
    """

    layer: Any
    hidden: Tensor
    rope: Rope | None
    asking: int
    keys: Tensor | None
    visual: Tensor
    bare: Callable[[], Tensor]
    lent: Tensor | None = None

    def attention(self) -> Tensor:
        """What each of the rows that ask attends to among the columns [asking, columns]."""
        count = self.hidden.shape[1]
        rows = torch.arange(count - self.asking, count, device=self.hidden.device)[None]
        weights = attention_by_row(self.layer, self.hidden, self.rope, rows, past_keys=self.keys, lent=self.lent)
        return weights[0, :, : len(self.visual)]


@runtime_checkable
class Asker(Protocol):
    """A scorer that a question can rank the memory by.

    One that is ranked by `once` is asked by the first layer that has to hide something, and the others follow it.
    """

    def remembered(self, memory: Remembered) -> Tensor:
        """Scores [columns], at least float32; what stands at columns of text does not matter."""
