"""What unmodified transformers makes of the same stream: one pass over all tokens, with a mask for every layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pdrop_video import VideoLM
from pdrop_video.models import Place


def full_prompt(lm: VideoLM, frames: Tensor, seconds: list[float], question: str) -> tuple[dict[str, Any], int, int]:
    """Inputs of one forward over prefix, whole video and question; with the lengths of prefix and visual tokens."""
    adapter = lm.adapter
    if missing := -len(frames) % adapter.frames_per_step:
        frames = torch.cat([frames, frames[-1:].expand(missing, -1, -1, -1)])
    values, grid = adapter.preprocess(frames)
    visual = grid[0] * grid[1] * grid[2]
    before, after = lm.prompt.before(), lm.prompt.after(question)
    token = lm.tokenizer.convert_tokens_to_ids(adapter.video_token)
    closing = [token] * len(adapter.closing())  # LLaVA's newline is a video token to transformers
    ids = torch.tensor([[*before, *[token] * visual, *closing, *after]])
    inputs: dict[str, Any] = dict(input_ids=ids, pixel_values_videos=values.to(lm.model.dtype))
    if "qwen" in lm.model.config.model_type:
        merge = lm.model.config.vision_config.spatial_merge_size
        inputs["video_grid_thw"] = torch.tensor([[grid[0], grid[1] * merge, grid[2] * merge]])
        # transformers' own rule for the text after a video differs since 5.5 (see MRopePositions)
        rule, place = adapter.positions, Place()
        first, place = rule.text(len(before), place)
        middle, place = rule.video(grid, tuple(seconds[:: adapter.frames_per_step]), place)
        last, place = rule.text(len(closing) + len(after), place)
        inputs["position_ids"] = torch.cat([first, middle, last], dim=-1)
    return inputs, len(before), visual


@torch.no_grad()
def masked_forward(lm: VideoLM, inputs: dict[str, Any], allowed: Tensor | None) -> Tensor:
    """Logits [tokens, vocabulary] of the unmodified model; layer i lets query q see key k where allowed[i, q, k]."""
    hooks = []
    eager = lm.model.get_decoder().config._attn_implementation == "eager"

    def before(i: int):
        def hook(module, args, kwargs):
            assert allowed is not None
            mask = allowed[i][None, None]
            kwargs["attention_mask"] = (~mask).to(lm.model.dtype) * -1e30 if eager else mask
            return args, kwargs

        return hook

    if allowed is not None:
        for i, layer in enumerate(lm.model.get_decoder().layers):
            hooks.append(layer.register_forward_pre_hook(before(i), with_kwargs=True))
    try:
        return lm.model(**inputs, use_cache=False).logits[0]
    finally:
        for hook in hooks:
            hook.remove()
