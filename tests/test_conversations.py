"""`pyramid_drop` on prompts with several videos and pictures, alone and in padded batches, every family."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conversations import Inputs, batch, conversation, visual_rows
from families import FAMILIES, build, cases, video
from reference import masked_forward
from test_one_shot import PYRAMID, masks_of
from torch import Tensor

import pdrop_video as pv
from pdrop_video import pyramid_drop

ATTENTIONS = {"sdpa": 1e-9, "eager": 2e-5}
STEPS = 5


def picture(seed: int, height: int, width: int) -> Tensor:
    return video(1, seed, height, width)[0]


def rich(lm: pv.VideoLM) -> Inputs:
    """Two videos and two pictures of other shapes, with text around and between them."""
    first, second = video(4), video(4, seed=3, height=72, width=60)
    shown = ("user what is shown", picture(1, 50, 90), "first", first, "last ?", second, picture(2, 90, 50), "how many")
    return conversation(lm, *shown, "assistant")


def prompts(lm: pv.VideoLM) -> list[Inputs]:
    """Four prompts with unequal numbers of visual tokens; one has none."""
    return [
        conversation(lm, "user", video(2), "what is shown ?", picture(1, 50, 90), "assistant"),
        conversation(lm, "user what is shown first", video(2, seed=1, height=80, width=40), "assistant"),
        conversation(lm, "user how many ? assistant"),
        conversation(lm, picture(2, 90, 50), "what ?", video(2, seed=2), "first", video(2, seed=4), "? assistant"),
    ]


def generated(lm: pv.VideoLM, inputs: Inputs) -> Any:
    real = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"]))
    return lm.model.generate(
        **{**inputs, "attention_mask": real},
        max_new_tokens=STEPS,
        do_sample=False,
        suppress_tokens=list(range(190, 200)),  # a visual token that is generated stands for no features
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )


def behind(lm: pv.VideoLM, inputs: Inputs, tokens: Tensor) -> dict[str, Any]:
    """The prompt and what was generated as one prompt, at the positions at which `generate` puts them."""
    ids = torch.cat([inputs["input_ids"], tokens], 1)
    made: dict[str, Any] = {n: v for n, v in inputs.items() if n != "mm_token_type_ids"} | {"input_ids": ids}
    if "mm_token_type_ids" in inputs:
        grids = {n: inputs[n] for n in ("image_grid_thw", "video_grid_thw") if n in inputs}
        kinds = inputs["mm_token_type_ids"]
        positions, delta = lm.model.model.get_rope_index(inputs["input_ids"], mm_token_type_ids=kinds, **grids)
        more = torch.arange(inputs["input_ids"].shape[1], ids.shape[1]) + delta
        made["position_ids"] = torch.cat([positions, more.expand(3, 1, -1)], -1)
    return made


@pytest.mark.parametrize(("family", "attn"), cases(FAMILIES, ATTENTIONS, fast=lambda f, a: a == 0))
@torch.no_grad()
def test_prefill_and_decoding_equal_masks(family: str, attn: str) -> None:
    """Every logit of `generate` is that of the unmodified model which may not see what was dropped; and it is cheaper.

    Decoding runs on the pruned cache: layer by layer it holds the prompt less what was dropped, and the new tokens.
    """
    lm = build(family, attn)
    inputs = rich(lm)
    visual = visual_rows(lm, inputs["input_ids"])[0]
    n, length = int(visual.sum()), len(visual)
    with pyramid_drop(lm.model, PYRAMID) as trace:
        out = generated(lm, inputs)
    assert [len(kept[0]) for kept in trace.kept] == [n // 2, n // 4]
    held = [length - n + left + STEPS - 1 for left in (n, n, n // 2, n // 2, n // 4, n // 4)]
    assert [layer.keys.shape[2] for layer in out.past_key_values.layers] == held
    whole = behind(lm, inputs, out.sequences[:, length:])
    seen = torch.nn.functional.pad(visual, (0, STEPS))
    masks = masks_of(trace, seen, lm.num_layers)
    want = masked_forward(lm, whole, masks)[length - 1 : -1]
    got = torch.cat(out.logits)
    torch.testing.assert_close(got, want.to(got), atol=ATTENTIONS[attn] if attn == "eager" else 1e-6, rtol=0)
    other = masked_forward(lm, whole, masks.roll(1, 0))[length - 1 : -1]  # the control: the masks matter
    assert (got - other).abs().max() > 1e-2


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_padded_batch_equals_its_prompts(family: str) -> None:
    """Unequal numbers of visual tokens, left padding: the same tokens stay, and the same logits come out."""
    lm = build(family)
    alone = []
    for prompt in prompts(lm):
        with pyramid_drop(lm.model, PYRAMID) as trace:
            alone.append((generated(lm, prompt), [kept[0] for kept in trace.kept]))
    together = batch(lm, prompts(lm))
    counts = visual_rows(lm, together["input_ids"]).sum(1).tolist()
    assert len(set(counts)) == 4 and 0 in counts
    with pyramid_drop(lm.model, PYRAMID) as trace:
        out = generated(lm, together)
    for b, (single, kept) in enumerate(alone):
        for stage, of in enumerate(kept):
            assert torch.equal(trace.kept[stage][b], of) and len(of) == int(counts[b] * PYRAMID.ratios[stage])
        assert out.sequences[b, -STEPS:].tolist() == single.sequences[0, -STEPS:].tolist()
        for step in range(STEPS):
            torch.testing.assert_close(out.logits[step][b], single.logits[step][0], atol=1e-6, rtol=0)
