"""What every family's adapter says: how frames become tokens, what closes a video, how positions run.

Knows transformers. Refuses to know streams, budgets and stages.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from .pixels import Pixels
from .positions import Positions


@dataclass(frozen=True, slots=True)
class VisualChunk:
    """Visual tokens of one chunk, as they enter the language model.

    Attributes
    ----------
    embeds : Tensor [t * h * w, hidden]
        Embeddings, in the order time, row, column.
    grid : (t, h, w)
        Tokens along time, height and width.
    seconds : tuple of float
        Time of each of the t steps.
    """

    embeds: Tensor
    grid: tuple[int, int, int]
    seconds: tuple[float, ...]

    def split(self, steps: int) -> list[VisualChunk]:
        """The same tokens in chunks of at most `steps` steps of time."""
        t, h, w = self.grid
        return [
            VisualChunk(self.embeds[a * h * w : b * h * w], (b - a, h, w), self.seconds[a:b])
            for a, b in ((a, min(a + steps, t)) for a in range(0, t, steps))
        ]


class Adapter(ABC):
    """One family of models.

    Parameters
    ----------
    model : PreTrainedModel
        As ``AutoModelForImageTextToText`` loads it.
    pixels : Pixels
        The checkpoint's preprocessing numbers.

    Attributes
    ----------
    frames_per_step : int
        Frames that become one step of visual tokens; a last frame that lacks its partner waits for the next push.
    video_token : str
        The placeholder that the family's chat template writes for a video.
    fps : float
        Frames per second that the family was trained at.
    """

    model_types: ClassVar[tuple[str, ...]]
    frames_per_step: ClassVar[int] = 1
    video_token: ClassVar[str]
    fps: ClassVar[float] = 2.0

    def __init__(self, model: Any, pixels: Pixels) -> None:
        self.model = model
        self.pixels = pixels

    @property
    @abstractmethod
    def positions(self) -> Positions:
        """The family's rule for position ids."""

    @abstractmethod
    def preprocess(self, frames: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
        """Pixel values in the layout of the model's vision tower, and its (t, h, w) grid of *tokens*.

        Parameters
        ----------
        frames : Tensor [frames, height, width, 3], uint8
            A whole number of steps.
        """

    @abstractmethod
    def encode(self, values: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """Embeddings [t * h * w, hidden] of what `preprocess` gave."""

    @abstractmethod
    def closing(self) -> Tensor:
        """Embeddings [tokens, hidden] that end a video before the text goes on; may be empty."""

    def look(self, frames: Tensor, seconds: tuple[float, ...]) -> VisualChunk:
        """Frames to visual tokens; the last step is filled up with its last frame, as transformers fills it."""
        if missing := -len(frames) % self.frames_per_step:
            frames = torch.cat([frames, frames[-1:].expand(missing, -1, -1, -1)])
        values, grid = self.preprocess(frames.to(self.model.device))
        embeds = self.encode(values.to(self.model.dtype), grid)
        return VisualChunk(embeds, grid, seconds[:: self.frames_per_step])

    def embed(self, ids: list[int]) -> Tensor:
        """Embeddings [tokens, hidden] of text."""
        table = self.model.get_input_embeddings()
        return table(torch.tensor(ids, dtype=torch.long, device=table.weight.device))
