"""Qwen2.5-VL: as Qwen2-VL, but with times in the positions."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from torch import Tensor

from .positions import MRopePositions, Positions
from .qwen2_vl import Qwen2VL
from .received import Grid
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
        side = self.window
        down, across = ([min(side, edge - i) for i in range(0, edge, side)] for edge in (height, width))
        windows = tuple(h * w * vision.spatial_merge_size**2 for h in down for w in across)
        layers = (full if i in vision.fullatt_block_indexes else windows for i, full in enumerate(whole.layers))
        return replace(whole, layers=tuple(layers), gated=True)

    @property
    def window(self) -> int:
        """Side of a window, in tokens."""
        vision = self.model.config.vision_config
        side: int = vision.window_size // vision.spatial_merge_size // vision.patch_size
        return side

    def windows(self, grid: Grid, groups: Tensor) -> Tensor:
        """In which window each token stands [groups], counted row by row and step by step."""
        _, h, w = grid
        down, across = -(-h // self.window), -(-w // self.window)
        step, place = groups // (h * w), groups % (h * w)
        return (step * down + place // w // self.window) * across + place % w // self.window

    def order(self, grid: Grid, groups: Tensor) -> Tensor:
        """Window by window."""
        return self.windows(grid, groups).argsort(stable=True)

    def segments(self, grid: Grid, groups: Tensor, worth: Tensor) -> dict[str, Tensor]:
        """Besides, those of a window."""
        windows = self.borders(self.windows(grid, groups).bincount())
        told = {"window_index": self.order(grid, groups), "cu_window_seqlens": windows}
        return super().segments(grid, groups, worth) | told

    def part(self, worth: Tensor) -> Tower | None:
        """Windows have what is encoded of them."""
        tower, groups = self.tower(*worth.shape), worth.flatten().nonzero()[:, 0]
        windows = self.windows((1, *worth.shape), groups).bincount().tolist()
        return None if tower is None else tower.part(len(groups), worth.numel(), tuple(windows))

    def looking(self, layers: int) -> list[int]:
        """Of layers that attend to the whole picture, if there are any."""
        whole = self.model.config.vision_config.fullatt_block_indexes
        return sorted(i for i in whole if i < layers) or super().looking(layers)
