"""Uniform in time: of the whole past, every n-th step stays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ...registry import Facts
from .base import Held, lexicographic


@dataclass(frozen=True, slots=True)
class Uniform:
    """Steps go by how often their number can be halved: odd ones first, then those divisible by 2 only once, and so on.

    What remains is evenly spaced whenever the budget holds, and a step that went is never missed later, since it would
    not have stayed at any smaller budget either.
    """

    facts: ClassVar[Facts] = Facts(
        says="every n-th step of the whole past, evenly spaced",
        paper="",
        formula="order: steps whose number is divisible by a larger power of two first, then newer ones",
    )
    by_table: ClassVar[bool] = True
    uses_query: ClassVar[bool] = False
    distinct: ClassVar[bool] = True

    def __call__(self, held: Held, keep: int) -> Tensor:
        """By the largest power of two that divides the step's number, the newer first; then by score."""
        step = held.table.step.clamp(min=0)
        power = step & -step  # the lowest set bit; step 0 is divisible by all of them
        power = power.masked_fill(step == 0, 2**62)
        return lexicographic(power, step, held.table.score, *held.table.spread())
