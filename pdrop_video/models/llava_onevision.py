"""LLaVA-OneVision: every frame by itself, pooled two by two, one newline embedding after the last frame."""

from __future__ import annotations

import math
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from .base import Adapter
from .pixels import normalise, resize
from .positions import LinearPositions, Positions
from .received import BOTH
from .tower import Tower, llava_tower


class LlavaOneVision(Adapter):
    """Adapter of ``LlavaOnevisionForConditionalGeneration`` (arXiv 2408.03326)."""

    model_types: ClassVar[tuple[str, ...]] = ("llava_onevision",)
    video_token: ClassVar[str] = "<video>"
    fps: ClassVar[float] = 1.0
    knows: ClassVar[tuple[str, ...]] = BOTH
    late: ClassVar[int] = -2

    @property
    def positions(self) -> Positions:
        """One number a token."""
        return LinearPositions()

    def preprocess(self, frames: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
        """Pictures [1, frames, 3, size, size] and the grid after pooling."""
        vision = self.model.config.vision_config
        size = self.pixels.size or {}
        height, width = size.get("height", vision.image_size), size.get("width", vision.image_size)
        pictures = normalise(resize(frames, height, width, self.pixels.mode), self.pixels)
        side = math.ceil(vision.image_size // vision.patch_size / 2)
        return pictures[None], (len(frames), side, side)

    def encode(self, values: Tensor, grid: tuple[int, int, int]) -> tuple[Tensor, ...]:
        """Pooled visual tokens, without the newline that newer transformers put behind the last frame."""
        features = self.model.get_video_features(values, return_dict=True).pooler_output
        return (features[0, : math.prod(grid)],)

    def tower(self, height: int, width: int) -> Tower | None:
        """All patches pass the projector, and are pooled behind it."""
        return llava_tower(self.model.config)

    def patches(self, rows: int, size: tuple[int, int]) -> tuple[int, int]:
        """Those of a square."""
        vision = self.model.config.vision_config
        return (vision.image_size // vision.patch_size,) * 2

    def pooled(self, patches: Tensor, size: tuple[int, int]) -> Tensor:
        """Interpolated, as features are."""
        return F.interpolate(patches, size, mode="bilinear")

    def closing(self) -> Tensor:
        """The newline embedding."""
        return self.model.model.image_newline[None]
