"""LRCP: what the dominant directions of the video do not explain stays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..common.checks import real, share, switch, whole
from ..common.ties import exactly, working
from ..registry import Facts
from .base import Reduced, Tokens

_EXACT = 320
"""Rows or columns up to which all directions are found exactly; beyond, the leading ones alone, much faster."""
_ROUNDS, _BESIDE = 4, 8
"""Rounds of that search, and directions that it looks for beside those wanted."""
_SKETCH = 4
"""Directions that are carried, for each that is scored against."""
_NOTHING = 1e-6
"""A residual up to this share of what it is left of is none."""


@dataclass(frozen=True, slots=True)
class LRCP:
    """Low-rank residuals, arXiv 2605.15621: the tokens that the leading principal directions explain least stay.

    A token's score is the squared length of what is left of its distance to the mean once its part within the first
    `rank` principal directions is taken away. The highest int(tokens * keep) of a chunk stay. With `merge`, each that
    goes is averaged into the one of highest cosine among those that stay: (own + members) / (1 + members).

    After the paper's abstract; rank, merging and the directions of a whole clip at once are those of a public port that
    quotes the paper. The port halves a kept token without members; this does not.

    Ours: with `running`, mean and directions are those of all of the stream so far, this chunk included, each step
    weighing `decay` times the next one, so that what never changes becomes background. Carried are the mean, the
    weight, and 4 * rank directions with their spread. Beyond 320 rows and columns the leading directions are found by
    block Krylov iteration from a fixed start in place of a full decomposition. Where nothing is left over (fewer tokens
    than directions), tokens score by their distance to the mean, and where that is nothing either, they stay evenly
    spread. Equals go in that order, too.

    Carried: (4 * rank + 1) * hidden numbers of 4 bytes (8 for float64) and one more. Not chunk-invariant: a chunk's
    budget is split over its own tokens alone, all scored with what is known at its end. What is carried does not depend
    on where chunks end while the stream has no more than 4 * rank directions, else up to the spread that was cut off.

    Parameters
    ----------
    keep : float
        Share of the tokens of each chunk that stays.
    rank : int
        Directions that count as explained: 8 for Qwen's models and 4 for LLaVA's, says the port.
    running : bool
        Over the stream so far; else of each chunk by itself, as in the paper.
    decay : float
        How much a step weighs for each that comes after it, with `running`.
    merge : bool
        Average what goes into what stays, else leave it out.

    Raises
    ------
    ConfigError
        If a share is none in (0, 1], `rank` no number from 1 or a switch no switch.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    facts: ClassVar[Facts] = Facts(
        says="visual tokens that the principal directions explain least; others merge into the most similar",
        paper="LRCP, arXiv 2605.15621",
        formula=(
            "score = |c - c V V'|^2, c = x - mean, V = the first rank principal directions; the int(tokens *\n"
            "    keep) highest stay\n"
            "merged: (own + its members) / (1 + their number), each member joining the kept token of highest\n"
            "    cos"
        ),
        ours=True,
        carries="a mean and 4 * rank directions",
    )
    keep: float = 0.5
    rank: int = 8
    running: bool = True
    decay: float = 0.9
    merge: bool = True

    def __post_init__(self) -> None:
        """Check the parameters."""
        object.__setattr__(self, "keep", share("keep", self.keep))
        object.__setattr__(self, "rank", whole("rank", self.rank, 1))
        object.__setattr__(self, "running", switch("running", self.running))
        object.__setattr__(self, "decay", real("decay", self.decay, 0, 1, above=True))
        object.__setattr__(self, "merge", switch("merge", self.merge))

    @torch.no_grad()
    def __call__(self, tokens: Tokens, carried: Mapping[str, Tensor]) -> tuple[Reduced, dict[str, Tensor]]:
        """Moments, residuals, the best of them, and means."""
        rows = working(tokens.features)
        if self.running:
            weight, faded = _weights(tokens, self.decay)
            carried = fold(rows, weight, faded, carried, _SKETCH * self.rank)
            mean, spread = carried["mean"], carried["sketch"]
        else:
            carried, mean = {}, rows.mean(0)
            spread = leading(rows - mean, self.rank)
        scores = residuals(rows, mean, F.normalize(spread[: self.rank], dim=1), tokens.features.dtype)
        kept = tokens.best(scores, self.left(len(tokens)))
        weights = members(rows, kept, tokens.features.dtype) if self.merge and len(kept) < len(tokens) else None
        return Reduced(kept, weights), dict(carried)

    def left(self, tokens: int) -> int:
        """The share of them, one at least."""
        return max(int(tokens * self.keep), 1)

    def most_bytes(self, places: int, hidden: int, bytes_per_number: int) -> int:
        """The mean, the directions and the weight."""
        return (_SKETCH * self.rank + 1) * hidden * max(bytes_per_number, 4) + 8

    def flops(self, tokens: int, hidden: int) -> int:
        """Mean and directions, residuals, and cosines of those that go to those that stay."""
        wanted = _SKETCH * self.rank if self.running else self.rank
        rows = tokens + (wanted + 1 if self.running else 0)
        small = min(rows, hidden)
        if small <= _EXACT:
            directions = 2 * rows * hidden * (small + wanted)
        else:
            block = wanted + _BESIDE
            directions = 2 * rows * hidden * block * (2 * _ROUNDS + _ROUNDS)
        left = self.left(tokens)
        merging = 2 * (tokens - left) * left * hidden if self.merge else 0
        return directions + 2 * tokens * hidden * (self.rank + 2) + merging


