"""InternVL (InternVL3 in transformers' own form): every frame by itself, numbered in words."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from .base import Adapter
from .pixels import normalise, resize
from .positions import LinearPositions, Positions
from .received import BOTH
from .tower import Tower, picture_tower


class InternVL(Adapter):
    """Adapter of ``InternVLForConditionalGeneration`` (arXiv 2504.10479).

    To transformers a video is a row of images: each frame is ``Frame1: <img>...</img>``, counted on for as long as the
    stream lasts, and a line break stands between two.
    """

    model_types: ClassVar[tuple[str, ...]] = ("internvl",)
    video_token: ClassVar[str] = "<IMG_CONTEXT>"
    placeholder: ClassVar[str] = "<video>"
    fps: ClassVar[float] = 1.0
    knows: ClassVar[tuple[str, ...]] = BOTH

    @property
    def positions(self) -> Positions:
        """One number a token."""
        return LinearPositions()

    def preprocess(self, frames: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
        """Pictures [frames, 3, height, width], never tiled, and the grid after the pixel shuffle."""
        vision, scale = self.model.config.vision_config, self.model.config.downsample_ratio
        (height, width), (down, across) = vision.image_size, vision.patch_size
        size = self.pixels.size or {}
        height, width = size.get("height", height), size.get("width", width)
        pictures = normalise(resize(frames, height, width, self.pixels.mode), self.pixels)
        return pictures, (len(frames), int(height // down * scale), int(width // across * scale))

    def encode(self, values: Tensor, grid: tuple[int, int, int]) -> tuple[Tensor, ...]:
        """Visual tokens after the pixel shuffle."""
        return (self.flat(self.model.get_image_features(values, return_dict=True).pooler_output),)

    def tower(self, height: int, width: int) -> Tower | None:
        """One row beside the patches, which the pixel shuffle lays together for a projector of two matrices."""
        config = self.model.config
        vision, text = config.vision_config, config.get_text_config().hidden_size
        area, tokens = int(1 / config.downsample_ratio) ** 2, height * width
        projector = (tokens, (vision.hidden_size * area, text, text))
        return picture_tower(vision, tokens * area, projector, marks=1)

    def glue(self, number: int, seconds: float) -> tuple[str, str]:
        """A line break behind the frame before, and the frame's number from 1."""
        return f"{chr(10) if number else ''}Frame{number + 1}: <img>", "</img>"
