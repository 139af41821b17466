"""What a gate is given, and what it gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor

from ..video import Motion


@dataclass(frozen=True, slots=True)
class Watched:
    """Frames of a push, before any is encoded.

    Attributes
    ----------
    frames : Tensor [frames, height, width, 3], uint8
        RGB.
    seconds : tuple of float
        When each is shown.
    grid : (rows, columns)
        How many visual tokens the model would make of such a frame along height and width.
    motion : Motion, optional
        What the video's codec says of each frame; None where nobody asked for it, or frames came without.
    """

    frames: Tensor
    seconds: tuple[float, ...]
    grid: tuple[int, int]
    motion: Motion | None = None

    def cells(self, pictures: Tensor) -> Tensor:
        """Means [frames, rows, columns] of numbers [frames, height, width] over the pixels that a visual token shows.

        Where rows and columns don't divide the picture, neighbouring means share the pixels on their border.
        """
        return F.adaptive_avg_pool2d(pictures[:, None], self.grid)[:, 0]


@dataclass(frozen=True, slots=True)
class Gated:
    """What a gate decided.

    Attributes
    ----------
    kept : tuple of int
        Numbers of the frames that go on, ascending. What is left out is never encoded; its time counts to the frame
        before it. The stream lets two more on: its very first frame, and one that completes a step which a kept frame
        began, since a step of two frames costs as much with one.
    worth : Tensor [frames, rows, columns], bool, optional
        Of every frame, kept or not, which visual tokens are worth having; all of them where left out. A step that shows
        two frames has what either is worth.
    saliency : Tensor [frames, rows, columns], float32, optional
        How much happens at each place of each frame, for reducers and scorers that rank by it; from 0. A step that
        shows two frames has the mean of both.
    """

    kept: tuple[int, ...]
    worth: Tensor | None = None
    saliency: Tensor | None = None


class Gate(Protocol):
    """Decides before the vision tower what is encoded: a frozen dataclass that can be called.

    It may carry tensors from push to push. It gets them by name and gives back all that it will carry on, new tensors
    in place of those that change: what it was given must stay as it is, since a push that fails goes back to it.

    Attributes
    ----------
    facts : Facts, optional
        What a catalogue says of it.
    uses_motion : bool, optional
        Whether it looks at `Watched.motion` where there is some, so that whoever opens a video for it asks for it.
    """

    def __call__(self, watched: Watched, carried: Mapping[str, Tensor]) -> tuple[Gated, dict[str, Tensor]]:
        """What goes on, and what to carry; nothing is carried at a stream's beginning, or is of another picture size.

        What is decided of a frame must not depend on later ones, nor on where pushes begin and end.
        """

    def most_bytes(self, height: int, width: int) -> int:
        """Most bytes that it ever carries while frames are so large."""

    def flops(self, frames: int, height: int, width: int) -> int:
        """What it costs, a multiply-add as two; 0 where it only compares and adds."""
