"""VideoLLaMA3: every frame by itself, at its own shape, with its time in words before it."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from .pixels import Pixels, normalise, patchify, resize
from .positions import LinearPositions, Positions
from .qwen2_vl import Qwen2VL
from .received import Grid
from .tower import Tower, picture_tower


class VideoLlama3(Qwen2VL):
    """Adapter of ``VideoLlama3ForConditionalGeneration`` (arXiv 2501.13106).

    Frames are ``Time 1.5s:`` and their tokens, with a comma between two. The family's processor leaves out tokens
    that hardly differ from the frame before (`use_token_compression`); here all of them go on, and what is left out is
    for a gate to say, such as ``gate="static"``.

    A checkpoint's highest number of pixels is for a whole video, whose length a stream does not know: a frame gets at
    most 768 tokens' worth, as in Qwen's reference pipeline.
    """

    model_types: ClassVar[tuple[str, ...]] = ("video_llama_3",)
    frames_per_step: ClassVar[int] = 1
    fps: ClassVar[float] = 1.0

    @property
    def positions(self) -> Positions:
        """One number a token."""
        return LinearPositions()

    @property
    def merge(self) -> int:
        """Patches of a token along a side, which the processor's file says."""
        merge: int = self.pixels.said.get("merge_size", 2)
        return merge

    def preprocess(self, frames: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
        """Patches [t * 2h * 2w, 3 * patch * patch] and the grid of merged tokens."""
        patch, merge = self.model.config.vision_config.patch_size, self.merge
        height, width = self.size(frames.shape[1], frames.shape[2], patch * merge)
        pictures = normalise(resize(frames, height, width, self.pixels.mode), self.pixels)
        patches, (t, h, w) = patchify(pictures, patch, merge, 1)
        return patches, (t, h // merge, w // merge)

    def see(self, values: Tensor, grid: Grid, **told: Tensor) -> Any:
        """What the vision tower and the projector make of one video."""
        merges = torch.tensor([self.merge], device=values.device)
        thw = self.thw(grid, values.device)
        return self.model.get_video_features(values, thw, video_merge_sizes=merges, return_dict=True, **told)

    def tower(self, height: int, width: int) -> Tower | None:
        """Patches that are merged by interpolation in front of a projector of two matrices."""
        config, tokens = self.model.config, height * width
        vision, text = config.vision_config, config.get_text_config().hidden_size
        return picture_tower(vision, tokens * self.merge**2, (tokens, (vision.hidden_size, text, text)))

    def glue(self, number: int, seconds: float) -> tuple[str, str]:
        """The time in tenths of a second, and a comma behind the frame before."""
        return f"{',' if number else ''}Time {seconds:.1f}s:", ""

    @classmethod
    def per_frame(cls, pixels: Pixels) -> Pixels:
        """The highest number of pixels of a whole video made one of a frame."""
        return pixels.within(None, min(pixels.limits[1], 768 * 28 * 28))
