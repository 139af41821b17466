"""Controls: tokens chosen without a look at them, for telling what a choice is worth at an equal number of tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..common.checks import share, whole
from ..common.ties import exactly
from ..registry import Facts
from .base import Reduced, Tokens


@dataclass(frozen=True, slots=True)
class Even:
    """Tokens spread evenly over time and space, whatever they show: the order in which ties are broken, by itself.

    Nothing is carried. Which tokens stay follows from their places and from how many of a chunk do, so a chunk's
    borders make a difference of less than one token a chunk.

    Parameters
    ----------
    keep : float
        Share of the tokens of each chunk that stays.

    Raises
    ------
    ConfigError
        If it is no share in (0, 1].
    """

    needs: ClassVar[tuple[str, ...]] = ()
    facts: ClassVar[Facts] = Facts(
        says="tokens spread evenly over time and space (a control)",
        paper="",
        formula=(
            "a fixed order that is evenly spread over time and space; the first int(tokens * keep) of a chunk\n    stay"
        ),
    )
    keep: float = 0.5

    def __post_init__(self) -> None:
        """Check the share."""
        object.__setattr__(self, "keep", share("keep", self.keep))

    @torch.no_grad()
    def __call__(self, tokens: Tokens, carried: Mapping[str, Tensor]) -> tuple[Reduced, dict[str, Tensor]]:
        """The first of the order of ties."""
        turn = tokens.turn()
        return Reduced(_first(turn, self.left(len(tokens)))), {}

    def left(self, tokens: int) -> int:
        """The share of them, one at least."""
        return max(int(tokens * self.keep), 1)

    def most_bytes(self, places: int, hidden: int, bytes_per_number: int) -> int:
        """Nothing."""
        return 0

    def flops(self, tokens: int, hidden: int) -> int:
        """None."""
        return 0


@dataclass(frozen=True, slots=True)
class Random(Even):
    """Any tokens, by a lot that follows from a token's place in time and space alone, on every machine the same.

    Parameters
    ----------
    keep : float
        Share of the tokens of each chunk that stays.
    seed : int
        Another one draws other lots.
    """

    facts: ClassVar[Facts] = Facts(
        says="tokens at random (a control)",
        paper="",
        formula="a hash of each token's step, row and column; int(tokens * keep) of a chunk stay",
    )
    seed: int = 0

    def __post_init__(self) -> None:
        """Check share and seed."""
        Even.__post_init__(self)
        object.__setattr__(self, "seed", whole("seed", self.seed, 0, 2**31))

    @torch.no_grad()
    def __call__(self, tokens: Tokens, carried: Mapping[str, Tensor]) -> tuple[Reduced, dict[str, Tensor]]:
        """The first of a hash of step, row and column, in which nothing of their order is left."""
        x = (tokens.turn() + self.seed * 40503) & 0xFFFFFFFF
        for _ in range(2):
            x = ((x >> 16) ^ x) * 0x045D9F3B & 0xFFFFFFFF
        return Reduced(_first((x >> 16) ^ x, self.left(len(tokens)))), {}


def _first(turn: Tensor, count: int) -> Tensor:
    """Numbers [count] of the tokens of the smallest turns, ascending."""
    return exactly(turn).argsort(stable=True)[:count].sort().values
