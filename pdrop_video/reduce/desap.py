"""DeSAP: what the tower's attention finds of the question's words, and what its [CLS] looks at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..common.checks import share, text
from ..common.ties import exactly
from ..errors import ConfigError
from ..registry import Facts
from .base import Reduced, Tokens
from .likeness import apart, ranged
from .text_half import aligned

_SEEN, _SHARED, _PLACES, _WORDS = 1024, 768, 256, 16
"""Sizes of CLIP-L, places of a step and words of a question, as costs are counted."""


@dataclass(frozen=True, slots=True)
class DeSAP:
    """Decoupled similarity, arXiv 2604.11240: what the tower's attention finds of the question, and what [CLS] sees.

    In the vision tower's block whose output the model uses, the attention's output of each patch, before it is added to
    what came in, goes through the tower's last norm and its projection beside text. Its relevance is its largest cosine
    to a word of the question, as the tower's own text half reads it. Its saliency is what [CLS] gives it in that block,
    averaged over heads. Of each step the int(tokens * keep) tokens of the highest mean of both, each moved to [0, 1]
    within the step, stay; each other is averaged into the one of them that is most like it.

    After the paper's abstract and two summaries of it, without code. Ours: the block, equal weights of both parts,
    minima and maxima by step, the budget of each step, plain means and that likeness is that of the projected attention
    outputs. Where the model pools patches before they are tokens, the attention's outputs and what [CLS] gives are
    averaged likewise. Equals go in an order spread evenly over time and space, and merge into the first one.

    It needs three things that not every stream has, and says which is missing when the stream is opened: a family that
    hands over what its tower's attention gives (LLaVA-NeXT-Video, whose tower is CLIP's), the whole CLIP that this
    tower was taken from, since no video model's checkpoint holds its text half, and a standing question. CLIP reads 77
    tokens at most, start and end among them; what is longer is cut off.

    Carried: nothing. Chunk-invariant: each step by itself.

    Parameters
    ----------
    keep : float
        Share of the tokens of each step that stays.
    text_tower : str
        A folder, or a name on the hub, such as openai/clip-vit-large-patch14-336.

    Raises
    ------
    ConfigError
        If `keep` is no share in (0, 1] or `text_tower` no text.
    """

    needs: ClassVar[tuple[str, ...]] = ("attended", "class_attention")
    facts: ClassVar[Facts] = Facts(
        says="visual tokens that match the question in the tower's own text encoder, or that [CLS] attends to",
        paper="DeSAP, arXiv 2604.11240",
        formula=(
            "relevance = max over the question's words w of cos(projected attention output, w)\n"
            "saliency = attention of [CLS]\n"
            "score = mean of both, each scaled to [0, 1] in its step; the int(n * keep) highest of each step\n"
            "    stay, each other one joins the most similar"
        ),
        needs_question=True,
        ours=True,
    )
    keep: float = 0.5
    text_tower: str = ""

    def __post_init__(self) -> None:
        """Check the parameters."""
        object.__setattr__(self, "keep", share("keep", self.keep))
        object.__setattr__(self, "text_tower", text("text_tower", self.text_tower, empty=True))

    def check(self, model_type: str, knows: tuple[str, ...], asked: str | None) -> None:
        """Refuse a stream that lacks what it needs; load the text half, and read the question.

        Raises
        ------
        ConfigError
            If the family, the text half or the question is missing.
        """
        if not set(self.needs) <= set(knows):
            raise ConfigError(
                f"the reducer desap needs a vision tower that was trained beside a text tower, and what its attention "
                f"gives; models of type {model_type!r} don't hand it over. Use it with LLaVA-NeXT-Video, or choose "
                "another reducer, such as sppruner."
            )
        if not self.text_tower:
            raise ConfigError(
                "the reducer desap needs the text half of the model's vision tower, which its checkpoint doesn't hold; "
                "name the whole CLIP, as desap:text_tower=openai/clip-vit-large-patch14-336."
            )
        if asked is None:
            raise ConfigError(
                "the reducer desap ranks by the question while it watches; open the stream with a standing_question, "
                "or choose a reducer that needs none."
            )
        aligned(self.text_tower, asked)

    @torch.no_grad()
    def __call__(self, tokens: Tokens, carried: Mapping[str, Tensor]) -> tuple[Reduced, dict[str, Tensor]]:
        """Relevance and saliency, the best of each step, and means."""
        assert tokens.asked is not None
        half = aligned(self.text_tower, tokens.asked)
        seen = half.beside(tokens.tower["attended"])
        relevant = (seen @ half.words.to(seen).mT).amax(-1)
        return merged(tokens, seen, relevant, tokens.tower["class_attention"], self.keep), {}

    def left(self, tokens: int) -> None:
        """The share of each step, rounded by itself."""

    def most_bytes(self, places: int, hidden: int, bytes_per_number: int) -> int:
        """Nothing."""
        return 0

    def flops(self, tokens: int, hidden: int) -> int:
        """CLIP-L's projection, cosines to 16 words and within steps of 256 places, and means as one product."""
        cosines = 2 * tokens * _SHARED * (_SEEN + _WORDS + min(tokens, _PLACES))
        return cosines + 2 * tokens * hidden * max(int(tokens * self.keep), 1)


