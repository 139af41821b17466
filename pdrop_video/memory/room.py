"""Where one layer's keys and values stand, and how its columns close ranks when some go. Knows tensors only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakSet

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .layer import KeyValueLayer


@dataclass(slots=True, eq=False)
class Room:
    """Storage [batch, kv_heads, capacity, head_dim]; the first `used` columns are taken.

    `entered` holds the keys as they came, once `keys` have been rotated to other positions; None while they are the
    same. `holders` are the layers that read this storage.
    """

    keys: Tensor
    values: Tensor
    used: int
    entered: Tensor | None
    holders: WeakSet[KeyValueLayer]

    @property
    def capacity(self) -> int:
        """Columns that find room."""
        return self.keys.shape[-2]

    @property
    def parts(self) -> list[Tensor]:
        """All tensors of the storage."""
        return [self.keys, self.values] if self.entered is None else [self.keys, self.values, self.entered]


@dataclass(frozen=True, slots=True)
class Arrangement:
    """How columns close ranks when some are evicted: as few as possible move.

    Attributes
    ----------
    order : Tensor [kept]
        For every place, the column that stands there afterwards.
    gone : Tensor [evicted]
        The columns that go, ascending.
    target, source : Tensor [moves]
        The places that are filled and the columns that fill them; a place may be filled by its own column.
    """

    order: Tensor
    gone: Tensor
    target: Tensor
    source: Tensor

    @classmethod
    def of(cls, stay: Tensor, length: int) -> Arrangement:
        """The arrangement that holds the columns `stay` [kept] (ascending) of `length`."""
        kept, place = len(stay), torch.arange(length, device=stay.device)
        stays = torch.zeros_like(place).scatter(0, stay, 1)
        gone = stays.argsort(stable=True)[: length - kept]
        # of what goes, the first leave holes among the places that are kept, and the last columns fill them; how many
        # there are only the device knows, and nobody waits for it: what goes from beyond the end stands where it stood
        target = gone[:kept]
        source = torch.where(target < kept, stay.flip(0)[: len(target)], target)
        return cls(place.scatter(0, target, source)[:kept], gone, target, source)
