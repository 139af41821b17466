"""Streams through decoders with windows, states and lent keys equal transformers on what each layer saw."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from families import cases, video
from hybrids import HYBRIDS, build, exact_linear_attention, inputs_of
from layered import layered_forward, recorded
from test_exact import chunks, next_logits
from torch import Tensor

import pdrop_video as pv

QUESTION = "what is shown first ?"


@pytest.fixture(autouse=True)
def _in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    exact_linear_attention(monkeypatch)


def exact(family: str) -> float:
    """Gemma pools and norms in float32, and so compute Muse Spark's gates, whatever the model's type."""
    return 2e-5 if family.startswith(("gemma4", "muse_spark")) else 1e-9


SIZES = ([9], [1] * 9, [2, 2, 2, 2, 1], [5, 4])
PYRAMIDS = (
    pv.Pyramid(layers=(3, 7), ratios=(0.5, 0.25)),
    pv.Pyramid(layers=(2, 5), ratios=(0.4, 0.2), scorer="relevance"),  # which move to 3 and 7, and ask with a probe
    pv.Pyramid(layers=(7,), ratios=(0.1,), scorer="value_norm"),
)


@pytest.mark.parametrize(("family", "sizes"), cases(HYBRIDS, SIZES, fast=lambda f, s: f % 4 == s))
def test_nothing_dropped_equals_one_forward(family: str, sizes: list[int]) -> None:
    lm, frames, seconds = build(family), video(9), [0.5 * i for i in range(9)]
    with torch.no_grad():
        want = lm.model(**inputs_of(lm, frames, seconds, QUESTION), use_cache=False).logits[0, -1]
    for pyramid in (pv.Pyramid(stages=1), pv.Pyramid(ratios=(1.0, 1.0), scorer="relevance")):
        stream = lm.stream(pyramid, pv.Memory(tokens=None))
        for part, times in chunks(frames, seconds, sizes):
            stream.push(part, times)
        torch.testing.assert_close(next_logits(stream), want, atol=exact(family), rtol=0)


@pytest.mark.parametrize(
    ("family", "pyramid", "room"),
    cases(HYBRIDS, PYRAMIDS, (None, 3), fast=lambda f, p, r: (f + p + r) % 3 == 0),
)
def test_drops_and_evictions_equal_what_each_layer_saw(
    family: str, pyramid: pv.Pyramid, room: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = build(family)
    step, record = lm.adapter.frames_per_step, recorded(monkeypatch)
    frames, seconds = video(6 * step), [0.5 * i for i in range(6 * step)]
    before, after = len(lm.prompt.before()), len(lm.prompt.after(""))
    whole = len(lm.adapter.look(video(step), (60.0, 60.5)[:step], first=9))
    stream = lm.stream(pyramid, pv.Memory(tokens=None if room is None else before + after + room * whole))
    for part, times in chunks(frames, seconds, [n * step for n in (2, 1, 1, 2)]):
        stream.push(part, times)
    inputs = inputs_of(lm, frames, seconds, QUESTION)
    got = next_logits(stream)
    torch.testing.assert_close(got, layered_forward(lm, inputs, record, before), atol=exact(family), rtol=0)
    # the control: had everything reached every layer, it would be something else
    with torch.no_grad():
        other = lm.model(**inputs, use_cache=False).logits[0, -1]
    assert (got - other).abs().max() > 1e-3


def tensors(stream: pv.VideoStream) -> list[Tensor]:
    """All that a stream's layers hold."""
    held = [part for layer in stream._state.cache.layers for parts in layer.stored().values() for part in parts]
    return [*held, *(table.index for table in stream._state.cache.tables)]


@pytest.mark.parametrize("family", HYBRIDS)
def test_questions_and_failed_pushes_leave_no_trace(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lm, frames, seconds = build(family), video(10), [0.5 * i for i in range(10)]
    pyramid, memory = pv.Pyramid(scorer="relevance"), pv.Memory(tokens=60)
    quiet, asked = (lm.stream(pyramid, memory) for _ in range(2))
    for part, times in chunks(frames, seconds, [2, 2, 4, 2]):
        quiet.push(part, times)
        with monkeypatch.context() as broken:  # in the middle of the layers, when states have taken rows in
            broken.setattr(type(lm.model.get_decoder().layers[6].mlp), "forward", failing)
            with pytest.raises(ZeroDivisionError):
                asked.push(part, times)
        asked.push(part, times)
        answers = [asked.ask(QUESTION, max_new_tokens=3).token_ids for _ in range(2)]
        assert answers[0] == answers[1]
        next(asked.ask("how many ?", max_new_tokens=50, stream=True))  # left open
        asked.likelihood(QUESTION, ["first", "how many"])
    assert all(torch.equal(one, other) for one, other in zip(tensors(quiet), tensors(asked), strict=True))
    assert torch.equal(next_logits(quiet), next_logits(asked))


def failing(*args: object, **kwargs: object) -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize("family", HYBRIDS)
def test_saved_and_resumed_bit_for_bit(family: str, tmp_path: Path) -> None:
    lm = build(family)
    streams = [lm.stream(memory=pv.Memory(tokens=60))]
    for i in range(4):
        if i == 2:
            streams[0].save(tmp_path / "a.pdrop")
            streams.append(lm.resume(tmp_path / "a.pdrop"))
        for stream in streams:
            stream.push(video(3, seed=i), [9.0 * i + 0.4 * j for j in range(3)])
    assert all(torch.equal(one, other) for one, other in zip(*map(tensors, streams), strict=True))
    assert torch.equal(*map(next_logits, streams))
