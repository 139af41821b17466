"""The recipes that a search may find: which methods take part, and what a recipe may cost. Knows names and numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ..common import checks
from ..errors import ConfigError
from ..gate import GATES, gate_named
from ..memory import EVICTORS
from ..memory.evictors import evictor_named
from ..memory.storages import STORAGES, storage_named
from ..pyramid import SCORERS
from ..pyramid.scorers import scorer_named
from ..reduce import REDUCERS, reducer_named
from ..registry import facts_of
from .kernels import KERNELS, Kernel, kernel_named

NONE = "none"
CONTROLS = {"random", "even", "shuffled"}
"""Methods that know nothing: what others are compared with, and no part of the space unless they are named."""


def usable(registry: Mapping[str, Any]) -> tuple[str, ...]:
    """The methods of a registry that need no question, no training, and nothing that only some models have."""
    said = {name: facts_of(method) for name, method in registry.items() if name not in CONTROLS}
    return tuple(
        name
        for name, facts in said.items()
        if facts is not None
        and not (facts.needs_question or facts.trained)
        and not hasattr(registry[name], "check")
        and not getattr(registry[name], "needs", ())
    )


@dataclass(frozen=True, slots=True)
class Space:
    """What takes part, slot by slot; "none" stands for no gate, or no reducer.

    Parameters
    ----------
    gates, reducers, scorers, evictors, storages : tuple of str
        Names, with parameters if need be; by default all that are listed and need neither question nor training.
    kernels : tuple of str
        The shapes of schedules.
    sources : mapping of str to Kernel
        Further shapes, by names of their own, such as `quota_kernel`, which goes by layers' sensitivities.

    Raises
    ------
    ConfigError
        If a name is unknown, or a slot is empty.
    """

    gates: tuple[str, ...] = (NONE, *usable(GATES))
    reducers: tuple[str, ...] = (NONE, *usable(REDUCERS))
    kernels: tuple[str, ...] = tuple(KERNELS)
    scorers: tuple[str, ...] = usable(SCORERS)
    evictors: tuple[str, ...] = usable(EVICTORS)
    storages: tuple[str, ...] = usable(STORAGES)
    sources: Mapping[str, Kernel] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known: dict[str, Callable[[Any], object]] = {
            "gates": gate_named,
            "reducers": reducer_named,
            "kernels": kernel_named,
            "scorers": scorer_named,
            "evictors": evictor_named,
            "storages": storage_named,
        }
        for name, look_up in known.items():
            least = 0 if name == "kernels" and self.sources else 1
            given = tuple(checks.texts(name, getattr(self, name), least=least))
            for each in given:
                if not (each == NONE and name in ("gates", "reducers")):
                    look_up(each)
            object.__setattr__(self, name, tuple(dict.fromkeys(given)))

    @property
    def shapes(self) -> tuple[str, ...]:
        """Kernels and sources by name."""
        return tuple(dict.fromkeys((*self.kernels, *self.sources)))

    def kernel(self, name: str) -> Kernel:
        """A shape by its name."""
        return self.sources[name] if name in self.sources else kernel_named(name)

    @property
    def uses_motion(self) -> bool:
        """Whether one of the gates looks at what a codec says of motion."""
        return any(getattr(gate_named(gate), "uses_motion", False) for gate in self.gates if gate != NONE)

    def as_dict(self) -> dict[str, list[str]]:
        """Names by slot, as JSON has it."""
        names = {each.name: list(getattr(self, each.name)) for each in fields(self) if each.name != "sources"}
        return names | {"sources": list(self.sources)}


@dataclass(frozen=True, slots=True)
class Budget:
    """What a recipe may cost.

    Attributes
    ----------
    flops : float
        Share of the FLOPs of the whole way with all visual tokens, tower included, in the mean over clips.
    bytes : int or None
        Most bytes that a stream holds after any push; None for no limit, and no search over memories.
    """

    flops: float
    bytes: int | None = None

    def __post_init__(self) -> None:
        share = checks.real("budget", self.flops)
        if not 0 < share < 1:
            raise ConfigError(f"budget is {share:g}; expected a budget between 0 and 1, for example 0.5.")
        if self.bytes is not None:
            checks.whole("bytes", self.bytes)

    @property
    def name(self) -> str:
        """For files and tables."""
        return f"{self.flops:g}" + ("" if self.bytes is None else f"_{self.bytes}")
