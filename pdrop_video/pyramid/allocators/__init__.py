"""How a boundary's budget is split over time: one small file a method, listed here by name."""

from __future__ import annotations

from ...registry import named
from .base import Allocator
from .joint import Joint
from .overall import Global
from .uniform import Uniform

ALLOCATORS: dict[str, Allocator] = {"global": Global(), "uniform": Uniform(), "joint": Joint()}


def allocator_named(allocator: str | Allocator) -> Allocator:
    """An allocator by its name, or itself; `ConfigError` if there is none of that name."""
    return named("allocator", ALLOCATORS, allocator)


__all__ = ["ALLOCATORS", "Allocator", "allocator_named"]
