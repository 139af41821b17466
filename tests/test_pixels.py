"""Our preprocessing against PIL and against those image processors of transformers that run without torchvision."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from families import video
from PIL import Image
from torch import Tensor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

import pdrop_video as pv
from pdrop_video.models import Adapter, Pixels, adapter_for
from pdrop_video.models.pixels import _resize_in_passes, normalise, qwen_size, resize

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
QWEN = SimpleNamespace(vision_config=SimpleNamespace(patch_size=14, spatial_merge_size=2, temporal_patch_size=2))
LLAVA = SimpleNamespace(vision_config=SimpleNamespace(patch_size=14, image_size=384))


def qwen(**size: int) -> Adapter:
    """Preprocessing of Qwen2.5-VL with the checkpoints' patches of 14 pixels."""
    return adapter_for("qwen2_5_vl")(SimpleNamespace(config=QWEN), Pixels.of(size))


def llava() -> Adapter:
    """Preprocessing of LLaVA-OneVision with the checkpoints' numbers."""
    numbers = dict(size={"height": 384, "width": 384}, image_mean=[0.5] * 3, image_std=[0.5] * 3, resample=3)
    return adapter_for("llava_onevision")(SimpleNamespace(config=LLAVA), Pixels.of(numbers))


def waves(height: int, width: int) -> Tensor:
    """A smooth picture with saturated places [1, height, width, 3]."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    colours = torch.stack([torch.sin(9 * x + 3 * y), torch.cos(35 * y * x), torch.sin(20 * (x - y))], -1)
    return (colours * 140 + 128).clamp(0, 255).to(torch.uint8)[None]


# -- resizing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "number"), [("bicubic", 3), ("bilinear", 2)])
@pytest.mark.parametrize("picture", ["noise", "waves"])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((60, 72), (64, 64)),
        ((360, 640), (252, 448)),
        ((64, 48), (224, 168)),
        ((33, 200), (28, 168)),
        ((1, 1), (28, 28)),
    ],
)
def test_resized_pictures_equal_pil(
    before: tuple[int, int], after: tuple[int, int], picture: str, mode: str, number: int
) -> None:
    """Tolerance: 1 level of 255 but for one value in 500, never more than 2, 0.13 levels on average.

    Both roundings of PIL's two passes may fall the other way where a value lies halfway, hence 2.
    """
    frames = video(1, height=before[0], width=before[1]) if picture == "noise" else waves(*before)
    image = Image.fromarray(frames[0].numpy()).resize(after[::-1], resample=number)
    want = torch.from_numpy(np.array(image)).permute(2, 0, 1).float()
    for got in (resize(frames, *after, mode)[0], _resize_in_passes(frames.permute(0, 3, 1, 2), *after, mode)[0]):
        assert got.dtype == torch.float32 and torch.equal(got, got.round()) and got.shape == (3, *after)
        error = (got - want).abs()
        assert error.max() <= 2 and error.mean() < 0.13 and (error > 1).float().mean() < 0.002


def test_the_other_interpolation_is_out_of_tolerance() -> None:
    """The control: the bounds above tell bicubic from bilinear, and one pass from two."""
    frames = video(1, height=360, width=640)
    bicubic, bilinear = (resize(frames, 252, 448, mode) for mode in ("bicubic", "bilinear"))
    assert (bicubic - bilinear).abs().mean() > 5
    pictures = frames.permute(0, 3, 1, 2).float()
    one_pass = torch.nn.functional.interpolate(pictures, (252, 448), mode="bicubic", antialias=True)
    assert (bicubic - one_pass.round().clamp(0, 255)).abs().max() > 5


def test_nothing_to_resize_copies_the_levels() -> None:
    frames = video(3)
    before = frames.clone()
    got = resize(frames, 60, 72, "bicubic")
    assert torch.equal(got, frames.permute(0, 3, 1, 2).float())
    normalise(got, Pixels())
    assert torch.equal(frames, before)  # normalising in place must not reach the caller's pictures


@pytest.mark.parametrize("size", [(60, 72), (56, 56)])
def test_memory_layout_does_not_matter(size: tuple[int, int]) -> None:
    frames = video(4, height=120, width=144)
    for view in (frames[:, ::2, ::2], frames.flip(2)[:, :60, :72], frames[0, None, :60].expand(3, -1, -1, -1)):
        assert torch.equal(resize(view, *size, "bicubic"), resize(view.contiguous(), *size, "bicubic"))


# -- whole preprocessing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("picture", ["noise", "waves"])
@pytest.mark.parametrize("before", [(140, 224), (100, 300), (500, 333), (30, 30)])
def test_qwen_equals_transformers(before: tuple[int, int], picture: str) -> None:
    """One frame, filled up with itself, is what transformers makes of a picture.

    Tolerance as above in normalised units (a level is 1 / 255 / std, at most 0.0151), and 1e-6 where none is resized.
    """
    limits = dict(min_pixels=56 * 56, max_pixels=200 * 200)
    frame = video(1, height=before[0], width=before[1]) if picture == "noise" else waves(*before)
    want = Qwen2VLImageProcessorPil(**limits)(Image.fromarray(frame[0].numpy()), return_tensors="pt")
    adapter = qwen(**limits)
    got, grid = adapter.preprocess(frame.expand(2, -1, -1, -1))
    t, h, w = want["image_grid_thw"][0].tolist()
    assert grid == (t, h // 2, w // 2) and got.shape == want["pixel_values"].shape
    error, level = (got - want["pixel_values"]).abs(), 1 / 255 / min(CLIP_STD)
    assert error.max() < 2.01 * level and error.mean() < 0.13 * level
    if before == (140, 224):
        assert error.max() < 1e-6


@pytest.mark.parametrize("before", [(384, 384), (200, 300), (480, 270)])
def test_llava_equals_transformers(before: tuple[int, int]) -> None:
    """Its video processor resizes every frame to 384 x 384, as SigLIP's image processor does."""
    frames = torch.cat([video(1, height=before[0], width=before[1]), waves(*before)])
    processor = SiglipImageProcessorPil(size={"height": 384, "width": 384})
    want = processor([Image.fromarray(frame.numpy()) for frame in frames], return_tensors="pt")["pixel_values"]
    got, grid = llava().preprocess(frames)
    assert grid == (2, 14, 14) and got.shape == (1, 2, 3, 384, 384)  # 27 x 27 patches, pooled two by two: 14 x 14
    error, level = (got[0] - want).abs(), 2 / 255
    assert error.max() < 2.01 * level and error.mean() < 0.13 * level
    if before == (384, 384):
        assert error.max() < 1e-6


