"""Prompts with any number of videos and pictures, as each family's processor lays them out, and batches of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.llava_next_video.modeling_llava_next_video import image_size_to_num_patches

from pdrop_video import VideoLM

Inputs = dict[str, Tensor]
TILING = ("llava_onevision", "llava_next_video")


def _video(lm: VideoLM, frames: Tensor) -> tuple[list[int], Inputs]:
    adapter, model = lm.adapter, lm.model
    times = adapter.times(tuple(float(i) for i in range(len(frames))))
    values, (t, h, w) = adapter.preprocess(frames)
    token = lm.tokenizer.convert_tokens_to_ids(adapter.video_token)
    ids: list[int] = []
    for number, second in enumerate(times):
        lead, tail = adapter.glue(number, second)
        ids += [*adapter.ids(lead), *[token] * (h * w), *adapter.ids(tail)]
    ids += [token] * len(adapter.closing())
    if model.config.model_type in ("internvl", "smolvlm"):
        return ids, {"pixel_values": values}
    made = {"pixel_values_videos": values}
    if "qwen" in model.config.model_type:
        merge = model.config.vision_config.spatial_merge_size
        made["video_grid_thw"] = torch.tensor([[t, h * merge, w * merge]])
    return ids, made


def _picture(lm: VideoLM, picture: Tensor) -> tuple[list[int], Inputs]:
    family, adapter, config = lm.model.config.model_type, lm.adapter, lm.model.config
    if family == "smolvlm":
        return _video(lm, picture[None])
    if "qwen" in family:  # a picture is a pair of equal frames
        values, (_, h, w) = adapter.preprocess(picture.expand(2, -1, -1, -1))
        merge = config.vision_config.spatial_merge_size
        ids = [config.vision_start_token_id, *[config.image_token_id] * (h * w), config.vision_end_token_id]
        return ids, {"pixel_values": values, "image_grid_thw": torch.tensor([[1, h * merge, w * merge]])}
    if family == "internvl":  # two tiles between one pair of marks
        values, (tiles, h, w) = adapter.preprocess(torch.stack([picture, picture.flip(0)]))
        return adapter.ids("<img>") + [config.image_token_id] * (tiles * h * w) + adapter.ids("</img>"), {
            "pixel_values": values
        }
    side, size = config.vision_config.image_size, picture.shape[:2]  # of which tiled pictures are multiples
    config.image_grid_pinpoints = [[side, side], [side, 2 * side], [2 * side, side]]
    tiles = image_size_to_num_patches(size, config.image_grid_pinpoints, side)
    values, _ = adapter.preprocess(torch.stack([picture.roll(i, 0) for i in range(tiles)]))
    made = {"pixel_values": values, "image_sizes": torch.tensor([size])}
    with torch.no_grad():
        features = lm.model.get_image_features(values.to(lm.model.dtype), made["image_sizes"], return_dict=True)
    return [config.image_token_id] * len(adapter.flat(features.pooler_output)), made


def _joined(made: list[Tensor], name: str, family: str) -> Tensor:
    if family == "smolvlm":
        return torch.cat(made, 1)  # [1, pictures, 3, side, side]
    if name == "pixel_values" and family in TILING:  # transformers fills up missing tiles with zeros
        most = max(len(values[0]) for values in made)
        made = [F.pad(values, (0, 0) * 3 + (0, most - len(values[0]))) for values in made]
    return torch.cat(made)


def conversation(lm: VideoLM, *parts: str | Tensor) -> Inputs:
    """Inputs of one prompt: text, pictures [height, width, 3] and videos [frames, height, width, 3], as they come."""
    ids: list[int] = []
    pixels: dict[str, list[Tensor]] = {}
    for part in parts:
        if isinstance(part, str):
            ids += lm.adapter.ids(part)
            continue
        more, made = (_video if part.ndim == 4 else _picture)(lm, part)
        ids += more
        for name, values in made.items():
            pixels.setdefault(name, []).append(values)
    inputs = {name: _joined(made, name, lm.model.config.model_type) for name, made in pixels.items()}
    return _finished(lm, inputs | {"input_ids": torch.tensor([ids])})


def batch(lm: VideoLM, prompts: list[Inputs], side: str = "left") -> Inputs:
    """Several prompts as one batch, padded with a real token on one side."""
    family, longest = lm.model.config.model_type, max(prompt["input_ids"].shape[1] for prompt in prompts)
    inputs: Inputs = {}
    for name in {name: None for prompt in prompts for name in prompt if "pixel" in name or name.startswith("image")}:
        made = [prompt[name] for prompt in prompts if name in prompt]
        if family == "smolvlm":
            most = max(len(values[0]) for values in made)
            inputs[name] = torch.cat([F.pad(v, (0, 0) * 3 + (0, most - len(v[0]))) for v in made])
        else:
            inputs[name] = _joined(made, name, family)
    if grids := [prompt["video_grid_thw"] for prompt in prompts if "video_grid_thw" in prompt]:
        inputs["video_grid_thw"] = torch.cat(grids)
    rows, real = [], []
    for prompt in prompts:
        missing = longest - prompt["input_ids"].shape[1]
        pad = (missing, 0) if side == "left" else (0, missing)
        rows.append(F.pad(prompt["input_ids"], pad, value=1))
        real.append(F.pad(torch.ones_like(prompt["input_ids"]), pad))
    return _finished(lm, inputs | {"input_ids": torch.cat(rows), "attention_mask": torch.cat(real)})


def _finished(lm: VideoLM, inputs: Inputs) -> Inputs:
    for name in inputs:
        if "pixel" in name:
            inputs[name] = inputs[name].to(lm.model.dtype)
    if "qwen" in lm.model.config.model_type:
        ids, config = inputs["input_ids"], lm.model.config
        inputs["mm_token_type_ids"] = (ids == config.image_token_id).int() + 2 * (ids == config.video_token_id).int()
    return inputs


def visual_rows(lm: VideoLM, ids: Tensor) -> Tensor:
    """Which tokens stand for visual ones."""
    names = ("image_token_id", "video_token_id")
    return torch.isin(ids, torch.tensor([getattr(lm.model.config, n) for n in names if hasattr(lm.model.config, n)]))
