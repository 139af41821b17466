"""The ask-time pyramid: what a question drops from the memory, against masks and attention weights of transformers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from families import FAMILIES, budget, build, cases, video
from reference import full_prompt, masked_forward, recorded, stream_masks
from torch import Tensor

import pdrop_video as pv
from pdrop_video.memory import StreamCache, TokenTable

QUESTION = "what is shown first ?"
ASKING = (
    pv.Pyramid(layers=(2, 4), ratios=(0.5, 0.25)),
    pv.Pyramid(layers=(1, 3, 5), ratios=(0.7, 0.7, 0.1)),
    pv.Pyramid(layers=(3,), ratios=(0.0001,)),  # nothing visual is left
)
WATCHING = (pv.Pyramid(stages=1), pv.Pyramid(layers=(2, 4), ratios=(0.6, 0.3)))


@torch.no_grad()
def asked(stream: pv.VideoStream, pyramid: pv.Pyramid) -> Any:
    question = stream._asked(QUESTION, "", pyramid)
    logits = question.prefill()
    question.close()
    return logits, question


def shown_to(cache: StreamCache) -> list[TokenTable]:
    """What each layer of a question's fork lets it see of what is remembered."""
    shown = [layer.shown for layer in cache.layers]
    return [
        table if columns is None else table.take(columns) for table, columns in zip(cache.tables, shown, strict=True)
    ]


def attention(lm: pv.VideoLM, inputs: dict[str, Any], allowed: Tensor, layer: int) -> Tensor:
    """Weights [tokens] of the last row in a layer of the unmodified eager model, the mean over its heads."""
    caught: list[Tensor] = []
    module = lm.model.get_decoder().layers[layer].self_attn
    hook = module.register_forward_hook(lambda m, a, out: caught.append(out[1][0, :, -1].mean(0)))
    masked_forward(lm, inputs, allowed)
    hook.remove()
    return caught[0]


