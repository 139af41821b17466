"""Where one layer's keys and values stand, and how its columns close ranks when some go. Knows tensors only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from weakref import WeakSet

import torch
from torch import Tensor

from .modes import lasting

Parts = tuple[Tensor, ...]
"""Keys or values as they are stored: one tensor or several, each [batch, kv_heads, columns, width]."""


@dataclass(slots=True, eq=False)
class Room:
    """Storage of `capacity` columns; the first `used` are taken.

    `entered` holds the keys as they came, once `keys` have been rotated to other positions; None while they are the
    same. `blank` are the values behind which nothing stands that is not a number. `holders` are those that read this
    storage. They read it through the room, never past it: so it can become another size for all of them at once.
    """

    keys: Parts
    values: Parts
    entered: Parts | None = None
    used: int = 0
    blank: Parts | None = None
    holders: WeakSet[object] = field(default_factory=WeakSet)

    @classmethod
    @lasting()  # a layer of the model, which appends, may run in a mode of its own
    def like(cls, keys: Parts, values: Parts, capacity: int) -> Room:
        """Storage for columns like these, without any."""
        return cls(_empty(keys, capacity), _empty(values, capacity))

    @property
    def capacity(self) -> int:
        """Columns that find room."""
        return min(part.shape[-2] for part in self.parts)

    @property
    def parts(self) -> Parts:
        """All tensors that columns are in."""
        return (*self.keys, *self.values, *(self.entered or ()))

    def select(self, columns: Tensor, capacity: int, *, entered: bool = False) -> Room:
        """Storage for so many columns with a copy of some [chosen], and of their keys as they came where `entered`."""
        new = Room.like(self.keys, self.values, capacity)
        new.used = len(columns)
        if entered and self.entered is not None:
            new.split(capacity)
        for part, copy in zip(self.parts, new.parts, strict=False):
            torch.index_select(part, -2, columns, out=copy[:, :, : new.used])
        return new

    @lasting()
    def split(self, capacity: int) -> None:
        """Hold keys as they came apart from `keys`, which are to be written anew and find so much room."""
        if self.entered is None:
            self.entered, self.keys = self.keys, _empty(self.keys, capacity)

    def join(self) -> None:
        """Take `split` back; once or twice is the same."""
        if self.entered is not None:
            self.keys, self.entered = self.entered, None

    @lasting()
    def clear(self) -> None:
        """Let no values be there behind what is used that are no numbers: times a weight of 0 they would not be 0."""
        for part in self.values:
            part[:, :, self.used :] = 0
        self.blank = self.values

    def grow(self, capacity: int) -> None:
        """Have room for so many columns, for all holders."""
        self._resize(lambda has: has < capacity, capacity)

    def shrink(self, capacity: int) -> None:
        """Have room for no more than so many columns."""
        self._resize(lambda has: has > capacity, capacity)

    @lasting()
    def _resize(self, due: Callable[[int], bool], capacity: int) -> None:
        """What is used moves, one tensor after another: never are two of them there twice."""
        assert capacity >= self.used
        for name in ("keys", "values", "entered"):
            for i, part in enumerate(getattr(self, name) or ()):
                if due(part.shape[-2]):
                    (new,) = _empty((part,), capacity)
                    new[:, :, : self.used] = part[:, :, : self.used]
                    parts = getattr(self, name)
                    setattr(self, name, (*parts[:i], new, *parts[i + 1 :]))


def _empty(parts: Parts, capacity: int) -> Parts:
    return tuple(part.new_empty(*part.shape[:2], capacity, part.shape[-1]) for part in parts)


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

    def to(self, device: torch.device) -> Arrangement:
        """The same on a device."""
        return Arrangement(*(of.to(device) for of in (self.order, self.gone, self.target, self.source)))

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


@dataclass(frozen=True, slots=True)
class Tiers:
    """How the columns of a layer in two tiers close ranks: each tier by itself, those that settled first.

    Attributes
    ----------
    order : Tensor [kept]
        For every place, the column that stands there afterwards.
    gone : Tensor [evicted]
        The columns that go, ascending.
    far, near : Arrangement
        Of the columns that settled, and of the others, counted from the first of them.
    """

    order: Tensor
    gone: Tensor
    far: Arrangement
    near: Arrangement

    def to(self, device: torch.device) -> Tiers:
        """The same on a device."""
        return Tiers(self.order.to(device), self.gone.to(device), self.far.to(device), self.near.to(device))

    @classmethod
    def of(cls, stay: Tensor, settled: int, length: int) -> Tiers:
        """The arrangement that holds the columns `stay` [kept] (ascending) of `length`, the first `settled` settled."""
        far = Arrangement.of(stay[stay < settled], settled)
        near = Arrangement.of(stay[stay >= settled] - settled, length - settled)
        order, gone = (torch.cat([a, b + settled]) for a, b in ((far.order, near.order), (far.gone, near.gone)))
        return cls(order, gone, far, near)
