"""What makes a visual token worth keeping: one small file a method, listed here by name."""

from __future__ import annotations

from ...registry import named
from .asked import Asker, Remembered
from .base import Layout, Learner, Ranking, RankingSize, Scorer, checked
from .coast import Coast
from .contrast import Contrast
from .controls import Even, Random, Shuffled
from .event_fusion import EventFusion
from .hawk import Hawk
from .last_frame import LastFrame
from .mixed import Product, RankFusion
from .norms import KeyNorm, ValueNorm
from .novelty import Novelty
from .quota import Quota
from .relevance import Relevance
from .relevance_max import RelevanceMax
from .text_mean import TextMean

SCORERS: dict[str, Scorer] = {
    "relevance": Relevance(),
    "relevance_max": RelevanceMax(),
    "text_mean": TextMean(),
    "coast": Coast(),
    "hawk": Hawk(),
    "quota": Quota(),
    "contrast": Contrast(),
    "novelty": Novelty(),
    "product": Product(),
    "fusion": RankFusion(),
    "event_fusion": EventFusion(),
    "value_norm": ValueNorm(),
    "key_norm": KeyNorm(),
    "last_frame": LastFrame(),
    "random": Random(),
    "even": Even(),
    "shuffled": Shuffled(),
}
_ALSO = {"learnpruner": "text_mean"}
"""Systems whose way of ranking has a name of its own; their other half is a reducer."""


def scorer_named(scorer: str | Scorer) -> Scorer:
    """A scorer by its name, or itself; `ConfigError` if there is none of that name."""
    return named("scorer", SCORERS, _ALSO.get(scorer, scorer) if isinstance(scorer, str) else scorer)


__all__ = [
    "SCORERS",
    "Asker",
    "Layout",
    "Learner",
    "Ranking",
    "RankingSize",
    "Remembered",
    "Scorer",
    "checked",
    "scorer_named",
]
