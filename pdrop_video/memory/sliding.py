"""Layers whose columns are of a kind of their own: a sliding window's, and latents.

Knows the interface of a transformers cache layer, and in which order tokens came. Refuses to know what they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..common.kinds import LayerKind
from .layer import KeyValueLayer
from .room import Arrangement
from .table import TokenTable


class SlidingLayer(KeyValueLayer):
    """Keys and values of a layer with a sliding window, and where they stand.

    Attributes
    ----------
    positions : Tensor [1, columns] or None
        The stream's positions of the columns, by which a window is counted; they never move. Layers that hold the same
        columns share the tensor.
    """

    positions: Tensor | None = None
    _begun: Tensor | None = None

    def stand(self, positions: Tensor) -> None:
        """Note where all columns stand, the newest included."""
        self.positions = positions

    def truncate(self, length: int) -> None:
        """Forget the newest columns down to `length`."""
        super().truncate(length)
        if self.positions is not None:
            self.positions = self.positions[:, :length]

    def keep(self, move: Arrangement) -> None:
        """Hold only some columns, in the arrangement's order."""
        super().keep(move)
        if self.positions is not None:
            self.positions = self.positions[:, move.order.to(self.positions.device)]

    def fork(self) -> SlidingLayer:
        """A layer that holds the same columns and shares their storage."""
        twin = super().fork()
        assert isinstance(twin, SlidingLayer)
        twin.positions = self.positions
        return twin

    def begin(self) -> None:
        """From here on remember how to go back."""
        super().begin()
        self._begun = self.positions

    def rollback(self) -> None:
        """Go back to how it was at `begin`, bit for bit; may be called again if it was interrupted."""
        super().rollback()
        self.positions = self._begun


class LatentLayer(KeyValueLayer):
    """Latents from which keys and values are expanded, and the key that all heads share, which alone has a position.

    The model hands over latents in place of keys, and shared keys in place of values. Here they change places, so that
    what positions move is a key as everywhere.
    """

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append latents and shared keys, each ``[batch, 1, new, width]``; returns all that are seen."""
        keys, latents = super().update(value_states, key_states, *args, **kwargs)
        return latents, keys

    def latents(self) -> tuple[Tensor, Tensor]:
        """Latents and shared keys that are seen."""
        return self.values, self.keys


def shared(done: dict[Any, tuple[Tensor, Tensor]], before: Tensor | None, now: Tensor | None, *key: Any) -> Any:
    """One tensor for all layers whose positions were the same before the same was done to them."""
    if before is None or now is None:
        return now
    return done.setdefault((id(before), *key), (now, before))[0]


def slide(kinds: Sequence[LayerKind], layers: Sequence[Any], tables: list[TokenTable]) -> None:
    """Let layers with a window forget what is not among so many newest columns, more than which no row can see."""
    done: dict[tuple[int, int], tuple[Any, ...]] = {}
    shares: dict[Any, tuple[Tensor, Tensor]] = {}
    for i, (kind, layer) in enumerate(zip(kinds, layers, strict=True)):
        table = tables[i]
        if kind.window is None or len(table) <= kind.window:
            continue
        key = id(table), kind.window
        if key not in done:
            newest = torch.topk(table.index, kind.window, sorted=False).indices.sort().values
            move = Arrangement.of(newest, len(table))
            done[key] = move, table.take(move.order), table
        move, tables[i], _ = done[key]
        before = layer.positions
        layer.keep(move)
        layer.positions = shared(shares, before, layer.positions, *key)
