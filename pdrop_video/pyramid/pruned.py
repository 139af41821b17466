"""Caches that went through a `pyramid_drop` block: what their layers hold, and who may go on with them.

What is known of a layer stands on the layer itself, so that copies of a cache know it, too. Knows transformers' dynamic
caches. Refuses to know models and schedules.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from ..common.kinds import LayerKind
from ..errors import ModelError

_RUNNING: ContextVar[bool] = ContextVar("pyramid_drop runs", default=False)
CALLED: ContextVar[bool] = ContextVar("a model is called inside pyramid_drop", default=False)
"""Some models make masks of their own then, which nobody uses. Set without a context manager, in which a compiler that
wants a whole graph would see a generator."""


@contextmanager
def running() -> Iterator[None]:
    """While a block's layers run, in this thread; pruned caches grow at no other time."""
    token = _RUNNING.set(True)
    try:
        yield
    finally:
        _RUNNING.reset(token)


class PrunedLayer(DynamicLayer):
    """A layer of a cache that holds other rows than went in, of which the model itself knows nothing.

    Attributes
    ----------
    dropped : int
        Of the first layer, rows that were dropped before it.
    """

    dropped: int = 0

    def get_seq_length(self) -> int:
        """Rows held; to whoever asks outside of a block's layers, with those that were dropped before the first layer.

        By that number the model, and `generate`, tell how much they have read, and where positions go on.
        """
        held = super().get_seq_length()
        return held + self.dropped if held and not _RUNNING.get() else held  # of a cache that was reset none is left

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """As of any layer, inside a block: the first that the model's own forward asks."""
        if not CALLED.get():
            _refuse_outside()
        return super().get_mask_sizes(query_length)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """As of any layer, inside a block."""
        _refuse_outside()
        return super().update(key_states, value_states, *args, **kwargs)


class WindowLayer(PrunedLayer):
    """A layer with a sliding window, which goes by positions: a dropped row does not widen it.

    Attributes
    ----------
    window : int
        Positions that a row sees, its own included; more columns are never held.
    positions : Tensor [batch, rows] or None
        Of the rows held.
    """

    window: int
    positions: Tensor | None = None

    @classmethod
    def of(cls, window: int, layer: Any) -> WindowLayer:
        """A layer that holds what another one, which was filled outside of a block, does."""
        new = cls()
        new.window = window
        if layer is not None and getattr(layer, "keys", None) is not None and layer.keys.numel():
            new.lazy_initialization(layer.keys, layer.values)
            new.keys, new.values = layer.keys, layer.values
            past = layer.get_seq_length()  # with what it has forgotten
            held = torch.arange(past - layer.keys.shape[-2], past, device=layer.keys.device)
            new.positions = held.expand(len(layer.keys), -1)
        return new

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """As of any layer, inside a block; of what it returns it keeps the newest."""
        keys, values = super().update(key_states, value_states, *args, **kwargs)
        self.keys, self.values = keys[..., -self.window :, :], values[..., -self.window :, :]
        return keys, values

    def stand(self, positions: Tensor) -> None:
        """Note where all rows stand that attention has just seen."""
        self.positions = positions[:, -super().get_seq_length() :]


def _refuse_outside() -> None:
    if not _RUNNING.get():
        raise ModelError(
            "this cache was filled inside pyramid_drop, where layers hold different rows, and the model's own forward "
            "takes all layers for equally long; go on with it inside a pyramid_drop block, or begin with a new cache."
        )


def attending(cache: Cache, kinds: Sequence[LayerKind]) -> list[Any]:
    """Those layers of a cache that hold rows."""
    return [layer for kind, layer in zip(kinds, cache.layers, strict=False) if kind.holds]


def holding(cache: Cache, kinds: Sequence[LayerKind]) -> list[int]:
    """Rows that each layer holds which holds any."""
    return [layer.get_seq_length() for layer in attending(cache, kinds)]


def refuse_cropped(cache: Cache, kinds: Sequence[LayerKind]) -> None:
    """Unless every layer has all rows that a block has left in it, or lacks equally many.

    Raises
    ------
    ModelError
        If the cache was cropped to a length that not every layer has.
    """
    now, layers = holding(cache, kinds), attending(cache, kinds)
    known = [getattr(layer, "rows_held", length) for layer, length in zip(layers, now, strict=True)]
    if any(now) and len({old - new for old, new in zip(known, now, strict=True)}) > 1:
        raise ModelError(
            "the cache was cropped to one length, as assisted generation and prompt lookup do; inside pyramid_drop "
            "layers hold different rows. Leave assistant models and lookup out."
        )


def validity(cache: Cache, kinds: Sequence[LayerKind]) -> list[Tensor | None]:
    """Of what each layer holds [batch, past]; None where no padding is known."""
    known: list[Tensor | None] = [None] * len(kinds)
    layers: list[Any] = cache.layers
    for i, (kind, layer) in enumerate(zip(kinds, layers, strict=False)):
        if not kind.holds:
            continue
        valid, rows = getattr(layer, "valid", None), layer.get_seq_length()
        if valid is not None and rows <= valid.shape[1]:
            known[i] = valid[:, :rows]
    return known


def changed_elsewhere(cache: Cache, kinds: Sequence[LayerKind]) -> bool:
    """Whether it holds other rows than a block has left in it."""
    return any(getattr(layer, "rows_held", 0) != layer.get_seq_length() for layer in attending(cache, kinds))


def note(cache: Cache, kinds: Sequence[LayerKind], valid: list[Tensor | None], entered: int) -> None:
    """Take down what layers hold after a call, and let those of a pruned cache grow inside a block alone.

    `entered` is how many rows went in so far.
    """
    held, first = set(holding(cache, kinds)), None
    layers: list[Any] = cache.layers
    for kind, layer, mask in zip(kinds, layers, valid, strict=False):
        if not kind.holds:
            continue
        first = layer if first is None else first
        rows = layer.get_seq_length()
        layer.rows_held, layer.valid = rows, mask if mask is None else mask[:, -rows:]
        if held != {entered} and type(layer) is DynamicLayer:
            layer.__class__ = PrunedLayer
    if first is not None:
        first.dropped = entered - first.get_seq_length()