def merged(tokens: Tokens, seen: Tensor, relevant: Tensor, salient: Tensor, keep: float) -> Reduced:
    """The best of each step by both, and of each of them the mean of itself and of those that are most like it.

    Parameters
    ----------
    tokens : Tokens
    seen : Tensor [tokens, shared]
        By which they are alike; of length 1.
    relevant, salient : Tensor [tokens]
    keep : float
        Share of each step that stays.
    """
    steps, dtype, device = len(tokens.seconds), tokens.features.dtype, tokens.step.device
    scores = (ranged(relevant, tokens.step, steps, dtype) + ranged(salient, tokens.step, steps, dtype)) / 2
    turn = tokens.turn().argsort(stable=True)
    order = turn[scores[turn].argsort(descending=True, stable=True)]
    order = order[tokens.step[order].argsort(stable=True)]  # step by step, the best first
    present = torch.bincount(tokens.step, minlength=steps)
    number = torch.arange(len(tokens), device=device)
    standing = number - (present.cumsum(0) - present)[tokens.step[order]]
    stays = torch.empty_like(tokens.step, dtype=torch.bool)
    stays[order] = standing < (exactly(present) * keep).long().clamp(min=1)[tokens.step[order]]
    kept = stays.nonzero()[:, 0]
    if len(kept) == len(tokens):
        return Reduced(kept)
    cell = tokens.step * tokens.places + tokens.place()
    cells = seen.new_zeros(steps * tokens.places, seen.shape[1]).index_copy(0, cell, seen)
    cells = cells.view(steps, tokens.places, -1)
    distance = apart(cells @ cells.mT, dtype)[tokens.step, tokens.place()]  # [tokens, places]
    there = torch.zeros(steps * tokens.places, dtype=torch.bool, device=device).index_copy(0, cell, stays)
    nearest = distance.masked_fill(~there.view(steps, -1)[tokens.step], torch.inf)
    place = torch.arange(tokens.places, device=device)
    first = torch.where(nearest == nearest.amin(1, keepdim=True), place, tokens.places).amin(1)
    at = torch.zeros(steps * tokens.places, dtype=torch.int64, device=device).index_copy(0, cell, number)
    owner = torch.where(stays, number, at[tokens.step * tokens.places + first])
    row = torch.zeros_like(number).index_copy(0, kept, torch.arange(len(kept), device=device))
    wide = torch.promote_types(dtype, torch.float32)
    weights = torch.zeros(len(kept), len(tokens), dtype=wide, device=device)
    weights[row[owner], number] = 1
    return Reduced(kept, weights / weights.sum(1, keepdim=True))
