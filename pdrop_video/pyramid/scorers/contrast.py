"""Contrast: how much a token differs from what its place usually shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ...common.taking import rows_at
from ...common.ties import unlike
from ...registry import Facts
from .base import Ranking, unit_rows

FAINT = 2.0**-10
"""What counts of the contrast within a picture where nothing is known of a place: hardly anything beside changes."""


@dataclass(frozen=True, slots=True)
class Contrast:
    """1 - cosine to the mean token at the same place, over this chunk and, ever more faintly, the chunks before.

    The mean is a picture of the background, so that what stands out against it stays, for as long as it is shown.
    It is known at the first boundary only, where all tokens still are; deeper boundaries drop by the same scores.

    Of a place that was seen once, as all are in a stream's first step, nothing is usual yet. There a token is compared
    with the mean of its own picture, and that difference counts a thousandth: it ranks the tokens of a first step, and
    what stands out later outranks them.

    Parameters
    ----------
    decay : float
        How much of what was usual is still so after one step of time.
    anywhere : bool
        Compare with what is usual at any place, the most similar one, not at the token's own: where the camera moves, what
        is usual moves from place to place.
    """

    facts: ClassVar[Facts] = Facts(
        says="tokens that differ most from what their place usually shows",
        paper="",
        formula=(
            "usual[p] = sum over the tokens seen at place p of h / |h|, faded by decay for each step of time of\n"
            "    later chunks\n"
            "score = 1 - cos(h[t, p], usual[p])\n"
            "where a place was seen once: (1 - cos(h, mean of its own frame)) / 1024"
        ),
        ours=True,
        carries="what is usual at each place: (1 + places) x hidden, before the first boundary",
    )
    uses_probe: ClassVar[bool] = False
    uses_layout: ClassVar[bool] = True
    once: ClassVar[bool] = True
    decay: float = 0.9
    anywhere: bool = False

    @torch.no_grad()
    def learn(self, ranking: Ranking) -> Tensor:
        """What is usual at each place with these rows seen: decayed sums of rows of length 1.

        Returns
        -------
        Tensor [batch, 1 + places, hidden]
            Text is gathered at 0.
        """
        dtype = torch.promote_types(ranking.hidden.dtype, torch.float32)
        return self._usual(ranking, unit_rows(ranking.hidden))[0].to(dtype)

    @torch.no_grad()
    def __call__(self, ranking: Ranking) -> Tensor:
        """Scores in [0, 2]."""
        unit, dtype = unit_rows(ranking.hidden), ranking.hidden.dtype
        usual, once = self._usual(ranking, unit)
        at = ranking.places()
        known = F.normalize(usual, dim=-1)
        likeness = (unit @ known[:, 1:].mT).amax(-1) if self.anywhere else (unit * rows_at(known, at)).sum(-1)
        over_time = unlike(likeness, dtype)
        frame = ranking.layout.frame.masked_fill(~ranking.visual, -1) + 1
        pictures = F.normalize(_sums(unit, frame, ranking.layout.steps), dim=-1)
        within = unlike((unit * rows_at(pictures, frame)).sum(-1), dtype)
        return torch.where(once.gather(1, at), FAINT * within, over_time)

    def _usual(self, ranking: Ranking, unit: Tensor) -> tuple[Tensor, Tensor]:
        """What `learn` gives [batch, 1 + places, hidden], and where it is a single row [batch, 1 + places]."""
        layout, at = ranking.layout, ranking.places()
        sums = _sums(unit, at, layout.places)
        once = torch.zeros_like(sums[..., 0], dtype=torch.long).scatter_add(1, at, torch.ones_like(at)) == 1
        before = ranking.usual
        if before is None or before.shape != sums.shape:  # the first chunk, or pictures of another size
            return sums, once
        return sums + before * self.decay**layout.steps, once & ~before.any(-1)


def _sums(unit: Tensor, at: Tensor, count: int) -> Tensor:
    """Sums [batch, 1 + count, hidden] of rows of length 1 by their number `at` [batch, rows]."""
    sums = unit.new_zeros(unit.shape[0], 1 + count, unit.shape[2])
    if len(unit) == 1:  # whole rows, for speed
        return sums.index_add(1, at[0], unit)
    return sums.scatter_add(1, at[..., None].expand_as(unit), unit)
