"""Next tokens of several answers in one batch: what each gets alone, over its own cache, and no trace of a failure."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from families import FAMILIES, budget, build, video
from hybrids import HYBRIDS
from hybrids import build as build_hybrid
from more_families import MORE, OTHERS
from torch import Tensor

import pdrop_video as pv
from pdrop_video.engine import Turnstile
from pdrop_video.pyramid import LayerLoop, steps
from pdrop_video.pyramid.steps import Step, batches, run_steps
from pdrop_video.stream.asking import Question


class Catching(Turnstile):
    """Takes steps and gives nothing for them."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []

    def gathered(self, compute: Any, job: Any) -> Any:
        self.steps.append(job)
        return torch.zeros(0)


def questions(lm: pv.VideoLM, **memory: Any) -> list[Question]:
    """Three, of streams that saw and remember differently much; two of them hide columns from the answer."""
    found = []
    for number, ratios in enumerate((None, (0.5,), (0.7, 0.3))):
        pyramid = None if ratios is None else pv.Pyramid(layers=(2, 4)[: len(ratios)], ratios=ratios)
        stream = lm.stream(memory=pv.Memory(tokens=budget(lm, 3), **memory))
        for at in range(1 + number):
            stream.push(video(2, seed=number + at), [at, at + 0.5])
        found.append(stream._asked("what is shown first ?", "", pyramid))
        found[-1].prefill()
    return found


def step_of(question: Question, token: int) -> Step:
    turnstile, question.ingest.turnstile = question.ingest.turnstile, Catching()
    try:
        question.advance(torch.tensor(token))
        assert isinstance(question.ingest.turnstile, Catching)
        return question.ingest.turnstile.steps[0]
    finally:
        question.ingest.turnstile = turnstile


def held(question: Question) -> list[Tensor]:
    return [layer.keys.clone() for layer in question.state.cache.layers]


@pytest.mark.parametrize("storage", ["full", "int8"])
@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava_onevision", "internvl_qwen3_moe", "qwen3_vl"])
def test_each_gets_what_it_gets_alone(family: str, storage: str) -> None:
    lm = build(family)
    alone, together = questions(lm, storage=storage), questions(lm, storage=storage)
    assert all(batches(each.ingest.loop) for each in together)
    for tokens in ((7, 8, 9), (5, 5, 5), (11, 3, 4)):
        wanted = [each.advance(torch.tensor(token)) for each, token in zip(alone, tokens, strict=True)]
        got = run_steps([step_of(each, token) for each, token in zip(together, tokens, strict=True)])
        for mine, theirs in zip(got, wanted, strict=True):
            assert theirs is not None
            torch.testing.assert_close(mine, theirs, atol=1e-9, rtol=0)
    for left, right in zip(alone, together, strict=True):
        for mine, theirs in zip(held(left), held(right), strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-9, rtol=0)


def test_a_failure_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second stream's cache fails in layer 3: nobody's has grown, and each goes on alone."""
    lm = build("qwen2_5_vl")
    alone, together = questions(lm), questions(lm)
    wanted = [each.advance(torch.tensor(7)) for each in alone]
    asked, before = [step_of(each, 7) for each in together], [held(each) for each in together]
    cache = asked[1].cache
    real = cache.update

    def update(keys: Tensor, values: Tensor, layer: int) -> Any:
        if layer == 3:
            raise RuntimeError("no memory")
        return real(keys, values, layer)

    with monkeypatch.context() as patch:
        patch.setattr(cache, "update", update)
        with pytest.raises(RuntimeError, match="no memory"):
            run_steps(asked)
    for each, keys in zip(together, before, strict=True):
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(held(each), keys, strict=True))
    assert lm.model.config.get_text_config()._attn_implementation == "sdpa"
    for step, logits in zip(asked, wanted, strict=True):
        torch.testing.assert_close(run_steps([step])[0], logits, atol=1e-9, rtol=0)


def test_layers_that_attend_by_themselves_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = build("qwen2_5_vl")
    asked = [step_of(each, 7) for each in questions(lm)]
    monkeypatch.setattr(steps._Attending, "attend", lambda me, module, query, *a, **more: query.transpose(1, 2))
    with pytest.raises(RuntimeError, match="layer 0 attends by itself"):
        run_steps(asked)


def test_which_families_do() -> None:
    """All whose layers only attend; the others go on meeting at modules."""

    def able(lm: pv.VideoLM) -> bool:
        return batches(LayerLoop(lm.model.get_decoder(), pv.Pyramid(stages=1)))

    assert [name for name in (*FAMILIES, *MORE, *OTHERS) if not able(build(name))] == ["molmo2"]
    assert [name for name in HYBRIDS if able(build_hybrid(name))] == []
