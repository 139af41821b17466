"""Norms of the next layer's keys and values: cheap scores that need no probe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...common.ties import working
from ...registry import Facts
from .base import Ranking, RankingSize


@torch.no_grad()
def _norm(ranking: Ranking, which: str) -> Tensor:
    """Mean over heads of the norm of keys or values [batch, rows]; RoPE leaves a key's norm alone."""
    states = ranking.states(which)
    return working(states).norm(dim=-1).mean(1)


@dataclass(frozen=True, slots=True)
class ValueNorm:
    """Large values stay (InfiniPot-V's VaN). Unsafe alone by a third party's measurement."""

    facts: ClassVar[Facts] = Facts(
        says="tokens with the largest values in the next layer",
        paper="InfiniPot-V, arXiv 2506.15745",
        formula="score = mean over heads of |v| at the next layer",
        ours=True,
    )
    uses_probe: ClassVar[bool] = False
    uses_layout: ClassVar[bool] = False
    once: ClassVar[bool] = False

    def flops(self, size: RankingSize) -> int:
        """One projection of every row."""
        return size.making()

    def __call__(self, ranking: Ranking) -> Tensor:
        """Norms."""
        return _norm(ranking, "v")


@dataclass(frozen=True, slots=True)
class KeyNorm:
    """Small keys stay: tokens with small keys draw attention in trained models."""

    facts: ClassVar[Facts] = Facts(
        says="tokens with the smallest keys in the next layer",
        paper="",
        formula="score = - mean over heads of |k| at the next layer",
        ours=True,
    )
    uses_probe: ClassVar[bool] = False
    uses_layout: ClassVar[bool] = False
    once: ClassVar[bool] = False

    def flops(self, size: RankingSize) -> int:
        """One projection of every row."""
        return size.making()

    def __call__(self, ranking: Ranking) -> Tensor:
        """Negative norms."""
        return -_norm(ranking, "k")
