"""What leaves a layer's recent window settles: which columns, when. And the layers of a cache, by kind and storage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..common.kinds import LayerKind
from .layer import KeyValueLayer
from .limits import Limits
from .sliding import LatentLayer, SlidingLayer
from .states import StateLayer
from .storages import STORAGES, Storage, recent_in
from .table import TokenTable
from .tiered import TieredLatentLayer, TieredLayer
from .window import Turn


def layers_of(
    kinds: Sequence[LayerKind], limits: Limits, storage: Storage, latent: bool, turn: Turn | None
) -> list[Any]:
    """Layers that hold nothing yet.

    A window's hold what is recent alone; where a storage leaves that as it comes, so do they.
    """
    tokens, moved = (of or (None,) * len(kinds) for of in (limits.tokens, limits.moved))
    tiered, layers = recent_in(storage) is not None, list[Any]()
    for i, (kind, limit, twice) in enumerate(zip(kinds, tokens, moved, strict=True)):
        if not kind.holds:
            layers.append(StateLayer())
        elif kind.window is not None:
            layers.append(SlidingLayer(kind.window, storage=STORAGES["full"] if tiered else storage))
        elif tiered:
            assert turn is not None
            layers.append((TieredLatentLayer if latent else TieredLayer)(limit, twice, storage, partial(turn, i)))
        else:
            layers.append((LatentLayer if latent else KeyValueLayer)(limit, twice, storage))
    return layers


def settle(
    kinds: Sequence[LayerKind],
    layers: Sequence[Any],
    tables: list[TokenTable],
    limits: Limits,
    incoming: Sequence[int],
    queries: Mapping[int, Tensor] | None = None,
) -> None:
    """Let what is older than the recent window settle, but for the prompt.

    The first time only once there is a window's worth of it, since that is what a form learns from; sooner where
    something would be forgotten otherwise.
    """
    due: dict[tuple[int, int, int], tuple[Tensor | None, TokenTable]] = {}  # layers that hold the same settle the same
    after: dict[tuple[int, int, int], TokenTable] = {}
    for i, (kind, layer, new) in enumerate(zip(kinds, layers, incoming, strict=True)):
        table, settled = tables[i], layer.settled
        if not kind.ranks or not isinstance(layer, TieredLayer):
            continue
        layer.asked = None if queries is None else queries.get(i)
        recent = limits.recent(i, new, layer.moved)
        key = id(table), settled, recent
        if key not in due:
            due[key] = _due(table, settled, recent), table
        if (columns := due[key][0]) is None:
            continue
        if layer.form is None and len(columns) < recent:
            held = len(table)
            if limits.staying(i, held, held - settled, new, layer.moved) == held:
                continue
        order = layer.settle(columns, table.entered[columns])
        if key not in after:
            after[key] = table.take(order)
        tables[i] = after[key]


def _due(table: TokenTable, settled: int, recent: int) -> Tensor | None:
    """The columns [due], ascending, that are older than the `recent` newest, none of the prompt; None if none is."""
    index, prompt = table.index[settled:], table.chunk[settled:] < 0
    count = len(index) - recent - int(prompt.sum())
    if count <= 0:
        return None
    last = torch.iinfo(index.dtype).max
    oldest = index.masked_fill(prompt, last).topk(count, largest=False, sorted=False).indices.sort().values
    return oldest + settled
