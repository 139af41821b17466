"""PyramidDrop, exactly: traces of the released code (``tests/golden/README.md``) reproduced through `pyramid_drop`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from pdrop_video.pyramid import Pyramid, pyramid_drop

GOLDEN = Path(__file__).parent / "golden"
INFERENCE = ("mha_seed0", "gqa_seed0", "mha_trunc_seed0")
CLOSE = dict(atol=1e-4, rtol=0)


def load_case(name: str, attn: str):
    """Model, trace, schedule and visual mask of one golden case."""
    folder = GOLDEN / name
    case = json.loads((folder / "case.json").read_text())
    config = {k: v for k, v in case["config"].items() if k not in ("torch_dtype", "pretraining_tp")}
    model = LlamaForCausalLM(LlamaConfig(**config)).eval()
    model.load_state_dict(load_file(folder / "weights.safetensors"))
    model.set_attn_implementation(attn)
    with np.load(folder / "trace.npz") as arrays:
        trace = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    visual = torch.zeros(1, trace["inputs_embeds"].shape[0], dtype=torch.bool)
    visual[:, case["image_start"] : case["image_start"] + case["image_length"]] = True
    pyramid = Pyramid(layers=case["layer_list"], ratios=case["image_token_ratio_list"], positions="compact")
    return model, trace, pyramid, visual, case


@pytest.mark.parametrize("attn", ["sdpa", "eager"])
@pytest.mark.parametrize("name", INFERENCE)
@torch.no_grad()
def test_inference(name: str, attn: str) -> None:
    model, want, pyramid, visual, case = load_case(name, attn)
    with pyramid_drop(model, pyramid, visual=visual) as trace:
        out = model(inputs_embeds=want["inputs_embeds"][None], use_cache=True)
        cache = out.past_key_values
        for s in range(3):
            assert torch.equal(trace.kept[s][0], want[f"kept_stage{s}"])
            assert len(trace.kept[s][0]) == case["keep_counts"][s]
            torch.testing.assert_close(trace.scores[s][0], want[f"scores_stage{s}"], **CLOSE)
        torch.testing.assert_close(out.logits[0], want["prefill_logits"], **CLOSE)
        assert [cache.get_seq_length(i) for i in range(8)] == want["cache_len_prefill"].tolist()
        for i in range(8):
            torch.testing.assert_close(cache.layers[i].keys[0], want[f"key_{i}"], **CLOSE)
            torch.testing.assert_close(cache.layers[i].values[0], want[f"value_{i}"], **CLOSE)
        logits, tokens = [out.logits[0, -1]], []
        for _ in range(8):
            tokens.append(int(logits[-1].argmax()))
            out = model(input_ids=torch.tensor([[tokens[-1]]]), past_key_values=cache, use_cache=True)
            logits.append(out.logits[0, -1])
    assert tokens == want["decode_tokens"].tolist()
    torch.testing.assert_close(torch.stack(logits), want["decode_logits"], **CLOSE)
    assert [cache.get_seq_length(i) for i in range(8)] == want["cache_len_end"].tolist()


@pytest.mark.parametrize("name", INFERENCE)
@torch.no_grad()
def test_one_stage_and_closed_block_leave_the_model_alone(name: str) -> None:
    model, want, pyramid, visual, _ = load_case(name, "sdpa")
    prompt = dict(inputs_embeds=want["inputs_embeds"][None])
    before = model(**prompt).logits
    with pyramid_drop(model, Pyramid(stages=1), visual=visual) as trace:
        assert torch.equal(model(**prompt).logits, before) and trace.kept == []
    with pyramid_drop(model, pyramid, visual=visual):
        assert model(**prompt).logits.shape[1] < before.shape[1]
    assert torch.equal(model(**prompt).logits, before)
    torch.testing.assert_close(before[0, -1], want["full_prefill_last_logits"], **CLOSE)


@torch.no_grad()
def test_generate_gives_the_golden_tokens() -> None:
    model, want, pyramid, visual, _ = load_case("gqa_seed0", "sdpa")
    with pyramid_drop(model, pyramid, visual=visual):
        prompt = want["inputs_embeds"][None]
        tokens = model.generate(
            inputs_embeds=prompt,
            attention_mask=torch.ones(prompt.shape[:2]),
            max_new_tokens=8,
            do_sample=False,
            eos_token_id=None,
        )
    assert tokens[0].tolist() == want["decode_tokens"].tolist()


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("attn", ["sdpa", "eager"])
def test_training(attn: str, checkpointing: bool) -> None:
    model, want, pyramid, visual, _ = load_case("train_multiturn_mha_seed0", attn)
    model.train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    embeds = want["inputs_embeds"][None].requires_grad_()
    with pyramid_drop(model, pyramid, visual=visual) as trace:
        out = model(inputs_embeds=embeds, labels=want["labels_expanded"][None])
        out.loss.backward()
    for s in range(3):
        assert torch.equal(trace.kept[s][0], want[f"kept_stage{s}"])
        torch.testing.assert_close(trace.scores[s][0], want[f"scores_stage{s}"], **CLOSE)
    torch.testing.assert_close(out.loss, want["loss"], **CLOSE)
    torch.testing.assert_close(out.logits[0], want["logits"], **CLOSE)
    torch.testing.assert_close(embeds.grad[0], want["grad_inputs_embeds"], **CLOSE)
    compared = [key for key in want if key.startswith("grad.")]
    assert len(compared) == 5
    for key in compared:
        torch.testing.assert_close(model.get_parameter(key.removeprefix("grad.")).grad, want[key], **CLOSE)
