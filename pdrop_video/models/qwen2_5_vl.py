"""Qwen2.5-VL: as Qwen2-VL, but with times in the positions."""

from __future__ import annotations

from typing import ClassVar

from .positions import MRopePositions, Positions
from .qwen2_vl import Qwen2VL


class Qwen2_5VL(Qwen2VL):
    """Adapter of ``Qwen2_5_VLForConditionalGeneration`` (arXiv 2502.13923)."""

    model_types: ClassVar[tuple[str, ...]] = ("qwen2_5_vl",)

    @property
    def positions(self) -> Positions:
        """M-RoPE at the checkpoint's tokens per second."""
        return MRopePositions(self.model.config.vision_config.tokens_per_second)
