"""EXAONE 4.5: Qwen2.5-VL's vision tower with fewer keys than queries, before a decoder that counts every token."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from .positions import LinearPositions, Positions
from .qwen2_5_vl import Qwen2_5VL
from .tower import Tower


class Exaone4_5(Qwen2_5VL):
    """Adapter of ``Exaone4_5_ForConditionalGeneration``.

    A video is a row of visual tokens without text between them, as in Qwen2-VL, whose preprocessing it shares; but to
    the decoder they are tokens like any other, one position each.
    """

    model_types: ClassVar[tuple[str, ...]] = ("exaone4_5",)
    names: ClassVar[bool] = True

    @property
    def positions(self) -> Positions:
        """One number a token."""
        return LinearPositions()

    def tower(self, height: int, width: int) -> Tower | None:
        """As Qwen2.5-VL's, with keys and values for groups of heads."""
        vision, tower = self.model.config.vision_config, super().tower(height, width)
        keys = vision.hidden_size // vision.num_heads * vision.num_key_value_heads
        return None if tower is None else replace(tower, keys=keys)
