"""Position ids along a stream: where the next text or grid of frames stands.

Knows counting. Refuses to know models, tensors of features and caches. All state is plain Python numbers on the host,
so that placing tokens never waits for a device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Place:
    """How far a stream's positions have come.

    Attributes
    ----------
    next : int
        The position that text would get now: the largest one so far + 1.
    start : int or None
        Where the running video began; None outside a video.
    since : float
        Seconds of the running video's first grid.
    steps : int
        Grids of the running video so far, where the family counts them.
    reach : int
        The end of the running video's height and width, where they have numbers of their own; else 0.
    sound : int
        In a video with sound 1 and its tokens of sound so far; else 0.
    """

    next: int = 0
    start: int | None = None
    since: float = 0.0
    steps: int = 0
    reach: int = 0
    sound: int = 0


class Positions(Protocol):
    """A family's rule for position ids."""

    def text(self, tokens: int, place: Place) -> tuple[Tensor, Place]:
        """Position ids of `tokens` text tokens; a running video ends before them."""

    def video(self, grid: tuple[int, int, int], seconds: tuple[float, ...], place: Place) -> tuple[Tensor, Place]:
        """Position ids of a (t, h, w) grid of visual tokens whose t steps show these seconds."""


class LinearPositions:
    """One number a token, counted through text and video alike (LLaVA and other 1-D RoPE families)."""

    def text(self, tokens: int, place: Place) -> tuple[Tensor, Place]:
        """Position ids [1, tokens]."""
        return torch.arange(place.next, place.next + tokens, device="cpu")[None], Place(place.next + tokens)

    def video(self, grid: tuple[int, int, int], seconds: tuple[float, ...], place: Place) -> tuple[Tensor, Place]:
        """Position ids [1, t * h * w]; times play no part."""
        tokens = math.prod(grid)
        return torch.arange(place.next, place.next + tokens, device="cpu")[None], replace(
            place, next=place.next + tokens
        )


class MRopePositions:
    """Time, height and width (Qwen2.5-VL), by the rule that the checkpoints were trained with.

    Text has three equal numbers. A video begins at the largest position so far + 1; a grid at `s` seconds of a video
    that began at `s0` has t = start + floor((s - s0) * tokens_per_second), h = start + row, w = start + column; text
    after it begins at the largest position + 1. With frames at a constant rate this is the rule of transformers up to
    5.0; since 5.5 transformers lets the text after a video begin at start + max(h, w), whatever the video's length,
    and ``forward`` and ``generate`` disagree; 5.16 and 5.17 also cut the time between two steps to whole seconds. The
    library passes its own positions everywhere.

    Parameters
    ----------
    tokens_per_second : float
        Of the model's vision config.
    """

    def __init__(self, tokens_per_second: float) -> None:
        self.tokens_per_second = tokens_per_second

    def text(self, tokens: int, place: Place) -> tuple[Tensor, Place]:
        """Position ids [3, 1, tokens]."""
        ids = torch.arange(place.next, place.next + tokens, device="cpu")
        return ids.expand(3, 1, -1), Place(place.next + tokens)

    def video(self, grid: tuple[int, int, int], seconds: tuple[float, ...], place: Place) -> tuple[Tensor, Place]:
        """Position ids [3, 1, t * h * w].

        Examples
        --------
        >>> ids, place = MRopePositions(2).video((2, 1, 2), (0.0, 1.0), Place(next=5))
        >>> ids[:, 0].tolist(), place.next
        ([[5, 5, 7, 7], [5, 5, 5, 5], [5, 6, 5, 6]], 8)
        """
        _, height, width = grid
        start, since = (place.next, seconds[0]) if place.start is None else (place.start, place.since)
        # a time such as 0.1 + 0.2 that should be whole must not fall a whole position short; in Unix time the last bit
        # is worth more
        spare = max(1e-6 + 2 * math.ulp(s) * self.tokens_per_second for s in (*seconds, since))
        moments = [start + math.floor((s - since) * self.tokens_per_second + spare) for s in seconds]
        t = torch.tensor(moments, device="cpu")
        h, w = (torch.arange(start, start + side, device="cpu") for side in (height, width))
        ids = torch.stack([axis.flatten() for axis in torch.meshgrid(t, h, w, indexing="ij")])
        reach = start + max(height, width)
        return ids[:, None], Place(max(place.next, int(t[-1]) + 1, reach), start, since, reach=reach, sound=place.sound)


class StepPositions(MRopePositions):
    """Time, height and width (Qwen2-VL): as `MRopePositions`, but t advances by one for each step, whatever its time.

    What holds there of the text after a video holds here: up to 5.0 transformers let it begin at the largest position
    + 1, since 5.5 at start + max(h, w), which is the same for as long as a video has no more than max(h, w) steps.
    """

    def __init__(self) -> None:
        super().__init__(1.0)

    def video(self, grid: tuple[int, int, int], seconds: tuple[float, ...], place: Place) -> tuple[Tensor, Place]:
        """Position ids [3, 1, t * h * w].

        Examples
        --------
        >>> ids, place = StepPositions().video((2, 1, 2), (0.0, 30.0), Place(next=5))
        >>> ids[:, 0].tolist(), place.next
        ([[5, 5, 6, 6], [5, 5, 5, 5], [5, 6, 5, 6]], 7)
        """
        first = 0 if place.start is None else place.steps
        numbers = tuple(float(first + i) for i in range(grid[0]))
        ids, after = super().video(grid, numbers, place)
        return ids, replace(after, steps=first + grid[0])
