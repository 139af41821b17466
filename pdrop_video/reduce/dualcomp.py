"""DualComp: clusters of what is alike, and paths over what stands out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..common.checks import choice, real, share, switch, whole
from ..common.ties import exactly, settled, working
from ..errors import ConfigError
from ..registry import Facts
from .base import Reduced, Tokens
from .geometric import geometric_by_rule
from .paths import anchors, links, means, roots, walk


@dataclass(frozen=True, slots=True)
class DualComp:
    """DualComp's two streams, arXiv 2604.11122, of each step by itself: regions merged, and lines kept.

    Of a step, int(tokens * keep) go on, one at least: the share `geometric` of them from the second stream.
    SCSA, the semantic stream: each token links to the one earlier neighbour (left or above) of highest cosine if that
    is above `tau`; what hangs together is a cluster. Those with the largest sum of attention go on, as their token of
    highest attention, and clusters of more than `theta` tokens as the mean weighted by attention at that place.
    IGSR, the geometric one: where a token stands out from the mean of the 3 x 3 around it is structure. One anchor in
    each region, the token that stands out most; from each to the next a greedy walk, to the neighbour that is nearer to
    the next anchor (by the larger of rows and columns) and has the largest structure * (1 + relevance to the question).

    The rules are those of the authors' release, which is of single images and names no constant. A trained router says
    there how much goes to which stream, and how much stays: ``router=lambda`` for the first, ``router=both``, with the
    part ``dualcomp`` (`pdrop_video.parts.dualcomp`) and a question. `keep` is then the most that stays.

    Ours: all constants (`tau`, `theta`, the 4 x 4 regions in snake order, both normed from least to most within a step,
    reflection at the border); without a router `geometric` is .7 if the standing question has a word for places,
    counts or lines, and else .5; attention is what the tower says (``tokens.tower["attention"]``) and else a token's
    length; relevance is the largest cosine to a word of the question. What both streams choose goes on once, as the
    semantic one has it, and what one has no use for goes to the other: clusters first, then anchors, then paths, then
    other tokens, each by structure. A step that stays whole is not merged. Features are not scaled by their stream's
    share unless `scale` says so. Walks cross places that a gate left out; a token's surroundings are what is there.

    Carried: nothing. Chunk-invariant: a step is reduced by itself.

    Parameters
    ----------
    keep : float
        Share of each step's tokens that stays.
    geometric : float, optional
        The paper's lambda: what of this goes to the geometric stream; by the question where left out.
    tau : float
        Cosine above which neighbours are one cluster.
    theta : int
        Tokens up to which a cluster is shown by one of them.
    router : str
        "rule", or what the trained router says, "lambda" or "both"; not beside `geometric`.
    scale : bool
        Scale features by their stream's share, as the paper does. Weights then sum to that share and not to 1.

    Raises
    ------
    ConfigError
        If `keep` is no share in (0, 1], `geometric` or `tau` not within 0 (or -1) and 1, `theta` not from 0;
        if `router` is another word, or given beside `geometric`.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    facts: ClassVar[Facts] = Facts(
        says="clusters of similar neighbours as one token each, and paths between tokens that stand out",
        paper="DualComp, arXiv 2604.11122",
        formula=(
            "clusters: a token joins its left or upper neighbour of highest cos, if cos > tau; those of largest\n"
            "    summed attention stay\n"
            "structure = |x - mean of the 3 x 3 around it|\n"
            "paths: from anchor to anchor by the neighbour of largest structure * (1 + relevance to the\n"
            "    question)"
        ),
        ours=True,
    )
    keep: float = 0.5
    geometric: float | None = None
    tau: float = 0.85
    theta: int = 4
    router: str = "rule"
    scale: bool = False

    def __post_init__(self) -> None:
        """Check the parameters."""
        object.__setattr__(self, "keep", share("keep", self.keep))
        if self.geometric is not None:
            object.__setattr__(self, "geometric", real("geometric", self.geometric, 0, 1))
        object.__setattr__(self, "tau", real("tau", self.tau, -1, 1))
        object.__setattr__(self, "theta", whole("theta", self.theta, 0))
        object.__setattr__(self, "router", choice("router", self.router, ("rule", "lambda", "both")))
        object.__setattr__(self, "scale", switch("scale", self.scale))
        if self.geometric is not None and self.router != "rule":
            raise ConfigError(
                f"geometric={self.geometric:g} and router={self.router} both say lambda; give one of them."
            )

    @property
    def parts(self) -> tuple[str, ...]:
        """The trained router, where it is used."""
        return () if self.router == "rule" else ("dualcomp",)

    def check(self, model_type: str, knows: tuple[str, ...], asked: str | None) -> None:
        """Refuse a stream whose router would have no question to read.

        Raises
        ------
        ConfigError
        """
        if asked is None and self.parts:
            raise ConfigError(
                f"the reducer dualcomp:router={self.router} reads the question while it watches; open the stream with "
                "a standing_question, or leave the router out."
            )

    @torch.no_grad()
    def __call__(self, tokens: Tokens, carried: Mapping[str, Tensor]) -> tuple[Reduced, dict[str, Tensor]]:
        """Scores of all steps at once, then each step by itself on the host, where walks are quick."""
        dtype = tokens.features.dtype
        rows = working(tokens.features)
        steps, number = len(tokens.seconds), torch.arange(len(rows), device=rows.device)
        spot = tokens.step * tokens.places + tokens.place()
        at = torch.full((steps * tokens.places,), -1, device=rows.device).scatter(0, spot, number)
        at = at.view(steps, *tokens.grid)
        attention = tokens.tower.get("attention")
        attention = exactly(rows.norm(dim=1) if attention is None else attention).clamp(min=0)
        root = roots(links(rows, at, spot, self.tau, dtype), tokens.places)
        importance = torch.zeros_like(attention).scatter_add(0, root, attention)
        out = stands_out(rows, at, spot, dtype)
        structure = _normed(out, tokens.step, steps, dtype)
        if tokens.question is not None and len(tokens.question):
            relevance = (F.normalize(rows, dim=1) @ F.normalize(tokens.question.to(rows), dim=1).mT).amax(1)
            structure = structure * (1 + _normed(exactly(relevance), tokens.step, steps, dtype))
        turn = tokens.turn().argsort(stable=True).argsort()
        scores = (_shares(each, tokens.step, steps, dtype) for each in (attention, importance, out, structure))
        told = torch.stack([*scores, *(each.to(attention) for each in (tokens.step, root, turn))], 1).cpu().numpy()
        cells = torch.stack([tokens.row, tokens.column], 1).cpu().numpy()

        geometric, keep = self._routed(tokens)
        singles, peaks = [], []
        ends = np.searchsorted(told[:, 4], np.arange(steps + 1))
        for begin, end in pairwise(ends.tolist()):
            if begin < end:
                weight, sums, change, plan, _, first, turns = told[begin:end].T
                of_step = _Step(weight, sums, change, plan, first.astype(int) - begin, turns, tokens.grid)
                count = max(int((end - begin) * keep), 1)
                best = of_step.clusters(count - int(count * geometric + 0.5))
                lines = of_step.lines(cells[begin:end], count - len(best), best)
                peaks += [begin + cell for cell in best]
                singles += [begin + cell for cell in lines]
        kept, semantic = (torch.tensor(sorted(x), dtype=torch.int64).to(rows.device) for x in (peaks + singles, peaks))
        sizes = torch.zeros_like(number).scatter_add(0, root, torch.ones_like(number))
        stays = torch.bincount(tokens.step) == torch.bincount(tokens.step[kept])  # steps of which nothing goes
        merged = semantic[(sizes[root[semantic]] > self.theta) & ~stays[tokens.step[semantic]]]
        if not self.scale and not len(merged):
            return Reduced(kept), {}
        weights = means(kept, merged, root, attention).to(rows)
        if self.scale:
            by = torch.full_like(weights[:, :1], geometric)
            weights = weights * by.index_fill(0, torch.searchsorted(kept, semantic), 1 - geometric)
        return Reduced(kept, weights), {}

    def share_of(self, asked: str | None) -> float:
        """What of the budget goes to the geometric stream."""
        if self.geometric is not None:
            return self.geometric
        return geometric_by_rule(asked)

    def _routed(self, tokens: Tokens) -> tuple[float, float]:
        """What goes to the geometric stream, and the share that stays."""
        if self.router == "rule":
            return self.share_of(tokens.asked), self.keep
        geometric, needed = tokens.parts["dualcomp"].routed(tokens.question)
        return geometric, self.keep * needed if self.router == "both" else self.keep

    def left(self, tokens: int) -> int | None:
        """Of a step's tokens, the share of them, one at least; of several steps it is this, or fewer by rounding."""
        return None if self.router == "both" else max(int(tokens * self.keep), 1)

    def most_bytes(self, places: int, hidden: int, bytes_per_number: int) -> int:
        """Nothing is carried."""
        return 0

    def flops(self, tokens: int, hidden: int) -> int:
        """Products with two neighbours, lengths, and distances to the mean around."""
        return 10 * tokens * hidden


