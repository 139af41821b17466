"""Methods by name: what every registry of scorers, allocators and evictors does with a name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from .common.checks import shown
from .errors import ConfigError, StreamError

Method = TypeVar("Method")


@dataclass(frozen=True, slots=True)
class Facts:
    """What a catalogue says of a method."""

    says: str  # one plain sentence: what stays
    paper: str  # "StreamMem, arXiv ...", or "" where there is none
    trained: bool = False  # whether it needs training
    needs_question: bool = False
    ours: bool = False  # the idea, or how it is applied here, is ours and not the paper's
    carries: str = ""  # what a stream carries from chunk to chunk for it, and its bound; empty for nothing


def named(kind: str, registry: Mapping[str, Method], method: str | Method) -> Method:
    """A listed method by its name, or the method itself where an object was given.

    Raises
    ------
    ConfigError
        If none of that name is listed, or the object is not like those that are.
    """
    if isinstance(method, str):
        if method not in registry:
            raise ConfigError(f"there is no {kind} {shown(method)}; choose one of {', '.join(registry)}.")
        return registry[method]
    # what all that are listed say of themselves, as the kind's protocol asks
    said = set.intersection(*({name for name in dir(type(listed)) if name[0] != "_"} for listed in registry.values()))
    said.discard("facts")  # for a catalogue, which an object of one's own is not in
    missing = sorted(name for name in said if not hasattr(method, name))
    if isinstance(method, type) or not callable(method) or missing:
        lacks = f" It lacks {', '.join(missing)}." if callable(method) and missing else ""
        raise ConfigError(
            f"{kind} is {shown(method)}; expected one of {', '.join(registry)}, or an object like those that stand for "
            f"these names.{lacks}"
        )
    return method


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
