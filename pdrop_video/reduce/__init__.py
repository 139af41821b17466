"""Between the vision tower and the language model: fewer visual tokens, chosen or merged. Knows tokens, never a model.

One small file a method, listed here by name.
"""

from __future__ import annotations

from ..registry import named
from .aot import AOT
from .base import Reduced, Reducer, Tokens
from .evs import EVS

REDUCERS: dict[str, Reducer] = {
    "aot": AOT(),
    "evs": EVS(),
}


def reducer_named(reducer: str | Reducer) -> Reducer:
    """A reducer by its name, or itself; `ConfigError` if there is none of that name."""
    return named("reducer", REDUCERS, reducer)


__all__ = ["REDUCERS", "Reduced", "Reducer", "Tokens", "reducer_named"]
