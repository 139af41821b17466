"""LLaVA-NeXT-Video: the middle of every frame by itself, pooled two by two, nothing between frames."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from .base import Adapter
from .pixels import centre, normalise, resize
from .positions import LinearPositions, Positions
from .received import BOTH
from .tower import Tower, llava_tower


class LlavaNextVideo(Adapter):
    """Adapter of ``LlavaNextVideoForConditionalGeneration`` (LLaVA-NeXT, Zhang et al. 2024)."""

    model_types: ClassVar[tuple[str, ...]] = ("llava_next_video",)
    video_token: ClassVar[str] = "<video>"
    fps: ClassVar[float] = 1.0
    knows: ClassVar[tuple[str, ...]] = BOTH
    late: ClassVar[int] = -2

    @property
    def positions(self) -> Positions:
        """One number a token."""
        return LinearPositions()

    def preprocess(self, frames: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
        """Pictures [1, frames, 3, size, size], cut from the middle, and the grid after pooling."""
        pictures, config = self.pictures(frames), self.model.config
        h, w = (edge // config.vision_config.patch_size // config.spatial_pool_stride for edge in pictures.shape[-2:])
        return pictures[None], (len(frames), h, w)

    def pictures(self, frames: Tensor) -> Tensor:
        """The middle of every frame [frames, 3, size, size]."""
        side = self.model.config.vision_config.image_size
        short = (self.pixels.size or {}).get("shortest_edge", side)
        height, width = frames.shape[1:3]
        if height <= width:  # the shorter side to `short`, the longer one in proportion, rounded down
            height, width = short, short * width // height
        else:
            height, width = short * height // width, short
        crop = self.pixels.crop or (side, side)
        return normalise(centre(resize(frames, height, width, self.pixels.mode), *crop), self.pixels)

    def encode(self, values: Tensor, grid: tuple[int, int, int]) -> tuple[Tensor, ...]:
        """Pooled visual tokens."""
        return (self.flat(self.model.get_video_features(values, return_dict=True).pooler_output),)

    def tower(self, height: int, width: int) -> Tower | None:
        """Pooled in front of the projector, by a convolution in some checkpoints."""
        config, tokens = self.model.config, height * width
        if config.spatial_pool_mode != "conv":
            return llava_tower(config, rows=tokens)
        hidden = config.vision_config.hidden_size
        out = getattr(config, "spatial_pool_out_channels", hidden)
        return llava_tower(config, (tokens, (hidden * config.spatial_pool_stride**2, out)), rows=tokens)

    def patches(self, rows: int, size: tuple[int, int]) -> tuple[int, int]:
        """Those of a square."""
        vision = self.model.config.vision_config
        return (vision.image_size // vision.patch_size,) * 2

    def pooled(self, patches: Tensor, size: tuple[int, int]) -> Tensor:
        """Means of what lies under a token, whichever way features are pooled; what is left at a border counts not."""
        return F.avg_pool2d(patches, self.model.config.spatial_pool_stride)
