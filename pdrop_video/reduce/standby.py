"""Standby tokens: a trained part fills a few of them for each step, and they go on beside its own tokens or alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..common.checks import switch
from ..registry import Facts
from .base import Reduced, Tokens


@dataclass(frozen=True, slots=True)
class Standby:
    """What the part ``standby`` makes of each step, POINTS-Long, arXiv 2604.11627; see `pdrop_video.parts.standby`.

    The part must be loaded. With a step's own tokens beside them, the evictor ``standby`` is its other half: it lets
    these go as a step grows old, and keeps what stands by. Alone, a step is its n standby tokens from the beginning.

    Parameters
    ----------
    full : bool
        Whether a step's own tokens go on as well.

    Raises
    ------
    ConfigError
        If `full` is not a switch.
    """

    facts: ClassVar[Facts] = Facts(
        says="a few tokens that the vision tower was trained to fill for each step, beside its own or alone",
        paper="POINTS-Long, arXiv 2604.11627",
        trained=True,
        ours=True,
        carries="keys and values of 7 steps' standby rows in the tower's last layers",
        formula=(
            "in each layer: standby rows attend to all patches of their step and to each other, patches to\n"
            "    patches alone; in the last layers also to their like in the 7 steps before\n"
            "then copies of MLPs and projector: W + B A"
        ),
    )
    needs: ClassVar[tuple[str, ...]] = ()
    parts: ClassVar[tuple[str, ...]] = ("standby",)
    full: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "full", switch("full", self.full))

    def __call__(self, tokens: Tokens, carried: Mapping[str, Tensor]) -> tuple[Reduced, dict[str, Tensor]]:
        """All of them, or those that stand behind the grid."""
        if self.full:
            return Reduced(torch.arange(len(tokens), device=tokens.features.device)), {}
        place = tokens.place()
        count = len(tokens.seconds) * tokens.parts["standby"].n  # known without asking the device
        beside = place >= tokens.places
        return Reduced(beside.long().argsort(descending=True, stable=True)[:count]), {}

    def left(self, tokens: int) -> int | None:
        """Not known of tokens alone: n more of each step, or n instead of all."""
        return None

    def most_bytes(self, places: int, hidden: int, bytes_per_number: int) -> int:
        """What is carried is the part's."""
        return 0

    def flops(self, tokens: int, hidden: int) -> int:
        """None besides the part's, which count as the tower's."""
        return 0
