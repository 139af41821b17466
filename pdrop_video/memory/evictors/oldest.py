"""Oldest chunk first: within it, the lowest-scored visual tokens go first. Also, without scores, a sliding window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ...registry import Facts
from .base import Held, lexicographic


@dataclass(frozen=True, slots=True)
class Oldest:
    """The newest chunks stay; the oldest one that does not fit whole keeps its best-scored tokens."""

    facts: ClassVar[Facts] = Facts(
        says="the newest chunks; of the oldest one, which does not fit whole, the best scores",
        paper="",
        formula="order: newer chunk first, then higher score",
    )
    by_table: ClassVar[bool] = True
    uses_query: ClassVar[bool] = False
    distinct: ClassVar[bool] = True

    def __call__(self, held: Held, keep: int) -> Tensor:
        """By chunk, then by score."""
        return lexicographic(held.table.chunk, held.table.score, *held.table.spread())


@dataclass(frozen=True, slots=True)
class Window:
    """A sliding window: the newest tokens stay, whatever they score. The recency baseline."""

    facts: ClassVar[Facts] = Facts(
        says="the newest tokens, whatever they score", paper="", formula="order: newer token first"
    )
    by_table: ClassVar[bool] = True
    uses_query: ClassVar[bool] = False

    def __call__(self, held: Held, keep: int) -> Tensor:
        """By age alone."""
        return held.table.index


@dataclass(frozen=True, slots=True)
class Random:
    """Any token may go: the control that every other evictor must beat.

    Parameters
    ----------
    seed : int
        Which tokens go follows from their numbers and this seed, so that a resumed stream goes on the same way.
    """

    facts: ClassVar[Facts] = Facts(
        says="tokens at random, each drawn once (a control)",
        paper="",
        formula="order: a hash of the token's number and the seed",
    )
    by_table: ClassVar[bool] = True
    uses_query: ClassVar[bool] = False
    seed: int = 0

    def __call__(self, held: Held, keep: int) -> Tensor:
        """A hash of each token's number: the same token always draws the same lot."""
        x = held.table.index * 2654435761 + self.seed * 40503 + 12345
        x = ((x >> 16) ^ x) & 0x7FFFFFFF
        x = (x * 73244475) & 0x7FFFFFFF
        return (x >> 15) ^ x
