"""What a search over recipes comes to. Plain data."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

from ..stream.recipe import Recipe
from .space import Budget
from .uncertainty import Uncertainty

SLACK = 0.02
"""How far above a budget of FLOPs a recipe may be on clips that it was not solved for: what gates leave varies."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A recipe and what came of it.

    Attributes
    ----------
    name : str
        Where it comes from.
    recipe : Recipe
    budget : Budget
    flops : float
        Share of the FLOPs of the whole way with all tokens, on the clips that it was judged on.
    bytes : int
        The most that a stream held.
    divergences, held_out : tuple of float
        Of each clip searched on, and held out, in nats; empty where it never came to these.
    """

    name: str
    recipe: Recipe
    budget: Budget
    flops: float
    bytes: int
    divergences: tuple[float, ...]
    held_out: tuple[float, ...] = ()

    @property
    def divergence(self) -> float:
        """The mean over the clips searched on."""
        return sum(self.divergences) / len(self.divergences) if self.divergences else nan

    @property
    def fits(self) -> bool:
        """Whether it kept to its budget where it was measured."""
        within = self.budget.bytes is None or self.bytes <= self.budget.bytes
        return within and self.flops <= self.budget.flops * (1 + SLACK)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a search found at one budget.

    Attributes
    ----------
    budget : Budget
    finalists : tuple of Candidate
        Controls and the best random plan among them, by the mean on the held-out clips.
    sure : Uncertainty
        Over the held-out clips, of the finalists in this order.
    others : tuple of Candidate
        That were judged on every clip searched on, and are no finalists.
    """

    budget: Budget
    finalists: tuple[Candidate, ...]
    sure: Uncertainty
    others: tuple[Candidate, ...]

    @property
    def chosen(self) -> Candidate:
        """The finalist of the smallest mean on the held-out clips."""
        return self.finalists[self.sure.best]
