"""Traps of transformers that were met on the way, each reproduced, and each shown not to catch the library."""

from __future__ import annotations

import pytest
import torch
from families import build, video
from reference import full_prompt
from transformers import Cache, LlamaConfig
from transformers.cache_utils import DynamicLayer
from transformers.masking_utils import AttentionMaskInterface, create_causal_mask, sdpa_mask

import pdrop_video as pv
from pdrop_video.memory import KeyValueLayer
from pdrop_video.memory.room import Arrangement

CONFIG = LlamaConfig(hidden_size=64, num_attention_heads=2, num_hidden_layers=1)


def mask_of(layer: DynamicLayer, rows: int) -> torch.Tensor:
    CONFIG._attn_implementation = "sdpa"
    mask = create_causal_mask(CONFIG, torch.zeros(1, rows, 64), None, Cache(layers=[layer]), layer_idx=0)
    return mask[0, 0]


class CountsSeen(DynamicLayer):
    """A tempting cache layer: it keeps 10 of 40 tokens, reports all it has seen, and no offset."""

    def get_seq_length(self) -> int:
        return 40

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return 10 + query_length, 0


def test_a_cache_that_reports_a_wrong_offset_leaks_the_future() -> None:
    naive, ours = CountsSeen(), KeyValueLayer()
    keys = torch.zeros(1, 2, 40, 8)
    naive.update(keys[:, :, :10], keys[:, :, :10])
    ours.update(keys, keys)
    ours.keep(Arrangement.of(torch.arange(10), 40))
    assert mask_of(naive, 4)[:, -4:].triu(1).any()  # the trap: a query sees later rows of its own chunk
    mask = mask_of(ours, 4)
    assert mask.shape == (4, 14)
    assert mask[:, :10].all()
    assert torch.equal(mask[:, 10:], torch.ones(4, 4, dtype=torch.bool).tril())


def test_an_attention_without_a_registered_mask_gets_none() -> None:
    layer = KeyValueLayer()
    layer.update(torch.zeros(1, 2, 5, 8), torch.zeros(1, 2, 5, 8))
    cache = Cache(layers=[layer])
    for registered in (False, True):
        CONFIG._attn_implementation = "pdrop_test_attention"
        if registered:
            AttentionMaskInterface.register("pdrop_test_attention", sdpa_mask)
        mask = create_causal_mask(CONFIG, torch.zeros(1, 4, 64), None, cache, layer_idx=0)
        assert (mask is not None) == registered  # the trap: no error, simply no mask


def test_transformers_positions_after_a_video_depend_on_its_picture_only() -> None:
    """The trap: stock M-RoPE lets text after a long video start inside the video; the library's rule does not."""
    lm = build("qwen2_5_vl")
    inputs, prefix, visual = full_prompt(lm, video(16), [0.5 * i for i in range(16)], "what is shown ?")
    ours = inputs["position_ids"]
    kinds = (inputs["input_ids"] == 191).long() * 2
    stock, _ = lm.model.model.get_rope_index(
        inputs["input_ids"],
        kinds,
        video_grid_thw=inputs["video_grid_thw"],
        second_per_grid_ts=torch.tensor([1.0]),
    )
    end = prefix + visual
    assert torch.equal(stock[:, :, :end], ours[:, :, :end])  # prefix and video agree: seconds, rows, columns
    largest = ours[:, :, :end].max()
    assert torch.equal(ours[:, 0, end], (largest + 1).expand(3))
    assert stock[0, 0, end] <= largest


def test_pruned_positions_have_gaps_that_flash_attention_takes_for_packing() -> None:
    """Why the layer loop passes no position_ids to the layers."""
    from transformers.modeling_flash_attention_utils import _is_packed_sequence

    assert bool(_is_packed_sequence(torch.tensor([[0, 1, 2, 5, 9]]), 1))
    seen = []
    lm = build("llava_onevision")
    for layer in lm.model.get_decoder().layers:
        layer.register_forward_pre_hook(lambda m, a, k: seen.append(k["position_ids"]), with_kwargs=True)
    stream = lm.stream(pv.Pyramid())
    stream.push(video(2), [0, 1])
    stream.ask("what is shown ?", max_new_tokens=2)
    assert seen
    assert all(ids is None for ids in seen)


def test_unmodified_layers_misread_a_pruned_cache() -> None:
    """Why decoding after a pruned prefill must stay inside `pyramid_drop`, whose caches say so."""
    lm = build("llava_onevision")
    inputs, _, _ = full_prompt(lm, video(2), [0, 1], "what is shown ?")
    with torch.no_grad():
        with pv.pyramid_drop(lm.model, pv.Pyramid()):
            out = lm.model(**inputs, use_cache=True)
        with pytest.raises(pv.ModelError, match="inside pyramid_drop"):
            lm.model(input_ids=torch.full((1, 3), 5), past_key_values=out.past_key_values)
        for layer in out.past_key_values.layers:
            layer.__class__ = DynamicLayer  # the trap, once nobody says so
        with pytest.raises(RuntimeError):
            lm.model(input_ids=torch.full((1, 3), 5), past_key_values=out.past_key_values)


def test_forward_and_generate_disagree_on_positions_and_the_stream_uses_neither() -> None:
    """The trap: after the same prompt with a video, transformers decodes the next token at two different positions."""
    lm = build("qwen2_5_vl")
    inputs, _, _ = full_prompt(lm, video(16), [0.5 * i for i in range(16)], "what is shown ?")
    ours = inputs.pop("position_ids")
    inputs["mm_token_type_ids"] = (inputs["input_ids"] == 191).long() * 2
    inputs["second_per_grid_ts"] = torch.tensor([1.0])
    seen: list[torch.Tensor] = []
    hook = lm.model.get_decoder().rotary_emb.register_forward_pre_hook(lambda m, a: seen.append(a[1]))
    with torch.no_grad():
        lm.model.generate(
            **inputs, max_new_tokens=2, do_sample=False, attention_mask=torch.ones_like(inputs["input_ids"])
        )
        by_generate = seen[-1].flatten()[-1]
        lm.model.model.rope_deltas = None
        out = lm.model(**inputs, use_cache=True)
        lm.model(input_ids=out.logits[:, -1:].argmax(-1), past_key_values=out.past_key_values)
        by_forward = seen[-1].flatten()[-1]
        stream = lm.stream(pv.Pyramid(stages=1))
        stream.push(video(16), [0.5 * i for i in range(16)])
        stream.ask("what is shown ?", max_new_tokens=2)
    hook.remove()
    assert by_generate != by_forward
    assert torch.equal(seen[-1].flatten(), (ours.max() + 1).expand(3))  # right behind the last prompt token
