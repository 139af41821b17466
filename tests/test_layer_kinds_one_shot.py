"""`pyramid_drop` inside models with windows, states and lent keys: prefill, decoding, batches, training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from families import cases, video
from hybrids import HYBRIDS, build, inputs_of
from layered import Record, layered_forward
from torch import Tensor

import pdrop_video as pv
from pdrop_video import Pyramid, pyramid_drop

QUESTION = "what is shown first ?"
PYRAMID = Pyramid(layers=(3, 7), ratios=(0.5, 0.25))
EXACT = 2e-4
"""Recurrences run in float32, and a token at a time by other sums than a whole prompt."""


def prompt_of(lm: pv.VideoLM, frames: int = 6, seed: int = 0, question: str = QUESTION) -> dict[str, Any]:
    return inputs_of(lm, video(frames, seed), [0.5 * i for i in range(frames)], question)


def saw(lm: pv.VideoLM, inputs: dict[str, Any], trace: pv.Trace) -> Record:
    """Which rows of a prompt each layer saw."""
    ids = inputs["input_ids"][0]
    rows, visual = torch.arange(len(ids)), ids == lm.model.config.video_token_id
    stages = [rows]
    for kept in trace.kept:
        stays = ~visual
        stays[visual.nonzero()[:, 0][kept[0]]] = True
        stages.append(rows[stays])
    by_layer = [stages[PYRAMID.resolve(8, (3, 7)).stage(i)] for i in range(8)]
    return Record([len(ids)], [by_layer], [by_layer])


def longer(lm: pv.VideoLM, inputs: dict[str, Any], answer: list[int]) -> dict[str, Any]:
    """The same prompt with an answer begun, as the unmodified model takes it."""
    ids = torch.cat([inputs["input_ids"], torch.tensor([answer], dtype=torch.long)], dim=1)
    given = {name: value for name, value in inputs.items() if name != "attention_mask"} | {"input_ids": ids}
    if "mm_token_type_ids" in inputs:
        given["mm_token_type_ids"] = (ids == lm.model.config.video_token_id).int() * 2
    if lm.name == "gemma4_unified":
        blank = torch.zeros(1, ids.shape[1], 1, dtype=lm.model.dtype)
        how = dict(attention_mask=None, past_key_values=None, position_ids=None)
        given["attention_mask"] = lm.model.create_masks_for_generate(
            lm.model.config, blank, mm_token_type_ids=given["mm_token_type_ids"], **how
        )
    return given


def generated(lm: pv.VideoLM, prompt: dict[str, Any], **how: Any) -> Tensor:
    """Four tokens; the mask is given, since `generate` takes every token with the padding's id for padding."""
    given = prompt | {"attention_mask": torch.ones_like(prompt["input_ids"])}
    return lm.model.generate(**given, max_new_tokens=4, do_sample=False, **how)[0, -4:]


