"""Layers that carry a state: rows that ask about a chunk pass them, and leave nothing behind.

Knows that a state can be set aside and taken up again. Refuses to know what it consists of.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor


class Run(Protocol):
    """One layer, run on some rows."""

    def __call__(self, hidden: Tensor, mask: Tensor | None) -> tuple[Tensor, Any]:
        """What leaves it [batch, rows, hidden], and something more."""


def run_states(run: Run, layer: Any, hidden: Tensor, mask: Tensor | None, fleeting: int) -> Tensor:
    """Rows [batch, rows, hidden] through a layer whose cache is `layer`, of which the last `fleeting` leave no trace.

    A state can't forget a row. So the others come first, and what they leave is set aside while the last ones pass.
    """
    staying = hidden.shape[1] - fleeting
    if not fleeting:
        return run(hidden, mask)[0]
    parts = [run(hidden[:, :staying], None if mask is None else mask[:, :staying])[0]] if staying else []
    aside = layer.fork()
    parts.append(run(hidden[:, staying:], None if mask is None else mask[:, staying:])[0])
    layer.take(aside)
    return torch.cat(parts, dim=1)
