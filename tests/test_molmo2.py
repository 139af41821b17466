"""Whose tokens see each other in Molmo 2: those of a frame in a stream, a prompt's visual ones in `pyramid_drop`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from families import build, video
from more_families import MORE
from reference import full_prompt, masked
from test_exact import chunks, next_logits
from test_one_shot import masks_of
from torch import Tensor

import pdrop_video as pv
from pdrop_video import Pyramid, pyramid_drop

pytestmark = pytest.mark.skipif("molmo2" not in MORE, reason="not in this transformers")
QUESTION = "what is shown first ?"


def prompt(frames: int) -> tuple[pv.VideoLM, dict[str, Any], list[float], Tensor]:
    """A model, inputs with the processor's kinds of tokens, times, and the tokens that may see each other."""
    lm, seconds = build("molmo2"), [0.5 * i for i in range(frames)]
    inputs, _, _ = full_prompt(lm, video(frames), seconds, QUESTION)
    config, ids = lm.model.config, inputs["input_ids"]
    marked = torch.isin(
        ids, torch.tensor([config.image_patch_id, config.frame_start_token_id, config.frame_end_token_id])
    )
    return lm, inputs | dict(mm_token_type_ids=marked.long()), seconds, marked[0]


@torch.no_grad()
def test_one_frame_is_the_unmodified_forward() -> None:
    lm, inputs, seconds, _ = prompt(1)
    stream = lm.stream(Pyramid(stages=1), pv.Memory(tokens=None))
    stream.push(video(1), seconds)
    torch.testing.assert_close(next_logits(stream, QUESTION), lm.model(**inputs).logits[0, -1], atol=1e-9, rtol=0)
    without = {name: value for name, value in inputs.items() if name != "mm_token_type_ids"}
    assert (next_logits(stream, QUESTION) - lm.model(**without).logits[0, -1]).abs().max() > 1e-3


@pytest.mark.parametrize("sizes", [[5], [1] * 5, [2, 3]])
def test_a_frame_sees_itself_and_all_before(sizes: list[int]) -> None:
    lm, inputs, seconds, marked = prompt(5)
    frame = (marked & ~marked.roll(1)).cumsum(0)
    at = torch.arange(len(marked))
    seen = (at <= at[:, None]) | ((frame[:, None] == frame) & marked[:, None] & marked)
    with torch.no_grad(), masked(lm.model.get_decoder(), seen.expand(lm.num_layers, -1, -1)):
        want = lm.model(**inputs).logits[0, -1]
    stream = lm.stream(Pyramid(stages=1), pv.Memory(tokens=None))
    for part, times in chunks(video(5), seconds, sizes):
        stream.push(part, times)
    torch.testing.assert_close(next_logits(stream, QUESTION), want, atol=1e-9, rtol=0)
    with torch.no_grad():
        assert (lm.model(**inputs).logits[0, -1] - want).abs().max() > 1e-4  # where later frames are seen as well


@pytest.mark.parametrize("told", [True, False])
@torch.no_grad()
def test_in_pyramid_drop_it_is_the_model(told: bool) -> None:
    lm, inputs, _, marked = prompt(4)
    if not told:
        del inputs["mm_token_type_ids"]
    how = dict(max_new_tokens=4, do_sample=False)
    want, answer = lm.model(**inputs).logits, lm.model.generate(**inputs, **how)
    with pyramid_drop(lm.model, Pyramid(ratios=(1.0, 1.0))):
        torch.testing.assert_close(lm.model(**inputs).logits, want, atol=1e-9, rtol=0)
        assert torch.equal(lm.model.generate(**inputs, **how), answer)
    visual = inputs["input_ids"][0] == lm.model.config.image_patch_id
    with pyramid_drop(lm.model, Pyramid(layers=(2, 4), ratios=(0.5, 0.25))) as trace:
        got = lm.model(**inputs).logits[0, -1]
        first = lm.model.generate(**inputs, **how)[0, inputs["input_ids"].shape[1]]
    masks = masks_of(trace, visual, lm.num_layers, [2, 4])
    if told:  # what is left at a layer, as its last row sees it
        masks |= (marked[:, None] & marked) & masks[:, -1:]
    without = {name: value for name, value in inputs.items() if name != "mm_token_type_ids"}
    for roll, near in ((0, True), (1, False)):
        with masked(lm.model.get_decoder(), masks.roll(roll, 0)):
            other = lm.model(**without).logits[0, -1]
        assert ((got - other).abs().max() < 1e-9) == near
    assert int(first) == int(got.argmax())
