"""What unmodified transformers makes of the same stream: one pass over all tokens, with a mask for every layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.vision_utils import get_vision_window_index

from pdrop_video import VideoLM
from pdrop_video.memory import StreamCache
from pdrop_video.models.positions import MRopePositions

if TYPE_CHECKING:
    import pytest


def full_prompt(lm: VideoLM, frames: Tensor, seconds: list[float], question: str) -> tuple[dict[str, Any], int, int]:
    """Inputs of one forward over prefix, whole video and question; with the tokens of the prefix and of the steps.

    Pixel values and token ids go in where an unmodified model takes them: visual embeddings, deepstack features and
    LLaVA's newline are its own doing.
    """
    adapter, model = lm.adapter, lm.model
    times = adapter.times(tuple(seconds))
    if missing := -len(frames) % adapter.frames_per_step:
        frames = torch.cat([frames, frames[-1:].expand(missing, -1, -1, -1)])
    values, (t, h, w) = adapter.preprocess(frames)
    assert t == len(times)
    before, after = lm.prompt.before(), lm.prompt.after(question)
    token = lm.tokenizer.convert_tokens_to_ids(adapter.video_token)
    steps: list[int] = []
    for number, second in enumerate(times):
        lead, tail = adapter.glue(number, second)
        steps += [*adapter.ids(lead), *[token] * (h * w), *adapter.ids(tail)]
    closing = [token] * len(adapter.closing())  # LLaVA's newline is a video token to transformers
    known = any(hasattr(model.config, name) for name in ("video_token_id", "video_token_index"))
    name = "pixel_values_videos" if known else ""
    inputs: dict[str, Any] = {
        "input_ids": torch.tensor([[*before, *steps, *closing, *after]]),
        name or "pixel_values": values.to(model.dtype),
    }
    if values.ndim == 2:  # patches
        merge = getattr(model.config.vision_config, "spatial_merge_size", 2)
        inputs["video_grid_thw"] = torch.tensor([[t, h * merge, w * merge]])
    if model.config.model_type == "video_llama_3":
        inputs["video_merge_sizes"] = torch.tensor([merge])
    if model.config.model_type == "cosmos3_edge":  # transformers 5.16 takes gaps in its positions for several samples
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    if model.config.model_type == "molmo2":
        inputs["video_grids"] = torch.tensor([[t, h, w]])
        inputs["video_token_pooling"] = adapter.pooling((t, h, w), values.shape[1])
    if isinstance(adapter.positions, MRopePositions):
        inputs["position_ids"] = mrope(lm, before, times, (h, w), len(after))
    return inputs, len(before), len(steps)


def mrope(lm: VideoLM, before: list[int], times: tuple[float, ...], size: tuple[int, int], after: int) -> Tensor:
    """Position ids [3, 1, tokens] by the rules of transformers up to 5.0, written out token by token.

    transformers' own rule for the text after a video differs since 5.5 (see MRopePositions).
    """
    adapter, ids, family = lm.adapter, [(i, i, i) for i in range(len(before))], lm.model.config.model_type
    start = len(before)
    for number, second in enumerate(times):
        lead, tail = (len(adapter.ids(text)) for text in adapter.glue(number, second))
        if family not in ("qwen2_vl", "qwen2_5_vl"):  # every step begins anew behind its timestamp
            start = max(map(max, ids)) + 1 + lead
        ids += [(start - lead + i,) * 3 for i in range(lead)]
        rate = number if family == "qwen2_vl" else 0
        if family == "qwen2_5_vl":
            rate = int((second - times[0]) * lm.model.config.vision_config.tokens_per_second + 1e-6)
        ids += [(start + rate, start + row, start + column) for row in range(size[0]) for column in range(size[1])]
        end = max(map(max, ids)) + 1
        ids += [(end + i,) * 3 for i in range(tail)]
    end = max(map(max, ids)) + 1
    return torch.tensor([*ids, *[(end + i,) * 3 for i in range(after)]]).T[:, None]


def recorded(monkeypatch: pytest.MonkeyPatch, tokens: int | None) -> list[list[Tensor]]:
    """A list that grows, with every piece that enters a stream, by the numbers of the tokens that each layer holds."""
    snapshots: list[list[Tensor]] = []
    record = StreamCache.record

    def recording(cache: StreamCache, new: Any) -> None:
        record(cache, new)
        snapshots.append([table.index for table in cache.tables])
        assert cache.lengths() == [len(table) for table in cache.tables]
        assert tokens is None or max(cache.lengths()) <= tokens

    monkeypatch.setattr(StreamCache, "record", recording)
    return snapshots


def stream_masks(snapshots: list[list[Tensor]], prefix: int, total: int, asked: list[Tensor]) -> Tensor:
    """What each layer lets each token see [layers, total, total], so that every token sees what was held when it came.

    The question, behind everything, sees `asked`.
    """
    allowed = torch.zeros(len(asked), total, total, dtype=torch.bool)
    allowed[:, :prefix, :prefix] = True
    done = prefix
    for snapshot in snapshots:
        end = int(snapshot[0].max()) + 1  # layer 0 keeps every token of what came last
        for i, index in enumerate(snapshot):
            allowed[i, done:end, index] = True
        done = end
    for i, index in enumerate(asked):
        allowed[i, done:, index] = True
    allowed[:, done:, done:] = True
    allowed &= torch.ones(total, total, dtype=torch.bool).tril()
    return allowed | torch.eye(total, dtype=torch.bool)  # a token that is gone sees itself: no empty softmax


@contextmanager
def masked(text: Any, allowed: Tensor | None) -> Iterator[None]:
    """A decoder stack whose layer i lets query q see key k where allowed[i, q, k]; None leaves it as it is."""
    hooks = []
    eager = text.config._attn_implementation == "eager"

    def before(i: int):
        def hook(module, args, kwargs):
            assert allowed is not None
            mask = allowed[i][None, None]
            kwargs["attention_mask"] = (~mask).to(text.dtype) * -1e30 if eager else mask
            return args, kwargs

        return hook

    if allowed is not None:
        for i, layer in enumerate(text.layers):
            hooks.append(layer.register_forward_pre_hook(before(i), with_kwargs=True))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def bound(lm: VideoLM, ids: Tensor, allowed: Tensor | None) -> Tensor:
    """What each layer lets each token see where the tokens of one frame, its marks with them, see each other."""
    config, total = lm.model.config, len(ids)
    marked = torch.isin(
        ids, torch.tensor([config.image_patch_id, config.frame_start_token_id, config.frame_end_token_id])
    )
    frame = (marked & ~marked.roll(1)).cumsum(0).masked_fill(~marked, -1)
    same = (frame[:, None] == frame) & marked
    last = (same * torch.arange(total)).amax(1)  # of a frame, which sees what is there of it
    if allowed is None:
        allowed = torch.ones(lm.num_layers, total, total, dtype=torch.bool).tril()
    return allowed | (same & allowed[:, last])


@torch.no_grad()
def masked_forward(lm: VideoLM, inputs: dict[str, Any], allowed: Tensor | None) -> Tensor:
    """Logits [tokens, vocabulary] of the unmodified model; layer i lets query q see key k where allowed[i, q, k]."""
    if lm.model.config.model_type == "molmo2":
        allowed = bound(lm, inputs["input_ids"][0], allowed)
    with masked(lm.model.get_decoder(), allowed):
        return lm.model(**inputs, use_cache=False).logits[0]


@contextmanager
def hidden(lm: VideoLM, worth: Tensor) -> Iterator[None]:
    """The tower under a mask: of what is not worth having no patch is seen, in any layer, while all are encoded."""
    vision, tower, (t, h, w) = lm.model.config.vision_config, lm.model.get_encoder("image"), worth.shape
    merge = lm.adapter.merge
    seen = worth.flatten()
    if hasattr(vision, "window_size"):
        sizes = dict(spatial_merge_size=merge, window_size=vision.window_size, patch_size=vision.patch_size)
        seen = seen[get_vision_window_index(torch.tensor([[t, h * merge, w * merge]]), **sizes)[0]]
    seen, run = seen.repeat_interleave(merge**2), {}

    def masked(module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, scaling: float, **_: Any):
        first = run.get(id(module), 0)  # of the segment among the rows of this layer
        run[id(module)] = first + query.shape[2]
        key, value = (each.repeat_interleave(query.shape[1] // key.shape[1], dim=1) for each in (key, value))
        products = query @ key.transpose(2, 3) * scaling
        lowest = torch.finfo(products.dtype).min
        products = products.masked_fill(~seen[first : first + query.shape[2]], lowest)
        return (products.softmax(-1) @ value).transpose(1, 2), None

    AttentionInterface.register("masked_by_a_test", masked)
    before = {module: module.config for module in tower.modules() if hasattr(module, "is_causal")}
    assert before
    kind = vision._attn_implementation
    vision._attn_implementation_internal = "masked_by_a_test"
    for module in before:
        module.config._attn_implementation_internal = "masked_by_a_test"
    try:
        yield
    finally:
        vision._attn_implementation_internal = kind
        for module in before:
            module.config._attn_implementation_internal = kind
    assert set(run.values()) == {len(seen)}
