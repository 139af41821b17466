"""Between the vision tower and the language model: fewer visual tokens, chosen or merged. Knows tokens, never a model.

One small file a method, listed here by name.
"""

from __future__ import annotations

from ..registry import named
from .aot import AOT
from .base import Reduced, Reducer, Tokens, asks_for
from .controls import Even, Random
from .desap import DeSAP
from .dtd import DTD
from .dualcomp import DualComp
from .event_saliency import EventSaliency
from .evocomp import EvoComp
from .evs import EVS
from .fastvid import FastVID
from .forest import ForestPrune
from .holitom import HoliTom
from .learnpruner import LearnPruner
from .lrcp import LRCP
from .omnirefine import OmniRefine
from .relevance_pooling import RelevancePooling
from .select_rescore import SelectRescore
from .sppruner import SPpruner
from .standby import Standby
from .streamingtom import StreamingTOM
from .uhd import UHD
from .vidcom2 import VidCom2

REDUCERS: dict[str, Reducer] = {
    "aot": AOT(),
    "desap": DeSAP(),
    "dtd": DTD(),
    "dualcomp": DualComp(),
    "event_saliency": EventSaliency(),
    "evocomp": EvoComp(),
    "evs": EVS(),
    "fastvid": FastVID(),
    "forest": ForestPrune(),
    "holitom": HoliTom(),
    "learnpruner": LearnPruner(),
    "lrcp": LRCP(),
    "omnirefine": OmniRefine(),
    "relevance_pooling": RelevancePooling(),
    "select_rescore": SelectRescore(),
    "sppruner": SPpruner(),
    "standby": Standby(),
    "streamingtom": StreamingTOM(),
    "uhd": UHD(),
    "vidcom2": VidCom2(),
    "even": Even(),
    "random": Random(),
}


def reducer_named(reducer: str | Reducer) -> Reducer:
    """A reducer by its name, or itself; `ConfigError` if there is none of that name."""
    return named("reducer", REDUCERS, reducer)


__all__ = ["REDUCERS", "Reduced", "Reducer", "Tokens", "asks_for", "reducer_named"]
