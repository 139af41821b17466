"""PerceptionLM: every frame by itself, squared and pooled, nothing between frames."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from .base import Adapter
from .pixels import normalise, resize
from .positions import LinearPositions, Positions


class PerceptionLM(Adapter):
    """Adapter of ``PerceptionLMForConditionalGeneration`` (arXiv 2504.13180).

    To transformers a video is a row of pictures. The vision tower is one of timm, which must be installed; what it
    multiplies is not counted.
    """

    model_types: ClassVar[tuple[str, ...]] = ("perception_lm",)
    video_token: ClassVar[str] = "<|video|>"
    fps: ClassVar[float] = 1.0

    @property
    def positions(self) -> Positions:
        """One number a token."""
        return LinearPositions()

    def preprocess(self, frames: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
        """Pictures [1, frames, 3, height, width] and the grid after pooling."""
        size = self.pixels.size or {}
        height, width = size.get("height", 448), size.get("width", 448)
        pictures = normalise(resize(frames, height, width, self.pixels.mode), self.pixels)
        side = self.patch * self.model.config.projector_pooling_ratio
        return pictures[None], (len(frames), height // side, width // side)

    @property
    def patch(self) -> int:
        """Side of a patch, which the processor's file says, or what the tower was made with."""
        if said := self.pixels.said.get("patch_size"):
            return int(said)
        vision = self.model.config.vision_config
        made = getattr(vision, "model_args", None) or {}
        if "img_size" in made and "ref_feat_shape" in made:
            return int(made["img_size"][0] // made["ref_feat_shape"][0])
        return int(getattr(vision, "patch_size", 14))

    def encode(self, values: Tensor, grid: tuple[int, int, int]) -> tuple[Tensor, ...]:
        """Pooled visual tokens."""
        return (self.flat(self.model.model.get_image_features(values, return_dict=True).pooler_output),)
