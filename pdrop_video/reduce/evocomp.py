"""EvoComp: the visual tokens that a trained layer holds to be among the best for the question."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..common.checks import share
from ..errors import ConfigError
from ..registry import Facts
from .base import Reduced, Tokens

_WIDTH, _WORDS = 96, 16
"""Of the layer, and words of a question, as costs are counted."""


@dataclass(frozen=True, slots=True)
class EvoComp:
    """EvoComp's compressor, arXiv 2604.17087: the tokens of highest keep probability, int(tokens * keep) of a chunk.

    The trained part ``evocomp`` (`pdrop_video.parts.evocomp`) must be loaded, and a question must be standing.

    Ours: the narrow layer and its training's details (`pdrop_video.training.evocomp`); that tokens compete within a
    chunk, where the paper has one prompt; that they leave before the first layer alone, where the paper has layer 2 as
    well; and that equals go in an order spread evenly over time and space.

    Carried: nothing. Not chunk-invariant: tokens of a chunk see each other, and compete.

    Parameters
    ----------
    keep : float
        Share of the tokens of each chunk that stays.

    Raises
    ------
    ConfigError
        If `keep` is no share in (0, 1].
    """

    needs: ClassVar[tuple[str, ...]] = ()
    parts: ClassVar[tuple[str, ...]] = ("evocomp",)
    facts: ClassVar[Facts] = Facts(
        says="visual tokens that a trained layer, reading them beside the question, holds to be the best for it",
        paper="EvoComp, arXiv 2604.17087",
        formula=(
            "h = x + layer(x), x = [visual tokens; the question's words], the layer bidirectional\n"
            "score = sigmoid(w h + b); the int(tokens * keep) highest stay"
        ),
        trained=True,
        needs_question=True,
        ours=True,
    )
    keep: float = 0.5

    def __post_init__(self) -> None:
        """Check the parameter."""
        object.__setattr__(self, "keep", share("keep", self.keep))

    def check(self, model_type: str, knows: tuple[str, ...], asked: str | None) -> None:
        """Refuse a stream without a question.

        Raises
        ------
        ConfigError
        """
        if asked is None:
            raise ConfigError(
                "the reducer evocomp reads the question while it watches; open the stream with a standing_question, or "
                "choose a reducer that needs none, such as learnpruner."
            )

    @torch.no_grad()
    def __call__(self, tokens: Tokens, carried: Mapping[str, Tensor]) -> tuple[Reduced, dict[str, Tensor]]:
        """The best by the layer's score."""
        assert tokens.question is not None
        scores = tokens.parts["evocomp"].score(tokens.features, tokens.question)
        return Reduced(tokens.best(scores, self.left(len(tokens)))), {}

    def left(self, tokens: int) -> int:
        """The share of them, one at least."""
        return max(int(tokens * self.keep), 1)

    def most_bytes(self, places: int, hidden: int, bytes_per_number: int) -> int:
        """Nothing."""
        return 0

    def flops(self, tokens: int, hidden: int) -> int:
        """The way in, queries, keys, values and output, the MLP, and attention of all to all."""
        rows = tokens + _WORDS
        return 2 * rows * (hidden * _WIDTH + 8 * _WIDTH * _WIDTH) + 4 * rows * rows * _WIDTH
