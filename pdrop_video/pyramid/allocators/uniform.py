"""Uniform: every frame keeps equally many tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...registry import Facts
from .base import Frames


@dataclass(frozen=True, slots=True)
class Uniform:
    """Equal shares; what a frame with few rows can't use goes to the others, a remainder to the best-scored rows."""

    facts: ClassVar[Facts] = Facts(
        says="equally many tokens of every frame",
        paper="",
        formula="every frame's best token first, then every frame's second best, and so on",
    )

    def __call__(self, scores: Tensor, visual: Tensor, frame: Tensor) -> Tensor:
        """Priorities: every frame's best row first, then every frame's second, each time from the highest score."""
        rank = Frames.of(scores, visual, frame).rank()
        order = scores.argsort(dim=1, descending=True, stable=True)
        order = order.gather(1, rank.gather(1, order).argsort(dim=1, stable=True))
        turn = torch.arange(order.shape[1], device=order.device).expand_as(order)
        return -torch.empty_like(turn).scatter(1, order, turn).to(scores.dtype)
