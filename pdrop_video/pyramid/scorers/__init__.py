"""What makes a visual token worth keeping: one small file a method, listed here by name."""

from __future__ import annotations

from ...errors import ConfigError
from .base import Layout, Learner, Ranking, Scorer
from .contrast import Contrast
from .last_frame import LastFrame
from .mixed import Product, RankFusion
from .norms import KeyNorm, ValueNorm
from .novelty import Novelty
from .relevance import Relevance

SCORERS: dict[str, Scorer] = {
    "relevance": Relevance(),
    "contrast": Contrast(),
    "novelty": Novelty(),
    "product": Product(),
    "fusion": RankFusion(),
    "value_norm": ValueNorm(),
    "key_norm": KeyNorm(),
    "last_frame": LastFrame(),
}


def scorer_named(scorer: str | Scorer) -> Scorer:
    """A scorer by its name, or itself.

    Raises
    ------
    ConfigError
        If there is none of that name.
    """
    if not isinstance(scorer, str):
        return scorer
    if scorer not in SCORERS:
        raise ConfigError(f"there is no scorer {scorer!r}; choose one of {', '.join(SCORERS)}.")
    return SCORERS[scorer]


__all__ = ["SCORERS", "Layout", "Learner", "Ranking", "Scorer", "scorer_named"]
