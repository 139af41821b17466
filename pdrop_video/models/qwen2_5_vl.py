"""Qwen2.5-VL: as Qwen2-VL, but with times in the positions."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from .positions import MRopePositions, Positions
from .qwen2_vl import Qwen2VL
from .tower import Tower


class Qwen2_5VL(Qwen2VL):
    """Adapter of ``Qwen2_5_VLForConditionalGeneration`` (arXiv 2502.13923)."""

    model_types: ClassVar[tuple[str, ...]] = ("qwen2_5_vl",)

    @property
    def positions(self) -> Positions:
        """M-RoPE at the checkpoint's tokens per second."""
        return MRopePositions(self.model.config.vision_config.tokens_per_second)

    def tower(self, height: int, width: int) -> Tower | None:
        """Most blocks attend within windows, which are cut off at the picture's right and lower border."""
        vision = self.model.config.vision_config
        whole = self.merging(height, width, vision.hidden_size, vision.intermediate_size, vision.out_hidden_size)
        side = vision.window_size // vision.spatial_merge_size // vision.patch_size  # of a window, in tokens
        down, across = ([min(side, edge - i) for i in range(0, edge, side)] for edge in (height, width))
        windows = tuple(h * w * vision.spatial_merge_size**2 for h in down for w in across)
        layers = (full if i in vision.fullatt_block_indexes else windows for i, full in enumerate(whole.layers))
        return replace(whole, layers=tuple(layers), gated=True)
