"""Which columns of a layer stay when it must shrink, and what becomes of them. Knows one layer and its evictor."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from .evictors import Evictor, Held, choose
from .layer import KeyValueLayer
from .table import TokenTable


def chosen(evictor: Evictor, held: Held, keep: int, most: int) -> tuple[Tensor, Tensor]:
    """Priorities, and which `keep` columns stay; fewer where they would stand at more than `most` positions."""
    while True:
        priority = evictor(held, keep)
        stay = choose(priority, held.table, keep, getattr(evictor, "distinct", False))
        if keep <= most or (taken := places(held.table.take(stay))) <= most:
            return priority, stay
        most = max(most, int((held.table.chunk < 0).sum()))  # the prefix stays, come what may
        keep = max(most, keep * most // taken)


def merge(layer: KeyValueLayer, merged: tuple[Tensor, Tensor, Tensor] | None, table: TokenTable) -> TokenTable:
    """Let some columns stand for others that go: their keys and values change, at the positions of now."""
    if merged is None:
        return table
    slots, keys, values = merged
    layer.overwrite(slots, keys, values)
    slots = slots.to(table.now.device)
    return replace(table, entered=table.entered.index_copy(0, slots, table.now[slots]))


def places(table: TokenTable) -> int:
    """Positions on the first axis at which anything stands: what is left of them once all gaps are closed."""
    return table.position[:, 0].unique().numel()
