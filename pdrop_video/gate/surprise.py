"""Surprise: a frame in which some place changes more than it usually does is encoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..common.checks import real
from ..registry import Facts
from .base import Gated, Watched

_ROOM = 2
"""Cells, down and across, that a visual token is looked at in."""
_SAMPLES = 4
"""Samples of a cell, down and across."""


@dataclass(frozen=True, slots=True)
class Surprise:
    """Lets a frame on in which some place differs from its own background more than it usually does.

    Each frame is held against the picture's running mean, in brightness and in two opponent colours (red and green,
    blue and yellow; Itti, Koch and Niebur 1998), cell by cell. What a cell usually differs by is a running mean as
    well, so that leaves in the wind, a drifting picture or a marker that always moves count as nothing new, while the
    same difference elsewhere does. A cell's surprise is its difference over that usual one; a frame goes on where the
    largest surprise exceeds the threshold. Ours; the name is that of Itti and Baldi's (2005) idea, the measure is not.

    What it carries is two pictures of an eighth of a visual token's side a sample, and the times of two frames. It
    decides frame by frame, so that nothing depends on how a stream is cut into pushes.

    Parameters
    ----------
    threshold : float
        Times what is usual. At 3 a fifth of the frames went on of synthetic videos in which something happened in a
        seventh, and none of these was missed.
    brightness : float
        Weight of brightness beside colours, from 0. Light changes more than what is lit, hence below 1.
    noise : float
        Difference in levels of 255 that is added to what is usual: less tells nothing.
    memory : float
        Seconds in which both running means forget all but 37 %.
    max_gap : float
        A frame goes on at least every so many seconds.
    parts : float
        Of a frame that goes on by its surprise, only places whose surprise exceeds this share of the threshold are
        worth encoding; of the first frame, and of those that `max_gap` lets on, all. 0 for whole frames.

    Raises
    ------
    ConfigError
        If one of them is no number in its range.
    """

    facts: ClassVar[Facts] = Facts(
        says="frames in which some place changes more than it usually does",
        paper="",
        formula=(
            "d(cell) = mean |frame - background|, in brightness, red-green and blue-yellow\n"
            "surprise(cell) = max over the three of d / (usual d + noise)\n"
            "background and usual d are running means: each moves by 1 - exp(-dt / memory)\n"
            "a frame goes on if max surprise > threshold, or after max_gap seconds"
        ),
        ours=True,
        carries="the background and its usual change, 8 x 8 samples a token",
    )
    threshold: float = 3.0
    brightness: float = 0.2
    noise: float = 4.0
    memory: float = 2.0
    max_gap: float = 8.0
    parts: float = 0.0

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name, most in (("threshold", 255.0), ("brightness", 16.0), ("parts", 1.0)):
            object.__setattr__(self, name, real(name, getattr(self, name), 0, most))
        for name, most in (("noise", 255.0), ("memory", 1e6), ("max_gap", 1e9)):
            object.__setattr__(self, name, real(name, getattr(self, name), 0, most, above=True))

    @torch.no_grad()
    def __call__(self, watched: Watched, carried: Mapping[str, Tensor]) -> tuple[Gated, dict[str, Tensor]]:
        """Surprise of every frame first, then which go on: the host asks the device once."""
        sides = watched.frames.shape[1:3]
        rows, columns = (min(tokens * _ROOM, side) for tokens, side in zip(watched.grid, sides, strict=True))
        samples = min(rows * _SAMPLES, sides[0]), min(columns * _SAMPLES, sides[1])
        background, usual = carried.get("background"), carried.get("usual")
        if background is not None and usual is not None:
            sizes = background.shape[-2:], usual.shape[-2:]
            background, usual = (background, usual) if sizes == (samples, (rows, columns)) else (None, None)
        last: float | None = None
        before: float | None = None
        if background is not None:
            last, before = carried["times"].tolist()
        surprises = []
        for frame, seconds in zip(watched.frames, watched.seconds, strict=True):
            seen = self._opponents(frame, samples)
            if background is None or usual is None or before is None:
                background, usual = seen, seen.new_zeros(3, rows, columns)
            differs = F.adaptive_avg_pool2d((seen - background.to(seen)).abs(), (rows, columns))
            surprises.append((differs / (usual.to(seen) + self.noise)).amax(0))
            # of the time that passed, so that the frame rate makes no difference
            weight = 1.0 if before is None else 1 - exp((before - seconds) / self.memory)
            usual = torch.lerp(usual.to(seen), differs, weight)
            background = torch.lerp(background.to(seen), seen, weight)
            before = seconds
        assert background is not None
        assert usual is not None
        surprise = torch.stack(surprises)
        kept, whole = [], []
        for number, (most, seconds) in enumerate(
            zip(surprise.flatten(1).amax(1).tolist(), watched.seconds, strict=True)
        ):
            due = last is None or seconds - last >= self.max_gap
            whole.append(due)
            if due or most > self.threshold:
                kept.append(number)
                last = seconds
        saliency = F.adaptive_max_pool2d(surprise[:, None], watched.grid)[:, 0]
        worth = None
        if self.parts:
            worth = saliency > self.parts * self.threshold
            worth |= torch.tensor(whole, device=worth.device)[:, None, None]
        times = torch.tensor([last, before], dtype=torch.float64)
        return Gated(tuple(kept), worth, saliency), {"background": background, "usual": usual, "times": times}

    def _opponents(self, frame: Tensor, size: tuple[int, int]) -> Tensor:
        """Brightness, red against green, and blue against yellow [3, h, w], of a frame [height, width, 3]."""
        red, green, blue = F.adaptive_avg_pool2d(frame.permute(2, 0, 1).float(), size)
        return torch.stack(
            [self.brightness * (red + green + blue) / 3, (red - green) / 2, (red + green - 2 * blue) / 4]
        )

    def most_bytes(self, height: int, width: int) -> int:
        """Samples and cells, which are no more than pixels."""
        return 2 * 3 * 4 * height * width + 16

    def flops(self, frames: int, height: int, width: int) -> int:
        """None: it compares, and takes means."""
        return 0
