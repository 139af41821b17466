"""Static: a picture that did not change is not encoded again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..common.checks import real, switch
from ..registry import Facts
from .base import Gated, Watched


@dataclass(frozen=True, slots=True)
class Static:
    """Leaves out every frame that equals the last kept one, patch by patch, within a threshold.

    A patch is what one visual token shows. Each is compared with the last frame that was *kept*, not with the one
    before, so that a slow change adds up until it counts; vLLM-Omni's filter of similar frames does so, too, with one
    difference over a thumbnail of the whole picture, in which what is small gets lost. STC (arXiv 2512.00891) encodes
    anew what changed most within a frame, and a whole frame after so many: `parts` and `max_age` are how a gate can do
    that, before the tower. The rest is ours, and as simple as it can be.

    A stream carries a picture, and with `max_age` a time: 3 bytes a pixel, and 8. What is decided does not depend on
    where chunks begin and end.

    Parameters
    ----------
    threshold : float
        Mean absolute difference of a patch's pixels, over the three colours, that still counts as none, in levels of
        255. Of a still picture H.264 made .7 at most at its default quality, and 3.3 with noise of 4 levels.
    parts : bool
        Of a frame that goes on only the patches that changed give tokens; each is compared with what was last kept of
        it. Save for what `max_age` brings anew, what stands still is then known from older frames alone, and where a
        turn of a conversation begins with a still picture, it shows nothing.
    max_age : float, optional
        Seconds after which a frame goes on whole, changed or not; never where left out.

    Raises
    ------
    ConfigError
        If the threshold is no number from 0 to 255, or the age none above 0.
    """

    facts: ClassVar[Facts] = Facts(
        says="frames in which any patch differs from the last kept frame",
        paper="",
        formula=(
            "d(patch) = mean |frame - last kept frame| over pixels and colours, in levels of 255\n"
            "a frame goes on if max d(patch) > threshold"
        ),
        ours=True,
        carries="the last kept frame",
    )
    threshold: float = 4.0
    parts: bool = False
    max_age: float | None = None

    def __post_init__(self) -> None:
        """Check the threshold and the age."""
        object.__setattr__(self, "threshold", real("threshold", self.threshold, 0, 255))
        switch("parts", self.parts)
        if self.max_age is not None:
            object.__setattr__(self, "max_age", real("max_age", self.max_age, 0, above=True))

    @torch.no_grad()
    def __call__(self, watched: Watched, carried: Mapping[str, Tensor]) -> tuple[Gated, dict[str, Tensor]]:
        """Frame by frame; what is kept of each is what the next are compared with."""
        last = carried.get("last")
        if last is not None and last.shape != watched.frames.shape[1:]:
            last = None  # of another size, so another picture
        last = None if last is None else last.to(watched.frames.device)
        whole = float(carried["whole"]) if "whole" in carried else watched.seconds[0]
        everything = torch.ones(watched.grid, dtype=torch.bool, device=watched.frames.device)
        kept, worth = [], []
        for number, (frame, seconds) in enumerate(zip(watched.frames, watched.seconds, strict=True)):
            if last is None or (self.max_age is not None and seconds - whole >= self.max_age):
                kept.append(number)
                worth.append(everything)
                last, whole = frame, seconds
                continue
            changed = self._changed(watched, frame, last)
            worth.append(changed)
            if changed.any():  # the host must know whether to encode
                kept.append(number)
                last = self._with(frame, last, changed) if self.parts else frame
                whole = whole if self.parts else seconds
        assert last is not None
        carry = {"last": last.clone() if kept else last}
        if self.max_age is not None:
            carry["whole"] = torch.tensor(whole, dtype=torch.float64)
        return Gated(tuple(kept), torch.stack(worth) if self.parts else None), carry

    def _changed(self, watched: Watched, frame: Tensor, last: Tensor) -> Tensor:
        """Which patches differ [rows, columns]."""
        change = torch.maximum(frame, last) - torch.minimum(frame, last)  # in uint8, four times as fast as in more
        total = change.float() @ change.new_ones(3, dtype=torch.float32)
        return watched.cells(total[None])[0] > 3 * self.threshold

    @staticmethod
    def _with(frame: Tensor, last: Tensor, changed: Tensor) -> Tensor:
        """The last kept picture with what changed; a pixel on a border is of the patch that has its top left corner."""
        (rows, columns), (height, width) = changed.shape, frame.shape[:2]
        row = torch.arange(height, device=frame.device) * rows // height
        column = torch.arange(width, device=frame.device) * columns // width
        return torch.where(changed[row][:, column, None], frame, last)

    def most_bytes(self, height: int, width: int) -> int:
        """One frame, and a time."""
        return height * width * 3 + (0 if self.max_age is None else 8)

    def flops(self, frames: int, height: int, width: int) -> int:
        """None: it compares."""
        return 0