@pytest.mark.parametrize(
    ("family", "asking", "watching", "room"),
    cases(
        FAMILIES, ASKING, WATCHING, (None, 3), fast=lambda f, a, w, r: a == f % 3 and w == f % 2 and r == (f // 2) % 2
    ),
)
def test_a_question_drops_as_pyramid_drop_does(
    family: str, asking: pv.Pyramid, watching: pv.Pyramid, room: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which tokens each layer keeps, by the eager model's own weights; the logits, by masks; the evidence, by both."""
    lm = build(family, "eager")
    tokens, step = budget(lm, room), lm.adapter.frames_per_step
    frames, seconds = video(6 * step), [0.5 * i for i in range(6 * step)]
    inputs, prefix, _ = full_prompt(lm, frames, seconds, QUESTION)
    snapshots = recorded(monkeypatch, tokens)
    stream = lm.stream(watching, pv.Memory(tokens=tokens))
    for i in range(3):
        stream.push(frames[2 * step * i : 2 * step * (i + 1)], seconds[2 * step * i : 2 * step * (i + 1)])
    before = [table.index.sort().values for table in stream._state.cache.tables]
    visual_of = {int(n): bool(v) for t in stream._state.cache.tables for n, v in zip(t.index, t.visual, strict=True)}
    got, question = asked(stream, asking)
    schedule, total = question.schedule, inputs["input_ids"].shape[1]

    kept = list(before)
    first = sum(visual_of[int(n)] for n in before[0])
    weights: dict[int, Tensor] = {}
    for i in range(lm.num_layers):
        stage = schedule.stage(i)
        begins = i == (0, *schedule.layers)[stage]
        if begins:
            weights[stage] = attention(lm, inputs, stream_masks(snapshots, prefix, total, kept), i)
        if stage == 0:
            continue
        twin = next((j for j in range(i) if schedule.stage(j) == stage and torch.equal(before[j], before[i])), None)
        if twin is not None:
            kept[i] = kept[twin]
            continue
        weight = attention(lm, inputs, stream_masks(snapshots, prefix, total, kept), i)
        seen = [int(n) for n in before[i] if visual_of[int(n)]]
        wanted = min(int(first * schedule.ratios[stage - 1]), len(seen))
        best = set(sorted(seen, key=lambda n: -float(weight[n]))[:wanted])
        kept[i] = torch.tensor([n for n in before[i].tolist() if not visual_of[n] or n in best])
        if begins:
            weights[stage] = weight
    for table, index in zip(shown_to(question.state.cache), kept, strict=True):
        assert torch.equal(table.index.sort().values, index)
    allowed = stream_masks(snapshots, prefix, total, kept)
    torch.testing.assert_close(got, masked_forward(lm, inputs, allowed)[-1], atol=2e-5, rtol=0)
    whole = masked_forward(lm, inputs, stream_masks(snapshots, prefix, total, before))[-1]
    assert (got - whole).abs().max() > 1e-3

    for stage, evidence in enumerate(question.evidence):
        layer = (0, *schedule.layers)[stage]
        table, sums = shown_to(question.state.cache)[layer], {}
        for n, second, visual in zip(table.index.tolist(), table.seconds.tolist(), table.visual.tolist(), strict=True):
            if visual:
                count, weight_of = sums.get(second, (0, 0.0))
                sums[second] = count + 1, weight_of + float(weights[stage][n])
        assert evidence.seconds == tuple(sorted(sums))
        assert evidence.tokens == tuple(sums[s][0] for s in evidence.seconds)
        assert evidence.weight == pytest.approx([sums[s][1] for s in evidence.seconds], abs=1e-5)


@pytest.mark.parametrize("family", cases(FAMILIES, fast=lambda f: f in (1, 2)))
def test_a_ratio_of_one_drops_nothing_even_where_deep_layers_remember_more(family: str) -> None:
    """Deep layers look further back in a flat memory, and may hold some visual tokens more than the first."""
    lm = build(family)
    stream = lm.stream(WATCHING[1], pv.Memory(tokens=budget(lm, 3), evictor="uniform"))
    step = lm.adapter.frames_per_step
    for i in range(12):
        stream.push(video(step, seed=i), [step * i + j for j in range(step)])
    held = [set(table.index.tolist()) for table in stream._state.cache.tables]
    for pyramid in (pv.Pyramid(stages=1), pv.Pyramid(ratios=(1.0, 1.0))):
        _, question = asked(stream, pyramid)
        assert [set(table.index.tolist()) for table in shown_to(question.state.cache)] == held


def test_several_questions_share_nothing() -> None:
    """Each drops from what was watched, not from what another left; and the stream is as it was, bit for bit."""
    lm = build("qwen2_5_vl")
    stream = lm.stream(WATCHING[0], pv.Memory(tokens=None))
    stream.push(video(12), range(12))
    before = [(layer.keys.clone(), layer.values.clone()) for layer in stream._state.cache.layers]
    alone = [stream.fork().ask(q, 4, pyramid=ASKING[0]) for q in (QUESTION, "how many ?")]
    live = [stream.ask(q, 4, stream=True, pyramid=ASKING[0]) for q in (QUESTION, "how many ?")]
    for _ in range(5):  # in turns
        for answer in live:
            next(answer, None)
    for one, other in zip(alone, live, strict=True):
        answer = other.finish()
        assert answer.token_ids == one.token_ids and answer.evidence == one.evidence
    assert alone[0].evidence[2].weight != alone[1].evidence[2].weight
    for layer, (keys, values) in zip(stream._state.cache.layers, before, strict=True):
        assert torch.equal(layer.keys, keys) and torch.equal(layer.values, values)


class Own:
    """A scorer of one's own."""

    uses_probe = uses_layout = once = False

    def __call__(self, ranking: Any) -> Any:
        return ranking.hidden[..., 0]


@pytest.mark.parametrize(
    ("pyramid", "told"),
    [
        (pv.Pyramid(ratios=(0.5,), scorer="novelty"), "scorer='novelty'"),
        (pv.Pyramid(ratios=(0.5,), scorer=Own()), "scorer=<"),
        (pv.Pyramid(ratios=(0.5,), allocator="uniform"), "allocator='uniform'"),
        (pv.Pyramid(ratios=(0.5,), positions="compact"), "positions='compact'"),
        ("0.5", "is '0.5'; expected a Pyramid"),
    ],
)
def test_what_a_question_would_ignore_is_refused(pyramid: Any, told: str) -> None:
    lm = build("qwen2_5_vl")
    stream = lm.stream(WATCHING[0], pv.Memory(tokens=None))
    stream.push(video(4), range(4))
    for ask in (stream.ask, stream.next_logits, lambda q, pyramid: stream.likelihood(q, ["red"], pyramid=pyramid)):
        with pytest.raises(pv.ConfigError, match=told):
            ask(QUESTION, pyramid=pyramid)


def test_the_scorer_that_a_question_has_anyway_may_be_named() -> None:
    stream = build("qwen2_5_vl").stream(WATCHING[0], pv.Memory(tokens=None))
    stream.push(video(4), range(4))
    plain, named = (pv.Pyramid(ratios=(0.5,), scorer=scorer) for scorer in (None, "relevance"))
    assert torch.equal(stream.next_logits(QUESTION, pyramid=named), stream.next_logits(QUESTION, pyramid=plain))
