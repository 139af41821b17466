"""What caches take, summed over the tensors' own storages: whatever holds them, and however little of them is held."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import FunctionType
from typing import Any
from weakref import WeakSet

import pytest
from torch import Tensor

from pdrop_video.memory import KeyValueLayer, StreamCache
from pdrop_video.memory.states import StateLayer


def tensors_in(thing: Any, seen: set[int]) -> Iterator[Tensor]:
    """Every tensor that is reached from a layer: through its attributes, containers and what its functions close over.

    Not through methods and partial functions, which lead to the model.
    """
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, Tensor):
        yield thing
        return
    inside: Iterable[Any] = ()
    if isinstance(thing, dict):
        inside = thing.values()
    elif isinstance(thing, list | tuple):
        inside = thing
    elif isinstance(thing, FunctionType):
        inside = [cell.cell_contents for cell in thing.__closure__ or ()]
    elif type(thing).__module__.startswith("pdrop_video.memory"):
        named = {name for of in type(thing).__mro__ for name in getattr(of, "__slots__", ())} | {*vars_of(thing)}
        inside = [getattr(thing, name) for name in named if hasattr(thing, name)]
    for each in inside:
        yield from tensors_in(each, seen)


def vars_of(thing: Any) -> dict[str, Any]:
    """The attributes of an object that has a dictionary of them."""
    return getattr(thing, "__dict__", {})


def reserved(caches: Iterable[StreamCache]) -> int:
    """Bytes of all distinct storages of the layers of some caches."""
    seen: set[int] = set()
    storages = {}
    for cache in caches:
        for tensor in tensors_in(list(cache.layers), seen):
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    storages.pop(0, None)  # empty ones
    return sum(storages.values())


def holding(cache: StreamCache) -> list[KeyValueLayer]:
    """The layers of a cache that hold columns of their own."""
    return [layer for layer in cache.layers if not isinstance(layer, StateLayer) and layer.columns.room is not None]


def rooms_of(caches: Iterable[StreamCache]) -> list[Any]:
    """The distinct rooms that columns of some caches are in, what is gathered of them for a question included."""
    found = {}
    for layer in (layer for cache in caches for layer in holding(cache)):
        chosen = getattr(layer, "_chosen", None) or (None, None)
        for columns in (layer.columns, getattr(layer, "far", None), layer._gathered, chosen[1]):
            if columns is not None and columns.room is not None:
                found[id(columns.room)] = columns.room
    return list(found.values())


def rooms(caches: Iterable[StreamCache]) -> int:
    """Bytes of the storages that columns are in: without what a push sets aside to be able to take itself back."""
    return sum(part.untyped_storage().nbytes() for room in rooms_of(caches) for part in room.parts)


def column(cache: StreamCache) -> int:
    """Bytes of one column in every room of a cache, together."""
    return sum(part[:, :, :1].nbytes for room in rooms_of([cache]) for part in room.parts)


class Alive:
    """Every cache that there is from now on, and the most that all of them together took since `forget`.

    Looked at whenever the last layer of one of them has taken what came.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.caches: WeakSet[StreamCache] = WeakSet()
        self.most = self.rooms = 0
        begin, update = StreamCache.__init__, KeyValueLayer.update

        def begun(cache: StreamCache, *args: Any, **kwargs: Any) -> None:
            begin(cache, *args, **kwargs)
            self.caches.add(cache)

        def updated(layer: KeyValueLayer, *args: Any, **kwargs: Any) -> Any:
            result = update(layer, *args, **kwargs)
            if any(layer in holding(cache)[-1:] for cache in self.caches):  # by then every layer has what it takes
                self.look()
            return result

        patch.setattr(StreamCache, "__init__", begun)
        patch.setattr(KeyValueLayer, "update", updated)

    def look(self) -> None:
        """Sum now."""
        self.most, self.rooms = max(self.most, reserved(self.caches)), max(self.rooms, rooms(self.caches))

    def forget(self) -> None:
        """Begin a new peak."""
        self.most = self.rooms = 0
