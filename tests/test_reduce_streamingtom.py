"""StreamingTOM's reduction, number by number, whatever the chunks; and what a gate leaves of a step."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from families import build, video
from peers import clip, ragged, sound, streamed
from test_exact import next_logits
from test_front import tokens_of
from torch import Tensor

import pdrop_video as pv
from pdrop_video.reduce import reducer_named
from pdrop_video.reduce.streamingtom import StreamingTOM

GRID = (3, 4)


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / max(float(a.norm() * b.norm()), 1e-300))


def apart(a: Tensor, b: Tensor) -> float:
    return math.sqrt(sum((float(x) - float(y)) ** 2 for x, y in zip(a, b, strict=True)) / len(a))


def by_hand(features: Tensor, attention: Tensor, places: int, said: dict[str, Any]) -> dict[int, Tensor]:
    """What goes on, by its number, and as what."""
    out = {}
    for step in range(len(features) // places):
        own = range(step * places, (step + 1) * places)
        still = [i for i in own if step and cosine(features[i], features[i - places]) > said["threshold"]]
        moving = [i for i in own if i not in still]
        quota = int(places * said["keep"])
        of_still = min(int(quota * len(still) / places), len(still))
        of_moving = min(quota - of_still, len(moving))
        of_still = quota - of_moving
        for i in sorted(moving, key=lambda i: -float(attention[i]))[:of_moving]:
            out[i] = features[i]
        if not of_still:
            continue
        nearest = max(min(said["nearest"], len(still) - 1), 1)
        dense = {}
        for i in still:
            near = sorted(apart(features[i], features[j]) for j in still)[:nearest]
            dense[i] = math.exp(-sum(x * x for x in near) / nearest)
        widest = max(apart(features[i], features[j]) for i in still for j in still)
        score = {}
        for i in still:
            beyond = [j for j in still if (dense[j] < dense[i] if said["release"] else dense[j] > dense[i])]
            score[i] = dense[i] * min([widest, *(apart(features[i], features[j]) for j in beyond)])
        centres = sorted(still, key=lambda i: -score[i])[:of_still]
        joins: dict[int, list[int]] = {c: [] for c in centres}
        for i in still:
            if i not in centres:
                joins[min(centres, key=lambda c: apart(features[i], features[c]))].append(i)
        for c, others in joins.items():
            own_weight = said["own"] if others else 1.0
            out[c] = own_weight * features[c]
            for i in others:
                out[c] = out[c] + (1 - own_weight) / len(others) * features[i]
    return out


@pytest.mark.parametrize("release", [False, True])
@pytest.mark.parametrize(("keep", "threshold"), [(0.256, 0.9), (0.5, 0.8), (0.75, 0.95), (1.0, 0.9)])
def test_by_hand(keep: float, threshold: float, release: bool) -> None:
    said: dict[str, Any] = dict(keep=keep, threshold=threshold, nearest=3, own=0.7, release=release)
    for seed in range(3):
        features = clip(5, 12, seed=seed)
        attention = torch.rand(60, generator=torch.Generator().manual_seed(seed))
        tokens = replace(tokens_of(features, GRID), tower={"attention": attention})
        reduced, _ = StreamingTOM(**said, salient="attention")(tokens, {})
        want = by_hand(features, attention, 12, said)
        assert reduced.kept.tolist() == sorted(want) and reduced.weights is not None
        got = reduced.weights.double() @ features
        torch.testing.assert_close(got, torch.stack([want[i] for i in sorted(want)]), atol=1e-6, rtol=0)
        kept = torch.bincount(reduced.kept // 12, minlength=5)
        assert kept.tolist() == [int(12 * keep)] * 5


@pytest.mark.parametrize("reducer", [StreamingTOM(), StreamingTOM(0.5, 0.7, release=True)])
def test_chunks_do_not_matter(reducer: StreamingTOM) -> None:
    features = clip(9, 12, seed=2).float()
    whole = streamed(reducer, features, GRID, [])
    for cuts in ([1], [4], [1, 2, 3, 4, 5, 6, 7, 8], [2, 3, 7]):
        assert streamed(reducer, features, GRID, cuts) == whole


def test_a_still_step_is_peaks_alone_and_a_cut_none() -> None:
    """What one kind can't use the other gets."""
    first = torch.randn(12, 8, dtype=torch.float64)
    features = torch.cat([first, first * 1.5, torch.randn(12, 8, dtype=torch.float64)])
    reduced, _ = StreamingTOM(keep=0.5, threshold=0.99)(tokens_of(features, GRID), {})
    assert torch.bincount(reduced.kept // 12).tolist() == [6, 6, 6] and reduced.weights is not None
    alone = (reduced.weights > 0).sum(1) == 1
    assert alone[:6].all() and alone[12:].all() and not alone[6:12].all()
    assert ((reduced.weights[6:12] > 0).sum(1)).sum() == 12  # every still token is part of one


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_holes_zeros_and_small_numbers(dtype: torch.dtype) -> None:
    features = clip(5, 12, seed=4).to(dtype)
    features[12:30] = 0
    for reducer in (StreamingTOM(), StreamingTOM(keep=0.9), StreamingTOM(keep=0.01)):
        tokens = ragged(features, GRID, empty=(2,))
        reduced, carried = reducer(tokens, {})
        sound(reduced, tokens)
        assert carried["last"].isfinite().all() and carried["last"].dtype == dtype
        steps = tokens.step[reduced.kept].unique()
        assert steps.tolist() == [0, 1, 3, 4]  # one token of each at least


@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava_onevision"])
def test_a_stream_has_its_quota(family: str) -> None:
    lm = build(family)
    stream = lm.stream(reducer="streamingtom:keep=0.34", pyramid=pv.Pyramid(stages=1))
    step = lm.adapter.frames_per_step
    places = None
    for number in range(3):
        pushed = stream.push(video(2 * step, seed=number), [2.0 * number + 0.5 * i for i in range(2 * step)])
        places = places or len(lm.adapter.look(video(step), tuple(0.5 * i for i in range(step))))
        each = pushed.visual_tokens // 2
        assert pushed.visual_tokens == 2 * each and 0.2 < each / places < 0.4
    assert torch.isfinite(next_logits(stream)).all()


def test_settings() -> None:
    assert reducer_named("streamingtom:keep=0.3,release=true") == StreamingTOM(0.3, release=True)
    assert StreamingTOM().left(196) == 50 and StreamingTOM(keep=50.5 / 196).left(196) == 50
    assert StreamingTOM(salient="attention").needs == ("attention",) and StreamingTOM().needs == ()
    for bad in ({"keep": 0}, {"threshold": 2}, {"nearest": 0}, {"own": 1.1}, {"salient": "chance"}, {"release": 1}):
        with pytest.raises(pv.ConfigError, match=next(iter(bad))):
            StreamingTOM(**bad)  # type: ignore[arg-type]
