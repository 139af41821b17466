"""As `test_processors`, for the families in `hybrids`: run with torchvision, where both sides read real files."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from einops import rearrange
from families import video
from hybrids import HYBRIDS
from test_pixels import waves
from test_processors import SIZES, ours
from torch import Tensor
from true_hybrids import TRUE_HYBRIDS

from pdrop_video.models import Adapter, adapter_for, describe

pytestmark = pytest.mark.processors


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: size.write(tmp_path_factory.mktemp("checkpoint")) for name, size in TRUE_HYBRIDS.items()}


def options(adapter: Adapter) -> dict[str, Any]:
    """What the library says otherwise than a checkpoint's file: limits of one frame, no slices."""
    family = adapter.model.config.model_type
    if family.startswith("minicpm"):
        return dict(max_slice_nums=1)
    if family == "exaone4_5":
        limits = dict(zip(("shortest_edge", "longest_edge"), adapter.pixels.limits, strict=True))
        return dict(cap_pixels_per_frame=True, size=limits)
    return dict(cap_pixels_per_frame=True) if family.startswith("qwen") else {}


def levels(adapter: Adapter, values: Tensor) -> Tensor:
    """Pixel values back at 0 to 255, colours in the last dimension."""
    family = adapter.model.config.model_type
    if family.startswith("gemma4"):
        values = rearrange(values, "t patches (pixel c) -> t patches pixel c", c=3)
    elif family.startswith("minicpm"):
        values = rearrange(values, "1 c down across -> down across c")
    elif family.startswith("muse"):
        values = rearrange(values, "patches (f c pixel) -> patches f pixel c", f=2, c=3)
    else:
        values = rearrange(values, "patches (c pixel) -> patches pixel c", c=3)
    return (values * torch.tensor(adapter.pixels.std) + torch.tensor(adapter.pixels.mean)) * 255


def compare(folder: Path, adapter: Adapter, frames: Tensor) -> None:
    from transformers import AutoVideoProcessor

    processor = AutoVideoProcessor.from_pretrained(folder)
    want = processor(frames.permute(0, 3, 1, 2), do_sample_frames=False, return_tensors="pt", **options(adapter))
    got, (t, h, w) = ours(adapter, frames)
    expected = want["pixel_values_videos"]
    if expected.ndim == 4 and "video_position_ids" in want:  # older ones keep frames one axis deeper, in their video
        expected, want["video_position_ids"] = expected[0], want["video_position_ids"][0]
    if "video_grid_thw" in want:
        assert want["video_grid_thw"].tolist() == [[t, 2 * h, 2 * w]]
    elif "target_sizes_videos" in want:
        assert want["target_sizes_videos"].tolist() == [[4 * h, 4 * w]] * t
    else:
        places = want["video_position_ids"]
        real = (places >= 0).all(-1)
        assert torch.equal(real.sum(1), torch.full((t,), got.shape[1]))
        assert real[:, : got.shape[1]].all()  # what fills up comes last
        assert places.amax(1).unique(dim=0).tolist() == [[places[0, :, 0].max(), places[0, :, 1].max()]]
        assert int(want["num_soft_tokens_per_video"][0]) == h * w
        expected = expected[:, : got.shape[1]]
    assert got.shape == expected.shape
    assert (levels(adapter, got) - levels(adapter, expected)).abs().max() < 0.01


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", TRUE_HYBRIDS)
def test_sizes(folders: dict[str, Path], name: str, size: str) -> None:
    height, width = SIZES[size]
    # four frames: see `test_processors`
    frames = torch.cat([video(2, height=height, width=width), waves(height, width).expand(2, -1, -1, -1)])
    compare(folders[name], describe(folders[name])[1], frames)


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("name", TRUE_HYBRIDS)
def test_frame_counts(folders: dict[str, Path], name: str, count: int) -> None:
    compare(folders[name], describe(folders[name])[1], video(count, height=180, width=322))


NAMED = dict(  # attributes by which tokenizers tell their processor which token is which
    minicpm=dict(
        image_token="<|image_pad|>",
        video_token="<|video_pad|>",
        image_start_token="<image>",
        image_end_token="</image>",
        slice_start_token="<slice>",
        slice_end_token="</slice>",
        image_id_start_token="<image_id>",
        image_id_end_token="</image_id>",
    ),
    gemma4=dict(
        image_token="<|image|>",
        boi_token="<|image>",
        eoi_token="<image|>",
        audio_token="<|audio|>",
        boa_token="<|audio>",
        eoa_token="<audio|>",
    ),
)


@pytest.mark.parametrize("count", [2, 5])
@pytest.mark.parametrize("name", TRUE_HYBRIDS)
def test_token_ids(tmp_path: Path, name: str, count: int) -> None:
    """Prompt, every step with the text around it, and question: what the family's whole processor makes of a turn.

    But for the second pair of vision tokens around a Qwen's video, see `Qwen3VL`.
    """
    from transformers import AutoProcessor

    folder = TRUE_HYBRIDS[name].write(tmp_path)
    family = TRUE_HYBRIDS[name].config.model_type
    _, words, _ = HYBRIDS["muse_spark_moe" if family == "muse_spark" else family]()
    words.pad_token = "<unk>"
    words.save_pretrained(folder)
    if named := next((attributes for start, attributes in NAMED.items() if family.startswith(start)), None):
        content = json.loads((folder / "tokenizer_config.json").read_text())
        (folder / "tokenizer_config.json").write_text(json.dumps(content | dict(extra_special_tokens=named)))
    processor = AutoProcessor.from_pretrained(folder)
    words = processor.tokenizer  # Qwen3.5's is a class of its own, which cuts words in its own way
    config, described = describe(folder)
    adapter = adapter_for(family)(SimpleNamespace(config=config), described.pixels, words)
    prompt, frames = adapter.prompt(words), video(count, height=90, width=160)
    turn = {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "what is shown first ?"}]}
    text = processor.apply_chat_template([turn], add_generation_prompt=True, tokenize=False)
    times = tuple(i * 0.5 for i in range(count))
    metadata = dict(total_num_frames=count, fps=2.0, duration=count / 2, frames_indices=list(range(count)))
    videos = dict(videos=[frames.permute(0, 3, 1, 2)], video_metadata=[metadata], do_sample_frames=False)
    more = options(adapter) | (dict(use_image_id=False) if family.startswith("minicpm") else {})
    if family.startswith("muse"):
        more["return_metadata"] = True  # without it theirs fails
    want = processor(text=[text], return_tensors="pt", **videos, **more)["input_ids"][0].tolist()
    _, (_, h, w) = ours(adapter, frames)
    pad = words.convert_tokens_to_ids(adapter.video_token)
    got = prompt.before()
    for number, seconds in enumerate(adapter.times(times)):
        before, after = adapter.glue(number, seconds)
        got += [*adapter.ids(before), *[pad] * (h * w), *adapter.ids(after)]
    got += prompt.after("what is shown first ?")
    assert got.count(pad) == want.count(pad)
    if family.startswith("qwen"):
        start, end = (words.convert_tokens_to_ids(f"<|vision_{edge}|>") for edge in ("start", "end"))
        want.remove(start)
        want.pop(len(want) - 1 - want[::-1].index(end))
    assert got == want
