"""Proofs 1, 2, 3 and 5 of the design: a stream equals unmodified transformers, masked by what each layer held."""

from __future__ import annotations

import pytest
import torch
from families import FAMILIES, budget, build, cases, video
from reference import full_prompt, masked_forward, recorded, stream_masks
from torch import Tensor

import pdrop_video as pv

QUESTION = "what is shown first ?"
ATTENTIONS = {"sdpa": 1e-9, "eager": 2e-5}  # transformers' eager attention takes its softmax in float32


def chunks(frames: Tensor, seconds: list[float], sizes: list[int]):
    start = 0
    for size in sizes:
        yield frames[start : start + size], seconds[start : start + size]
        start += size
    assert start == len(frames)


def next_logits(stream: pv.VideoStream, question: str = QUESTION) -> Tensor:
    """Logits of the first token of an answer, as `ask` computes them."""
    asked = stream._asked(question, "", None)
    logits = asked.prefill()
    asked.close()
    return logits


SIZES = ([9], [1] * 9, [2, 2, 2, 2, 1], [5, 4], [3, 1, 4, 1])
PYRAMIDS = (
    pv.Pyramid(layers=(2, 4), ratios=(0.5, 0.25)),
    pv.Pyramid(layers=(1, 2, 5), ratios=(0.6, 0.6, 0.1)),  # the first two inside Qwen3-VL's deepstack layers
    pv.Pyramid(stages=6, ratio=0.7),
    pv.Pyramid(layers=(2, 3, 5), ratios=(0.2, 0.05, 0.05)),  # single steps keep nothing from the second stage on
)
STEPS = ([1, 2, 3], [1] * 6, [2, 2, 2], [5, 1], [6])  # chunks of so many steps of time


@pytest.mark.parametrize(
    ("family", "sizes", "attn"),
    cases(FAMILIES, SIZES, ATTENTIONS, fast=lambda f, s, a: (s - f) % 5 == 2 * a),  # sdpa on one size, eager on another
)
def test_nothing_dropped_equals_one_forward(family: str, sizes: list[int], attn: str) -> None:
    """Proof 1, with irregular times and an odd last frame; by one stage and by ratios of 1."""
    lm = build(family, attn)
    frames, seconds = video(9), [0.0, 0.5, 1.0, 1.5, 2.2, 3.0, 7.5, 7.6, 9.0]
    inputs, _, _ = full_prompt(lm, frames, seconds, QUESTION)
    want = masked_forward(lm, inputs, None)[-1]
    for pyramid in (pv.Pyramid(stages=1), pv.Pyramid(ratios=(1.0, 1.0))):
        stream = lm.stream(pyramid, pv.Memory(tokens=None))
        for part, times in chunks(frames, seconds, sizes):
            stream.push(part, times)
        torch.testing.assert_close(next_logits(stream), want, atol=ATTENTIONS[attn], rtol=0)


@pytest.mark.parametrize(
    ("family", "pyramid", "room", "attn", "steps"),
    cases(
        FAMILIES,
        PYRAMIDS,
        (None, 4, 2.6),  # steps that fit into the budget
        ATTENTIONS,
        STEPS,
        fast=lambda f, p, r, a, s: (f + p + r) % 3 == 0 and (f + p + a) % 2 == 0 and (f + 2 * p + r) % 5 == s,
    ),
)
def test_drops_and_evictions_equal_masks(
    family: str,
    pyramid: pv.Pyramid,
    room: float | None,
    attn: str,
    steps: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Proofs 2 and 3: each layer of the masked reference sees exactly what its cache held at that time."""
    lm = build(family, attn)
    tokens, step = budget(lm, room), lm.adapter.frames_per_step
    frames, seconds = video(6 * step), [0.5 * i for i in range(6 * step)]
    inputs, prefix, pushed = full_prompt(lm, frames, seconds, QUESTION)
    snapshots = recorded(monkeypatch, tokens)
    stream = lm.stream(pyramid, pv.Memory(tokens=tokens))
    for part, times in chunks(frames, seconds, [n * step for n in steps]):
        stream.push(part, times)

    assert int(snapshots[-1][0].max()) + 1 == prefix + pushed
    allowed = stream_masks(snapshots, prefix, inputs["input_ids"].shape[1], snapshots[-1])
    got = next_logits(stream)
    torch.testing.assert_close(got, masked_forward(lm, inputs, allowed)[-1], atol=ATTENTIONS[attn], rtol=0)
    other = masked_forward(lm, inputs, allowed.roll(1, 0))[-1]  # the control: neighbouring layers' masks do not fit
    assert (got - other).abs().max() > 1e-3


@pytest.mark.parametrize(("family", "room"), cases(FAMILIES, (4, None), fast=lambda f, r: r == 0 or f in (2, 3)))
def test_ask_leaves_no_trace(family: str, room: float | None) -> None:
    """Proof 5: pushing on after an answer equals pushing on without it, bit for bit; odd frames wait unharmed."""
    lm = build(family)
    frames, seconds = video(11), [0.5 * i for i in range(11)]
    quiet, asked = (lm.stream(pv.Pyramid(stages=3), pv.Memory(tokens=budget(lm, room))) for _ in range(2))
    answers = []
    for part, times in chunks(frames, seconds, [3, 2, 1, 4, 1]):
        quiet.push(part, times)
        asked.push(part, times)
        answers.append([asked.ask(QUESTION, max_new_tokens=5).token_ids for _ in range(2)])
        unfinished = asked.ask("how many ?", max_new_tokens=50, stream=True)
        next(unfinished)  # left open: its fork lives on while frames are pushed
    assert all(first == second for first, second in answers)
    a, b = quiet._state, asked._state
    for left, right in zip(a.cache.layers, b.cache.layers, strict=True):
        assert torch.equal(left.keys, right.keys) and torch.equal(left.values, right.values)
    for left, right in zip(a.cache.tables, b.cache.tables, strict=True):
        assert torch.equal(left.index, right.index) and torch.equal(left.score, right.score)
    assert a.place == b.place and a.rows == b.rows
    assert torch.equal(next_logits(quiet), next_logits(asked))


def test_an_open_answer_is_not_disturbed_by_pushes() -> None:
    lm = build("qwen2_5_vl")
    frames = video(8)
    calm, busy = (lm.stream(pv.Pyramid(stages=3), pv.Memory(tokens=60)) for _ in range(2))
    for stream in (calm, busy):
        stream.push(frames[:4], [0, 1, 2, 3])
    want = calm.ask(QUESTION, max_new_tokens=12)
    answer = busy.ask(QUESTION, max_new_tokens=12, stream=True)
    pieces = [next(answer)]
    busy.push(frames[4:], [4, 5, 6, 7])
    pieces += list(answer)
    assert answer.answer is not None and answer.answer.token_ids == want.token_ids
    assert "".join(pieces).strip() == want.text
    assert busy.ask(QUESTION).frames == 8
