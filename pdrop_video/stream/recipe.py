"""`Recipe`: everything that a stream is opened with, in one value that a file can hold. Knows methods by name."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Set
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from ..common import checks
from ..common.atomic import replacing
from ..errors import ConfigError, StreamError
from ..gate import GATES, Gate, gate_named
from ..memory import EVICTORS, Memory
from ..memory.storages import STORAGES
from ..pyramid import ALLOCATORS, INSIDES, SCORERS, Pyramid
from ..reduce import REDUCERS, Reducer, reducer_named
from ..registry import name_of
from .looking import DECODES

SLOTS: dict[str, Mapping[str, Any]] = {
    "gate": GATES,
    "reducer": REDUCERS,
    "scorer": SCORERS,
    "allocator": ALLOCATORS,
    "inside": INSIDES,
    "evictor": EVICTORS,
    "storage": STORAGES,
    "decode": DECODES,
}
"""Registries by the name of the argument that takes their methods, in the order in which a frame meets them."""
_NOTES = ("search", "notes")
"""Entries of a file that are for its readers."""
_RANKING = {"scorer", "allocator", "positions", "inside"}
"""Of a pyramid: what ranks, where what stays stands, and what layers do with it; the others are its schedule."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a stream watches and remembers: gate, reducer, pyramid and memory.

    Parameters
    ----------
    gate : str or Gate, optional
        What goes to the vision tower: "static", with its parameters behind a colon if need be ("static:threshold=5"),
        or one of your own. None lets every frame through.
    reducer : str or Reducer, optional
        What goes to the language model: "evs", "evs:keep=0.25", or one of your own. None lets every visual token
        through.
    pyramid : Pyramid, optional
        How visual tokens are dropped in the layers; ``Pyramid()`` by default.
    memory : Memory, optional
        What may be remembered; ``Memory()`` by default.

    Raises
    ------
    ConfigError
        If a name or a parameter is unknown, or an argument of the wrong kind.

    Examples
    --------
    >>> Recipe(gate="static", reducer="evs:keep=0.25").as_dict()["reducer"]
    'evs:keep=0.25'
    """

    gate: str | Gate | None = None
    reducer: str | Reducer | None = None
    pyramid: Pyramid = field(default_factory=Pyramid)
    memory: Memory = field(default_factory=Memory)

    def __post_init__(self) -> None:
        """Check each part."""
        if self.gate is not None:
            gate_named(self.gate)
        if self.reducer is not None:
            reducer_named(self.reducer)
        checks.instance("pyramid", self.pyramid, Pyramid, "Pyramid(ratios=...)")
        checks.instance("memory", self.memory, Memory, "Memory(tokens=...)")

    @property
    def uses_motion(self) -> bool:
        """Whether the gate looks at what a codec says of motion: open videos for it with ``motion=True``."""
        return self.gate is not None and bool(getattr(gate_named(self.gate), "uses_motion", False))

    def as_dict(self) -> dict[str, Any]:
        """The recipe as JSON and YAML have it: methods by name, and of pyramid and memory what is not the default.

        Raises
        ------
        ConfigError
            If a method is an object of your own, which has no name.
        """
        said: dict[str, Any] = {}
        try:
            if self.gate is not None:
                said["gate"] = name_of(GATES, gate_named(self.gate))
            if self.reducer is not None:
                said["reducer"] = name_of(REDUCERS, reducer_named(self.reducer))
            for name, value in (("pyramid", self.pyramid), ("memory", self.memory)):
                said[name] = _plain(value)
        except StreamError as error:
            raise ConfigError(f"a recipe can't be written: {error}") from None
        return said

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Recipe:
        """A recipe from what `as_dict` gives.

        Raises
        ------
        ConfigError
            If it has entries that no recipe has, or values that no method takes.
        """
        if not isinstance(given, Mapping):
            raise ConfigError(f"a recipe is {checks.shown(given)}; expected entries such as gate, reducer, pyramid.")
        known = [field.name for field in fields(cls)]
        unknown = [name for name in given if name not in (*known, *_NOTES)]
        if unknown:
            raise ConfigError(f"a recipe has {checks.shown(unknown[0])}; expected {', '.join(known)}.")
        parts = {name: value for name, value in given.items() if name in known and value is not None}
        for name, kind in (("pyramid", Pyramid), ("memory", Memory)):
            if name in parts:
                parts[name] = _made(name, kind, parts[name])
        for name in ("gate", "reducer"):
            if name in parts:
                parts[name] = checks.text(name, parts[name])
        return cls(**parts)

    def altered(
        self,
        *,
        gate: str | None = None,
        reducer: str | None = None,
        pyramid: Mapping[str, Any] | None = None,
        memory: Mapping[str, Any] | None = None,
    ) -> Recipe:
        """The recipe with other values in place of its own, as options beside a file have it.

        Parameters
        ----------
        gate, reducer : str, optional
            "none" takes it away.
        pyramid, memory : mapping, optional
            Some of their arguments by name; the others stay. But a new schedule is a whole one, a bound in tokens takes
            the place of one in bytes and the other way round, and an evictor brings the positions of its authors.

        Raises
        ------
        ConfigError
            If they are none that a recipe can have, or a method of this one has no name.
        """
        said = self.as_dict()
        for name, method in (("gate", gate), ("reducer", reducer)):
            if method is not None:
                said[name] = None if isinstance(method, str) and method == "none" else method
        dropping, remembering = (
            _arguments(name, {} if given is None else given)
            for name, given in (("pyramid", pyramid), ("memory", memory))
        )
        stale = set() if dropping.keys() <= _RANKING else said["pyramid"].keys() - _RANKING
        said["pyramid"] = _without(said["pyramid"], stale) | dropping
        ends = {"tokens": "bytes", "bytes": "tokens", "evictor": "positions"}
        said["memory"] = _without(said["memory"], {ends[name] for name in remembering if name in ends}) | remembering
        return self.from_dict(said)

    def save(self, path: str | os.PathLike[str], **notes: Any) -> None:
        """Write the recipe to a file, YAML or JSON by its suffix, which appears in one step.

        Parameters
        ----------
        path : str or path
            Ending in .yaml, .yml or .json.
        **notes
            For readers; written beside it, and passed over by `load`.

        Raises
        ------
        ConfigError
            If the suffix is another, a method has no name, or the file can't be written.
        """
        name, as_yaml = _file(path)
        said = self.as_dict() | ({"notes": notes} if notes else {})
        text = yaml.safe_dump(said, sort_keys=False) if as_yaml else json.dumps(said, indent=1) + "\n"
        try:
            with replacing(path) as part:
                Path(part).write_text(text, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{name} can't be written ({error.strerror}); choose a file that can.") from error

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Recipe:
        """Read what `save`, or `Pyramid.save`, wrote.

        Raises
        ------
        ConfigError
            If the file can't be read, or holds no recipe.
        """
        name, as_yaml = _file(path)
        try:
            text = Path(path).read_text(encoding="utf-8")
            given = yaml.safe_load(text) if as_yaml else json.loads(text)
        except OSError as error:
            raise ConfigError(f"{name} can't be read ({error.strerror}); expected a YAML or JSON file.") from error
        except (ValueError, yaml.YAMLError, RecursionError) as error:
            raise ConfigError(f"{name} holds no recipe: {checks.shown(str(error))}") from error
        try:
            return cls.from_dict(given)
        except ConfigError as error:
            raise ConfigError(f"{name}: {error}") from None


def _file(path: Any) -> tuple[str, bool]:
    """A file's name for messages, and whether it is YAML."""
    name, suffix = checks.shown(checks.path("path", path)), Path(path).suffix.lower()
    if suffix not in (".yaml", ".yml", ".json"):
        raise ConfigError(f"{name} ends in {suffix!r}; expected a file that ends in .yaml, .yml or .json.")
    return name, suffix != ".json"


def _plain(value: Any) -> dict[str, Any]:
    """A pyramid or a memory by those of its fields that are not the default."""
    said, usual = {}, type(value)()
    if isinstance(usual, Memory) and value.bytes is not None:
        usual = replace(usual, storage=Memory(bytes=value.bytes).storage)  # another default
    for each in fields(value):
        given = getattr(value, each.name)
        if given == getattr(usual, each.name):
            continue
        if each.name in SLOTS and not isinstance(given, str):
            given = name_of(SLOTS[each.name], given)
        said[each.name] = list(given) if isinstance(given, tuple) else given
    return said


def _without(said: Mapping[str, Any], names: Set[str]) -> dict[str, Any]:
    return {name: value for name, value in said.items() if name not in names}


def _arguments(name: str, given: Any) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise ConfigError(f"{name} is {checks.shown(given)}; expected its arguments by name.")
    return dict(given)


def _made(name: str, kind: Any, given: Any) -> Any:
    given = _arguments(name, given)
    known = [field.name for field in fields(kind)]
    unknown = [key for key in given if key not in known]
    if unknown:
        raise ConfigError(f"{name} has {checks.shown(unknown[0])}; expected some of {', '.join(known)}.")
    return kind(**given)
