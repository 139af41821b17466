"""COAST: what the question looks at, more of the same, and a little of what is nothing like it (arXiv 2605.09429)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ...common.checks import choice, real
from ...common.taking import rows_at
from ...common.ties import comparable, exactly, settled
from ...registry import Facts
from .base import Ranking, RankingSize, standings, unit_rows
from .controls import Random


@dataclass(frozen=True, slots=True)
class Coast:
    """Three groups that together are the budget K, by attention and by likeness of hidden states.

    Anchors, int(.8 K) of them: what the last row of text attends to most. References, a tenth of the tokens: what no
    row of text attends to much. The rest of the budget goes to other tokens by their largest cosine to an anchor less
    their mean cosine to the references, to both ends of that order: to those that are most like the anchors, and a few
    of the least like them, the more the more evenly the question's attention is spread.

    Formulas and constants are those of a port that cites the paper's equations (3, 4, 8 to 10); how many references
    there are is the port's own. The attention of the layer to come, of the rows behind the visual ones, is ours, and
    so is the order of ties. What is chosen scores above all else, so that exactly the groups stay with
    ``allocator="global"``; others split the budget anew over frames.

    Parameters
    ----------
    anchors : float
        Share of the budget that goes to anchors.
    least, most : float
        Share of what is left that goes to the least like them, where the question looks at one token, and where it
        looks at all alike.
    far : {"unlike", "random"}
        What goes into the third group: the least like the anchors, or any tokens by lot, a control that is ours. The
        group is small (of 128 tokens 1 to 3), so that the method is mostly the anchors and what is nearest to them.

    Raises
    ------
    ConfigError
        If they are no shares, or `far` is another word.
    """

    facts: ClassVar[Facts] = Facts(
        says="tokens that the question attends to most, those most similar to them, and a few of the least similar",
        paper="COAST, arXiv 2605.09429",
        formula=(
            "of a budget K: int(anchors * K) tokens of highest attention from the last row of text\n"
            "then tokens of largest (max cos to an anchor) - (mean cos to the references), and a few of the\n"
            "    smallest\n"
            "references: the tenth of the tokens that no row of text attends to"
        ),
        needs_question=True,
        ours=True,
    )
    uses_probe: ClassVar[bool] = True
    uses_layout: ClassVar[bool] = False
    once: ClassVar[bool] = False
    asks: ClassVar[Literal["last", "all"]] = "all"
    anchors: float = 0.8
    least: float = 0.05
    most: float = 0.15
    far: str = "unlike"

    def __post_init__(self) -> None:
        """Check the shares and the word."""
        for name in ("anchors", "least", "most"):
            object.__setattr__(self, name, real(name, getattr(self, name), 0, 1))
        choice("far", self.far, ("unlike", "random"))

    def flops(self, size: RankingSize) -> int:
        """The probe's attention, and cosines of all rows to the anchors."""
        anchors = min(max(1, int(self.anchors * size.wanted)), size.rows)
        return size.attention() + 2 * size.rows * anchors * size.hidden

    @torch.no_grad()
    def __call__(self, ranking: Ranking) -> Tensor:
        """The last row's attention, and 1 more for what is chosen."""
        visual, layout, dtype = ranking.visual, ranking.layout, ranking.hidden.dtype
        attention = ranking.attention()
        strongest = attention.amax(1)
        evenness = _evenness(strongest, visual, dtype)
        tokens = visual.sum(1, keepdim=True)
        anchored = [max(1, int(self.anchors * budget)) for budget in ranking.wanted]
        left = [max(0, budget - taken) for budget, taken in zip(ranking.wanted, anchored, strict=True)]
        budget, n_anchors, n_left = (
            torch.tensor(each, device=visual.device)[:, None] for each in (ranking.wanted, anchored, left)
        )
        anchor = visual & (standings(comparable(attention[:, -1], visual, dtype), visual, layout) < n_anchors)
        n_references = torch.minimum(tokens // 10, tokens - n_anchors - budget).clamp(min=1)
        reference = visual & (standings(-comparable(strongest, visual, dtype), visual, layout) < n_references)
        likeness = _likeness(unit_rows(ranking.hidden), anchor, reference, max(anchored))
        likeness = settled(3 + likeness, dtype)  # from 1 to 5: of a difference near 0 the digits are noise
        others = visual & ~anchor
        order = standings(likeness, others, layout)
        unlike = (n_left * (self.least + (self.most - self.least) * evenness)).long()
        unlike = unlike.clamp(min=1).minimum(n_left - 1).where(n_left > 1, n_left)
        aligned = others & (order < n_left - unlike)
        away = others & ~aligned
        if self.far == "random":
            far = away & (standings(Random()(ranking), away, layout) < unlike)
        else:
            far = away & (order >= others.sum(1, keepdim=True) - unlike)
        return attention[:, -1] + (anchor | aligned | far)


def _likeness(unit: Tensor, anchor: Tensor, reference: Tensor, most: int) -> Tensor:
    """Each row's largest cosine to an anchor less its mean cosine to the references [batch, rows]."""
    at = anchor.long().argsort(dim=1, descending=True, stable=True)[:, :most]  # of the anchors, `most` in any sample
    cosine = unit @ rows_at(unit, at).mT  # [batch, rows, most]
    nearest = cosine.masked_fill(~anchor.gather(1, at)[:, None], -1).amax(-1)
    mean = (unit * reference[..., None]).sum(1, keepdim=True) / reference.sum(1)[:, None, None].clamp(min=1)
    return nearest - (unit * mean).sum(-1)


def _evenness(weights: Tensor, visual: Tensor, dtype: torch.dtype) -> Tensor:
    """Entropy of weights over visual rows, as a share of the most it can be [batch, 1]: 1 where all are equal."""
    share = exactly(weights).masked_fill(~visual, 0)
    share = share / share.sum(1, keepdim=True).clamp(min=1e-30)
    entropy = torch.special.entr(share).sum(1, keepdim=True)
    return settled(entropy / visual.sum(1, keepdim=True).clamp(min=2).log(), dtype)
