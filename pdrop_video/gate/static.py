"""Static: a picture that did not change is not encoded again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..common.checks import real
from ..registry import Facts
from .base import Gated, Watched


@dataclass(frozen=True, slots=True)
class Static:
    """Leaves out every frame that equals the last kept one, patch by patch, within a threshold.

    A patch is what one visual token shows. Each is compared with the last frame that was *kept*, not with the one
    before, so that a slow change adds up until it counts. Ours, and as simple as it can be.

    Parameters
    ----------
    threshold : float
        Mean absolute difference of a patch's pixels, over the three colours, that still counts as none, in levels of
        255. Of a still picture H.264 made .7 at most at its default quality, and 3.3 with noise of 4 levels.

    Raises
    ------
    ConfigError
        If the threshold is no number from 0 to 255.
    """

    facts: ClassVar[Facts] = Facts(
        says="frames in which any patch differs from the last kept frame",
        paper="",
        ours=True,
        carries="the last kept frame",
    )
    threshold: float = 4.0

    def __post_init__(self) -> None:
        """Check the threshold."""
        object.__setattr__(self, "threshold", real("threshold", self.threshold, 0, 255))

    @torch.no_grad()
    def __call__(self, watched: Watched, carried: Mapping[str, Tensor]) -> tuple[Gated, dict[str, Tensor]]:
        """Frame by frame; each that is kept is what the next are compared with."""
        last = carried.get("last")
        if last is not None and last.shape != watched.frames.shape[1:]:
            last = None  # of another size, so another picture
        kept = []
        for number, frame in enumerate(watched.frames):
            if last is None or self._differs(watched, frame, last):
                kept.append(number)
                last = frame
        assert last is not None
        return Gated(tuple(kept)), {"last": last.clone() if kept else last}

    def _differs(self, watched: Watched, frame: Tensor, last: Tensor) -> bool:
        change = (frame.to(torch.int16) - last.to(frame.device, torch.int16)).abs().sum(-1)
        return bool(
            (watched.cells(change[None].float()) > 3 * self.threshold).any()
        )  # the host must know whether to encode

    def most_bytes(self, height: int, width: int) -> int:
        """One frame."""
        return height * width * 3

    def flops(self, frames: int, height: int, width: int) -> int:
        """None: it compares."""
        return 0
