"""Last frame: the chunk's newest frame asks. For when no question and no template shall rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...registry import Facts
from ..rank import attention_scores
from .base import Ranking, RankingSize


@dataclass(frozen=True, slots=True)
class LastFrame:
    """What the visual rows of the last frame attend to in the next layer, averaged over heads and rows."""

    facts: ClassVar[Facts] = Facts(
        says="tokens that the chunk's newest frame attends to most in the next layer",
        paper="",
        formula=(
            "score = mean over heads, and over the rows of the chunk's newest frame, of softmax(q k' / sqrt(d))\n"
            "    at the next layer"
        ),
        ours=True,
    )
    uses_probe: ClassVar[bool] = False
    uses_layout: ClassVar[bool] = True
    once: ClassVar[bool] = False

    def flops(self, size: RankingSize) -> int:
        """All rows ask, and those of other frames are left out of the mean."""
        return size.attention(size.rows)

    def __call__(self, ranking: Ranking) -> Tensor:
        """Softmax weights."""
        frame = ranking.layout.frame.masked_fill(~ranking.visual, -1)
        newest = (frame == frame.amax(1, keepdim=True)) & ranking.visual
        row = torch.arange(frame.shape[1], device=frame.device)
        return attention_scores(
            ranking.layer, ranking.hidden, ranking.rope, torch.where(newest, row, -1), **ranking.past
        )
