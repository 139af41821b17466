"""Fewer tokens out of the vision tower itself: a trained part compresses a picture between two of its layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..registry import Facts
from .base import Reduced, Tokens


@dataclass(frozen=True, slots=True)
class UHD:
    """What the part ``uhd`` leaves of each step, LLaVA-UHD v4, arXiv 2605.08985; see `pdrop_video.parts.uhd`.

    The part must be loaded. Behind the layer that it was trained for, the tower runs on a quarter of the patches, and a
    quarter of the tokens leaves it: this is one of few methods that save FLOPs there. What leaves all goes on.
    """

    facts: ClassVar[Facts] = Facts(
        says="a quarter: inside the vision tower 2 x 2 patches become one, which it was trained for",
        paper="LLaVA-UHD v4, arXiv 2605.08985",
        trained=True,
        ours=True,
        formula=(
            "behind a layer: y = x + attention in windows of 2 x 2\n"
            "x' = mean of 4 y + W2 act(W1 LN(4 y in a row))\n"
            "at first W1 = blockdiag(F1, F1, F1, F1), W2 = [F2 F2 F2 F2] / 4"
        ),
    )
    needs: ClassVar[tuple[str, ...]] = ()
    parts: ClassVar[tuple[str, ...]] = ("uhd",)

    def __call__(self, tokens: Tokens, carried: Mapping[str, Tensor]) -> tuple[Reduced, dict[str, Tensor]]:
        """All that the tower gave."""
        return Reduced(torch.arange(len(tokens), device=tokens.features.device)), {}

    def left(self, tokens: int) -> int:
        """A quarter, where sides are even; a little more otherwise."""
        return tokens // 4

    def most_bytes(self, places: int, hidden: int, bytes_per_number: int) -> int:
        """Nothing is carried."""
        return 0

    def flops(self, tokens: int, hidden: int) -> int:
        """None besides the part's, which count as the tower's."""
        return 0
