"""Frames to pixel values, in torch, on the frames' device, one batch per chunk.

Equal to transformers' own preprocessing (antialiased interpolation rounded to uint8 levels, rescale, normalise,
patchify), whose video processors need torchvision. Refuses to know models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from ..errors import FrameError

_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_MODES = {2: "bilinear", 3: "bicubic"}  # PIL's resampling numbers, as preprocessor files write them


@dataclass(frozen=True, slots=True)
class Pixels:
    """The numbers of a checkpoint's preprocessor file.

    Attributes
    ----------
    mean, std : tuple of float
        Per colour, on a scale of 0 to 1.
    mode : str
        Interpolation: "bicubic" or "bilinear".
    size : dict
        What the file calls size, for example ``{"height": 384, "width": 384}`` or
        ``{"shortest_edge": min_pixels, "longest_edge": max_pixels}``.
    """

    mean: tuple[float, ...] = _CLIP_MEAN
    std: tuple[float, ...] = _CLIP_STD
    mode: str = "bicubic"
    size: dict[str, int] | None = None

    @classmethod
    def of(cls, config: dict[str, Any]) -> Pixels:
        """Read the entries of a preprocessor file, old layout (min_pixels, max_pixels) or new (size)."""
        size = dict(config.get("size") or {})
        for old, new in (("min_pixels", "shortest_edge"), ("max_pixels", "longest_edge")):
            if config.get(old) is not None:
                size[new] = config[old]
        return cls(
            mean=tuple(config.get("image_mean") or _CLIP_MEAN),
            std=tuple(config.get("image_std") or _CLIP_STD),
            mode=_MODES.get(config.get("resample", 3), "bicubic"),
            size=size or None,
        )


def resize(frames: Tensor, height: int, width: int, mode: str) -> Tensor:
    """Resize uint8 frames [frames, height, width, 3] to float32 [frames, 3, height, width] at levels of 0 to 255."""
    pictures = rearrange(frames, "frames h w c -> frames c h w").float()
    if pictures.shape[-2:] != (height, width):
        pictures = F.interpolate(pictures, (height, width), mode=mode, antialias=True, align_corners=False)
        pictures = pictures.round_().clamp_(0, 255)
    return pictures


def normalise(pictures: Tensor, pixels: Pixels) -> Tensor:
    """Levels 0 to 255 [frames, 3, height, width] to zero mean and unit deviation by the checkpoint's numbers."""
    mean, std = (torch.tensor(v, device=pictures.device).view(3, 1, 1) for v in (pixels.mean, pixels.std))
    return pictures.div_(255).sub_(mean).div_(std)


def patchify(pictures: Tensor, patch: int, merge: int, frames_per_grid: int) -> tuple[Tensor, tuple[int, int, int]]:
    """Cut [frames, 3, height, width] into Qwen's patches.

    Returns
    -------
    patches : Tensor [t * h * w, 3 * frames_per_grid * patch * patch]
        In the order that Qwen's vision towers expect: the patches of one merged token stand together.
    grid : (t, h, w)
        In patches.
    """
    patches = rearrange(
        pictures,
        "(t f) c (h mh ph) (w mw pw) -> (t h w mh mw) (c f ph pw)",
        f=frames_per_grid,
        mh=merge,
        mw=merge,
        ph=patch,
        pw=patch,
    )
    frames, _, height, width = pictures.shape
    return patches, (frames // frames_per_grid, height // patch, width // patch)


def qwen_size(height: int, width: int, factor: int, pixels: Pixels) -> tuple[int, int]:
    """Height and width in multiples of `factor` whose area lies within the checkpoint's limits."""
    size = pixels.size or {}
    lowest, highest = size.get("shortest_edge", 128 * 28 * 28), size.get("longest_edge", 768 * 28 * 28)
    try:
        return smart_resize(height, width, factor=factor, min_pixels=lowest, max_pixels=highest)
    except ValueError as error:
        raise FrameError(f"frames of {height} x {width} pixels can't be resized for this model: {error}") from error