def _weights(tokens: Tokens, decay: float) -> tuple[Tensor, Tensor]:
    """What each token weighs at the end of the chunk [tokens], and what a moment before the chunk has faded to.

    Steps of which a gate left nothing count for nothing, as a chunk of such steps is never seen.
    """
    shown = exactly(torch.zeros(len(tokens.seconds), device=tokens.step.device)).index_fill(0, tokens.step, 1)
    behind = shown.sum() - shown.cumsum(0)
    return (decay**behind)[tokens.step], decay ** shown.sum()


def fold(rows: Tensor, weight: Tensor, faded: Tensor, past: Mapping[str, Tensor], most: int) -> dict[str, Tensor]:
    """Weighted moments of the past and of a chunk together, the past's weights times `faded`.

    Parameters
    ----------
    rows : Tensor [tokens, hidden]
    weight : Tensor [tokens]
        What each weighs.
    faded : Tensor []
    past : mapping
        What this gave before; empty at the beginning.
    most : int
        Directions to keep.

    Returns
    -------
    dict
        The weight so far [], the mean [hidden], and the sketch [most, hidden], longest first, of which the sum of outer
        products is the scatter matrix about the mean as far as so many directions hold it.
    """
    total = exactly(weight).sum()
    weight = weight.to(rows)
    mean = (weight @ rows) / total.to(rows)
    parts = [(rows - mean) * weight.sqrt()[:, None]]
    if past:
        before = past["weight"] * faded
        together = before + total
        shift = mean - past["mean"]
        parts += [past["sketch"] * faded.sqrt().to(rows), shift[None] * (before * total / together).sqrt().to(rows)]
        mean = past["mean"] + shift * (total / together).to(rows)
        total = together
    sketch = leading(torch.cat(parts), most)
    return {"weight": total, "mean": mean, "sketch": F.pad(sketch, (0, 0, 0, most - len(sketch)))}


def leading(rows: Tensor, count: int) -> Tensor:
    """The leading right singular vectors, each times its singular value [up to count, hidden], longest first.

    By eigenvectors of the product with the smaller side; of large ones by block Krylov iteration from a fixed start.
    """
    number, hidden = rows.shape
    count = min(count, number, hidden)
    if min(number, hidden) <= _EXACT:
        if number <= hidden:
            return torch.linalg.eigh(rows @ rows.mT).eigenvectors.mT.flip(0)[:count] @ rows
        basis = torch.eye(hidden, dtype=rows.dtype, device=rows.device)
    else:
        start = torch.randn(hidden, count + _BESIDE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        block, blocks = start.to(rows), []
        for _ in range(_ROUNDS):
            block = torch.linalg.qr(rows.mT @ (rows @ block)).Q
            blocks.append(block)
        basis = torch.linalg.qr(torch.cat(blocks, 1)).Q[:, : min(number, hidden)]
    seen = rows @ basis  # [rows, basis]
    values, vectors = torch.linalg.eigh(seen.mT @ seen)
    lengths = values.flip(0)[:count].clamp(min=0).sqrt()
    return lengths[:, None] * (basis @ vectors.flip(1)[:, :count]).mT


def residuals(rows: Tensor, mean: Tensor, directions: Tensor, dtype: torch.dtype) -> Tensor:
    """Squared length of what the directions leave of each row's distance to the mean [rows], float64 if there is such.

    The squared distance itself where they leave nothing of any, and 0 where there is no distance either.

    Parameters
    ----------
    rows : Tensor [rows, hidden]
    mean : Tensor [hidden]
    directions : Tensor [directions, hidden]
        Of length 1, at right angles; or zeros.
    dtype : torch.dtype
        What the rows came in: differences that it can't tell from 0 are none.
    """
    centred = rows - mean
    whole = exactly(centred.square().sum(1))
    left = (whole - exactly((centred @ directions.mT).square().sum(1))).clamp(min=0)
    eps = torch.finfo(dtype).eps ** 2
    length = exactly(rows.square().sum(1)).amax()
    # as for `unlike`; and the mean of equal rows is off by a rounding of the arithmetic, whatever they came in
    noise = length * max(16 * eps, 64 * torch.finfo(rows.dtype).eps ** 2, 64 * torch.finfo(torch.float64).eps)
    whole = whole.masked_fill(whole <= noise, 0)
    nothing = (left.amax() <= torch.maximum(_NOTHING * whole.amax(), eps * length)) | ~whole.any()
    return torch.where(nothing, whole, left)


def members(rows: Tensor, kept: Tensor, dtype: torch.dtype) -> Tensor:
    """Weights [kept, rows] of the mean that each kept row becomes: itself, and those that go and are most like it.

    Of kept rows that are equally alike, as far as their type can tell, the first one counts.
    """
    number = len(rows)
    stays = torch.zeros(number, dtype=torch.bool, device=rows.device).index_fill(0, kept, True)
    going = stays.long().argsort(stable=True)[: number - len(kept)]
    unit = F.normalize(rows, dim=1)
    cosine = unit[going] @ unit[kept].mT  # [going, kept]
    nearest = exactly(1 - cosine.amax(1, keepdim=True))
    eps, work = torch.finfo(dtype).eps, torch.finfo(rows.dtype).eps
    alike = torch.maximum(nearest * (1 + min(eps**0.5, 2**-6)), nearest.new_tensor(max(16 * eps**2, 64 * work)))
    place = torch.arange(len(kept), dtype=torch.int32, device=rows.device)
    owner = torch.where(cosine >= (1 - alike).to(cosine), place, len(kept)).amin(1).long()
    weights = torch.zeros(len(kept), number, dtype=rows.dtype, device=rows.device)
    weights[place.long(), kept] = 1
    weights[owner, going] = 1
    return weights / weights.sum(1, keepdim=True)
