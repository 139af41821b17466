"""Attention that the visual tokens of a chunk receive in a layer of the vision tower, for reducers that ask for it.

Once for all towers that call transformers' attention functions. Knows those. Refuses to know streams and reducers.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from copy import copy
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

from ..errors import ModelError

LATE, EARLY = "attention", "attention_early"
BOTH = (LATE, EARLY)
"""What a family may know of its tower."""
_TELLING, _PLAINLY = "pdrop_video_telling", "pdrop_video_plainly"
_MOST = 2**24
"""Attention weights that are there at a time."""
_NOTES: ContextVar[dict[int, list[Tensor]]] = ContextVar("notes")
"""Of the thread that looks, by attention layer: another thread that runs the same tower notes nothing."""

Grid = tuple[int, int, int]


class Attended:
    """What an adapter says of its tower's attention; mixed into `Adapter`.

    The number of a token is the attention that its patches receive, added up, as a mean over heads and over all queries
    of their step: the tokens of a step sum up to 1, less what rows beside the patches receive ([CLS], which asks like
    any other row and is no token in most families). Queries of another window give nothing. Where patches do not divide
    into tokens (LLaVA-OneVision: 27 x 27 to 14 x 14) the map is pooled as the features are, times patches per token, so
    that even attention is 1 / tokens everywhere and the sum is 1 but for what pooling weighs unevenly. AOT (arXiv
    2603.01400) takes sums over queries; the mean, which differs by a factor, and the scale of tokens are ours.

    Which layers: a late one, the last whose output is used, or the last but one of those (LLaVA families, as AOT does);
    and an early one, number 5 of 26 or as deep in another tower. In towers with windows: of the layers without.

    Attributes
    ----------
    knows : tuple of str
        What of its vision tower the family can hand over to a reducer that asks for it.
    late : int
        Which of the layers that are used is the late one, counted from behind.
    """

    knows: ClassVar[tuple[str, ...]] = ()
    late: ClassVar[int] = -1
    model: Any

    @property
    def vision(self) -> Any:
        """The vision tower."""
        return self.model.get_encoder("image")

    def looking(self, layers: int) -> list[int]:
        """Which of the tower's layers may be asked: those whose output is used."""
        taken = getattr(self.model.config, "vision_feature_layer", -1)  # 0 is what enters the first one
        ends = [i if i >= 0 else layers + 1 + i for i in ([taken] if isinstance(taken, int) else taken)]
        return list(range(max([*ends, 1])))

    def told(self, knowing: Iterable[str], layers: int) -> dict[str, int]:
        """Which layer of so many tells what."""
        if not (names := tuple(knowing)):
            return {}
        may = self.looking(layers)
        depth = (may[-1] + 1) * 5 // 26
        early = next((i for i in may if i >= depth), may[-1])
        told = {LATE: may[max(len(may) + self.late, 0)], EARLY: early}
        return {name: told[name] for name in names}

    @contextmanager
    def telling(self, knowing: Iterable[str]) -> Iterator[dict[str, list[Tensor]]]:
        """While the tower runs: what each row receives, by name; see `receiving`."""
        layers = attending(self.vision) if (names := tuple(knowing)) else []
        with receiving({name: layers[i] for name, i in self.told(names, len(layers)).items()}) as notes:
            yield notes

    def per_token(self, received: Tensor, grid: Grid, worth: Tensor | None = None) -> Tensor:
        """Numbers [t * h * w] of visual tokens, from what the tower's rows received.

        Parameters
        ----------
        received : Tensor [rows]
            Sums over queries and means over heads, in the tower's order.
        grid : (t, h, w)
            Of visual tokens.
        worth : Tensor [t, h, w], bool, optional
            Which of them were encoded, in a family that leaves out `parts`.
        """
        t, h, w = grid
        each = received.view(t, -1)
        down, across = self.patches(each.shape[1], (h, w))
        patches = each[:, each.shape[1] - down * across :].view(t, 1, down, across)  # [CLS] stands in front
        return self.pooled(patches, (h, w)).flatten() * (down * across / (h * w) / each.shape[1])

    def patches(self, rows: int, size: tuple[int, int]) -> tuple[int, int]:
        """Patches of a frame along height and width, from the rows of the tower and the size in tokens."""
        side = math.isqrt(rows // (size[0] * size[1]))
        return size[0] * side, size[1] * side

    def pooled(self, patches: Tensor, size: tuple[int, int]) -> Tensor:
        """Means [t, 1, h, w] over the patches [t, 1, down, across] of every token."""
        return F.adaptive_avg_pool2d(patches, size)


def attending(tower: nn.Module) -> list[nn.Module]:
    """The attention of each of a vision tower's layers; nothing where they are not transformers'."""
    for module in tower.modules():
        if isinstance(module, nn.ModuleList) and len(module):
            found = [_attention(layer) for layer in module]
            if all(each is not None for each in found):
                return [each for each in found if each is not None]
    return []


def _attention(layer: nn.Module) -> nn.Module | None:
    for name in ("attn", "self_attn", "attention"):
        child = getattr(layer, name, None)
        if isinstance(child, nn.Module) and hasattr(child, "config"):
            return child
    return None


@contextmanager
def receiving(layers: Mapping[str, nn.Module]) -> Iterator[dict[str, list[Tensor]]]:
    """While a tower that nobody else changes runs: what the rows of some attention layers receive.

    Those layers get a configuration of their own meanwhile, by which they call an attention function that notes sums
    and goes on to the one that they would have called (scaled dot products where that is flash attention, whose
    segments are then run one by one). Nothing else of the model changes, and what the layers give stays as it is.

    Yields
    ------
    dict of list of Tensor
        By name what each row receives: sums over queries, means over heads, in float32 or better. One tensor [rows] a
        call, of the rows of each item of a batch behind one another.
    """
    modules = {id(module): module for module in layers.values()}
    notes: dict[int, list[Tensor]] = {number: [] for number in modules}
    before = {number: module.config for number, module in modules.items()}
    for number, module in modules.items():
        config: Any = copy(before[number])
        vars(config)[_PLAINLY] = vars(config).get(_PLAINLY, config._attn_implementation)
        vars(config)["_attn_implementation_internal"] = _TELLING
        module.config = config
    token = _NOTES.set(notes)
    try:
        yield {name: notes[id(module)] for name, module in layers.items()}
    finally:
        _NOTES.reset(token)
        for number, module in modules.items():
            module.config = before[number]


def whole(notes: list[Tensor]) -> Tensor:
    """All rows of a look [rows].

    Raises
    ------
    ModelError
        If the layer called no attention function.
    """
    if not notes:
        raise ModelError(
            "the vision tower does not call transformers' attention functions, so that what it attends to can't be "
            "seen; choose a reducer that does not need it."
        )
    return torch.cat(notes)


def _tell(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """An attention function: note what is received, and go on as without."""
    notes = _NOTES.get({}).get(id(module))
    if notes is not None:
        notes.append(sums(query, key, kwargs.get("scaling"), attention_mask).flatten())
    plainly = vars(module.config)[_PLAINLY]
    if plainly in (None, "eager"):
        how = sys.modules[type(module).__module__].eager_attention_forward
    else:
        how = AttentionInterface()["sdpa" if "flash" in plainly else plainly]
    made: tuple[Tensor, Tensor | None] = how(module, query, key, value, attention_mask, **kwargs)
    return made


AttentionInterface.register(_TELLING, _tell)


@torch.no_grad()
def sums(query: Tensor, key: Tensor, scaling: float | None = None, mask: Tensor | None = None) -> Tensor:
    """What each row receives [batch, rows]: attention weights as a sum over queries and a mean over heads.

    Parameters
    ----------
    query, key : Tensor [batch, heads, rows, head_dim]
        Keys may have fewer heads.
    scaling : float, optional
        Of the products; 1 / sqrt(head_dim) if left out.
    mask : Tensor [batch or 1, heads or 1, rows, rows] or [batch, rows], optional
        Which rows are seen, or what is added to the products.
    """
    kind = torch.promote_types(query.dtype, torch.float32)
    batch, heads, rows, dim = query.shape
    query = query.to(kind) * (dim**-0.5 if scaling is None else scaling)
    key = key.to(kind).repeat_interleave(heads // key.shape[1], dim=1).transpose(2, 3)
    if mask is not None:
        mask = mask.bool()[:, None, None] if mask.ndim == 2 else mask
        mask = mask.expand(batch, mask.shape[1], rows, key.shape[-1])
    lowest = torch.finfo(kind).min
    at_once, received = max(_MOST // (heads * key.shape[-1]), 1), []
    for item in range(batch):
        total = key.new_zeros(key.shape[-1])
        for first in range(0, rows, at_once):
            weights = query[item, :, first : first + at_once] @ key[item]  # [heads, at once, rows]
            if mask is not None:
                seen = mask[item, :, first : first + at_once]
                weights = weights.masked_fill(~seen, lowest) if seen.dtype == torch.bool else weights + seen
            total = total + weights.softmax(dim=-1).sum(dim=(0, 1))
        received.append(total / heads)
    return torch.stack(received)
