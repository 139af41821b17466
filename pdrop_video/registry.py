"""Methods by name: what every registry of gates, reducers, scorers, allocators and evictors does with a name.

A method is written in one line everywhere, in Python, on the command line, in files: its name, and behind a colon those
of its parameters that are not the default, as ``evs:keep=0.25``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeVar

from .common.checks import real, shown, switch, text, whole
from .errors import ConfigError, StreamError

Method = TypeVar("Method")
_MOST = 2**53


@dataclass(frozen=True, slots=True)
class Facts:
    """What a catalogue says of a method.

    Attributes
    ----------
    says : str
        One plain sentence: what stays.
    paper : str
        Such as "PyramidDrop, arXiv 2410.17247"; empty where there is none.
    trained : bool
        Whether it needs training.
    needs_question : bool
        Whether it can do nothing sensible without a question.
    ours : bool
        Whether the idea, or how it is applied here, is ours and not the paper's.
    carries : str
        What a stream carries from chunk to chunk for it, and its bound; empty for nothing.
    formula : str
        What it computes, in plain text, a line for each rule: its heart, not every case.
    """

    says: str
    paper: str
    trained: bool = False
    needs_question: bool = False
    ours: bool = False
    carries: str = ""
    formula: str = ""


def named(kind: str, registry: Mapping[str, Method], method: str | Method) -> Method:
    """A listed method by its name, or the method itself where an object was given.

    Parameters
    ----------
    kind : str
        For messages, such as "scorer".
    registry : mapping
    method : str or object
        A name, with parameters behind a colon if need be: ``"evs:keep=0.25"``.

    Raises
    ------
    ConfigError
        If none of that name is listed, it has no such parameters, or the object is not like those that are listed.
    """
    if isinstance(method, str):
        name, _, parameters = method.partition(":")
        if name not in registry:
            raise ConfigError(f"there is no {kind} {shown(name)}; choose one of {', '.join(registry)}.")
        return _with(kind, registry[name], name, parameters) if parameters else registry[name]
    # what all that are listed say of themselves, as the kind's protocol asks
    said = set.intersection(*(_said(listed) for listed in registry.values()))
    missing = sorted(name for name in said if not hasattr(method, name))
    if isinstance(method, type) or not callable(method) or missing:
        lacks = f" It lacks {', '.join(missing)}." if callable(method) and missing else ""
        raise ConfigError(
            f"{kind} is {shown(method)}; expected one of {', '.join(registry)}, or an object like those that stand for "
            f"these names.{lacks}"
        )
    return method


def _said(listed: Any) -> set[str]:
    """What a method says of itself, without its own parameters, and what a catalogue alone asks for."""
    parameters = {field.name for field in fields(listed)} if is_dataclass(listed) else set()
    return {name for name in dir(type(listed)) if name[0] != "_"} - parameters - {"facts"}


def _with(kind: str, listed: Any, name: str, parameters: str) -> Any:
    """A listed method with other parameters, as ``key=value,key=value`` has them."""
    known = {field.name: str(field.type) for field in fields(listed)}
    given: dict[str, Any] = {}
    for part in parameters.split(","):
        key, equals, value = (each.strip() for each in part.partition("="))
        if not equals or key not in known or key in given:
            takes = f"{', '.join(known)}, each once, as {name}:{next(iter(known))}=..." if known else "no parameters"
            raise ConfigError(f"{kind} {name} has {shown(part)}; expected {takes}.")
        given[key] = _value(f"{key} of {kind} {name}", known[key], value)
    return type(listed)(**given)


def _value(name: str, sort: str, said: str) -> Any:
    """A parameter out of its text, of the sort that its field is annotated with."""
    try:
        value = json.loads(said)
    except (ValueError, RecursionError):
        value = said  # a word
    if value is None and "None" in sort:
        return None
    sort = sort.split(" | ")[0]
    if sort == "float":
        return real(name, value)
    if sort == "int":
        return whole(name, value, -_MOST, _MOST)
    if sort == "bool":
        return switch(name, value)
    return text(name, value if isinstance(value, str) else said)


def name_of(registry: Mapping[str, Method], method: Method) -> str:
    """The line by which `named` gives this method again, which is all of it that a file can hold.

    Raises
    ------
    StreamError
        If nothing of its class is listed.
    """
    for name, listed in registry.items():
        if listed == method:
            return name
    for name, listed in registry.items():
        if type(listed) is type(method) and is_dataclass(method):
            changed = ((each.name, getattr(method, each.name), getattr(listed, each.name)) for each in fields(method))
            line = ",".join(f"{key}={json.dumps(value)}" for key, value, usual in changed if value != usual)
            if named("method", registry, f"{name}:{line}") == method:
                return f"{name}:{line}"
    raise StreamError(
        f"the stream uses {method!r}, which no registry lists, so a saved file could not name it; list it first, under "
        "a name of your own, in the process that saves and in the one that resumes."
    )


def facts_of(method: object) -> Facts | None:
    """What a method says of itself; None where it says nothing."""
    facts = getattr(method, "facts", None)
    return facts if isinstance(facts, Facts) else None
