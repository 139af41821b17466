"""Relevance pooling: frames that the question is about stay whole, the others four tokens in one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..common.checks import choice, share
from ..common.ties import comparable, exactly, spread
from ..errors import ConfigError
from ..registry import Facts
from .base import Reduced, Tokens
from .likeness import nearest_word, ranged

_WORDS = 16
"""Words of a question, as costs are counted."""
_PART = "videorouter"
_GONE, _POOLED, _WHOLE = 0, 1, 2


@dataclass(frozen=True, slots=True)
class RelevancePooling:
    """Frames kept whole or pooled by the question, after VideoRouter, arXiv 2605.05848, with its routers or without.

    As its fragment policy has it: relevant frames keep all tokens, of the others every 2 x 2 tokens become their mean.
    How many frames are whole follows from the budget: with all others pooled, as many of the most relevant as fit into
    int(tokens * keep) tokens. Where not even all frames fit when pooled (a keep under a quarter), the least relevant
    frames go. At most so many tokens stay, less than a frame's fewer.

    With ``relevance=trained`` frames are ranked by the paper's image router; with ``policy=trained`` its semantic
    router chooses between this policy and the global one, in which all frames are alike: of each, tokens become means
    of two beside each other, or of 2 x 2, whatever fits first, and where not even this does, an even choice of frames
    is left.
    Both need the part ``videorouter`` (`pdrop_video.parts.videorouter`) and a question.

    Ours: all but the scales, where no router is used. A frame's relevance is then the mean, or the largest, over its
    tokens of a token's largest cosine to a word of the question. The paper calls frames relevant whose p is above a
    half; here, as above, the budget says how many are. Without a question, and among
    equals, frames come in an order spread evenly over time. A pooled token has the place of the first of its four that
    is there, from the top and then from the left; cells at odd edges, or with holes that a gate left, are means of what
    is there. Where one frame alone is left and still is too large when pooled, its most relevant pooled tokens stay.

    Carried: nothing. Not chunk-invariant: frames compete within a chunk.

    Parameters
    ----------
    keep : float
        Share of the tokens of each chunk that stays, at most.
    relevance : str
        "mean" or "max", over a frame's tokens; "trained" for the image router.
    policy : str
        "fragment", "global", or "trained" for the semantic router.

    Raises
    ------
    ConfigError
        If `keep` is no share in (0, 1], or `relevance` or `policy` another word.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    facts: ClassVar[Facts] = Facts(
        says="all tokens of frames that the question is about, and means of four tokens of other frames",
        paper="VideoRouter, arXiv 2605.05848",
        formula=(
            "relevance(frame) = mean (or max) over its tokens x of max over words w of cos(x, w)\n"
            "the most relevant frames stay whole, of the others every 2 x 2 tokens become their mean: as many\n"
            "    whole as fit into int(tokens * keep)"
        ),
        needs_question=True,
        ours=True,
    )
    keep: float = 0.5
    relevance: str = "mean"
    policy: str = "fragment"

    def __post_init__(self) -> None:
        """Check the parameters."""
        object.__setattr__(self, "keep", share("keep", self.keep))
        object.__setattr__(self, "relevance", choice("relevance", self.relevance, ("mean", "max", "trained")))
        object.__setattr__(self, "policy", choice("policy", self.policy, ("fragment", "global", "trained")))

    @property
    def parts(self) -> tuple[str, ...]:
        """The trained routers, if one is used."""
        return (_PART,) if "trained" in (self.relevance, self.policy) else ()

    def check(self, model_type: str, knows: tuple[str, ...], asked: str | None) -> None:
        """Refuse a stream whose routers would have no question to read.

        Raises
        ------
        ConfigError
        """
        if asked is None and self.parts:
            raise ConfigError(
                "the routers of relevance_pooling read the question while they watch; open the stream with a "
                "standing_question, or leave out relevance=trained and policy=trained."
            )

    @torch.no_grad()
    def __call__(self, tokens: Tokens, carried: Mapping[str, Tensor]) -> tuple[Reduced, dict[str, Tensor]]:
        """Each frame's scale, on the host, and the means that follow from it."""
        number, steps = torch.arange(len(tokens), device=tokens.step.device), len(tokens.seconds)
        budget = max(int(len(tokens) * self.keep), 1)
        if self._global(tokens):
            return self._all_alike(tokens, budget), {}
        first = _first_of_cell(tokens)
        anchors = first == number
        words = exactly(tokens.features.new_zeros(len(tokens), dtype=torch.float32))
        if tokens.question is not None and len(tokens.question):
            words = exactly(nearest_word(tokens.features, tokens.question))
        if self.relevance == "trained":
            frame = tokens.parts[_PART].relevance(tokens.features, tokens.step, steps, tokens.question)
        else:
            frame = _over_frames(words, tokens.step, steps, self.relevance)
        frame = ranged(frame, torch.zeros_like(frame, dtype=torch.int64), 1, tokens.features.dtype)
        counts = torch.stack([torch.bincount(of, minlength=steps) for of in (tokens.step, tokens.step[anchors])])
        turn = spread(torch.arange(steps) + tokens.since, torch.tensor(0), torch.tensor(0))
        number_of, pooled = counts.cpu().numpy()
        order = np.lexsort((turn.numpy(), -frame.cpu().numpy()))
        scales = scaled(number_of, pooled, order, budget)
        scale = torch.from_numpy(scales).to(number.device)[tokens.step]
        owner = torch.where(scale == _WHOLE, number, torch.where(scale == _POOLED, first, -1))
        kept = (owner == number).nonzero()[:, 0]
        if len(kept) > budget:  # one pooled frame alone
            kept = kept[self._best(tokens, words, owner, kept, budget)]
        return Reduced(kept, _means(owner, kept, tokens.features)), {}

    def _global(self, tokens: Tokens) -> bool:
        """Whether all frames are alike."""
        if self.policy == "trained":
            return not tokens.parts[_PART].fragment(tokens.question)
        return self.policy == "global"

    @staticmethod
    def _all_alike(tokens: Tokens, budget: int) -> Reduced:
        """All frames at the first scale that fits, or an even choice of frames at the last one."""
        number = torch.arange(len(tokens), device=tokens.step.device)
        firsts = [number, _first_of_cell(tokens, 1, 2), _first_of_cell(tokens)]
        counts = torch.stack([(first == number).sum() for first in firsts]).tolist()
        scale = next((at for at, count in enumerate(counts) if count <= budget), None)
        owner = firsts[-1 if scale is None else scale]
        if scale is None:
            steps = len(tokens.seconds)
            turn = spread(torch.arange(steps) + tokens.since, torch.tensor(0), torch.tensor(0)).argsort()
            pooled = torch.bincount(tokens.step[owner == number], minlength=steps).cpu()
            fits = pooled[turn].cumsum(0) <= budget
            fits[0] = True
            there = torch.zeros(steps, dtype=torch.bool).index_fill(0, turn[fits], True).to(number.device)
            owner = torch.where(there[tokens.step], owner, -1)
        kept = (owner == number).nonzero()[:, 0]
        return Reduced(kept[:budget], _means(owner, kept[:budget], tokens.features))

    @staticmethod
    def _best(tokens: Tokens, words: Tensor, owner: Tensor, kept: Tensor, count: int) -> Tensor:
        """Which of a frame's pooled tokens stay, by the mean relevance of what they are made of."""
        total = torch.zeros_like(words).index_add(0, owner.clamp(min=0), words.masked_fill(owner < 0, 0))
        members = torch.bincount(owner.clamp(min=0)[owner >= 0], minlength=len(words)).clamp(min=1)
        scores = comparable((total / members)[kept], torch.ones_like(kept, dtype=torch.bool), tokens.features.dtype)
        turn = tokens.turn()[kept].argsort(stable=True)
        return turn[scores[turn].argsort(descending=True, stable=True)][:count].sort().values

    def left(self, tokens: int) -> None:
        """Whole frames and pooled ones rarely come to the budget exactly."""

    def most_bytes(self, places: int, hidden: int, bytes_per_number: int) -> int:
        """Nothing."""
        return 0

    def flops(self, tokens: int, hidden: int) -> int:
        """Cosines to 16 words, and means as one product."""
        return 2 * tokens * hidden * (_WORDS + max(int(tokens * self.keep), 1))


