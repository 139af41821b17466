"""Our preprocessing against transformers' video processors, which need torchvision: run by `make test-processors`.

The real checkpoints' preprocessor files are read by both sides. Without torchvision every test here fails.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from families import FAMILIES, build, video
from more_families import MORE
from more_true_sizes import MORE_SIZES
from test_pixels import waves
from torch import Tensor
from true_sizes import TRUE_SIZES as FIRST_SIZES

import pdrop_video as pv
from pdrop_video.models import Adapter, adapter_for, describe

pytestmark = pytest.mark.processors
TRUE_SIZES = FIRST_SIZES | MORE_SIZES

SIZES = {
    "one pixel": (1, 1),
    "tiny": (2, 3),
    "below a patch": (20, 31),
    "one side below a patch": (25, 640),
    "as the towers have it": (384, 384),
    "odd": (333, 501),
    "VGA": (480, 640),
    "portrait": (1280, 720),
    "full HD": (1080, 1920),
    "4K": (2160, 3840),
    "4K portrait": (3840, 2160),
    "a ribbon": (30, 2000),
    "a pole": (3000, 16),
}


@pytest.fixture(scope="session", autouse=True)
def _torchvision() -> None:
    import torchvision

    assert torchvision.__version__.split("+")[0] == "0.28.0"


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: size.write(tmp_path_factory.mktemp("checkpoint")) for name, size in TRUE_SIZES.items()}


QWEN3 = ("qwen3_vl", "qwen3_vl_moe", "cosmos3_omni")


def reference(folder: Path, adapter: Adapter, frames: Tensor) -> dict[str, Any]:
    """What transformers' own video processor makes of frames [frames, height, width, 3].

    Under the limits of one frame, which the library takes from Qwen's reference pipeline: Qwen's own processors know
    these, the others have limits for all frames together, given here as so many times a frame's.
    """
    from transformers import AutoVideoProcessor

    limits: dict[str, Any] = {}
    family, (lowest, highest) = adapter.model.config.model_type, adapter.pixels.limits
    if family in ("qwen2_vl", "qwen2_5_vl"):
        limits = dict(cap_pixels_per_frame=True, size={"shortest_edge": lowest, "longest_edge": highest})
    elif family in QWEN3:
        limits = dict(cap_pixels_per_frame=True)
    elif family == "video_llama_3":  # its lower limit is a frame's
        limits = dict(size={"shortest_edge": lowest, "longest_edge": highest * len(frames)})
    elif adapter.keeps_shape:
        limits = dict(size={"shortest_edge": lowest * len(frames), "longest_edge": highest * len(frames)})
    processor = AutoVideoProcessor.from_pretrained(folder)
    return processor(frames.permute(0, 3, 1, 2), do_sample_frames=False, return_tensors="pt", **limits)


def ours(adapter: Adapter, frames: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
    """What `look` hands to the vision tower: an odd last frame is doubled."""
    missing = -len(frames) % adapter.frames_per_step
    return adapter.preprocess(torch.cat([frames, frames[-1:].expand(missing, -1, -1, -1)]))


def levels(adapter: Adapter, values: Tensor) -> Tensor:
    """Pixel values back at 0 to 255, colours in the first dimension."""
    # of pictures [1, frames, 3, height, width] or [frames, 3, height, width], of patches [patches, 3 * time * area]
    if values.ndim == 3:  # or of patches whose colours are innermost [frames, patches, area * 3]
        values = values.reshape(-1, 3)
    colours = values.view(len(values), 3, -1).movedim(1, 0) if values.ndim == 2 else values.movedim(-3, 0)
    mean, std = (torch.tensor(v).view(3, *[1] * (colours.ndim - 1)) for v in (adapter.pixels.mean, adapter.pixels.std))
    return (colours * std + mean) * 255


def compare(folder: Path, adapter: Adapter, frames: Tensor) -> None:
    want, (got, (t, h, w)) = reference(folder, adapter, frames), ours(adapter, frames)
    name = "pixel_values_videos" if "pixel_values_videos" in want else "pixel_values"
    expected = want[name][0] if got.ndim < want[name].ndim else want[name]  # InternVL's tower takes frames as a batch
    assert got.shape == expected.shape
    if "video_grid_thw" in want:
        merge = getattr(adapter.model.config.vision_config, "spatial_merge_size", 2)
        assert want["video_grid_thw"].tolist() == [[t, h * merge, w * merge]]
    if "video_token_pooling" in want:
        assert want["video_grids"].tolist() == [[t, h, w]]
        assert torch.equal(want["video_token_pooling"], adapter.pooling((t, h, w), got.shape[1]))
    error = (levels(adapter, got) - levels(adapter, expected)).abs()
    assert error.max() < 0.01  # the same levels, but for the last bits of float32: the bound asked for is 1


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", TRUE_SIZES)
def test_sizes(folders: dict[str, Path], name: str, size: str) -> None:
    height, width = SIZES[size]
    # four frames: the library makes Qwen3-VL's lower limit for a whole video that of a frame among four
    frames = torch.cat([video(2, height=height, width=width), waves(height, width).expand(2, -1, -1, -1)])
    compare(folders[name], describe(folders[name])[1], frames)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("name", TRUE_SIZES)
def test_frame_counts(folders: dict[str, Path], name: str, count: int) -> None:
    adapter, frames = describe(folders[name])[1], video(count, height=180, width=322)
    if (
        adapter.frames_per_step == 2
        and adapter.model.config.model_type not in ("qwen2_vl", "qwen2_5_vl")
        and count == 1
    ):
        # transformers refuses what the library fills up
        with pytest.raises(ValueError, match="must be larger than temporal_factor"):
            reference(folders[name], adapter, frames)
        return
    compare(folders[name], adapter, frames)


@pytest.mark.parametrize("count", [4, 12, 32])
def test_a_long_video_of_qwen3_has_a_frames_limits(folders: dict[str, Path], count: int) -> None:
    """The file's limits are for all frames together; up to 32 of them they come to those of one frame."""
    compare(folders["Qwen3-VL-8B"], describe(folders["Qwen3-VL-8B"])[1], video(count, height=720, width=1280))


