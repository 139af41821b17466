"""Frames to pixel values, in torch, on the frames' device, one batch per chunk.

Equal to transformers' own preprocessing (antialiased interpolation rounded to uint8 levels, rescale, normalise,
patchify), whose video processors need torchvision. Refuses to know models.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from ..common import checks
from ..errors import ConfigError, FrameError

_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_MODES = {1: "lanczos", 2: "bilinear", 3: "bicubic"}  # PIL's resampling numbers, as preprocessor files write them
_LOWEST, _HIGHEST = 128 * 28 * 28, 768 * 28 * 28  # pixels of a frame in Qwen's reference video pipeline


@dataclass(frozen=True, slots=True)
class Pixels:
    """The numbers of a checkpoint's preprocessor file.

    Attributes
    ----------
    mean, std : tuple of float
        Per colour, on a scale of 0 to 1.
    mode : str
        Interpolation: "bicubic", "bilinear" or "lanczos".
    size : dict
        What the file calls size, for example ``{"height": 384, "width": 384}`` or
        ``{"shortest_edge": min_pixels, "longest_edge": max_pixels}``.
    crop : (height, width) or None
        What is cut from the middle (LLaVA-NeXT-Video).
    square : int or None
        Side of the square that a frame ends as (SmolVLM), or whose area it gets (MiniCPM-V).
    tokens : int or None
        Most visual tokens of a frame, for families that say it so (Gemma 4, Muse Glimmer).
    said : dict
        Everything that the checkpoint's preprocessor files say, for what one family alone asks for.
    """

    mean: tuple[float, ...] = _CLIP_MEAN
    std: tuple[float, ...] = _CLIP_STD
    mode: str = "bicubic"
    size: dict[str, int] | None = None
    crop: tuple[int, int] | None = None
    square: int | None = None
    tokens: int | None = None
    said: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, config: dict[str, Any]) -> Pixels:
        """Read the entries of a preprocessor file, old layout (min_pixels, max_pixels) or new (size)."""
        # SmolVLM2's file has both; its video processor takes `size`, whatever the other's name promises
        size = dict(config.get("size") or (config.get("video_sampling") or {}).get("video_size") or {})
        crop, square = config.get("crop_size"), config.get("max_image_size") or {}
        crop = {"height": crop, "width": crop} if isinstance(crop, int) else crop
        for old, new in (("min_pixels", "shortest_edge"), ("max_pixels", "longest_edge")):
            if config.get(old) is not None:
                size[new] = config[old]
        normal = config.get("do_normalize") is not False
        return cls(
            mean=tuple(config.get("image_mean") or _CLIP_MEAN) if normal else (0.0, 0.0, 0.0),
            std=tuple(config.get("image_std") or _CLIP_STD) if normal else (1.0, 1.0, 1.0),
            mode=_MODES.get(config.get("resample", 3), "bicubic"),
            size=size or None,
            crop=(crop["height"], crop["width"]) if crop else None,
            square=square.get("longest_edge") or config.get("scale_resolution"),
            tokens=config.get("max_soft_tokens") or config.get("max_video_frame_tokens"),
            said=dict(config),
        )

    def capped(self) -> Pixels:
        """The same, but no frame above 768 * 28 * 28 pixels, the most that Qwen's reference video pipeline allows.

        Meant for limits that were written for images: Qwen2.5-VL's 12,845,056 pixels would make 16,384 tokens of a
        pair of frames.
        """
        size = self.size or {}
        return self.within(None, _HIGHEST) if size.get("longest_edge", 0) > _HIGHEST else self

    def within(self, min_pixels: int | None, max_pixels: int | None) -> Pixels:
        """The same with other limits on the pixels of a resized frame; a limit left out stays, or moves to the other.

        Raises
        ------
        ConfigError
            If a limit is not a whole number from 1, or the two are the wrong way round.
        """
        for name, value, most in (("min_pixels", min_pixels, 2**26), ("max_pixels", max_pixels, 2**53)):
            if value is not None:
                checks.whole(name, value, 1, most)
        lowest, highest = self.limits
        lowest = min_pixels or min(lowest, max_pixels or lowest)
        highest = max_pixels or max(highest, lowest)
        if lowest > highest:
            raise ConfigError(f"min_pixels={lowest} is above max_pixels={highest}; swap them.")
        return replace(self, size={"shortest_edge": lowest, "longest_edge": highest})

    @property
    def limits(self) -> tuple[int, int]:
        """Fewest and most pixels of a resized frame, for families that keep a frame's shape."""
        size = self.size or {}
        return size.get("shortest_edge", _LOWEST), size.get("longest_edge", _HIGHEST)


def resize(frames: Tensor, height: int, width: int, mode: str) -> Tensor:
    """Resize uint8 frames [frames, height, width, 3] to float32 [frames, 3, height, width] at uint8 levels (0 to 255).

    As PIL and torchvision do it: antialiased, along the rows, then along the columns, each time rounded to uint8. Where
    there is no Lanczos kernel (other devices, older torch), bicubic stands in for it, as in transformers.
    """
    pictures = rearrange(frames, "frames h w c -> frames c h w")
    if pictures.shape[-2:] == (
        height,
        width,
    ):  # here and below in the order of its axes, which all that follows is faster in
        return pictures.contiguous().float()
    if mode == "lanczos" and not (pictures.device.type == "cpu" and _has_lanczos()):
        mode = "bicubic"
    if pictures.device.type == "cpu":  # torch's uint8 kernel is these two passes, and much the fastest
        return (
            F.interpolate(pictures, (height, width), mode=mode, antialias=True, align_corners=False)
            .contiguous()
            .float()
        )
    return _resize_in_passes(pictures, height, width, mode)


@cache
def _has_lanczos() -> bool:
    try:
        F.interpolate(torch.zeros(1, 1, 2, 2, dtype=torch.uint8), (1, 1), mode="lanczos", antialias=True)
    except (NotImplementedError, ValueError, RuntimeError):
        return False
    return True


def _resize_in_passes(pictures: Tensor, height: int, width: int, mode: str) -> Tensor:
    """The uint8 kernel's two passes for devices that have none; [frames, 3, height, width]."""
    for size in ((pictures.shape[-2], width), (height, width)):
        pictures = F.interpolate(pictures.float(), size, mode=mode, antialias=True, align_corners=False)
        pictures = pictures.round_().clamp_(0, 255)
    return pictures


def centre(pictures: Tensor, height: int, width: int) -> Tensor:
    """Cut [..., height, width] from the middle of pictures, which are filled up with black where they are smaller."""
    down, across = height - pictures.shape[-2], width - pictures.shape[-1]
    if down > 0 or across > 0:
        across, down = max(across, 0), max(down, 0)
        pictures = F.pad(pictures, (across // 2, (across + 1) // 2, down // 2, (down + 1) // 2))
    top, left = (pictures.shape[-2] - height) // 2, (pictures.shape[-1] - width) // 2
    return pictures[..., top : top + height, left : left + width]


def normalise(pictures: Tensor, pixels: Pixels) -> Tensor:
    """Levels 0 to 255 [frames, 3, height, width] to zero mean and unit deviation by the checkpoint's numbers."""
    mean, std = (pictures.new_tensor(v).view(3, 1, 1) for v in (pixels.mean, pixels.std))
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
    lowest, highest = pixels.limits
    try:
        return smart_resize(height, width, factor=factor, min_pixels=lowest, max_pixels=highest)
    except ValueError as error:
        raise FrameError(f"frames of {height} x {width} pixels can't be resized for this model: {error}") from error
