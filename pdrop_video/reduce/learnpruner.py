"""LearnPruner: the best by score, and a few that are unlike all that were chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..common.checks import choice, real, share, switch, whole
from ..common.ties import exactly, working
from ..registry import Facts
from .base import Reduced, Tokens
from .likeness import apart, unit
from .lrcp import leading, residuals

_WIDTH = 128
"""Of the trained network, as costs are counted."""


@dataclass(frozen=True, slots=True)
class LearnPruner:
    """Score and diversity, arXiv 2604.23950, with the paper's trained network or without.

    Of the int(tokens * keep) tokens of a chunk that stay, int(of them * diverse) are there for diversity: first the
    best by score are taken, then again and again the token whose largest cosine to all that are taken is smallest. The
    paper's second half, the question's attention before a middle layer, is the scorer ``text_mean``.

    The paper's score is a small trained network's: ``score=trained``, for which the part ``learnpruner`` must be loaded
    (`pdrop_video.parts.learnpruner`; the paper's weights are not released). Ours: what stands in its place without one,
    what the leading directions of the chunk leave of a token, as LRCP has it (`LRCP`), or a token's length, or what it
    receives of the vision tower's attention, which only some families hand over. Ours as well: how shares are rounded,
    that one token at least is taken by score, and that equals go in an order spread evenly over time and space. With
    `seeded`, the tokens that stayed of the newest step before the chunk count as taken while diversity is looked for,
    so that what stands still adds nothing.

    Carried: nothing; with `seeded`, those tokens, places * hidden numbers at most. Not chunk-invariant: a chunk's
    budget is split over its own tokens alone, and directions are those of its own tokens.

    Parameters
    ----------
    keep : float
        Share of the tokens of each chunk that stays.
    diverse : float
        Share of those that is there for diversity.
    score : str
        "residual", "length", "attention" or "trained".
    rank : int
        Directions that count as explained, for "residual".
    seeded : bool
        Whether diversity looks at the step before, too.

    Raises
    ------
    ConfigError
        If a share is none, `score` another word, `rank` no number from 1 or `seeded` no switch.
    """

    facts: ClassVar[Facts] = Facts(
        says="visual tokens that the principal directions explain least, and a tenth least similar to those",
        paper="LearnPruner, arXiv 2604.23950",
        formula=(
            "score = |c - c V V'|, c = x - mean, V = the first rank principal directions\n"
            "the best by score, then int(kept * diverse) times the token with the smallest (largest cos to all\n"
            "    that are taken)"
        ),
        ours=True,
        carries="with seeded, the tokens that stayed of the last step",
    )
    keep: float = 0.5
    diverse: float = 0.1
    score: str = "residual"
    rank: int = 8
    seeded: bool = False

    def __post_init__(self) -> None:
        """Check the parameters."""
        object.__setattr__(self, "keep", share("keep", self.keep))
        object.__setattr__(self, "diverse", real("diverse", self.diverse, 0, 1))
        object.__setattr__(self, "score", choice("score", self.score, ("residual", "length", "attention", "trained")))
        object.__setattr__(self, "rank", whole("rank", self.rank, 1))
        object.__setattr__(self, "seeded", switch("seeded", self.seeded))

    @property
    def needs(self) -> tuple[str, ...]:
        """The tower's attention, to score by it."""
        return ("attention",) if self.score == "attention" else ()

    @property
    def parts(self) -> tuple[str, ...]:
        """The trained network, to score by it."""
        return ("learnpruner",) if self.score == "trained" else ()

    @torch.no_grad()
    def __call__(self, tokens: Tokens, carried: Mapping[str, Tensor]) -> tuple[Reduced, dict[str, Tensor]]:
        """The best, and then the farthest."""
        count = self.left(len(tokens))
        by_score = max(count - int(count * self.diverse), 1)
        taken = tokens.best(self._scores(tokens), by_score)
        turn = tokens.turn()
        before = carried.get("before") if self.seeded else None
        kept = torch.cat([taken, farthest(tokens.features, taken, count - by_score, turn, before)]).sort().values
        if not self.seeded:
            return Reduced(kept), {}
        newest = kept[tokens.step[kept] == tokens.step[kept[-1]]]
        return Reduced(kept), {"before": tokens.features[newest]}

    def _scores(self, tokens: Tokens) -> Tensor:
        """The trained network's score, or what stands in for it [tokens]."""
        dtype = tokens.features.dtype
        if self.score == "trained":
            score: Tensor = tokens.parts["learnpruner"].keep(tokens.features)
            return score
        if self.score == "attention":
            return exactly(tokens.tower["attention"])
        if self.score == "length":
            return exactly(tokens.features).norm(dim=1)
        rows = working(tokens.features)
        mean = rows.mean(0)
        directions = F.normalize(leading(rows - mean, self.rank), dim=1)
        return residuals(rows, mean, directions, dtype).sqrt()

    def left(self, tokens: int) -> int:
        """The share of them, one at least."""
        return max(int(tokens * self.keep), 1)

    def most_bytes(self, places: int, hidden: int, bytes_per_number: int) -> int:
        """One step's tokens."""
        return places * hidden * bytes_per_number if self.seeded else 0

    def flops(self, tokens: int, hidden: int) -> int:
        """Directions, by a few products with a block of them, and cosines of all to those that stay."""
        scores = {
            "residual": 24 * tokens * hidden * (self.rank + 8),
            "length": 2 * tokens * hidden,
            "attention": 0,
            "trained": 2 * tokens * hidden * _WIDTH,
        }
        return scores[self.score] + 2 * tokens * hidden * self.left(tokens)


def farthest(rows: Tensor, taken: Tensor, count: int, turn: Tensor, before: Tensor | None = None) -> Tensor:
    """Numbers [count] of more rows: each time the one whose largest cosine to all that are taken is smallest.

    Parameters
    ----------
    rows : Tensor [rows, hidden]
    taken : Tensor [taken], int64
        One or more of them.
    count : int
        How many more, at most as many as are left.
    turn : Tensor [rows], int64
        Who goes first among equals, the smallest number first.
    before : Tensor [before, hidden], optional
        Rows that count as taken as well.

    Returns
    -------
    Tensor [count], int64
        In the order in which they are taken. No device is asked meanwhile.
    """
    if not count:
        return taken[:0]
    free = torch.ones(len(rows), dtype=torch.bool, device=rows.device).index_fill(0, taken, False)
    order = torch.where(free, turn, turn.max() + 1).argsort(stable=True)[: len(rows) - len(taken)]
    directions = unit(rows)
    others = directions[order]  # in the order of ties: of equals, argmax names the first
    seeds = directions[taken]
    if before is not None:
        seeds = torch.cat([seeds, unit(before.to(rows))])
    distance = apart((others @ seeds.mT).amax(1), rows.dtype)
    chosen = []
    for _ in range(count):
        best = distance.argmax(keepdim=True)
        chosen.append(order[best])
        step = apart((others @ others[best].mT)[:, 0], rows.dtype)
        distance = torch.minimum(distance, step).index_fill(0, best, -1)
    return torch.cat(chosen)
