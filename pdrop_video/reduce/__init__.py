"""Between the vision tower and the language model: fewer visual tokens, chosen or merged. Knows tokens, never a model.

One small file a method, listed here by name.
"""

from __future__ import annotations

from ..registry import named
from .aot import AOT
from .base import Reduced, Reducer, Tokens, asks_for
from .desap import DeSAP
from .dualcomp import DualComp
from .evs import EVS
from .learnpruner import LearnPruner
from .lrcp import LRCP
from .relevance_pooling import RelevancePooling
from .select_rescore import SelectRescore
from .sppruner import SPpruner

REDUCERS: dict[str, Reducer] = {
    "aot": AOT(),
    "evs": EVS(),
    "lrcp": LRCP(),
    "select_rescore": SelectRescore(),
    "dualcomp": DualComp(),
    "learnpruner": LearnPruner(),
    "sppruner": SPpruner(),
    "relevance_pooling": RelevancePooling(),
    "desap": DeSAP(),
}


def reducer_named(reducer: str | Reducer) -> Reducer:
    """A reducer by its name, or itself; `ConfigError` if there is none of that name."""
    return named("reducer", REDUCERS, reducer)


__all__ = ["REDUCERS", "Reduced", "Reducer", "Tokens", "asks_for", "reducer_named"]