@pytest.mark.parametrize("name", ["Qwen2-VL-7B", "Qwen2.5-VL-7B"])
@pytest.mark.parametrize("size", [(448, 784), (616, 952), (100, 130)])
def test_under_the_cap_of_a_frame_the_files_own_limits_agree(
    folders: dict[str, Path], name: str, size: tuple[int, int]
) -> None:
    from transformers import AutoVideoProcessor

    frames, adapter = video(2, height=size[0], width=size[1]), describe(folders[name])[1]
    processor = AutoVideoProcessor.from_pretrained(folders[name])
    want = processor(frames.permute(0, 3, 1, 2), do_sample_frames=False, cap_pixels_per_frame=False)
    assert torch.equal(want["video_grid_thw"], reference(folders[name], adapter, frames)["video_grid_thw"])


@pytest.mark.parametrize("limits", [(3136, 50176), (200704, 401408), (1_000_000, 1_000_000)])
@pytest.mark.parametrize("name", ["Qwen2-VL-7B", "Qwen2.5-VL-7B"])
def test_other_limits(folders: dict[str, Path], name: str, limits: tuple[int, int]) -> None:
    adapter = describe(folders[name])[1]
    adapter.pixels = adapter.pixels.within(*limits)
    compare(folders[name], adapter, video(2, height=333, width=501))


@pytest.mark.parametrize("name", ["Qwen2-VL-7B", "Qwen2.5-VL-7B", "Qwen3-VL-8B"])
def test_both_refuse_what_is_too_long(folders: dict[str, Path], name: str) -> None:
    adapter, frames = describe(folders[name])[1], torch.zeros(2, 3, 610, 3, dtype=torch.uint8)
    with pytest.raises(ValueError, match="aspect ratio must be smaller than 200"):
        reference(folders[name], adapter, frames)
    with pytest.raises(pv.FrameError, match="can't be resized"):
        ours(adapter, frames)


