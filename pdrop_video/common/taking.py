"""Rows of a batch by their numbers. Knows tensors."""

from __future__ import annotations

from torch import Tensor


def rows_at(states: Tensor, index: Tensor) -> Tensor:
    """The rows `index` [batch, kept] of states [..., batch, rows, width].

    Of a single sample they are copied whole: twenty times as fast on a processor as number by number.
    """
    if len(index) == 1 and states.shape[-3] == 1:
        return states.index_select(-2, index[0])
    return states.take_along_dim(index[..., None], -2)
