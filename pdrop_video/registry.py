"""Methods by name: what every registry of scorers, allocators and evictors does with a name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from .errors import ConfigError, StreamError

Method = TypeVar("Method")


def named(kind: str, registry: Mapping[str, Method], method: str | Method) -> Method:
    """A listed method by its name, or the method itself where an object was given.

    Raises
    ------
    ConfigError
        If none of that name is listed.
    """
    if not isinstance(method, str):
        return method
    if method not in registry:
        raise ConfigError(f"there is no {kind} {method!r}; choose one of {', '.join(registry)}.")
    return registry[method]


def name_of(registry: Mapping[str, Method], method: Method) -> str:
    """The name that a method is listed by, which is all of it that a file can hold.

    Raises
    ------
    StreamError
        If it is not listed.
    """
    for name, listed in registry.items():
        if listed == method:
            return name
    raise StreamError(
        f"the stream uses {method!r}, which no registry lists, so a saved file could not name it; list it first, under "
        "a name of your own, in the process that saves and in the one that resumes."
    )
