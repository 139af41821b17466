"""What layers do less of inside, while all tokens stay: one small file a method, listed here by name."""

from __future__ import annotations

from ...registry import named
from .adaspark import AdaSpark
from .base import Inside

INSIDES: dict[str, Inside] = {"adaspark": AdaSpark()}


def inside_named(inside: str | Inside) -> Inside:
    """A method inside layers by its name, or itself; `ConfigError` if there is none of that name."""
    return named("method inside layers", INSIDES, inside)


__all__ = ["INSIDES", "Inside", "inside_named"]
