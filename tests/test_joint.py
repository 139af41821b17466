"""Dropping jointly over time and space: every scorer with every allocator, in the layer loop and by themselves."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from families import build, video
from torch import Tensor

import pdrop_video as pv
from pdrop_video.pyramid import LayerLoop, Layout
from pdrop_video.pyramid.allocators import ALLOCATORS
from pdrop_video.pyramid.allocators.joint import Joint
from pdrop_video.pyramid.scorers import SCORERS, Ranking
from pdrop_video.pyramid.scorers.contrast import Contrast
from pdrop_video.pyramid.scorers.novelty import Novelty

FRAMES, PLACES, RATIOS = 5, 9, (0.6, 0.3, 0.15)


def run(scorer: Any, allocator: Any, padding: int = 0, seed: int = 0, text: Any = None) -> list[Tensor]:
    """Rows kept at each boundary, visual tokens numbered from 0, of 3 text + 5 x 9 visual + 4 text rows."""
    text = text or build("llava_onevision").model.get_decoder()
    pyramid = pv.Pyramid(layers=(1, 3, 5), ratios=RATIOS, scorer=scorer, allocator=allocator)
    generator = torch.Generator().manual_seed(seed)
    count = FRAMES * PLACES
    hidden = torch.randn(1, count + 7, 64, generator=generator, dtype=torch.float64)
    visual = torch.zeros(1, count + 7, dtype=torch.bool)
    visual[:, 3 : 3 + count] = True
    frame, place = torch.full((1, count + 7), -1), torch.full((1, count + 7), -1)
    frame[:, 3 : 3 + count] = torch.arange(FRAMES).repeat_interleave(PLACES)
    place[:, 3 : 3 + count] = torch.arange(PLACES).repeat(FRAMES)
    salient = torch.zeros(1, count + 7)  # a third of what a gate counts is nothing
    salient[:, 3 : 3 + count] = torch.rand(count, generator=generator).mul(3).floor()
    positions, valid = torch.arange(count + 7)[None], torch.ones(1, count + 7, dtype=torch.bool)

    def pad(x: Tensor, value: Any) -> Tensor:
        return torch.cat([x.new_full((1, padding, *x.shape[2:]), value), x], 1)

    with torch.no_grad():
        rows = LayerLoop(text, pyramid).run(
            pad(hidden, 7.0),
            pad(positions, 0),
            pad(visual, False),
            probe=torch.tensor([[count + 6 + padding]]),
            layout=Layout(pad(frame, -1), pad(place, -1), FRAMES, PLACES, saliency=pad(salient, 0)),
            valid=pad(valid, False) if padding else None,
        )
    kept = []
    for boundary in rows.boundaries:
        index = boundary.kept[0][boundary.kept[0] >= 0] - padding
        texts = index[(index < 3) | (index >= 3 + count)]
        assert texts.tolist() == [0, 1, 2, *range(3 + count, count + 7)]  # text stays, in order
        kept.append(index[(index >= 3) & (index < 3 + count)] - 3)
    return kept


@pytest.mark.parametrize("allocator", ALLOCATORS)
@pytest.mark.parametrize("scorer", SCORERS)
def test_every_scorer_with_every_allocator(scorer: str, allocator: str) -> None:
    kept = run(scorer, allocator)
    previous = set(range(FRAMES * PLACES))
    for survivors, ratio in zip(kept, RATIOS, strict=True):
        assert len(survivors) == int(FRAMES * PLACES * ratio)  # the budget, exactly
        assert survivors.tolist() == sorted(set(survivors.tolist()))  # in order, each once
        assert set(survivors.tolist()) <= previous  # what was dropped stays dropped
        previous = set(survivors.tolist())
        frames = Counter((survivors // PLACES).tolist())
        if allocator == "joint":
            assert len(frames) == FRAMES  # the floor: no frame vanishes
        if allocator == "uniform":
            assert max(frames.values()) - min(frames[f] for f in range(FRAMES)) <= 1
    again = run(scorer, allocator)
    assert all(torch.equal(a, b) for a, b in zip(kept, again, strict=True))
    padded = run(scorer, allocator, padding=4)
    assert all(torch.equal(a, b) for a, b in zip(kept, padded, strict=True))
    other = run(scorer, allocator, seed=1)
    same = all(torch.equal(a, b) for a, b in zip(kept, other, strict=True))
    assert same == (scorer in ("even", "random"))  # the frames do matter, but to those that look at places alone


@pytest.mark.parametrize("scorer", SCORERS)
def test_the_order_of_heads_does_not_matter(scorer: str) -> None:
    lm = build("llava_onevision")
    kept = run(scorer, "joint", text=lm.model.get_decoder())
    for layer in lm.model.get_decoder().layers:  # the two groups of heads (16 wide, 2 queries a key) change places
        attention = layer.self_attn
        for projection, width in ((attention.q_proj, 32), (attention.k_proj, 16), (attention.v_proj, 16)):
            projection.weight.data = projection.weight.data.roll(width, 0)
            projection.bias.data = projection.bias.data.roll(width, 0)
        attention.o_proj.weight.data = attention.o_proj.weight.data.roll(32, 1)
    swapped = run(scorer, "joint", text=lm.model.get_decoder())
    assert all(torch.equal(a, b) for a, b in zip(kept, swapped, strict=True))


def test_methods_differ() -> None:
    """Each scorer and each allocator is a method of its own, not another's name."""
    by_scorer = [run(scorer, "global")[-1].tolist() for scorer in SCORERS]
    assert len({tuple(kept) for kept in by_scorer}) == len(SCORERS)
    by_allocator = [run("relevance", allocator)[-1].tolist() for allocator in ALLOCATORS]
    assert len({tuple(kept) for kept in by_allocator}) == len(ALLOCATORS)


