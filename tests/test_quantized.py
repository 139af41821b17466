"""Quantised checkpoints, with the real bitsandbytes and torchao: run by `make test-quantized`; fails without them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from families import FAMILIES, budget, video
from reference import full_prompt, masked_forward
from test_exact import QUESTION, chunks, next_logits
from test_loading import save
from test_one_shot import PYRAMID, masks_of

import pdrop_video as pv

pytestmark = pytest.mark.quantized

# a threshold above 0 lets the rows of one call share what they keep in 16 bit, so that a row depends on its neighbours
EIGHT_BIT = tf.BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0)


def ways() -> dict[str, Any]:
    """Configurations that run on a CPU, by name. Towers stay as they are: these are too narrow for blocks of 4 bits."""
    from torchao.quantization import Int8WeightOnlyConfig

    apart = [
        "model.visual",
        "model.vision_tower",
        "model.vision_model",
        "model.multi_modal_projector",
        "model.connector",
        "lm_head",
    ]
    return {
        "nf4": tf.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", llm_int8_skip_modules=apart),
        "fp4": tf.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="fp4", llm_int8_skip_modules=apart),
        "int8": EIGHT_BIT,
        "torchao int8": tf.TorchAoConfig(Int8WeightOnlyConfig()),
    }


@pytest.mark.parametrize("way", ["nf4", "fp4", "int8", "torchao int8"])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_quantised_weights_stream(family: str, way: str, tmp_path: Path) -> None:
    """Nothing dropped is the quantised model's own forward; what is dropped, saved and resumed goes on alike."""
    folder = save(tmp_path / "checkpoint", family, "saved by 5")
    lm = pv.load(folder, dtype=torch.float32, quantization_config=ways()[way])
    weights = [p for name, p in lm.model.get_decoder().named_parameters() if "q_proj.weight" in name]
    assert all(type(p) is not torch.nn.Parameter for p in weights)  # of a kind of its own
    frames, seconds = video(6), [0.5 * i for i in range(6)]
    inputs, _, _ = full_prompt(lm, frames, seconds, QUESTION)
    stream = lm.stream(pv.Pyramid(stages=1), pv.Memory(tokens=None))
    want, seen = masked_forward(lm, inputs, None)[-1], []
    for part, times in chunks(frames, seconds, [2, 4]):
        stream.push(part, times)
        seen.append((next_logits(stream) - want).abs().max())
    # in 4 bits, processors with the instructions for it round what is multiplied to bfloat16
    room = 0.08 if way in ("nf4", "fp4") else 2e-3
    assert seen[-1] < room < 0.3 < seen[0]

    stream = lm.stream(PYRAMID, pv.Memory(tokens=budget(lm, 2.6)))
    for part, times in chunks(frames, seconds, [2, 4]):
        stream.push(part, times)
    stream.save(tmp_path / "stream")
    resumed = pv.load(folder, dtype=torch.float32, quantization_config=ways()[way]).resume(tmp_path / "stream")
    assert torch.equal(next_logits(resumed), next_logits(stream))


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_eight_bit_weights_drop_and_stream(family: str, tmp_path: Path) -> None:
    """Proofs 1 and 2 on the quantised model itself, which is near to the model that was saved but not equal to it."""
    folder = save(tmp_path / "checkpoint", family, "saved by 5")
    whole = pv.load(folder, dtype=torch.float32)
    lm = pv.load(folder, dtype=torch.float32, quantization_config=EIGHT_BIT)
    assert {p.dtype for name, p in lm.model.get_decoder().named_parameters() if "_proj.weight" in name} == {torch.int8}

    frames, seconds = video(6), [0.5 * i for i in range(6)]
    inputs, _, _ = full_prompt(lm, frames, seconds, QUESTION)
    visual = inputs["input_ids"][0] == lm.tokenizer.convert_tokens_to_ids(lm.adapter.video_token)
    with pv.pyramid_drop(lm.model, PYRAMID) as trace:
        got = lm.model(**inputs, use_cache=False).logits[0, -1]
    masks = masks_of(trace, visual, lm.num_layers)
    torch.testing.assert_close(got, masked_forward(lm, inputs, masks)[-1], atol=1e-4, rtol=0)
    assert (got - masked_forward(lm, inputs, masks.roll(1, 0))[-1]).abs().max() > 0.1

    stream = lm.stream(pv.Pyramid(stages=1), pv.Memory(tokens=None))
    for part, times in chunks(frames, seconds, [2, 4]):
        stream.push(part, times)
    want = masked_forward(lm, inputs, None)[-1]
    torch.testing.assert_close(next_logits(stream), want, atol=1e-4, rtol=0)
    away = (want - masked_forward(whole, inputs, None)[-1]).abs().max()
    assert 1e-3 < away < 0.5 * want.std()
