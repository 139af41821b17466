"""Cos and sin of the rows in flight: made once for neighbouring layers in which the rows stand at the same positions.

Knows rows, a cache and a decoder's angles. Refuses to know what layers do with them.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache

from .decoder import Decoder
from .heads import Rope, rope_at
from .rows import Passage, Rows, counted_on, past_columns


class Ropes:
    """Those of one run of rows through the layers.

    Parameters
    ----------
    decoder : Decoder
    compact : bool
        Whether rows are numbered on from what each layer holds.
    rows : Rows
    cache : Cache, optional
    passage : Passage, optional
        Where each layer's positions stand.
    """

    def __init__(
        self, decoder: Decoder, compact: bool, rows: Rows, cache: Cache | None, passage: Passage | None
    ) -> None:
        self.decoder, self.compact, self.rows, self.cache, self.passage = decoder, compact, rows, cache, passage
        self._known: dict[Any, Rope | None] = {}

    def of(self, i: int, past_valid: Tensor | None = None) -> Rope | None:
        """Cos and sin for the rows as they are now, of layer `i`; `past_valid` as `LayerLoop.run` has it."""
        if (name := self.decoder.rope_name(i)) is None:
            return None
        past, passage = past_columns(self.cache, i), self.passage
        where = passage.where(i) if passage is not None else None
        key = (name, where, past if self.compact else 0, id(past_valid) if self.compact else 0)
        if key not in self._known:
            positions = self.rows.positions if passage is None else passage.positions(i, self.rows)
            if self.compact:
                positions = counted_on(self.rows, past, past_valid)
            self._known[key] = self.decoder.rope(i, self.rows.hidden, positions)
        return self._known[key]

    def others(self, rows: Rows) -> Ropes:
        """Those of other rows on the same way."""
        return Ropes(self.decoder, self.compact, rows, self.cache, self.passage)

    def clear(self) -> None:
        """The rows are on another device from here on."""
        self._known.clear()

    def keep(self, stayed: Tensor) -> None:
        """Only the rows `stayed` [batch, kept] go on: theirs are known where they depend on a row's position alone."""
        if self.compact or self.decoder.by_length:
            self._known.clear()
        self._known = {key: rope and rope_at(rope, stayed) for key, rope in self._known.items()}
