"""LearnPruner's first half: a two-layer network that says of each visual token whether it is worth keeping."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from .base import Part
from .files import exact

DROP, KEEP = 0, 1


class LearnPrunerPart(Part):
    """M_soft = softmax(MLP(x)) over {drop, keep} of each token by itself, LearnPruner, arXiv 2604.23950.

    The paper's network has 1024-512-2 numbers (0.53 M parameters, as a third party reports). Ours: a norm without
    weights in front, since families' visual tokens have lengths of all sizes; and how wide it is here.

    Parameters
    ----------
    hidden : int
        Numbers of a visual token.
    width : int
        Of the layer between.
    """

    name: ClassVar[str] = "learnpruner"
    says: ClassVar[str] = "keep or drop, of each visual token by itself, behind the vision tower"
    paper: ClassVar[str] = "LearnPruner, arXiv 2604.23950"

    def __init__(self, hidden: int, width: int = 128) -> None:
        super().__init__(hidden=hidden, width=width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(hidden, elementwise_affine=False), nn.Linear(hidden, width), nn.GELU(), nn.Linear(width, 2)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Logits [tokens, 2] of drop and keep, float32.

        Parameters
        ----------
        features : Tensor [tokens, hidden]
        """
        logits: Tensor = self.mlp(features.float())
        return logits

    @torch.no_grad()
    def keep(self, features: Tensor) -> Tensor:
        """M_soft[keep] [tokens], the score at inference."""
        return exact(self.beside(features)(features)).softmax(-1)[:, KEEP]
