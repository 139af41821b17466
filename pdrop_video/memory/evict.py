"""Which tokens stay when a layer is over its budget. Knows metadata only."""

from __future__ import annotations

import torch
from torch import Tensor

from .table import TokenTable


def oldest_chunk_first(table: TokenTable, keep: int) -> Tensor:
    """Rows that stay when the oldest chunk's lowest-scored visual tokens go first; text always stays.

    Parameters
    ----------
    table : TokenTable
        What the layer holds.
    keep : int
        Rows that may stay, the text included.

    Returns
    -------
    Tensor [keep], int64
        Ascending row numbers.
    """
    newest = table.chunk.masked_fill(~table.visual, torch.iinfo(table.chunk.dtype).max)
    order = table.score.argsort(descending=True, stable=True)  # a stable sort by the second key, then by the first
    order = order[newest[order].argsort(descending=True, stable=True)]
    return order[:keep].sort().values
