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
from .positions import Place, Positions


@dataclass(frozen=True, slots=True)
class VisualChunk:
    """Tokens of one chunk, as they enter the language model: visual ones, and the text glue between them.

    Attributes
    ----------
    embeds : Tensor [tokens, hidden]
        Embeddings, step by step; within a step in the order row, column.
    visual : Tensor [tokens], bool
        False for glue (timestamps, separators), which is never dropped and is forgotten with its step.
    steps : tuple of int
        Tokens of each step, glue included.
    seconds : tuple of float
        Time of each step.
    size : (h, w)
        Visual tokens of a step along height and width.
    deepstack : tuple of Tensor [tokens, hidden]
        What Qwen3-VL adds behind its first layers; zero for glue. Empty for other families.
    """

    embeds: Tensor
    visual: Tensor
    steps: tuple[int, ...]
    seconds: tuple[float, ...]
    size: tuple[int, int]
    deepstack: tuple[Tensor, ...] = ()

    @classmethod
    def plain(cls, embeds: Tensor, grid: tuple[int, int, int], seconds: tuple[float, ...]) -> VisualChunk:
        """A chunk without glue: `embeds` [t * h * w, hidden] on a (t, h, w) grid."""
        t, h, w = grid
        visual = torch.ones(len(embeds), dtype=torch.bool, device=embeds.device)
        return cls(embeds, visual, (h * w,) * t, seconds, (h, w))

    def __len__(self) -> int:
        return len(self.embeds)

    @property
    def visual_tokens(self) -> int:
        """How many tokens are visual."""
        return len(self.steps) * self.size[0] * self.size[1]

    def split(self, steps: int) -> list[VisualChunk]:
        """The same tokens in chunks of at most `steps` steps."""
        chunks = []
        for first in range(0, len(self.steps), steps):
            start = sum(self.steps[:first])
            end = start + sum(self.steps[first : first + steps])
            chunks.append(
                VisualChunk(
                    self.embeds[start:end],
                    self.visual[start:end],
                    self.steps[first : first + steps],
                    self.seconds[first : first + steps],
                    self.size,
                    tuple(features[start:end] for features in self.deepstack),
                )
            )
        return chunks


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
    keeps_shape : bool
        Whether frames are resized to within limits of pixels, keeping their shape, and not to one size.
    """

    model_types: ClassVar[tuple[str, ...]]
    frames_per_step: ClassVar[int] = 1
    video_token: ClassVar[str]
    fps: ClassVar[float] = 2.0
    keeps_shape: ClassVar[bool] = False

    def __init__(self, model: Any, pixels: Pixels) -> None:
        self.model = model
        self.pixels = pixels

    @property
    @abstractmethod
    def positions(self) -> Positions:
        """The family's rule for position ids."""

    @abstractmethod
    def preprocess(self, frames: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
        """Pixel values in the layout of the model's vision tower, and the (t, h, w) grid of visual *tokens*.

        Parameters
        ----------
        frames : Tensor [frames, height, width, 3], uint8
            A whole number of steps.
        """

    @abstractmethod
    def encode(self, values: Tensor, grid: tuple[int, int, int], seconds: tuple[float, ...]) -> VisualChunk:
        """Visual tokens of what `preprocess` gave, with the family's glue around each step.

        Parameters
        ----------
        values : Tensor
            Pixel values in the model's dtype.
        grid : (t, h, w)
        seconds : tuple of float
            Time of each of the t steps.
        """

    def place(self, chunk: VisualChunk, place: Place) -> tuple[Tensor, Place]:
        """Position ids [1, tokens] or [3, 1, tokens] of a chunk that comes at `place`, and where the next one comes."""
        return self.positions.video((len(chunk.steps), *chunk.size), chunk.seconds, place)

    def closing(self) -> Tensor:
        """Embeddings [tokens, hidden] that end a video before the template's text goes on; none by default."""
        return self.embed([])

    def look(self, frames: Tensor, seconds: tuple[float, ...]) -> VisualChunk:
        """Frames to visual tokens; the last step is filled up with its last frame, as transformers fills it."""
        if missing := -len(frames) % self.frames_per_step:
            frames = torch.cat([frames, frames[-1:].expand(missing, -1, -1, -1)])
        values, grid = self.preprocess(frames.to(self.model.device))
        return self.encode(values.to(self.model.dtype), grid, seconds[:: self.frames_per_step])

    def embed(self, ids: list[int]) -> Tensor:
        """Embeddings [tokens, hidden] of text."""
        table = self.model.get_input_embeddings()
        return table(torch.tensor(ids, dtype=torch.long, device=table.weight.device))
