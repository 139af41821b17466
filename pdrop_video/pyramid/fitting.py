"""A cache that somebody else made, made fit for a `pyramid_drop` block. Knows transformers' dynamic caches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import cache_utils
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer

from ..common.checks import shown
from ..common.kinds import LayerKind
from ..errors import ModelError
from .pruned import PrunedLayer, WindowLayer, attending


def fit(cache: Any, kinds: Sequence[LayerKind], batch: int) -> None:
    """Let a cache hold what a block leaves in so many layers and samples: see `WindowLayer`.

    Raises
    ------
    ModelError
        If it is none of transformers' dynamic caches, or belongs to other layers or samples.
    """
    if not isinstance(cache, Cache):
        raise ModelError(f"the cache is {shown(cache)}; expected one of transformers', such as DynamicCache().")
    held: list[Any] = cache.layers
    attend = [layer for layer in held if hasattr(layer, "keys") and type(layer).__name__ != "DummyLayer"]
    if attend and all(getattr(layer, "is_compileable", False) for layer in attend):
        raise ModelError(
            "static caches do not work inside pyramid_drop: layers hold different numbers of rows; use DynamicCache()."
        )
    slides = any(kind.window is not None for kind in kinds)
    for layer in attend:
        fits = not layer.is_sliding or (slides and isinstance(layer, DynamicSlidingWindowLayer))
        if not isinstance(layer, DynamicLayer) or not fits or hasattr(layer, "_quantize"):
            raise ModelError(
                f"a cache of {type(layer).__name__} does not work inside pyramid_drop, which ranks by all keys that a "
                "layer holds, as they are; use DynamicCache()."
            )
    if any(kind != LayerKind() for kind in kinds):
        _dress(cache, kinds)
        held = attending(cache, kinds)
    filled = [layer for layer in held if layer.get_seq_length()]
    layers = sum(kind.holds for kind in kinds)
    if filled and (len(filled) != layers or filled[0].keys.shape[0] != batch):
        raise ModelError(
            f"the cache holds {len(filled)} layers of {filled[0].keys.shape[0]} samples, but the model has {layers} "
            f"layers and the call {batch} samples; go on with the model and the samples that it was filled by."
        )


def _dress(cache: Cache, kinds: Sequence[LayerKind]) -> None:
    """Layers of the kinds that the decoder's are, in place of those that transformers made; what they hold stays."""
    layers: list[Any] = cache.layers
    for i, kind in enumerate(kinds):
        layer = layers[i] if i < len(layers) else None
        new: Any
        if not kind.holds:
            new = layer if layer is not None and type(layer) is not DynamicLayer else cache_utils.LinearAttentionLayer()
        elif kind.window is not None:
            new = layer if isinstance(layer, WindowLayer) else WindowLayer.of(kind.window, layer)
        elif isinstance(layer, DynamicLayer):
            new = layer
        else:
            new = PrunedLayer()
        if kind.source is not None and new is not layer and layers[kind.source].get_seq_length():
            source = layers[kind.source]  # filled outside, where all of its columns are lent
            new.update(source.keys, source.values)
            if kind.window is not None:
                new.stand(source.positions)
        layers[i : i + 1] = [new]
