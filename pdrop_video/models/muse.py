"""Muse: frames merged in pairs, each pair behind its time in words, as large as its tokens allow."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from einops import rearrange
from torch import Tensor

from .base import Adapter
from .pixels import normalise, resize
from .positions import LinearPositions, Positions
from .tower import Tower


class Muse(Adapter):
    """Adapter of ``MuseGlimmerForConditionalGeneration`` and of what ``MuseSparkForConditionalGeneration`` sees."""

    model_types: ClassVar[tuple[str, ...]] = ("muse_glimmer", "muse_spark")
    frames_per_step: ClassVar[int] = 2
    video_token: ClassVar[str] = "<|video|>"
    opening: ClassVar[str] = "<|vid_start|>"
    ending: ClassVar[str] = "<|vid_end|>"

    @property
    def positions(self) -> Positions:
        """One number a token."""
        return LinearPositions()

    def preprocess(self, frames: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
        """Patches [t * 2h * 2w, 2 * 3 * patch * patch], row by row, and the grid of merged tokens."""
        vision = self.model.config.vision_config
        patch, merge = vision.patch_size, vision.merge_size
        h, w = self.fit(frames.shape[1] / (patch * merge), frames.shape[2] / (patch * merge))
        shaped = resize(frames, h * patch * merge, w * patch * merge, self.pixels.mode)
        patches = rearrange(
            normalise(shaped, self.pixels),
            "(t f) c (h ph) (w pw) -> (t h w) (f c ph pw)",
            f=vision.patch_temporal,
            ph=patch,
            pw=patch,
        )
        return patches, (len(frames) // vision.patch_temporal, h, w)

    def fit(self, height: float, width: float) -> tuple[int, int]:
        """Whole rows and columns of tokens for a frame of so many: no more than allowed, the nearest in shape."""
        most, shape, across = self.pixels.tokens or 144, height / width, width / height
        if height * width > most:
            height = math.sqrt(most / across)
            width = height * across
        grids = {(h, w) for h in (math.floor(height), math.ceil(height)) for w in (math.floor(width), math.ceil(width))}
        fitting = [(h, w) for h, w in grids if h and w and h * w <= most]
        if not fitting:
            return max(round(height), 1), max(round(width), 1)
        return min(fitting, key=lambda grid: abs(grid[0] / grid[1] - shape))

    def encode(self, values: Tensor, grid: tuple[int, int, int]) -> tuple[Tensor, ...]:
        """Visual tokens of one video, as long as the decoder's own."""
        t, h, w = grid
        merge = self.model.config.vision_config.merge_size
        thw = torch.tensor([[t, h * merge, w * merge]], device=values.device)
        seen: Any = self.model.get_video_features(values, thw, return_dict=True)
        return (self.flat(seen.pooler_output),)

    def tower(self, height: int, width: int) -> Tower | None:
        """Most blocks attend within windows as large as the table of positions; three matrices make tokens."""
        config = self.model.config
        vision, inner = config.vision_config, config.projector_hidden_size
        down, across, side = height * vision.merge_size, width * vision.merge_size, vision.pos_emb_height
        rows, columns = ([min(side, edge - i) for i in range(0, edge, side)] for edge in (down, across))
        segments = {"full_attention": (down * across,), "window_attention": tuple(h * w for h in rows for w in columns)}
        return Tower(
            down * across,
            3 * vision.patch_temporal * vision.patch_size**2,
            vision.hidden_size,
            vision.intermediate_size,
            tuple(segments[kind] for kind in vision.layer_types),
            ((height * width, (config.out_hidden_size, inner, inner, config.get_text_config().hidden_size)),),
        )

    def glue(self, number: int, seconds: float) -> tuple[str, str]:
        """What separates a pair from the one before, and its time in tenths of a second."""
        return f"{'<|vid_frame_separator|>' if number else ''}Time: {seconds:.1f}s", ""
