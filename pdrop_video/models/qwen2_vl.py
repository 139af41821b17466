"""Qwen2-VL: frames merged in pairs, steps counted in the positions (M-RoPE), one video between two vision tokens."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers.vision_utils import get_vision_position_ids

from .base import Adapter
from .pixels import normalise, patchify, qwen_size, resize
from .positions import Positions, StepPositions
from .received import BOTH, Grid
from .tower import Tower


class Qwen2VL(Adapter):
    """Adapter of ``Qwen2VLForConditionalGeneration`` (arXiv 2409.12191); what later Qwens share with it stands here.

    The vision tower attends within one pair of frames only, so encoding chunk by chunk equals encoding at once. It can
    leave patches out: what is encoded then sees nothing else, as if the rest were hidden from it by a mask.
    """

    model_types: ClassVar[tuple[str, ...]] = ("qwen2_vl",)
    frames_per_step: ClassVar[int] = 2
    video_token: ClassVar[str] = "<|video_pad|>"
    keeps_shape: ClassVar[bool] = True
    parts: ClassVar[bool] = True
    knows: ClassVar[tuple[str, ...]] = BOTH

    @property
    def positions(self) -> Positions:
        """M-RoPE that counts steps."""
        return StepPositions()

    @property
    def merge(self) -> int:
        """Patches of a token along a side."""
        merge: int = self.model.config.vision_config.spatial_merge_size
        return merge

    def preprocess(self, frames: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
        """Patches [t * 2h * 2w, 3 * 2 * patch * patch] and the grid of merged tokens."""
        vision = self.model.config.vision_config
        patch, merge = vision.patch_size, self.merge
        height, width = self.size(frames.shape[1], frames.shape[2], patch * merge)
        pictures = normalise(resize(frames, height, width, self.pixels.mode), self.pixels)
        patches, (t, h, w) = patchify(pictures, patch, merge, vision.temporal_patch_size)
        return patches, (t, h // merge, w // merge)

    def size(self, height: int, width: int, factor: int) -> tuple[int, int]:
        """What frames of this height and width are resized to: multiples of `factor`, within the limits of pixels."""
        return qwen_size(height, width, factor, self.pixels)

    def encode(self, values: Tensor, grid: Grid) -> tuple[Tensor, ...]:
        """Merged visual tokens of one video, and what some families add to them behind their first decoder layers."""
        return self._made(self.see(values, grid))

    def encode_some(self, values: Tensor, grid: Grid, worth: Tensor) -> tuple[Tensor, ...]:
        """The same from the patches of these tokens alone, which the tower is given as a strip one token high.

        They keep the places and the steps that they have in the whole: transformers' towers take what they would
        work out of the grid as arguments, too.
        """
        groups = worth.flatten().nonzero()[:, 0].to(values.device)
        rows = (groups[:, None] * self.merge**2 + torch.arange(self.merge**2, device=values.device)).flatten()
        told = self.placed(grid, groups, rows) | self.segments(grid, groups, worth)
        return self._made(self.see(values[rows], (1, 1, len(groups)), **told))

    def told_of(self, grid: Grid, device: torch.device) -> dict[str, Tensor]:
        """All that the tower would work out of a whole grid, for who runs its blocks by himself."""
        groups = torch.arange(grid[0] * grid[1] * grid[2], device=device)
        rows = torch.arange(len(groups) * self.merge**2, device=device)
        return self.placed(grid, groups, rows) | self.segments(grid, groups, torch.ones(grid, dtype=torch.bool))

    def placed(self, grid: Grid, groups: Tensor, rows: Tensor) -> dict[str, Tensor]:
        """Where patches [rows] of a grid stand, the patches of tokens [groups]."""
        return {"position_ids": get_vision_position_ids(self.thw(grid, rows.device), self.merge)[rows]}

    def segments(self, grid: Grid, groups: Tensor, worth: Tensor) -> dict[str, Tensor]:
        """Which patches see each other: those of a step."""
        return {"cu_seqlens": self.borders(worth.flatten(1).sum(dim=1).to(groups.device))}

    def borders(self, tokens: Tensor) -> Tensor:
        """Where segments of so many tokens each begin and end, in patches; empty ones are none."""
        ends = (tokens[tokens > 0] * self.merge**2).cumsum(0, dtype=torch.int32)
        return torch.nn.functional.pad(ends, (1, 0))

    def _made(self, seen: Any) -> tuple[Tensor, ...]:
        return tuple(map(self.flat, (seen.pooler_output, *(getattr(seen, "deepstack_features", None) or ()))))

    def order(self, grid: Grid, groups: Tensor) -> Tensor | None:
        """In which order the tower runs tokens [groups]; None for their own."""
        return None

    def per_token(self, received: Tensor, grid: Grid, worth: Tensor | None = None) -> Tensor:
        """Sums over the patches of a token, which stand together in the tower."""
        t, h, w = grid
        worth = torch.ones(grid, dtype=torch.bool) if worth is None else worth
        worth = worth.flatten(1).to(received.device)
        groups = worth.flatten().nonzero()[:, 0]
        summed, order = received.view(-1, self.merge**2).sum(dim=1), self.order(grid, groups)
        summed = summed if order is None else torch.zeros_like(summed).index_copy(0, order, summed)
        queries = worth.sum(dim=1, keepdim=True).expand(t, h * w)[worth] * self.merge**2
        return summed.new_zeros(t * h * w).index_copy(0, groups, summed / queries)

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

    def part(self, worth: Tensor) -> Tower | None:
        """Attention and all else of the tokens that are encoded."""
        tower = self.tower(*worth.shape)
        return None if tower is None else tower.part(int(worth.sum()), worth.numel())

    def see(self, values: Tensor, grid: Grid, **told: Tensor) -> Any:
        """What the vision tower makes of one video; `told` stands for what it would work out of the grid."""
        return self.model.get_video_features(values, self.thw(grid, values.device), return_dict=True, **told)

    def thw(self, grid: Grid, device: torch.device) -> Tensor:
        """A grid of tokens as transformers takes it: one of patches [1, 3]."""
        t, h, w = grid
        return torch.tensor([[t, h * self.merge, w * self.merge]], device=device)
