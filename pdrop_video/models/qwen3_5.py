"""Qwen3.5: Qwen3-VL's text and positions around a video, without features of deeper vision layers."""

from __future__ import annotations

from typing import ClassVar

from .qwen3_vl import Qwen3VL
from .tower import Tower


class Qwen3_5(Qwen3VL):
    """Adapter of ``Qwen3_5ForConditionalGeneration`` and ``Qwen3_5MoeForConditionalGeneration``.

    Processor, timestamps, limits of pixels and positions are Qwen3-VL's, and so is the vision tower up to its merger.
    Of four decoder layers three are linear attention (gated DeltaNet), which has no positions.
    """

    model_types: ClassVar[tuple[str, ...]] = ("qwen3_5", "qwen3_5_moe")

    def tower(self, height: int, width: int) -> Tower | None:
        """As Qwen2-VL's."""
        vision = self.model.config.vision_config
        return self.merging(height, width, vision.hidden_size, vision.intermediate_size, vision.out_hidden_size)
