"""Layers that attend to the keys and values of another layer, though fewer rows have come as far as they.

The model itself hands them all of the other layer's columns. What was dropped in between would come back that way; so
each of them gets its own rows' alone, and remembers them for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from ..common.kinds import LayerKind
from .decoder import Lent
from .rows import Passage, Rows


class Lenders:
    """What was lent during one run of rows through the layers.

    Parameters
    ----------
    kinds : sequence of LayerKind
    turn : callable
        `LayerLoop.turn`.
    """

    def __init__(self, kinds: Sequence[LayerKind], turn: Callable[[int, Tensor, Tensor], Tensor]) -> None:
        self.kinds, self.turn = kinds, turn
        self.sources = {kind.source for kind in kinds if kind.source is not None}
        # from here on all layers use those of others
        self.end = next((i + 1 for i in reversed(range(len(kinds))) if kinds[i].source is None), 0)
        self._known: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        self._chosen: dict[Any, tuple[Lent, Tensor]] = {}  # the same rows of one source, for all layers that borrow

    def note(self, i: int, own: Lent | None, rows: Rows) -> None:
        """Remember the rows' keys and values of layer `i`, if others will use them."""
        if i in self.sources:
            assert own is not None
            keys, values = (states[..., -rows.origin.shape[1] :, :] for states in own)
            self._known[i] = keys, values, rows.origin

    def lent(self, i: int, rows: Rows, passage: Passage | None) -> Lent | None:
        """Keys and values of the rows that layer `i` gets, where its positions stand; None of one that has its own."""
        if (source := self.kinds[i].source) is None:
            return None
        key = source, id(rows.origin), None if passage is None else passage.where(i)
        if key not in self._chosen:
            *states, origin = (each.to(rows.origin.device) for each in self._known[source])
            at = torch.searchsorted(origin.contiguous(), rows.origin.contiguous())[:, None, :, None]
            keys, values = (each.take_along_dim(at, 2) for each in states)
            if passage is not None and passage.where(i) != passage.where(source):
                by = passage.positions(i, rows) - passage.positions(source, rows)
                keys = self.turn(i, keys[0], by.reshape(-1, by.shape[-1]).T)[None]
            self._chosen[key] = (keys, values), rows.origin
        return self._chosen[key][0]

    @staticmethod
    def held(i: int, lent: Lent | None, cache: Cache | None) -> Any:
        """All that layer `i` attends to: what it remembers, too."""
        return lent if lent is None or cache is None else cache.update(*lent, i)


def run_last(run: partial[Any], hidden: Tensor, mask: Any) -> Tensor:
    """Run a layer that has been lent all its keys and values on the last of its rows [batch, rows, hidden] alone.

    transformers does so when it prefills. The other rows stay as they were.
    """
    rope, beside = run.keywords["rope"], run.keywords["extra"]
    few: dict[str, Any] = dict(rope=rope and tuple(part[..., -1:, :] for part in rope))
    if beside is not None:
        few["extra"] = beside[:, -1:]
    last, _ = run(hidden[:, -1:], None if mask is None else mask[..., -1:, :], **few)
    return torch.cat([hidden[:, :-1], last], dim=1)
