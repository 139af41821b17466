"""DualComp's router: how a question's budget is split between clusters and lines, and how much of it is needed."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import Part

LEAST = 0.25
"""rho_min: of the budget, what every question gets."""


class DualCompPart(Part):
    """Question -> lambda in [0, 1] and rho in [rho_min, 1], DualComp, arXiv 2604.11122.

    The paper's router reads text embeddings and has about a million parameters; its layers and rho_min are in no
    source. Ours: all of them. It reads the mean and the largest of each number over the words, each word brought to
    unit variance before.

    Parameters
    ----------
    hidden : int
        Numbers of a word as it enters the language model.
    width : int
        Of the layer between.
    """

    name: ClassVar[str] = "dualcomp"
    says: ClassVar[str] = (
        "how much of a budget goes to lines instead of clusters by the question, and how much is needed"
    )
    paper: ClassVar[str] = "DualComp, arXiv 2604.11122"

    def __init__(self, hidden: int, width: int = 64) -> None:
        super().__init__(hidden=hidden, width=width)
        self.mlp = nn.Sequential(nn.Linear(2 * hidden, width), nn.GELU(), nn.Linear(width, 2))

    def forward(self, words: Tensor) -> tuple[Tensor, Tensor]:
        """Lambda and rho, numbers of float32 with gradients.

        Parameters
        ----------
        words : Tensor [words, hidden]
            One or more.
        """
        rows = F.layer_norm(words.float(), words.shape[-1:])
        geometric, needed = self.mlp(torch.cat([rows.mean(0), rows.amax(0)])).sigmoid()
        return geometric, LEAST + (1 - LEAST) * needed

    @torch.no_grad()
    def routed(self, words: Tensor) -> tuple[float, float]:
        """The same as numbers, on the host: what follows are counts of tokens."""
        geometric, needed = torch.stack(self.beside(words)(words)).tolist()
        return geometric, needed
