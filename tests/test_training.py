"""Training inside `pyramid_drop`, every family: loss and gradients of the unmodified model under masks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from families import FAMILIES, build, video
from reference import full_prompt, masked_forward
from test_one_shot import PYRAMID, masks_of
from torch import Tensor

import pdrop_video as pv
from pdrop_video import pyramid_drop

ANSWER = 3


def example(lm: pv.VideoLM) -> tuple[dict[str, Any], Tensor, Tensor]:
    """Inputs with an answer behind the prompt; labels; visual rows."""
    inputs, _, _ = full_prompt(lm, video(4), [0, 1, 2, 3], "what is shown first ?")
    answer = torch.tensor([[5, 9, 7]])
    inputs["input_ids"] = torch.cat([inputs["input_ids"], answer], 1)
    if "position_ids" in inputs:
        more = inputs["position_ids"].max() + 1 + torch.arange(ANSWER)
        inputs["position_ids"] = torch.cat([inputs["position_ids"], more.expand(3, 1, -1)], -1)
    labels = inputs["input_ids"].clone()
    labels[:, :-ANSWER] = -100
    return inputs, labels, inputs["input_ids"][0] == lm.tokenizer.convert_tokens_to_ids(lm.adapter.video_token)


def gradients(model: Any) -> dict[str, Tensor]:
    taken = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return taken


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_equal_masks(family: str) -> None:
    lm = build(family)
    inputs, labels, visual = example(lm)
    lm.model.train()
    with pyramid_drop(lm.model, PYRAMID) as trace:
        loss = lm.model(**inputs, labels=labels).loss
    loss.backward()
    got = gradients(lm.model)
    assert [len(kept[0]) for kept in trace.kept] == [int(visual.sum()) // 2, int(visual.sum()) // 4]

    def by_hand(allowed: Tensor) -> Tensor:
        logits = masked_forward.__wrapped__(lm, inputs, allowed)
        return torch.nn.functional.cross_entropy(logits[-ANSWER - 1 : -1].float(), labels[0, -ANSWER:])

    masks = masks_of(trace, visual, lm.num_layers)
    want = by_hand(masks)
    want.backward()
    torch.testing.assert_close(loss, want.to(loss), atol=1e-6, rtol=0)
    expected = gradients(lm.model)
    assert got.keys() == expected.keys() and any("vision" in n or "visual" in n or "video_tower" in n for n in got)
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name], gradient, atol=1e-6, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
    assert abs(by_hand(masks.roll(1, 0)) - loss) > 1e-4  # the control: the masks matter


@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_checkpointing_changes_nothing(family: str) -> None:
    lm = build(family)
    inputs, labels, _ = example(lm)
    lm.model.train()
    made = []
    for checkpointing in (False, True):
        if checkpointing:
            lm.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        runs: list[int] = []
        hook = lm.model.get_decoder().layers[3].self_attn.register_forward_pre_hook(lambda *_, r=runs: r.append(1))
        with pyramid_drop(lm.model, PYRAMID) as trace:
            loss = lm.model(**inputs, labels=labels).loss
        loss.backward()
        hook.remove()
        assert len(runs) == 1 + checkpointing  # layers did run a second time
        made.append((loss.detach(), gradients(lm.model), [kept[0].tolist() for kept in trace.kept]))
    (loss, plain, kept), (loss_again, again, kept_again) = made
    assert torch.equal(loss, loss_again) and kept == kept_again and plain.keys() == again.keys()
    assert all(torch.equal(gradient, again[name]) for name, gradient in plain.items())


@pytest.mark.parametrize("family", ["qwen3_vl", "smolvlm"])
def test_a_few_steps_learn_the_answer(family: str) -> None:
    lm = build(family, dtype=torch.float32)
    inputs, labels, _ = example(lm)
    lm.model.train()
    optimizer = torch.optim.AdamW(lm.model.parameters(), lr=3e-3)
    losses = []
    with pyramid_drop(lm.model, PYRAMID):
        for _ in range(12):
            loss = lm.model(**inputs, labels=labels).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0]