@dataclass(frozen=True, slots=True)
class _Step:
    """The tokens of one step on the host, arrays [tokens]; scores are equal where they tie."""

    attention: np.ndarray
    importance: np.ndarray  # of a token's cluster, at its root
    out: np.ndarray
    structure: np.ndarray
    root: np.ndarray
    turn: np.ndarray
    grid: tuple[int, int]

    def clusters(self, count: int) -> list[int]:
        """The tokens of highest attention of the most important clusters."""
        order = np.lexsort((self.turn, -self.attention))
        root, first = np.unique(self.root[order], return_index=True)
        peak = order[first]
        best: list[int] = peak[np.lexsort((self.turn[peak], -self.importance[root]))[:count]].tolist()
        return best

    def lines(self, cells: np.ndarray, count: int, taken: list[int]) -> list[int]:
        """Numbers of anchors, of paths between them, and of others, as many as asked, those `taken` apart."""
        at = np.full(self.grid, -1)
        at[cells[:, 0], cells[:, 1]] = np.arange(len(cells))
        plan = np.full(self.grid, -1.0)  # what a gate left out can be crossed, last of all
        plan[cells[:, 0], cells[:, 1]] = self.structure
        level = np.zeros(len(cells))
        marks = anchors(self.out, cells, self.grid, self.turn)
        places = [(int(row), int(column)) for row, column in cells[marks]]
        listed = plan.tolist()
        for start, goal in pairwise(places):
            for row, column in walk(listed, start, goal):
                if at[row, column] >= 0:
                    level[at[row, column]] = 1
        level[marks] = 2
        level[taken] = -1
        best: list[int] = np.lexsort((self.turn, -self.structure, -level))[:count].tolist()
        return best


