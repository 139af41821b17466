"""Caches that went through a `pyramid_drop` block: what their layers hold, and who may go on with them.

What is known of a layer stands on the layer itself, so that copies of a cache know it, too. Knows transformers' dynamic
caches. Refuses to know models and schedules.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from ..common.checks import shown
from ..errors import ModelError

_RUNNING: ContextVar[bool] = ContextVar("pyramid_drop runs", default=False)


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
        _refuse_outside()
        return super().get_mask_sizes(query_length)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """As of any layer, inside a block."""
        _refuse_outside()
        return super().update(key_states, value_states, *args, **kwargs)


def _refuse_outside() -> None:
    if not _RUNNING.get():
        raise ModelError(
            "this cache was filled inside pyramid_drop, where layers hold different rows, and the model's own forward "
            "takes all layers for equally long; go on with it inside a pyramid_drop block, or begin with a new cache."
        )


def refuse_unfit(cache: Any, layers: int, batch: int) -> None:
    """Unless rows can go on from a cache, in so many layers and samples.

    Raises
    ------
    ModelError
        If it is none of transformers' dynamic caches, or belongs to other layers or samples.
    """
    if not isinstance(cache, Cache):
        raise ModelError(f"the cache is {shown(cache)}; expected one of transformers', such as DynamicCache().")
    if cache.is_compileable:
        raise ModelError(
            "static caches do not work inside pyramid_drop: layers hold different numbers of rows; use DynamicCache()."
        )
    held: list[Any] = cache.layers
    for layer in held:
        if not isinstance(layer, DynamicLayer) or layer.is_sliding or hasattr(layer, "_quantize"):
            raise ModelError(
                f"a cache of {type(layer).__name__} does not work inside pyramid_drop, which ranks by all keys that a "
                "layer holds, as they are; use DynamicCache()."
            )
    filled = [layer for layer in held if layer.get_seq_length()]
    if filled and (len(filled) != layers or filled[0].keys.shape[0] != batch):
        raise ModelError(
            f"the cache holds {len(filled)} layers of {filled[0].keys.shape[0]} samples, but the model has {layers} "
            f"layers and the call {batch} samples; go on with the model and the samples that it was filled by."
        )


def refuse_cropped(cache: Cache, layers: int) -> None:
    """Unless every layer has all rows that a block has left in it, or lacks equally many.

    Raises
    ------
    ModelError
        If the cache was cropped to a length that not every layer has.
    """
    now = [cache.get_seq_length(i) for i in range(layers)]
    known = [getattr(layer, "rows_held", length) for layer, length in zip(cache.layers, now, strict=False)]
    if any(now) and len({old - new for old, new in zip(known, now, strict=False)}) > 1:
        raise ModelError(
            "the cache was cropped to one length, as assisted generation and prompt lookup do; inside pyramid_drop "
            "layers hold different rows. Leave assistant models and lookup out."
        )


def validity(cache: Cache, layers: int) -> list[Tensor | None]:
    """Of what each layer holds [batch, past]; None where no padding is known."""
    known: list[Tensor | None] = [None] * layers
    for i, layer in enumerate(cache.layers[:layers]):
        valid, rows = getattr(layer, "valid", None), cache.get_seq_length(i)
        if valid is not None and rows <= valid.shape[1]:
            known[i] = valid[:, :rows]
    return known


def changed_elsewhere(cache: Cache) -> bool:
    """Whether it holds other rows than a block has left in it."""
    layers: list[Any] = cache.layers
    return any(getattr(layer, "rows_held", 0) != layer.get_seq_length() for layer in layers)


def note(cache: Cache, valid: list[Tensor | None], entered: int) -> None:
    """Take down what layers hold after a call, and let those of a pruned cache grow inside a block alone.

    `entered` is how many rows went in so far.
    """
    held = [cache.get_seq_length(i) for i in range(len(valid))]
    layers: list[Any] = cache.layers
    for layer, rows, mask in zip(layers, held, valid, strict=False):
        layer.rows_held, layer.valid = rows, mask
        if {*held} != {entered} and type(layer) is DynamicLayer:
            layer.__class__ = PrunedLayer
    if layers:
        layers[0].dropped = entered - held[0]
