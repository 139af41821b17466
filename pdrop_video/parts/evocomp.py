"""EvoComp's compressor: one bidirectional layer over visual tokens and the question says which tokens are kept."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .base import Part
from .files import exact


class EvoCompPart(Part):
    """One transformer layer with a skip over [visual; text], and a linear classifier, EvoComp, arXiv 2604.17087.

    Ours: that rows are brought to `width` numbers first, so that the file is small, and a vector for each of the two
    kinds of rows that is added there; a norm without weights in front of both.

    Parameters
    ----------
    hidden : int
        Numbers of a token as it enters the language model.
    width : int
        Of the layer.
    heads : int
    """

    name: ClassVar[str] = "evocomp"
    says: ClassVar[str] = "how likely each visual token is among the best for the question, by one bidirectional layer"
    paper: ClassVar[str] = "EvoComp, arXiv 2604.17087"

    def __init__(self, hidden: int, width: int = 96, heads: int = 4) -> None:
        super().__init__(hidden=hidden, width=width, heads=heads)
        self.heads = heads
        self.enter = nn.Linear(hidden, width)
        self.kind = nn.Parameter(torch.randn(2, width) * 0.02)
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.classify = nn.Linear(width, 1)

    def states(self, features: Tensor, words: Tensor) -> Tensor:
        """What left the layer of the visual tokens [tokens, width], the skip over the layer included."""
        rows = torch.cat([features.float(), words.to(features.device).float()])
        kind = torch.arange(len(rows), device=rows.device) >= len(features)
        entered = self.enter(F.layer_norm(rows, rows.shape[-1:])) + self.kind[kind.long()]
        queries, keys, values = rearrange(self.qkv(self.norms[0](entered)), "n (k h d) -> k 1 h n d", k=3, h=self.heads)
        attended = rearrange(F.scaled_dot_product_attention(queries, keys, values), "1 h n d -> n (h d)")
        hidden = entered + self.out(attended)
        hidden = hidden + self.mlp(self.norms[1](hidden))
        left: Tensor = (entered + hidden)[: len(features)]
        return left

    def forward(self, features: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [tokens] of being kept, and states [tokens, width].

        Parameters
        ----------
        features : Tensor [tokens, hidden]
        words : Tensor [words, hidden]
            The question as it enters the language model.
        """
        states = self.states(features, words)
        return self.classify(states)[:, 0], states

    @torch.no_grad()
    def score(self, features: Tensor, words: Tensor) -> Tensor:
        """Keep probability [tokens]."""
        logits, _ = self.beside(features)(features, words)
        return exact(logits).sigmoid()