def stands_out(rows: Tensor, at: Tensor, spot: Tensor, dtype: torch.dtype) -> Tensor:
    """Squared distance of each token to the mean of the 3 x 3 around it [tokens], reflected at the border.

    Of places without a token, what is there counts.
    """
    ones = torch.ones_like(rows[:1, :1]).expand(*at.shape, 1)
    grid = torch.cat([rows[at.clamp(min=0)], ones], -1) * (at >= 0)[..., None]
    for axis in (1, 2):
        size = grid.shape[axis]
        around = torch.arange(-1, size + 1, device=at.device).abs()
        around = torch.where(around >= size, max(size - 2, 0), around).clamp(max=size - 1)
        wide = grid.index_select(axis, around)
        grid = wide.narrow(axis, 0, size) + wide.narrow(axis, 1, size) + wide.narrow(axis, 2, size)
    summed = grid.flatten(0, 2)[spot]
    out = exactly((rows - summed[:, :-1] / summed[:, -1:]).square().sum(1))
    eps, exact = torch.finfo(dtype).eps ** 2, torch.finfo(torch.float64).eps  # as for `unlike`
    least = max(16 * eps, 64 * torch.finfo(rows.dtype).eps ** 2, 64 * exact)
    return out.masked_fill(out <= least * exactly(rows.square().sum(1)), 0)


def _by_step(scores: Tensor, step: Tensor, steps: int, how: str) -> Tensor:
    """The largest or smallest score of each token's step [tokens]."""
    return scores.new_zeros(steps).scatter_reduce(0, step, scores, how, include_self=False)[step]


def _normed(scores: Tensor, step: Tensor, steps: int, dtype: torch.dtype) -> Tensor:
    """From 0 for the least of a step to 1 for the largest; 0 where its type can't tell them apart."""
    low, high = (_by_step(scores, step, steps, how) for how in ("amin", "amax"))
    span = high - low
    least = 1e-10 if dtype == torch.float64 else max(torch.finfo(dtype).eps, 1e-5)
    flat = span <= least * torch.maximum(high.abs(), low.abs())
    return torch.where(flat, 0, (scores - low) / span.masked_fill(flat, 1))


def _shares(scores: Tensor, step: Tensor, steps: int, dtype: torch.dtype) -> Tensor:
    """Scores as shares of the largest of their step, settled: no other step matters."""
    largest = _by_step(scores.abs(), step, steps, "amax")
    return settled(scores / largest.masked_fill(largest == 0, 1), dtype)
