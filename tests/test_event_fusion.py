"""The scorer `event_fusion`: the specification's numbers, the rule as plain loops, and the way of the gate's events."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from families import build, video
from torch import Tensor

import pdrop_video as pv
from pdrop_video.common.ties import comparable
from pdrop_video.pyramid import Layout
from pdrop_video.pyramid.scorers import Ranking, scorer_named
from pdrop_video.pyramid.scorers.event_fusion import EventFusion
from pdrop_video.pyramid.scorers.relevance import Relevance


def ranking(visual: Tensor, saliency: Tensor | None) -> Ranking:
    """Rows of which nothing is looked at but what a gate said of them; attention is put in their place."""
    unused: Any = None
    layout = replace(Layout.one_picture(visual), saliency=saliency)
    return Ranking(unused, torch.zeros(*visual.shape, 4, dtype=torch.float64), unused, unused, visual, layout)


def attended(monkeypatch: pytest.MonkeyPatch, attention: Tensor) -> None:
    monkeypatch.setattr(Relevance, "__call__", lambda self, ranking: attention)


def test_fusion_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """The token without events is out, though it has the highest attention."""
    attended(monkeypatch, torch.tensor([[0.40, 0.10, 0.35, 0.15]], dtype=torch.float64))
    events = torch.tensor([[0.0, 3.0, 2.0, 1.0]])
    scores = EventFusion()(ranking(torch.ones(1, 4, dtype=torch.bool), events))[0]
    assert scores[1:].tolist() == pytest.approx([2 / 3, 5 / 6, 1 / 2])
    assert 0 < scores[0] < 1 / 4
    assert scores.argsort(descending=True)[:2].tolist() == [2, 1]


def by_loops(attention: list[float], events: list[float], visual: list[bool], method: EventFusion) -> list[float]:
    """Ranks counted one by one; equals share the best of them."""
    active = [v and e > method.least for v, e in zip(visual, events, strict=True)]

    def rank(of: list[float], among: list[bool], i: int) -> float:
        count = sum(among)
        return (count - sum(a and each > of[i] for a, each in zip(among, of, strict=True))) / count

    scores = []
    for i, v in enumerate(visual):
        if active[i]:
            scores.append(method.weight * rank(attention, active, i) + (1 - method.weight) * rank(events, active, i))
        elif v:
            scores.append(
                rank(attention, [v and not a for v, a in zip(visual, active, strict=True)], i) / (2 * sum(visual))
            )
        else:
            scores.append(0)
    return scores


@pytest.mark.parametrize(
    "method", [EventFusion(), EventFusion(0.8, 1), EventFusion(1), EventFusion(0), EventFusion(0.5, 99)]
)
def test_the_rule_as_plain_loops(method: EventFusion, monkeypatch: pytest.MonkeyPatch) -> None:
    """Among the visual rows of each sample; all of the active ones before all others."""
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        attention = torch.rand(2, 30, generator=generator, dtype=torch.float64).mul(20).round() / 20
        events = torch.rand(2, 30, generator=generator).mul(6).floor()
        visual = torch.rand(2, 30, generator=generator) < 0.8
        attended(monkeypatch, attention)
        scores = EventFusion.__call__(method, ranking(visual, events))
        for sample in range(2):
            want = by_loops(attention[sample].tolist(), events[sample].tolist(), visual[sample].tolist(), method)
            assert scores[sample].tolist() == pytest.approx(want, abs=1e-12)
            active = visual[sample] & (events[sample] > method.least)
            behind = visual[sample] & ~active
            if active.any() and behind.any():
                assert scores[sample][active].min() > scores[sample][behind].max()


def test_noise_does_not_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is equal in exact arithmetic has one rank."""
    visual = torch.ones(1, 40, dtype=torch.bool)
    events = torch.arange(40).remainder(4).float()[None] / 3
    attention = torch.arange(40).remainder(3).double()[None] + 1
    attended(monkeypatch, attention)
    want = EventFusion()(ranking(visual, events))
    for seed in range(3):
        off = 1 + 1e-12 * torch.rand(1, 40, generator=torch.Generator().manual_seed(seed)).double()
        attended(monkeypatch, attention * off)
        got = EventFusion()(ranking(visual, (events.double() * (1 + (off - 1) * 1e4)).float()))
        assert torch.equal(comparable(got, visual, torch.float64), comparable(want, visual, torch.float64))


def test_without_events_relevance_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    attention = torch.rand(1, 9)
    attended(monkeypatch, attention)
    assert torch.equal(EventFusion()(ranking(torch.ones(1, 9, dtype=torch.bool), None)), attention)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava_onevision"])
def test_the_gates_events_reach_every_boundary(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What had no event goes first, and a question does not bring it back."""
    lm = build(family)
    frames = video(1).repeat(8, 1, 1, 1)
    height, width = frames.shape[1:3]
    for number in range(2, 8, 2):
        frames[number : number + 2, : height // 3, : width // 3] = video(8, seed=4)[number, : height // 3, : width // 3]
    pyramid = pv.Pyramid(layers=(2, 4), ratios=(0.5, 0.3), scorer="event_fusion", allocator="global")
    stream = lm.stream(pyramid, pv.Memory(tokens=None), standing_question="what is shown ?", gate="event:kappa=0.001")
    seen: list[Ranking] = []
    call = EventFusion.__call__
    monkeypatch.setattr(EventFusion, "__call__", lambda self, ranking: seen.append(ranking) or call(self, ranking))
    stream.push(frames, [0.5 * i for i in range(8)])
    assert len(seen) == 2
    salient = seen[0].saliency
    assert salient is not None and salient.shape == seen[0].visual.shape
    active = int((seen[0].visual & (salient > 0)).sum())
    first, last = (stream.held(stage) for stage in (0, 2))
    went = set(map(int, first.index[first.visual])) - set(map(int, last.index[last.visual]))
    happened = dict(zip(first.index[first.visual].tolist(), salient[seen[0].visual].tolist(), strict=True))
    stayed = [happened[int(i)] for i in last.index[last.visual]]
    assert 0 < active < len(happened) and went
    assert sum(each > 0 for each in stayed) == min(active, len(stayed))


def test_bad_weights() -> None:
    for wrong, said in (("weight=2", "weight is 2.0; expected a number from 0 to 1"), ("least=-1", "least is -1.0")):
        with pytest.raises(pv.ConfigError, match=said):
            scorer_named(f"event_fusion:{wrong}")
