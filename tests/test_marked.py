"""ERNIE 4.5 VL, whose visual tokens have experts of their own: in `pyramid_drop` and in streams, with no processor."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
import transformers as tf
from families import QWEN_TEMPLATE, TEXT, tokenizer
from layered import Record, layered_stack, recorded
from plain import Eyes, video
from test_exact import chunks, next_logits
from torch import Tensor

import pdrop_video as pv
from pdrop_video import pyramid_drop
from pdrop_video.models import Pixels
from pdrop_video.pyramid import LayerLoop

QUESTION = "what is shown first ?"
SCHEDULE = pv.Pyramid(layers=(2, 4), ratios=(0.5, 0.25))
MARKED = torch.tensor([191, 194, 195])
ROUGH = 1e-6
"""Its routers compute in float32."""


class Marking(Eyes):
    """Eyes of the simplest kind for a decoder that is told which rows are visual; the marks around them are so, too."""

    @property
    def stands_for(self) -> int:
        return 191

    def beside(self, embeds: Tensor, ids: Tensor) -> Tensor:
        return torch.cat([embeds, torch.isin(ids, MARKED)[:, None].to(embeds)], dim=1)


class MarkingFrames(Marking):
    """The same without a word in front of each frame."""

    model_types: ClassVar[tuple[str, ...]] = ()

    def glue(self, number: int, seconds: float) -> tuple[str, str]:
        return "", ""


def build(eyes: type[Marking]) -> pv.VideoLM:
    torch.manual_seed(0)
    vision = dict(depth=1, hidden_size=32, num_heads=2, patch_size=8, intermediate_size=64)
    text = dict(TEXT, moe_intermediate_size=[32, 48], moe_num_experts=4, moe_k=2, moe_num_shared_experts=1)
    text |= dict(rope_parameters=dict(rope_type="default", rope_theta=10000.0, mrope_section=[3, 3, 2]))
    ids = dict(image_token_id=190, video_token_id=191, image_start_token_id=192, image_end_token_id=193)
    ids |= dict(video_start_token_id=194, video_end_token_id=195)
    config = tf.Ernie4_5_VLMoeConfig(text_config=text, vision_config=vision, **ids)
    model = tf.AutoModelForImageTextToText.from_config(config, experts_implementation="eager").double().eval()
    model.config.hidden_size = TEXT["hidden_size"]  # which `Eyes` asks for
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    tokens = ["<|image_pad|>", "<|video_pad|>", "<|is|>", "<|ie|>", "<|vs|>", "<|ve|>"]
    words = tokenizer(tokens, QWEN_TEMPLATE.replace("<|vision_start|>", "<|vs|>").replace("<|vision_end|>", "<|ve|>"))
    return pv.VideoLM(model, eyes(model, Pixels(), words), eyes.prompt(words), "ernie")


def whole(lm: pv.VideoLM, frames: Tensor) -> tuple[Tensor, Tensor, int]:
    """Embeddings and marks of a whole prompt, and the tokens of the prefix."""
    before, after = lm.prompt.before(), lm.prompt.after(QUESTION)
    chunk = lm.adapter.look(frames, tuple(map(float, range(len(frames)))))
    assert chunk.ids is not None
    ids = torch.cat([torch.tensor(before), chunk.ids, torch.tensor(after)])
    embeds = torch.cat([lm.adapter.embed(before), chunk.embeds, lm.adapter.embed(after)])
    return embeds[None], torch.isin(ids, MARKED).long()[None], len(before)


@pytest.mark.parametrize("room", [None, 3])
@pytest.mark.parametrize("eyes", [Marking, MarkingFrames])
@torch.no_grad()
def test_streams_give_visual_rows_their_own_experts(
    eyes: type[Marking], room: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, frames, seconds = build(eyes), video(6), [float(i) for i in range(6)]
    embeds, marks, prefix = whole(lm, frames)
    want = lm.model(inputs_embeds=embeds, moe_mm_token_type_ids=marks, use_cache=False).logits[0, -1]
    for sizes in ([6], [1] * 6, [2, 4]):
        stream = lm.stream(pv.Pyramid(stages=1), pv.Memory(tokens=None))
        for part, times in chunks(frames, seconds, sizes):
            stream.push(part, times)
        torch.testing.assert_close(next_logits(stream, QUESTION), want, atol=ROUGH, rtol=0)
    record = recorded(monkeypatch)
    step, text = len(lm.adapter.look(frames[:1], (0.0,))), prefix + len(lm.prompt.after(""))
    stream = lm.stream(SCHEDULE, pv.Memory(tokens=None if room is None else text + step * room))
    for part, times in chunks(frames, seconds, [2, 1, 1, 2]):
        stream.push(part, times)
    positions = torch.arange(embeds.shape[1]).expand(3, 1, -1)
    got, hidden = (
        next_logits(stream, QUESTION),
        layered_stack(stream.loop.text, embeds, positions, record, prefix, marks=marks),
    )
    told = lm.model.get_output_embeddings()(stream.loop.decoder.norm(hidden[:, -1:]))[0, 0]
    torch.testing.assert_close(got, told, atol=ROUGH, rtol=0)
    blind = layered_stack(stream.loop.text, embeds, positions, record, prefix, marks=torch.zeros_like(marks))
    assert (hidden[0, -1] - blind[0, -1]).abs().max() > 1e-3


@torch.no_grad()
def test_in_pyramid_drop() -> None:
    lm = build(Marking)
    ids = torch.tensor([[*lm.prompt.before(), *[191] * 12, *lm.prompt.after(QUESTION)]])
    visual, total, marks = ids == 191, ids.shape[1], torch.isin(ids, MARKED).long()
    how: dict[str, Any] = dict(max_new_tokens=4, do_sample=False, attention_mask=torch.ones_like(ids))
    how |= dict(moe_mm_token_type_ids=marks)
    want = lm.model.generate(ids, **how)
    with pyramid_drop(lm.model, pv.Pyramid(ratios=(1.0,))):
        assert torch.equal(lm.model.generate(ids, **how), want)
    with pyramid_drop(lm.model, SCHEDULE) as trace:
        answer = lm.model.generate(ids, **how)
        logits = lm.model(ids, moe_mm_token_type_ids=marks).logits[0, -1]
    loop = LayerLoop(lm.model.get_decoder(), SCHEDULE)
    stages = [torch.arange(total)]
    for kept in trace.kept:
        stages.append(torch.cat([(~visual[0]).nonzero()[:, 0], visual[0].nonzero()[:, 0][kept[0]]]).sort().values)
    by_layer = [stages[loop.schedule.stage(i)] for i in range(len(loop.kinds))]
    record, embeds = Record([total], [by_layer], [by_layer]), lm.model.get_input_embeddings()(answer)
    positions = torch.arange(embeds.shape[1]).expand(3, 1, -1)
    marks = torch.nn.functional.pad(marks, (0, 4))
    hidden = layered_stack(loop.text, embeds, positions, record, 0, marks=marks)
    all_logits = lm.model.get_output_embeddings()(loop.decoder.norm(hidden))[0]
    assert all_logits.argmax(-1)[total - 1 : -1].tolist() == answer[0, total:].tolist()
    torch.testing.assert_close(logits, all_logits[total - 1], atol=ROUGH, rtol=0)