def ranking(hidden: Tensor, place: list[int], visual: list[bool]) -> Ranking:
    unused: Any = None
    return Ranking(
        layer=unused,
        hidden=hidden[None],
        rope=unused,
        probe=unused,
        visual=torch.tensor([visual]),
        layout=Layout(torch.zeros(1, len(place), dtype=torch.long), torch.tensor([place]), 1, max(place) + 1),
    )


def test_novelty_by_hand() -> None:
    """Text, places 0 and 1, place 1 unchanged, place 0 turned by 90 degrees, place 1 turned to its opposite."""
    hidden = torch.tensor([[9.0, 9.0], [1.0, 0.0], [0.0, 2.0], [0.0, 5.0], [0.0, 1.0], [0.0, -1.0]])
    scores = Novelty()(ranking(hidden, [-1, 0, 1, 1, 0, 1], [False, True, True, True, True, True]))[0]
    assert scores[1:].tolist() == pytest.approx([1, 1, 0, 1, 2])


def test_contrast_by_hand() -> None:
    """Two places over two chunks: the first shows one thing always, the second something new in the second chunk."""
    right, up = [1.0, 0.0], [0.0, 3.0]
    contrast = Contrast(decay=0.5)
    visual = [False, True, True, True, True]
    first = ranking(torch.tensor([[7.0, 7.0], right, right, right, right]), [-1, 0, 1, 0, 1], visual)
    first = replace(first, layout=replace(first.layout, steps=2))
    assert contrast(first)[0, 1:].tolist() == pytest.approx([0, 0, 0, 0])
    usual = contrast.learn(first)
    assert usual[0, 1:].tolist() == [[2, 0], [2, 0]]
    second = replace(first, hidden=torch.tensor([[[7.0, 7.0], right, up, right, right]]), usual=usual)
    # place 1 now has 2 * .5 ** 2 = .5 from before, and 1 each of up and right: (1.5, 1) / sqrt(3.25)
    want = [0, 1 - 1 / 3.25**0.5, 0, 1 - 1.5 / 3.25**0.5]
    assert contrast(second)[0, 1:].tolist() == pytest.approx(want)
    other_size = replace(second, usual=torch.ones(1, 9, 2))
    assert contrast(other_size)[0, 1:].tolist() == pytest.approx([0, 1 - 0.5**0.5, 0, 1 - 0.5**0.5])


def test_contrast_knows_the_past_when_frames_come_one_by_one() -> None:
    """A still picture, step by step; then one place changes: that place scores above all others."""
    lm = build("llava_onevision")
    stream = lm.stream(pv.Pyramid(layers=(1,), ratios=(0.5,), scorer="contrast"))
    still = video(1)
    for i in range(4):
        stream.push(still, [i])
    changed = still.clone()
    changed[:, -12:, -12:] = 255 - changed[:, -12:, -12:]  # the last place, bottom right
    stream.push(changed, [4])
    table = stream.held(0)
    now = (table.step == 4) & table.visual
    best = table.score[now].argmax()
    side = int(table.column.max())
    assert (int(table.row[now][best]), int(table.column[now][best])) == (side, side)


def test_a_scorer_that_ranks_once_gives_the_same_scores_at_every_boundary() -> None:
    lm = build("qwen2_5_vl")
    stream = lm.stream(pv.Pyramid(stages=3, scorer="contrast"), pv.Memory(tokens=None))
    stream.push(video(6), [0, 1, 2, 3, 4, 5])
    first = dict(zip(stream.held(0).index.tolist(), stream.held(0).score.tolist(), strict=True))
    for stage in (1, 2):
        table = stream.held(stage)
        assert all(first[i] == s for i, s in zip(table.index.tolist(), table.score.tolist(), strict=True))
    assert len(set(first.values())) > 10