@pytest.mark.parametrize("family", HYBRIDS)
@torch.no_grad()
def test_prefill_and_decoding_equal_what_each_layer_saw(family: str) -> None:
    lm = build(family)
    inputs = prompt_of(lm)
    plain = {name: value for name, value in inputs.items() if name != "attention_mask"}
    with pyramid_drop(lm.model, PYRAMID) as trace:
        out = lm.model(**plain, use_cache=True)
        record, answer, got = saw(lm, inputs, trace), [], [out.logits[0, -1]]
        for _ in range(4):
            answer.append(int(got[-1].argmax()))
            out = lm.model(input_ids=torch.tensor([answer[-1:]]), past_key_values=out.past_key_values, use_cache=True)
            got.append(out.logits[0, -1])
        assert generated(lm, plain).tolist() == answer
    for done, logits in enumerate(got):
        want = layered_forward(lm, longer(lm, inputs, answer[:done]), record, 0)
        torch.testing.assert_close(logits, want, atol=EXACT, rtol=0)
    n = int((inputs["input_ids"] == lm.model.config.video_token_id).sum())
    assert [len(kept[0]) for kept in trace.kept] == [n // 2, n // 4]
    with pytest.raises(pv.ModelError, match="filled inside pyramid_drop"):
        lm.model(input_ids=torch.tensor([[1]]), past_key_values=out.past_key_values, use_cache=True)


@pytest.mark.parametrize("family", [family for family in HYBRIDS if family != "gemma4_unified"])  # see its adapter
@torch.no_grad()
def test_with_nothing_dropped_the_model_answers_as_it_does(family: str) -> None:
    """Greedy, and by beams."""
    lm = build(family)
    prompts = [prompt_of(lm), prompt_of(lm, seed=1)]
    counts = "_expand_inputs_for_generation" in vars(type(lm.model))  # older ones count videos by EXAONE's own tokens
    for beams in (1,) if counts and family == "exaone4_5" else (1, 3):
        wanted = [generated(lm, prompt, num_beams=beams) for prompt in prompts]
        with pyramid_drop(lm.model, Pyramid(ratios=(1.0, 1.0))):
            got = [generated(lm, prompt, num_beams=beams) for prompt in prompts]
        assert all(torch.equal(one, other) for one, other in zip(got, wanted, strict=True))


@pytest.mark.parametrize("family", [family for family in HYBRIDS if "minicpm" not in family])  # which packs patches
@torch.no_grad()
def test_a_padded_batch_equals_its_samples(family: str) -> None:
    lm = build(family)
    prompts = [prompt_of(lm, 2), prompt_of(lm, 4, seed=1)]
    if "gemma4" in family and "num_frames_per_video" not in prompts[0]:  # in older ones a batch's videos are as long
        prompts[0] = prompt_of(lm, 4, question="what ?")
    merged = batch(lm, prompts)
    alone = [{name: value for name, value in prompt.items() if name != "attention_mask"} for prompt in prompts]
    with pyramid_drop(lm.model, PYRAMID):
        want = [lm.model(**prompt, use_cache=False).logits[0, -1] for prompt in alone]
        got = lm.model(**merged, use_cache=False).logits[:, -1]
        answers = [generated(lm, prompt) for prompt in alone]
        together = lm.model.generate(**merged, max_new_tokens=4, do_sample=False)[:, -4:]
    torch.testing.assert_close(got, torch.stack(want), atol=EXACT, rtol=0)
    assert torch.equal(together, torch.stack(answers))


def batch(lm: pv.VideoLM, prompts: list[dict[str, Any]]) -> dict[str, Any]:
    """Several prompts in one call, the shorter ones padded on the left."""
    longest = max(prompt["input_ids"].shape[1] for prompt in prompts)

    def padded(name: str, value: int = 0) -> Tensor:
        rows = [prompt[name][0] for prompt in prompts]
        return torch.stack([torch.cat([row.new_full((longest - len(row),), value), row]) for row in rows])

    given: dict[str, Any] = {"input_ids": padded("input_ids", 3)}
    if "mm_token_type_ids" in prompts[0]:
        given["mm_token_type_ids"] = padded("mm_token_type_ids")
    for name in prompts[0].keys() - given.keys() - {"attention_mask"}:
        given[name] = torch.cat([prompt[name] for prompt in prompts])
    lengths = [prompt["input_ids"].shape[1] for prompt in prompts]
    given["attention_mask"] = torch.stack([torch.arange(longest) >= longest - n for n in lengths]).long()
    return given


LEARNING = [family for family in HYBRIDS if family != "gemma4_unified"]
FAST = ("qwen3_5", "gemma4", "exaone4_5")


@pytest.mark.parametrize("family", cases(LEARNING, fast=lambda f: LEARNING[f] in FAST))
def test_training_reaches_every_weight_that_the_loss_depends_on(family: str) -> None:
    """With nothing dropped loss and gradients are the model's own; with drops they are others, and finite."""
    lm = build(family)
    inputs, grads = prompt_of(lm), []
    labels = inputs["input_ids"].clone()
    labels[:, :-3] = -100
    for pyramid in (None, Pyramid(ratios=(1.0, 1.0)), PYRAMID):
        lm.model.train()
        lm.model.zero_grad()
        if pyramid is None:
            loss = lm.model(**inputs, labels=labels).loss
        else:
            with pyramid_drop(lm.model, pyramid):
                loss = lm.model(**inputs, labels=labels).loss
        loss.backward()
        layer = lm.model.get_decoder().layers[1]
        grads.append(torch.cat([p.grad.flatten() for p in layer.parameters() if p.grad is not None]))
    torch.testing.assert_close(grads[0], grads[1], atol=1e-5, rtol=1e-4)
    assert grads[2].isfinite().all()
    assert (grads[2] - grads[0]).norm() > 1e-2 * grads[0].norm()
