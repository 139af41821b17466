"""QUOTA: magnitude, what four bits lose of it, and how text and video attend to it (arXiv 2604.17320)."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ...common.checks import real
from ...common.ties import grain, settled, working
from ...errors import ConfigError
from ...registry import Facts
from ..heads import attention_of, every_key, normed, project
from ..rank import mean_weights
from .base import Ranking, RankingSize

_AT_ONCE = 256
"""Rows whose weights over all columns are held at a time."""


@dataclass(frozen=True, slots=True)
class Quota:
    """Four signals of each visual token, each brought to [0, 1], in a weighted sum (arXiv 2604.17320).

    `magnitude`: the length of its hidden state. `residual`: the length of what four bits lose of it, see
    `four_bits`. `inter`: the attention that the rows of text behind the visual ones pay to it, summed over them, the
    mean over heads. `intra`: the same of visual rows, those of its own chunk alone.

    Each signal is cut off at its 10th and 90th percentile over the chunk's visual tokens, and these become 0 and 1.

    There is no released code. Ours: the four weights; the two percentiles; symmetric four bits with one scale a token;
    the hidden states that enter the next layer, and that layer's attention with its softmax over all columns; visual
    rows of the chunk alone; a signal in which nothing but rounding differs counts for nobody. The paper runs the whole
    model in four bits. Here nothing is, and nothing is claimed of it.

    Parameters
    ----------
    magnitude, residual, inter, intra : float
        Weights from 0, not all of them 0.

    Raises
    ------
    ConfigError
        If they are none.
    """

    facts: ClassVar[Facts] = Facts(
        says="tokens of large norm and large error in four bits, to which text and other visual tokens attend",
        paper="QUOTA, arXiv 2604.17320",
        formula=(
            "score = magnitude * |h| + residual * |h - four bits of h| + inter * (attention from text) + intra\n"
            "    * (attention from visual rows)\n"
            "each signal is cut off at its 10th and 90th percentile and scaled to [0, 1]"
        ),
        needs_question=True,
        ours=True,
    )
    uses_probe: ClassVar[bool] = True
    uses_layout: ClassVar[bool] = False
    once: ClassVar[bool] = False
    asks: ClassVar[Literal["last", "all"]] = "all"
    magnitude: float = 0.25
    residual: float = 0.25
    inter: float = 0.25
    intra: float = 0.25

    def __post_init__(self) -> None:
        """Check the weights."""
        names = [each.name for each in fields(self)]
        for name in names:
            object.__setattr__(self, name, real(name, getattr(self, name), 0, 1e6))
        if not any(getattr(self, name) for name in names):
            raise ConfigError("all weights of quota are 0; expected one above 0, for example inter=1.")

    def flops(self, size: RankingSize) -> int:
        """Attention of all rows, where one of the two is asked for."""
        return size.attention(size.rows) if self.inter or self.intra else 0

    @torch.no_grad()
    def __call__(self, ranking: Ranking) -> Tensor:
        """Weighted sums of the four."""
        visual, dtype = ranking.visual, ranking.hidden.dtype
        hidden = working(ranking.hidden)
        signals = [(self.magnitude, hidden.norm(dim=-1)), (self.residual, (four_bits(hidden) - hidden).norm(dim=-1))]
        if self.inter or self.intra:
            signals += zip((self.inter, self.intra), _attended(ranking), strict=True)
        score = torch.zeros_like(visual, dtype=torch.float32)
        for weight, signal in signals:
            score = score + weight * scaled(signal, visual, dtype)
        return score


def four_bits(rows: Tensor) -> Tensor:
    """Rows [..., hidden] as four bits have them: whole multiples, from -7 to 7, of a seventh of their largest number.

    Examples
    --------
    >>> four_bits(torch.tensor([0.9, -2.1, 0.4, 3.5])).tolist()
    [1.0, -2.0, 0.5, 3.5]
    """
    scale = rows.abs().amax(-1, keepdim=True) / 7
    scale = scale.masked_fill(scale == 0, 1)
    return (rows / scale).round() * scale


def scaled(signal: Tensor, visual: Tensor, dtype: torch.dtype) -> Tensor:
    """A signal over visual rows [batch, rows] with its 10th percentile at 0 and its 90th at 1, cut off there.

    What differs by no more than states of `dtype` can tell apart is the same: such a signal is 0 everywhere.
    """
    signal = settled(signal, dtype)
    ends = torch.nanquantile(signal.masked_fill(~visual, torch.nan), signal.new_tensor([0.1, 0.9]), dim=1)
    low, high = ends.nan_to_num(0)[..., None]
    told = high - low > 4 * grain(dtype) * high.abs()
    share = ((signal - low) / (high - low).masked_fill(~told, 1)).clamp(0, 1)
    return settled(share.masked_fill(~visual | ~told, 0), dtype)


def _attended(ranking: Ranking) -> tuple[Tensor, Tensor]:
    """What rows of text, and visual rows, attend to each row, summed over them: two [batch, rows]."""
    attention, entering = attention_of(ranking.layer), normed(ranking.layer, ranking.hidden)
    query = project(attention, entering, "q", ranking.rope)
    lent = None if ranking.lent is None else ranking.lent[0]
    key = every_key(attention, entering, ranking.rope, ranking.past_keys, lent)
    rows = ranking.hidden.shape[1]
    row = torch.arange(rows, device=key.device).expand(len(ranking.visual), -1)
    asks = (ranking.probe[..., None] == row[:, None]).any(1)
    text = video = torch.zeros_like(row, dtype=torch.float32)
    for first in range(0, rows, _AT_ONCE):
        at = slice(first, first + _AT_ONCE)
        column = row[:, at] + key.shape[-2] - rows
        weights = mean_weights(query[:, :, at], key, attention.scaling, column, ranking.allowed)[..., -rows:]
        # rows of padding see nothing: what they attend to is no number
        text, video = (
            total + weights.masked_fill(~among[:, at, None], 0).sum(1)
            for total, among in ((text, asks), (video, ranking.visual))
        )
    return text, video