def scaled(tokens: np.ndarray, pooled: np.ndarray, order: np.ndarray, budget: int) -> np.ndarray:
    """What becomes of each frame [frames]: 0 for gone, 1 for pooled, 2 for whole.

    Parameters
    ----------
    tokens, pooled : array [frames], int
        Tokens of each, as it is and pooled; 0 where it has none.
    order : array [frames], int
        Frames from the most relevant on.
    budget : int
        Most tokens. The most relevant frame with any is pooled even where it is larger.
    """
    scale = np.full(len(tokens), _GONE)
    order = order[tokens[order] > 0]
    fits = int((np.cumsum(pooled[order]) <= budget).sum())
    scale[order[: max(fits, 1)]] = _POOLED
    if fits == len(order):
        left = budget - pooled.sum()
        whole = int((np.cumsum((tokens - pooled)[order]) <= left).sum())
        scale[order[:whole]] = _WHOLE
    return scale


def _first_of_cell(tokens: Tokens, high: int = 2, wide: int = 2) -> Tensor:
    """Of each token the number of the first in its cell of so many places [tokens]."""
    rows, columns = -(-tokens.grid[0] // high), -(-tokens.grid[1] // wide)
    cell = (tokens.step * rows + tokens.row // high) * columns + tokens.column // wide
    number = torch.arange(len(tokens), device=cell.device)
    size = len(tokens.seconds) * rows * columns
    return torch.full((size,), len(tokens), device=cell.device).scatter_reduce(0, cell, number, "amin")[cell]


def _over_frames(words: Tensor, step: Tensor, steps: int, how: str) -> Tensor:
    """Mean or largest of each frame's tokens [frames]; the least of all where a frame has none."""
    empty = words.min().expand(steps)
    return empty.scatter_reduce(0, step, words, "amax" if how == "max" else "mean", include_self=False)


def _means(owner: Tensor, kept: Tensor, features: Tensor) -> Tensor | None:
    """Weights [kept, tokens] of the means over all tokens that one owns; None where each is itself alone."""
    if len(kept) == len(owner):
        return None
    row = torch.full_like(owner, -1).index_copy(0, kept, torch.arange(len(kept), device=kept.device))
    row = torch.where(owner >= 0, row[owner.clamp(min=0)], -1)
    wide = torch.promote_types(features.dtype, torch.float32)
    weights = torch.zeros(len(kept) + 1, len(owner), dtype=wide, device=kept.device)
    weights[row, torch.arange(len(owner), device=row.device)] = 1  # what goes is in the last row
    weights = weights[:-1]
    return weights / weights.sum(1, keepdim=True)