@pytest.mark.parametrize("side", [48, 56, 64])  # six, seven and eight patches, pooled in threes
def test_molmo2_fills_up_at_the_border(side: int) -> None:
    from transformers import Molmo2VideoProcessor

    adapter = build("molmo2").adapter
    adapter.pixels = replace(adapter.pixels, size={"height": side, "width": side})
    processor = Molmo2VideoProcessor(size=adapter.pixels.size, patch_size=8, pooling_size=[3, 3])
    want = processor(video(2).permute(0, 3, 1, 2), do_sample_frames=False, return_tensors="pt")
    values, grid = adapter.preprocess(video(2))
    assert want["video_grids"].tolist() == [list(grid)]
    assert torch.equal(want["video_token_pooling"], adapter.pooling(grid, values.shape[1]))


@pytest.mark.parametrize("count", [2, 5])
@pytest.mark.parametrize("name", TRUE_SIZES)
def test_token_ids(tmp_path: Path, name: str, count: int) -> None:
    """Prompt, every step with the text around it, and question: what the family's whole processor makes of a turn.

    But for what a stream writes on purpose in another way, as the adapters say: SmolVLM2's opening sentence tells no
    number of frames, and Qwen3-VL's steps have no second pair of vision tokens around the whole.
    """
    from transformers import AutoProcessor

    folder = TRUE_SIZES[name].write(tmp_path)
    family = TRUE_SIZES[name].config.model_type
    _, words, _ = (FAMILIES | MORE)[family]()
    words.save_pretrained(folder)
    if family == "internvl":  # its tokenizer says by attributes which token is which
        named = json.loads((folder / "tokenizer_config.json").read_text())
        named["extra_special_tokens"] = dict(
            start_image_token="<img>",
            end_image_token="</img>",
            context_image_token="<IMG_CONTEXT>",
            video_token="<video>",
        )
        (folder / "tokenizer_config.json").write_text(json.dumps(named))
    if family == "perception_lm":
        named = json.loads((folder / "tokenizer_config.json").read_text())
        named["extra_special_tokens"] = dict(image_token="<|image|>", video_token="<|video|>")
        (folder / "tokenizer_config.json").write_text(json.dumps(named))
    processor = AutoProcessor.from_pretrained(folder)
    config, described = describe(folder)
    adapter = adapter_for(family)(SimpleNamespace(config=config), described.pixels, words)
    prompt, frames = adapter.prompt(words), video(count, height=90, width=160)
    turn = {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "what is shown first ?"}]}
    text = processor.apply_chat_template([turn], add_generation_prompt=True, tokenize=False)
    times = tuple(i * 0.5 for i in range(count))
    metadata = dict(total_num_frames=count, fps=2.0, duration=count / 2, frames_indices=list(range(count)))
    more = {"video_llama_3": dict(use_token_compression=False), "cosmos3_edge": dict(return_metadata=True)}.get(
        family, {}
    )
    videos = dict(videos=[frames.permute(0, 3, 1, 2)], video_metadata=[metadata], do_sample_frames=False, **more)
    want = processor(text=[text], return_tensors="pt", **videos)["input_ids"][0].tolist()
    _, (_, h, w) = ours(adapter, frames)
    pad = words.convert_tokens_to_ids(adapter.video_token)
    got = prompt.before()
    for number, seconds in enumerate(adapter.times(times)):
        before, after = adapter.glue(number, seconds)
        got += [*adapter.ids(before), *[pad] * (h * w), *adapter.ids(after)]
    got += [pad] * (family == "llava_onevision") + prompt.after("what is shown first ?")  # its newline stands there
    assert got.count(pad) == want.count(pad)
    if family == "smolvlm":
        opening = want.index(words.convert_tokens_to_ids("Frame")), got.index(words.convert_tokens_to_ids("Frame"))
        got, want = got[opening[1] :], want[opening[0] :]
    if family in QWEN3:
        start, end = (words.convert_tokens_to_ids(f"<|vision_{edge}|>") for edge in ("start", "end"))
        want.remove(start)
        want.pop(len(want) - 1 - want[::-1].index(end))
    assert got == want
