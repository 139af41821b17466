"""Between the vision tower and the language model: fewer visual tokens, chosen or merged. Knows tokens, never a model.

One small file a method, listed here by name.
"""

from __future__ import annotations

from ..registry import named
from .aot import AOT
from .base import Reduced, Reducer, Tokens
from .controls import Even, Random
from .dtd import DTD
from .dualcomp import DualComp
from .event_saliency import EventSaliency
from .evs import EVS
from .fastvid import FastVID
from .forest import ForestPrune
from .holitom import HoliTom
from .lrcp import LRCP
from .omnirefine import OmniRefine
from .select_rescore import SelectRescore
from .vidcom2 import VidCom2

REDUCERS: dict[str, Reducer] = {
    "dtd": DTD(),
    "aot": AOT(),
    "even": Even(),
    "evs": EVS(),
    "random": Random(),
    "lrcp": LRCP(),
    "select_rescore": SelectRescore(),
    "dualcomp": DualComp(),
    "event_saliency": EventSaliency(),
    "forest": ForestPrune(),
    "omnirefine": OmniRefine(),
    "fastvid": FastVID(),
    "holitom": HoliTom(),
    "vidcom2": VidCom2(),
}


def reducer_named(reducer: str | Reducer) -> Reducer:
    """A reducer by its name, or itself; `ConfigError` if there is none of that name."""
    return named("reducer", REDUCERS, reducer)


__all__ = ["REDUCERS", "Reduced", "Reducer", "Tokens", "reducer_named"]