def test_what_compares_frames_is_refused_for_a_prompt() -> None:
    lm = build("qwen2_5_vl")
    for name, scorer in SCORERS.items():
        if scorer.uses_layout:
            with pytest.raises(pv.ConfigError, match="frames"), pv.pyramid_drop(lm.model, pv.Pyramid(scorer=name)):
                pass


def test_joint_shares_by_hand() -> None:
    """Scores 6 : 3 : 1 and ten tokens a frame: a budget of ten splits 6, 3, 1; the floor lifts a frame of zeros."""
    frame = torch.arange(3).repeat_interleave(10)[None]
    scores = torch.tensor([0.6, 0.3, 0.1]).repeat_interleave(10)[None]
    visual = torch.ones(1, 30, dtype=torch.bool)

    def split(scores: Tensor, budget: int, floor: int) -> list[int]:
        best = Joint(floor)(scores, visual, frame)[0].argsort(descending=True, stable=True)[:budget]
        return torch.bincount(frame[0, best], minlength=3).tolist()

    assert split(scores, 10, 0) == [6, 3, 1]
    assert split(scores, 20, 0) == [10, 7, 3]  # the first frame has no more than ten; the others share on
    scores = torch.tensor([0.9, 0.1, 0.0]).repeat_interleave(10)[None]
    assert split(scores, 10, 0) == [9, 1, 0]
    assert split(scores, 10, 2) == [6, 2, 2]
    assert split(scores, 3, 2) == [1, 1, 1]


def test_unknown_names_are_refused() -> None:
    with pytest.raises(pv.ConfigError, match=r"'attention'.*relevance"):
        pv.Pyramid(scorer="attention")
    with pytest.raises(pv.ConfigError, match=r"'fair'.*joint"):
        pv.Pyramid(allocator="fair")


@pytest.mark.parametrize("allocator", ALLOCATORS)
def test_a_stream_uses_them(allocator: str) -> None:
    """Frames that repeat are worth little to novelty: the one frame that differs keeps the most tokens."""
    lm = build("qwen2_5_vl")
    still = video(1).expand(8, -1, -1, -1).clone()
    still[4:6] = video(2, seed=5)
    stream = lm.stream(pv.Pyramid(layers=(1,), ratios=(0.4,), scorer="novelty", allocator=allocator))
    stream.push(still, [0.5 * i for i in range(8)])
    table = stream.held(-1)
    per_step = torch.bincount(table.step[table.visual], minlength=4).tolist()
    assert sum(per_step) == int(stream.held(0).visual.sum() * 0.4)
    if allocator == "uniform":
        assert max(per_step) - min(per_step) <= 1
    else:
        assert per_step[2] > per_step[1]


def test_contrast_ranks_where_no_question_is_known() -> None:
    """And relevance where one is; what is named stays; and a scorer that asks nobody leaves the probe out."""
    lm = build("qwen2_5_vl")
    for pyramid, standing, want in (
        (pv.Pyramid(), None, "contrast"),
        (pv.Pyramid(), "what is shown ?", "relevance"),
        (pv.Pyramid(scorer="fusion"), None, "fusion"),
        (pv.Pyramid(scorer="key_norm"), "what is shown ?", "key_norm"),
    ):
        stream = lm.stream(pyramid, standing_question=standing)
        assert stream.loop.scorer == SCORERS[want]
        assert (len(stream._ingest.probe) > 0) == SCORERS[want].uses_probe


@pytest.mark.parametrize("scorer", [name for name, scorer in SCORERS.items() if not scorer.uses_probe])
def test_without_a_probe_the_same_tokens_stay(scorer: str) -> None:
    """A scorer that claims not to look at the probe gives the same ranking with and without one."""
    lm = build("qwen2_5_vl")
    bare, probed = (lm.stream(pv.Pyramid(stages=3, scorer=scorer), pv.Memory(tokens=None)) for _ in range(2))
    with torch.no_grad():
        ids = lm.prompt.after("what is shown ?")
        probed._ingest.probe = torch.cat([lm.adapter.closing(), lm.adapter.embed(ids)])
    for stream in (bare, probed):
        stream.push(video(6), [0, 1, 2, 3, 4, 5])
    for stage in range(3):
        assert torch.equal(bare.held(stage).index, probed.held(stage).index)
    for left, right in zip(bare._state.cache.layers, probed._state.cache.layers, strict=True):
        torch.testing.assert_close(left.keys, right.keys, atol=1e-12, rtol=0)


def test_joint_is_pyramid_drop_for_one_frame() -> None:
    """Why it can be the default: where all tokens show one moment, the best-scored ones stay."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(1, 40, generator=generator)
    visual, frame = torch.ones(1, 40, dtype=torch.bool), torch.zeros(1, 40, dtype=torch.long)
    for name in ALLOCATORS:
        order = ALLOCATORS[name](scores, visual, frame)[0].argsort(descending=True)
        assert torch.equal(order, scores[0].argsort(descending=True)), name
