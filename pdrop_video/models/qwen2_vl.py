"""Qwen2-VL: frames merged in pairs, steps counted in the positions (M-RoPE), one video between two vision tokens."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from .base import Adapter
from .pixels import normalise, patchify, qwen_size, resize
from .positions import Positions, StepPositions
from .tower import Tower


class Qwen2VL(Adapter):
    """Adapter of ``Qwen2VLForConditionalGeneration`` (arXiv 2409.12191); what later Qwens share with it stands here.

    The vision tower attends within one pair of frames only, so encoding chunk by chunk equals encoding at once.
    """

    model_types: ClassVar[tuple[str, ...]] = ("qwen2_vl",)
    frames_per_step: ClassVar[int] = 2
    video_token: ClassVar[str] = "<|video_pad|>"
    keeps_shape: ClassVar[bool] = True

    @property
    def positions(self) -> Positions:
        """M-RoPE that counts steps."""
        return StepPositions()

    def preprocess(self, frames: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
        """Patches [t * 2h * 2w, 3 * 2 * patch * patch] and the grid of merged tokens."""
        vision = self.model.config.vision_config
        patch, merge = vision.patch_size, vision.spatial_merge_size
        height, width = self.size(frames.shape[1], frames.shape[2], patch * merge)
        pictures = normalise(resize(frames, height, width, self.pixels.mode), self.pixels)
        patches, (t, h, w) = patchify(pictures, patch, merge, vision.temporal_patch_size)
        return patches, (t, h // merge, w // merge)

    def size(self, height: int, width: int, factor: int) -> tuple[int, int]:
        """What frames of this height and width are resized to: multiples of `factor`, within the limits of pixels."""
        return qwen_size(height, width, factor, self.pixels)

    def encode(self, values: Tensor, grid: tuple[int, int, int]) -> tuple[Tensor, ...]:
        """Merged visual tokens of one video; the chat template writes the vision tokens around it."""
        return (self.flat(self.see(values, grid).pooler_output),)

    def tower(self, height: int, width: int) -> Tower | None:
        """Every step attends to itself, whole; its patches are merged into tokens."""
        vision = self.model.config.vision_config
        return self.merging(
            height, width, vision.embed_dim, int(vision.embed_dim * vision.mlp_ratio), vision.hidden_size
        )

    def merging(self, height: int, width: int, hidden: int, mlp: int, out: int) -> Tower:
        """A tower of this size, whose merger is an MLP from the patches of a token to `out` numbers."""
        vision = self.model.config.vision_config
        area, tokens = vision.spatial_merge_size**2, height * width
        patch = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
        layers = ((tokens * area,),) * vision.depth
        return Tower(tokens * area, patch, hidden, mlp, layers, ((tokens, (area * hidden, area * hidden, out)),))

    def see(self, values: Tensor, grid: tuple[int, int, int]) -> Any:
        """What the vision tower makes of one video."""
        t, h, w = grid
        merge = self.model.config.vision_config.spatial_merge_size
        thw = torch.tensor([[t, h * merge, w * merge]], device=values.device)
        return self.model.get_video_features(values, thw, return_dict=True)
