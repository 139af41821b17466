"""What passes through a decoder's layers and into their attention: by its own forward, or by the layer loop.

Knows transformers' attention functions. Refuses to know what to make of the difference.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack, contextmanager
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from ..errors import ModelError
from .heads import Rope, attention_of, normed, per_head, rotate
from .rank import mean_weights
from .rows import Rows

_TAP = "pdrop_video_tap"


@dataclass
class Seen:
    """What passed through a decoder; a `Passage` that notes it.

    Attributes
    ----------
    entered : list of Tensor [1, rows, hidden]
        By layer.
    attention : dict of tuple of Tensor
        By layer that attends: queries, keys and values [1, heads, rows, head_dim] as they meet, and the mean weights
        [2, 1, rows] of the last row; see `_telling`.
    end : Tensor [1, rows, hidden]
        What left the last norm.
    """

    entered: list[Tensor] = field(default_factory=list)
    attention: dict[int, tuple[Tensor, ...]] = field(default_factory=dict)
    end: Tensor = field(default_factory=lambda: torch.empty(0))

    def where(self, layer: int) -> Hashable:
        """One for all layers."""
        return None

    def positions(self, layer: int, rows: Rows) -> Tensor:
        """As they are."""
        return rows.positions

    def places(self, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        """Nothing is held."""
        nothing = torch.empty(0, dtype=torch.int64)
        return nothing, nothing, nothing

    def before(
        self,
        layer: int,
        module: Any,
        rows: Rows,
        rope: Callable[[], Rope | None],
        lent: tuple[Tensor, Tensor] | None,
    ) -> None:
        """Note what the layer loop takes a layer to do."""
        if (unshard := getattr(module, "unshard", None)) is not None:
            unshard()
        self.entered.append(rows.hidden)
        if (attention := attention_of(module)) is None:
            return
        entering = normed(module, rows.hidden)
        query = rotate(attention, per_head(attention, entering, "q"), rope())
        if lent is None:
            key, value = (per_head(attention, entering, which) for which in "kv")
            key = rotate(attention, key, rope())
        else:
            key, value = lent
        last = torch.full((2, 1), rows.hidden.shape[1] - 1, device=query.device)
        asking, asked = _telling(query, key, attention.scaling)
        weights = mean_weights(asking[:, :, -1:], asked, attention.scaling, last)
        self.attention[layer] = query, key, value, weights


@contextmanager
def tapped(text: Any, seen: Seen) -> Iterator[None]:
    """Note what a decoder, which nobody else may be running, sends through its layers."""

    def entering(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.entered.append(args[0] if args else kwargs["hidden_states"])

    def attending(i: int, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.attention[i] = _inside(module, args, kwargs)

    with ExitStack() as stack:
        for i, layer in enumerate(text.layers):
            stack.callback(layer.register_forward_pre_hook(entering, with_kwargs=True).remove)
            if (attention := attention_of(layer)) is not None:
                hook = partial(attending, i)
                stack.callback(attention.register_forward_pre_hook(hook, with_kwargs=True).remove)
        yield


def _inside(attention: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, ...]:
    """What an attention layer hands to its attention function, run on a twin that shares its weights."""
    twin = object.__new__(type(attention))
    vars(twin).update({name: value for name, value in vars(attention).items() if name != "forward"})
    config = copy(attention.config)
    vars(config)["_attn_implementation_internal"] = _TAP
    vars(twin)["config"] = config
    type(attention).forward(twin, *args, **kwargs)
    if (noted := vars(twin).get("noted")) is None:
        raise ModelError(
            f"{type(attention).__name__} does not call transformers' attention functions, so that what it attends to "
            "can't be seen; use a decoder that does."
        )
    return noted


def _tap(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any = None, **kwargs: Any
) -> tuple[Tensor, Tensor]:
    """An attention function: the family's own eager one in at least float32, whose inputs and weights are noted."""
    eager = sys.modules[type(module).__module__].eager_attention_forward
    kwargs |= dict(dropout=0.0)
    kwargs.setdefault("scaling", module.scaling)
    asking, asked = _telling(query, key, kwargs["scaling"])
    lowest = torch.finfo(asking.dtype).min
    added = torch.full((query.shape[-2], key.shape[-2]), lowest, dtype=asking.dtype, device=query.device).triu(1)
    added = added[None, None]
    if isinstance(attention_mask, Tensor) and attention_mask.ndim == 4:  # flags, or what is added to the products
        flags = attention_mask.dtype == torch.bool
        added = added + (torch.zeros_like(added).masked_fill(~attention_mask, lowest) if flags else attention_mask)
        added = added.clamp(min=lowest)
    output, weights = eager(module, asking, asked, value.to(asking).expand(2, -1, -1, -1), added, **kwargs)
    vars(module)["noted"] = query, key, value, weights[:, :, -1:].mean(1)
    return output[:1].to(value), weights[:1].to(value)


AttentionInterface.register(_TAP, _tap)


def _telling(query: Tensor, key: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
    """Queries and keys [2, heads, rows, head_dim], in at least float32, whose weights tell attention functions apart.

    Queries of zero, by which every column gets the same, but for what a family adds: biases, a sink. And such long ones
    that columns differ whatever the model's size, so that a scaling or a cap of the products shows.
    """
    kind = torch.promote_types(query.dtype, torch.float32)
    query, key = query.to(kind), key.to(kind)
    size = query[0, :, -1].norm(dim=-1).mean() * key[0].norm(dim=-1).mean() * abs(scaling)
    longer = query * (4 * key.shape[-1] ** 0.5 / size.clamp(min=torch.finfo(kind).tiny)).clamp(min=1)
    return torch.cat([torch.zeros_like(query), longer]), key.expand(2, -1, -1, -1)