def test_patch_layout() -> None:
    """Every value of a patch is the pixel that Qwen's order says: the colours of the picture are its addresses."""
    adapter = qwen(min_pixels=28 * 28, max_pixels=28 * 28 * 100)
    frames = torch.zeros(4, 56, 84, 3, dtype=torch.uint8)
    frames[..., 0] = torch.arange(56)[:, None]  # red is the row, green the column, blue the frame
    frames[..., 1] = torch.arange(84)
    frames[..., 2] = torch.arange(4)[:, None, None]
    values, grid = adapter.preprocess(frames)
    assert grid == (2, 2, 3) and values.shape == (2 * 4 * 6, 3 * 2 * 14 * 14)
    mean, std = (torch.tensor(v)[:, None, None, None] for v in (CLIP_MEAN, CLIP_STD))
    patch = 0
    for time in range(2):
        for row in range(2):  # of merged tokens
            for column in range(3):
                for y, x in ((0, 0), (0, 1), (1, 0), (1, 1)):  # the four patches of a merged token stand together
                    got = ((values[patch].view(3, 2, 14, 14) * std + mean) * 255).round().int()
                    top, left = row * 28 + y * 14, column * 28 + x * 14
                    assert torch.equal(got[0], torch.arange(top, top + 14)[None, :, None].expand(2, 14, 14).int())
                    assert torch.equal(got[1], torch.arange(left, left + 14)[None, None].expand(2, 14, 14).int())
                    assert got[2, 0].eq(2 * time).all() and got[2, 1].eq(2 * time + 1).all()
                    patch += 1
    assert patch == len(values)


@pytest.mark.parametrize(
    "adapter", [qwen(min_pixels=28 * 28, max_pixels=28 * 28 * 100), llava()], ids=["qwen", "llava"]
)
def test_normalisation(adapter: Adapter) -> None:
    mean, std = (CLIP_MEAN, CLIP_STD) if adapter.frames_per_step == 2 else ((0.5,) * 3, (0.5,) * 3)
    for level in (0, 51, 255):
        values, _ = adapter.preprocess(torch.full((2, 70, 50, 3), level, dtype=torch.uint8))
        colours = values.view(-1, 3, 2 * 14 * 14) if values.ndim == 2 else values[0].flatten(2)
        for i in range(3):
            want = torch.full_like(colours[:, i], (level / 255 - mean[i]) / std[i])
            torch.testing.assert_close(colours[:, i], want, atol=1e-6, rtol=0)


@pytest.mark.parametrize("adapter", [qwen(min_pixels=28 * 28, max_pixels=28 * 28 * 20), llava()], ids=["qwen", "llava"])
@pytest.mark.parametrize("size", [(112, 140), (90, 170)])
def test_chunks_equal_all_at_once(adapter: Adapter, size: tuple[int, int]) -> None:
    frames, step = video(8, height=size[0], width=size[1]), adapter.frames_per_step
    whole, (t, h, w) = adapter.preprocess(frames)
    for steps in (1, 3):
        parts = [adapter.preprocess(part) for part in frames.split(steps * step)]
        assert torch.equal(torch.cat([values for values, _ in parts], dim=0 if step == 2 else 1), whole)
        assert sum(grid[0] for _, grid in parts) == t and {grid[1:] for _, grid in parts} == {(h, w)}


