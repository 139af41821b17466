"""MiniCPM-V 4.6 and 4.7: every frame a picture of its own, whole, in patches that are merged twice."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any, ClassVar

import torch
from einops import rearrange
from torch import Tensor

from .base import Adapter
from .chunk import VisualChunk
from .pixels import normalise, resize
from .positions import LinearPositions, MRopePositions, Place, Positions
from .tower import Tower


class MiniCPMV4_6(Adapter):
    """Adapter of ``MiniCPMV4_6ForConditionalGeneration`` (arXiv 2509.18154).

    A frame is ``<image>...</image>``, without time or number, and is never cut into slices: so its authors run videos
    (``max_slice_nums=1``, ``use_image_id=False``), and slices would not be tokens on a grid. ``stack_frames`` (many
    frames on one canvas) is not done either.
    """

    model_types: ClassVar[tuple[str, ...]] = ("minicpmv4_6",)
    video_token: ClassVar[str] = "<|video_pad|>"
    names: ClassVar[bool] = True
    fps: ClassVar[float] = 1.0

    @property
    def positions(self) -> Positions:
        """One number a token, the same on all three axes."""
        return LinearPositions()

    @property
    def merge(self) -> int:
        """Patches along each side of a visual token."""
        return 2 if self.model.config.downsample_mode == "4x" else 4

    def preprocess(self, frames: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
        """Patches side by side [1, 3, patch, t * 4h * 4w * patch], and the grid of merged tokens."""
        patch = self.model.config.vision_config.patch_size
        height, width = self.size(frames.shape[1], frames.shape[2])
        pictures = normalise(resize(frames, height, width, self.pixels.mode), self.pixels)
        values = rearrange(pictures, "t c (h down) (w across) -> 1 c down (t h w across)", down=patch, across=patch)
        side = patch * self.merge
        return values, (len(frames), height // side, width // side)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """What frames of this height and width are resized to: whole tokens, with the area of the trained square."""
        shape, side = width / height, self.model.config.vision_config.patch_size * self.merge
        height = int((self.pixels.square or 448) / math.sqrt(shape))
        width = int(height * shape)
        return max(round(height / side), 1) * side, max(round(width / side), 1) * side

    def encode(self, values: Tensor, grid: tuple[int, int, int]) -> tuple[Tensor, ...]:
        """Visual tokens of one video; the sizes stay on the host, where the model reads them."""
        t, h, w = grid
        sizes = torch.tensor([[h * self.merge, w * self.merge]] * t, dtype=torch.int32, device="cpu")
        return (self.flat(self.model.get_video_features(values, sizes, return_dict=True).pooler_output),)

    def tower(self, height: int, width: int) -> Tower | None:
        """Four patches become one behind the block `insert_layer_id`, and four of these one token behind the last."""
        config = self.model.config
        vision, text, tokens = config.vision_config, config.get_text_config().hidden_size, height * width
        hidden, mlp, patches = vision.hidden_size, vision.intermediate_size, tokens * self.merge**2
        layers, after = [patches] * vision.num_hidden_layers, []
        if config.downsample_mode != "4x":
            first = vision.insert_layer_id + 1
            layers[first:] = [patches // 4] * (len(layers) - first)
            # attention within 2 x 2 patches: four matrices, four keys and four values a row; then an MLP
            after += [
                (patches, (hidden,) * 5),
                (patches, (4, hidden, 4)),
                (patches // 4, (4 * hidden, 4 * mlp, hidden)),
            ]
        rows = layers[-1]
        for i in range(config.merger_times):
            rows //= 4
            after.append((rows, (4 * hidden, 4 * hidden, text if i == config.merger_times - 1 else hidden)))
        segments = tuple((length,) for length in layers)
        return Tower(patches, vision.num_channels * vision.patch_size**2, hidden, mlp, segments, tuple(after))

    def glue(self, number: int, seconds: float) -> tuple[str, str]:
        """A picture's two marks."""
        return self.named(self.tokenizer, "image_start_token", "<image>"), self.named(
            self.tokenizer, "image_end_token", "</image>"
        )


class CanvasPositions(MRopePositions):
    """Time, height and width on a canvas for every frame (MiniCPM-V 4.7).

    Text has three equal numbers. A frame is a canvas that begins at the largest position so far + 1: its mark
    ``<image>`` stands just outside the upper left corner, its tokens at start, start + row, start + column, its mark
    ``</image>`` at the lower right corner, and what follows begins at start + the longer side + 1. Line breaks
    straight behind a video belong to its last canvas: they stand at its start and take no position from the text.

    Parameters
    ----------
    breaks : int
        Line breaks that the chat template writes behind a video.
    """

    def __init__(self, breaks: int = 0) -> None:
        super().__init__(1.0)
        self.breaks = breaks

    def text(self, tokens: int, place: Place) -> tuple[Tensor, Place]:
        """Position ids [3, 1, tokens]."""
        pinned = 0 if place.start is None else min(self.breaks, tokens)
        ids, after = super().text(tokens - pinned, place)
        if pinned:
            assert place.start is not None
            ids = torch.cat([torch.full((3, 1, pinned), place.start, device="cpu"), ids], dim=-1)
        return ids, after

    def frame(self, size: tuple[int, int], place: Place) -> tuple[Tensor, Place]:
        """Position ids [3, 1, 1 + h * w + 1] of one frame between its marks.

        Examples
        --------
        >>> ids, place = CanvasPositions().frame((1, 2), Place(next=5))
        >>> ids[:, 0].tolist(), place.next
        ([[5, 5, 5, 5], [4, 5, 5, 6], [4, 5, 6, 7]], 8)
        """
        (h, w), start = size, place.next
        grid, _ = self.video((1, h, w), (0.0,), Place(start))
        halo = max(start - 1, 0)
        corners = torch.tensor([[start, start], [halo, start + h], [halo, start + w]], device="cpu")[:, None]
        ids = torch.cat([corners[..., :1], grid, corners[..., 1:]], dim=-1)
        return ids, Place(start + max(h, w) + 1, start)


class MiniCPMV4_7(MiniCPMV4_6):
    """Adapter of ``MiniCPMV4_7ForConditionalGeneration``: as 4.6, with a canvas of positions for every frame."""

    model_types: ClassVar[tuple[str, ...]] = ("minicpmv4_7",)

    @property
    def positions(self) -> CanvasPositions:
        """M-RoPE with a canvas for every frame."""
        return CanvasPositions(self._breaks)

    @cached_property
    def _breaks(self) -> int:
        """Line breaks behind a video, which the model's own count pins to its last frame."""
        if getattr(self.tokenizer, "chat_template", None) is None:
            return 0
        ids: list[Any] = self.prompt(self.tokenizer).after("?")
        return next((i for i, each in enumerate(ids) if each != self.model.config.newline_id), len(ids))

    def place(self, chunk: VisualChunk, place: Place) -> tuple[Tensor, Place]:
        """Position ids [3, 1, tokens]: the marks around a frame stand on its canvas."""
        parts, positions = [], self.positions
        for _ in chunk.steps:
            ids, place = positions.frame(chunk.size, place)
            parts.append(ids)
        whole = torch.cat(parts, dim=-1)
        return (whole if chunk.origin is None else whole[..., chunk.origin.to(whole.device)]), place
