"""How a boundary's budget is split over time: one small file a method, listed here by name."""

from __future__ import annotations

from ...errors import ConfigError
from .base import Allocator
from .joint import Joint
from .overall import Global
from .uniform import Uniform

ALLOCATORS: dict[str, Allocator] = {"global": Global(), "uniform": Uniform(), "joint": Joint()}


def allocator_named(allocator: str | Allocator) -> Allocator:
    """An allocator by its name, or itself.

    Raises
    ------
    ConfigError
        If there is none of that name.
    """
    if not isinstance(allocator, str):
        return allocator
    if allocator not in ALLOCATORS:
        raise ConfigError(f"there is no allocator {allocator!r}; choose one of {', '.join(ALLOCATORS)}.")
    return ALLOCATORS[allocator]


__all__ = ["ALLOCATORS", "Allocator", "allocator_named"]
