"""Streams through convolutions, Mamba, experts and latents: equal to unmodified transformers on what each layer saw."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from layered import Record, layered_stack, recorded
from plain import DECODERS, build, video, whole
from test_exact import chunks, next_logits
from test_layer_kinds import tensors

import pdrop_video as pv
from pdrop_video import pyramid_drop
from pdrop_video.pyramid import LayerLoop

QUESTION = "what is shown first ?"
PYRAMIDS = (
    pv.Pyramid(layers=(2, 5), ratios=(0.5, 0.25)),
    pv.Pyramid(layers=(1, 3), ratios=(0.4, 0.2), scorer="relevance"),
    pv.Pyramid(layers=(7,), ratios=(0.1,), scorer="key_norm"),
)


def exact(name: str) -> float:
    """Mamba's recurrence, and norms, run in float32 whatever the model's type."""
    return 2e-4 if name == "nemotron_h" else 1e-4 if name.startswith("lfm3") else 1e-6


@pytest.mark.parametrize("name", DECODERS)
@torch.no_grad()
def test_nothing_dropped_equals_one_forward(name: str) -> None:
    lm, frames, seconds = build(name), video(5), [float(i) for i in range(5)]
    want = lm.model(inputs_embeds=whole(lm, frames, QUESTION)[0], use_cache=False).logits[0, -1]
    for sizes in ([5], [1] * 5, [2, 3]):
        stream = lm.stream(pv.Pyramid(ratios=(1.0, 1.0), scorer="relevance"), pv.Memory(tokens=None))
        for part, times in chunks(frames, seconds, sizes):
            stream.push(part, times)
        torch.testing.assert_close(
            next_logits(stream), want.double(), atol=exact(name), rtol=0
        )  # which Nemotron-H casts


@pytest.mark.parametrize("room", [None, 3])
@pytest.mark.parametrize("pyramid", PYRAMIDS)
@pytest.mark.parametrize("name", DECODERS)
@torch.no_grad()
def test_drops_and_evictions_equal_what_each_layer_saw(
    name: str, pyramid: pv.Pyramid, room: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, frames, record = build(name), video(6), recorded(monkeypatch)
    embeds, prefix = whole(lm, frames, QUESTION)
    text = prefix + len(lm.prompt.after(""))
    stream = lm.stream(pyramid, pv.Memory(tokens=None if room is None else text + 7 * room))
    for part, times in chunks(frames, [float(i) for i in range(6)], [2, 1, 1, 2]):
        stream.push(part, times)
    got, positions = next_logits(stream), torch.arange(embeds.shape[1])[None]
    hidden = layered_stack(stream.loop.text, embeds, positions, record, prefix)
    want = lm.model.get_output_embeddings()(stream.loop.decoder.norm(hidden[:, -1:]))[0, 0]
    torch.testing.assert_close(got, want, atol=exact(name), rtol=0)
    other = lm.model(inputs_embeds=embeds, use_cache=False).logits[0, -1]
    assert (got - other).abs().max() > 1e-3


@pytest.mark.parametrize("name", DECODERS)
def test_saved_resumed_and_asked_without_a_trace(name: str, tmp_path: Path) -> None:
    lm = build(name)
    streams = [lm.stream(memory=pv.Memory(tokens=40))]
    for i in range(4):
        if i == 2:
            streams[0].save(tmp_path / "a.pdrop")
            streams.append(lm.resume(tmp_path / "a.pdrop"))
        for stream in streams:
            stream.push(video(2, seed=i), [2.0 * i, 2.0 * i + 1])
        streams[0].ask(QUESTION, max_new_tokens=2)
    assert all(torch.equal(one, other) for one, other in zip(*map(tensors, streams), strict=True))
    assert torch.equal(*map(next_logits, streams))


@pytest.mark.parametrize("name", DECODERS)
@torch.no_grad()
def test_one_shot_with_nothing_dropped_is_the_model(name: str) -> None:
    """And with drops each token of the answer is what the layers make of the rows that reached them."""
    lm = build(name)
    ids = torch.tensor([[*lm.prompt.before(), *[191] * 12, *lm.prompt.after(QUESTION)]])
    visual, total = ids == 191, ids.shape[1]
    how = dict(max_new_tokens=4, do_sample=False, attention_mask=torch.ones_like(ids))
    want = lm.model.generate(ids, **how)
    with pyramid_drop(lm.model, pv.Pyramid(ratios=(1.0,)), visual=visual):
        assert torch.equal(lm.model.generate(ids, **how), want)
    with pyramid_drop(lm.model, pv.Pyramid(layers=(2, 5), ratios=(0.5, 0.25)), visual=visual) as trace:
        answer = lm.model.generate(ids, **how)
    loop = LayerLoop(lm.model.get_decoder(), pv.Pyramid(layers=(2, 5), ratios=(0.5, 0.25)))
    stages = [torch.arange(total)]
    for kept in trace.kept:
        stages.append(torch.cat([(~visual[0]).nonzero()[:, 0], visual[0].nonzero()[:, 0][kept[0]]]).sort().values)
    by_layer = [stages[loop.schedule.stage(i)] for i in range(8)]
    record, embeds = Record([total], [by_layer], [by_layer]), lm.model.get_input_embeddings()(answer)
    hidden = layered_stack(loop.text, embeds, torch.arange(embeds.shape[1])[None], record, 0)
    tokens = lm.model.get_output_embeddings()(loop.decoder.norm(hidden))[0].argmax(-1)
    assert tokens[total - 1 : -1].tolist() == answer[0, total:].tolist()
