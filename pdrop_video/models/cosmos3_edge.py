"""Cosmos 3 Edge: as Qwen3-VL's text and positions, but every frame by itself, and no deepstack."""

from __future__ import annotations

from typing import ClassVar

from einops import rearrange
from torch import Tensor

from .pixels import normalise, patchify, resize
from .qwen3_vl import Qwen3VL
from .tower import Tower, picture_tower


class Cosmos3Edge(Qwen3VL):
    """Adapter of ``Cosmos3EdgeForConditionalGeneration``, the part of a checkpoint that sees and answers.

    Every frame is ``<1.5 seconds><|vision_start|>...<|vision_end|>``. Limits of pixels become those of a frame as
    Qwen3-VL's do.
    """

    model_types: ClassVar[tuple[str, ...]] = ("cosmos3_edge",)
    frames_per_step: ClassVar[int] = 1
    parts: ClassVar[bool] = False

    def preprocess(self, frames: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
        """Patches [t * 2h * 2w, patch * patch * 3], colours innermost, and the grid of merged tokens."""
        vision = self.model.config.vision_config
        patch, merge = vision.patch_size, vision.spatial_merge_size
        height, width = self.size(frames.shape[1], frames.shape[2], patch * merge)
        pictures = normalise(resize(frames, height, width, self.pixels.mode), self.pixels)
        patches, (t, h, w) = patchify(pictures, patch, merge, 1)
        return rearrange(patches, "n (c area) -> n (area c)", c=3), (t, h // merge, w // merge)

    def tower(self, height: int, width: int) -> Tower | None:
        """SigLIP's blocks, then an MLP from the patches of a token."""
        config, tokens = self.model.config, height * width
        vision, text = config.vision_config, config.get_text_config().hidden_size
        area = vision.spatial_merge_size**2
        return picture_tower(
            vision, tokens * area, (tokens, (area * vision.hidden_size, config.projector_hidden_size, text))
        )

    def times(self, seconds: tuple[float, ...]) -> tuple[float, ...]:
        """A frame's own."""
        return seconds