def test_an_odd_last_frame_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    adapter: Any = qwen(min_pixels=28 * 28, max_pixels=28 * 28 * 20)
    adapter.model = SimpleNamespace(config=QWEN, device=torch.device("cpu"), dtype=torch.float32)
    seen: list[Tensor] = []
    preprocess = adapter.preprocess
    monkeypatch.setattr(adapter, "preprocess", lambda frames: seen.append(frames) or preprocess(frames))
    monkeypatch.setattr(adapter, "encode", lambda *arguments: 1 / 0)  # there is no vision tower
    frames = video(5)
    with pytest.raises(ZeroDivisionError):
        adapter.look(frames, (0.0, 0.5, 1.0, 1.5, 2.0))
    assert len(seen) == 1 and torch.equal(seen[0], torch.cat([frames, frames[4:]]))
    values, grid = preprocess(seen[0])
    pairs = values.view(grid[0], -1, 3, 2, 14, 14)
    assert torch.equal(pairs[2, :, :, 0], pairs[2, :, :, 1]) and not torch.equal(pairs[1, :, :, 0], pairs[1, :, :, 1])


# -- sizes ------------------------------------------------------------------------------------------------------------

VIDEO_LIMITS = (128 * 28 * 28, 768 * 28 * 28)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((720, 1280), (560, 1008)),  # shrunk: sqrt(720 * 1280 / 602112) = 1.2372; 581.98 and 1034.6, rounded down
        ((1280, 720), (1008, 560)),
        ((480, 640), (476, 644)),  # fits: the nearest multiples of 28, 17.14 and 22.86
        ((14, 42), (196, 560)),  # grown: sqrt(100352 / 588) = 13.064; 182.9 and 548.7, rounded up
        ((1, 1), (336, 336)),  # sqrt(100352) = 316.8, rounded up
        ((1, 200), (28, 4480)),  # the most extreme shape allowed: 22.4 and 4480.0, rounded up
        ((4000, 20), (4004, 28)),  # the nearest multiples, 142.86 and 0.71, are large enough together
    ],
)
def test_sizes_by_hand(before: tuple[int, int], after: tuple[int, int]) -> None:
    assert qwen_size(*before, 28, Pixels()) == after


@pytest.mark.parametrize("factor", [16, 28, 32])
@pytest.mark.parametrize("limits", [VIDEO_LIMITS, (3136, 12845056), (12544, 12544), (100000, 200000)], ids=str)
def test_sizes_keep_limits_and_shape(limits: tuple[int, int], factor: int) -> None:
    pixels = Pixels(size={"shortest_edge": limits[0], "longest_edge": limits[1]})
    for height, width in ((240, 320), (1080, 1920), (1920, 1080), (2160, 3840), (64, 64), (700, 900), (100, 600)):
        h, w = qwen_size(height, width, factor, pixels)
        assert h % factor == 0 and w % factor == 0 and h > 0 and w > 0
        # rounding up to reach the lower limit may overshoot the upper one by less than one row and one column
        assert limits[0] <= h * w or limits[1] - h * w < (h + w + factor) * factor
        assert h * w <= limits[1] or (h - factor) * (w - factor) < limits[0]
        assert abs(h - w * height / width) < factor * (1 + height / width)  # each side within one factor of the shape


@pytest.mark.parametrize("size", [(1, 201), (201, 1), (3, 2000)])
def test_too_long_for_any_size(size: tuple[int, int]) -> None:
    adapter: Any = qwen()
    with pytest.raises(pv.FrameError, match=f"frames of {size[0]} x {size[1]} pixels can't be resized for this model"):
        adapter.preprocess(torch.zeros(2, *size, 3, dtype=torch.uint8))


# -- preprocessor files -----------------------------------------------------------------------------------------------


def test_old_and_new_names_of_limits() -> None:
    new = Pixels.of({"size": {"shortest_edge": 1000, "longest_edge": 2000}})
    old = Pixels.of({"min_pixels": 1000, "max_pixels": 2000})
    both = Pixels.of({"min_pixels": 1000, "max_pixels": 2000, "size": {"shortest_edge": 1, "longest_edge": 2}})
    assert new == old == both and new.limits == (1000, 2000)
    assert Pixels.of({}).limits == VIDEO_LIMITS and Pixels.of({}).mean == CLIP_MEAN and Pixels.of({}).std == CLIP_STD


def test_capping() -> None:
    assert Pixels.of({"min_pixels": 3136, "max_pixels": 12845056}).capped().limits == (3136, 602112)
    small = Pixels.of({"min_pixels": 3136, "max_pixels": 602112})
    assert small.capped() is small
    fixed = Pixels.of({"size": {"height": 384, "width": 384}})
    assert fixed.capped() is fixed
    assert Pixels.of({"min_pixels": 700000, "max_pixels": 800000}).capped().limits == (602112, 602112)
