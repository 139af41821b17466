"""The KV cache of a stream: one storage and one table per decoder layer, under one budget.

Knows layers, tables and the budget. Refuses to know models, frames and questions.
"""

from __future__ import annotations

from typing import Any

from transformers.cache_utils import Cache

from .evictors import Evictor, Held, choose
from .layer import KeyValueLayer
from .table import TokenTable


class StreamCache(Cache):
    """Keys, values and metadata of every layer; layers may hold different tokens.

    Parameters
    ----------
    num_layers : int
        Decoder layers.
    budgets : list of int or None
        Most tokens that each layer may hold; None for no limit.
    evictor : Evictor
        Chooses what goes.

    Attributes
    ----------
    tables : list of TokenTable
        Per layer, what its columns are. Layers that hold the same tokens share one table.
    """

    layers: list[Any]

    def __init__(self, num_layers: int, budgets: list[int] | None, evictor: Evictor) -> None:
        super().__init__(layers=[KeyValueLayer() for _ in range(num_layers)])
        self.budgets, self.evictor = budgets, evictor
        self.tables: list[TokenTable] = []

    def fork(self) -> StreamCache:
        """A cache that holds the same and can go its own way; nothing is copied until it must be."""
        twin = StreamCache(0, self.budgets, self.evictor)
        twin.layers = [layer.fork() for layer in self.layers]
        twin.tables = list(self.tables)
        return twin

    def release(self, origin: StreamCache) -> None:
        """End a fork of `origin`: the next append to `origin` need not copy."""
        for layer, parent in zip(self.layers, origin.layers, strict=True):
            layer.release(parent)

    def lengths(self) -> list[int]:
        """Columns held by each layer."""
        return [layer.get_seq_length() for layer in self.layers]

    def truncate(self, lengths: list[int]) -> None:
        """Forget each layer's newest columns down to `lengths`."""
        for layer, length in zip(self.layers, lengths, strict=True):
            layer.truncate(length)

    def make_room(self, incoming: list[int]) -> None:
        """Evict until every layer can take `incoming` more columns within the budget."""
        if self.budgets is None:
            return
        done: dict[tuple[int, int], Any] = {}
        for i, layer in enumerate(self.layers):
            table, keep = self.tables[i], self.budgets[i] - incoming[i]
            if len(table) <= keep:
                continue
            key = (id(table), keep) if self.evictor.by_table else (id(table), i - len(self.layers))
            if key not in done:
                held = Held(layer.keys[0], layer.values[0], table, i, len(self.layers))
                index = choose(self.evictor(held, keep), table, keep)
                done[key] = index, table.take(index), table  # the old table stays referenced: ids must not be reused
            index, self.tables[i], _ = done[key]
            layer.keep(index)

    def record(self, new: list[TokenTable]) -> None:
        """Note what was appended to each layer."""
        done: dict[tuple[int, int], tuple[TokenTable, ...]] = {}
        for i, (old, more) in enumerate(zip(self.tables, new, strict=True)):
            key = (id(old), id(more))
            if key not in done:
                done[key] = old.append(more), old, more
            self.tables[i] = done[key][0]

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values held."""
        return sum(layer.nbytes for layer in self.layers)
