"""Event fusion: relevance and events by their ranks, as EventPrune (arXiv 2605.19506) fuses the two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ...common.checks import real
from ...common.ties import comparable
from ...registry import Facts
from .base import Ranking, ranks
from .relevance import Relevance


@dataclass(frozen=True, slots=True)
class EventFusion:
    """A weighted mean of the ranks by relevance and by the events that the gate ``event`` counted.

    Inferred, from the abstract of EventPrune (ECP, arXiv 2605.19506): no formula is public. Ranks are (count - rank) /
    count among the active tokens, those with more than `least` events a pixel. Ours: inactive ones come behind all
    active ones, by their ranks by relevance, where the budget reaches that far; in a stream whose gate counts no events
    (`Ranking.saliency` is None) all are ranked by relevance alone.

    Parameters
    ----------
    weight : float
        Of relevance; the rest is the events'.
    least : float
        Events a pixel up to which a token is inactive.

    Raises
    ------
    ConfigError
        If the weight is not from 0 to 1, or `least` below 0.
    """

    facts: ClassVar[Facts] = Facts(
        says="tokens that are relevant to the question and had events, by the mean of both ranks",
        paper="EventPrune, arXiv 2605.19506",
        formula=(
            "score = weight * R(relevance) + (1 - weight) * R(events) over tokens with more than `least` events\n"
            "    a pixel, R = (count - rank) / count\n"
            "all others come behind them, by relevance"
        ),
        needs_question=True,
        ours=True,
    )
    uses_probe: ClassVar[bool] = True
    uses_layout: ClassVar[bool] = True
    once: ClassVar[bool] = False
    weight: float = 0.5
    least: float = 0.0

    def __post_init__(self) -> None:
        """Check the weight and the threshold."""
        object.__setattr__(self, "weight", real("weight", self.weight, 0, 1))
        object.__setattr__(self, "least", real("least", self.least, 0))

    def __call__(self, ranking: Ranking) -> Tensor:
        """Scores in (0, 1]."""
        visual, dtype = ranking.visual, ranking.hidden.dtype
        relevance = Relevance()(ranking)
        if ranking.saliency is None:
            return relevance
        events = ranking.saliency
        active = visual & (events > self.least)
        inactive = visual & ~active
        relevance = comparable(relevance, visual, dtype)
        # counts of events, whatever type the states are of
        by_events = ranks(comparable(events, active, dtype=events.dtype), active)
        fused = self.weight * ranks(relevance, active) + (1 - self.weight) * by_events
        behind = ranks(relevance, inactive) / (2 * visual.sum(1, keepdim=True).clamp(min=1))
        return fused + behind.to(fused.dtype)
