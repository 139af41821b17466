"""What is forgotten when a layer is over its budget: one small file a method, listed here by name."""

from __future__ import annotations

from ...registry import named
from .base import Evictor, Held, Merger, choose
from .fluxmem import FluxMem
from .hermes import Hermes
from .infinipot_v import InfiniPotV
from .oldest import Oldest, Random, Window
from .pyramid import Pyramid
from .standby import Standby
from .stream_mem import StreamMem
from .streaming_vlm import StreamingVLM
from .two_tier import TwoTier, TwoTierMeans
from .uniform import Uniform

EVICTORS: dict[str, Evictor] = {
    "oldest": Oldest(),
    "window": Window(),
    "random": Random(),
    "uniform": Uniform(),
    "streaming_vlm": StreamingVLM(),
    "infinipot_v": InfiniPotV(),
    "stream_mem": StreamMem(),
    "hermes": Hermes(),
    "pyramid": Pyramid(),
    "standby": Standby(),
    "two_tier": TwoTier(),
    "two_tier_means": TwoTierMeans(),
    "fluxmem": FluxMem(),
}


def evictor_named(evictor: str | Evictor) -> Evictor:
    """An evictor by its name, or itself; `ConfigError` if there is none of that name."""
    return named("evictor", EVICTORS, evictor)


__all__ = ["EVICTORS", "Evictor", "Held", "Merger", "choose", "evictor_named"]
