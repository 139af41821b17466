"""What is forgotten when a layer is over its budget: one small file a method, listed here by name."""

from __future__ import annotations

from ...errors import ConfigError
from .base import Evictor, Held, choose
from .infinipot_v import InfiniPotV
from .oldest import Oldest, Random, Window
from .pyramid import Pyramid
from .uniform import Uniform

EVICTORS: dict[str, Evictor] = {
    "oldest": Oldest(),
    "window": Window(),
    "random": Random(),
    "uniform": Uniform(),
    "infinipot_v": InfiniPotV(),
    "pyramid": Pyramid(),
}


def evictor_named(evictor: str | Evictor) -> Evictor:
    """An evictor by its name, or itself.

    Raises
    ------
    ConfigError
        If there is none of that name.
    """
    if not isinstance(evictor, str):
        return evictor
    if evictor not in EVICTORS:
        raise ConfigError(f"there is no evictor {evictor!r}; choose one of {', '.join(EVICTORS)}.")
    return EVICTORS[evictor]


__all__ = ["EVICTORS", "Evictor", "Held", "choose", "evictor_named"]
