"""QUOTA: the specification's numbers, the scores in plain loops, and a schedule out of a calibration set."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from families import build, video
from test_one_shot import llama
from test_rank import tapped  # noqa: F401 - a fixture
from torch import Tensor

import pdrop_video as pv
from pdrop_video.pyramid import LayerLoop, Layout
from pdrop_video.pyramid.scorers import scorer_named
from pdrop_video.pyramid.scorers.quota import Quota, four_bits, scaled
from pdrop_video.search import Clip, Measured, measure, quota_schedule, shares_left
from pdrop_video.search.quota import candidates
from pdrop_video.video import FrameChunk

SENSITIVITY = (0.02, 0.05, 0.03, 0.20, 0.04, 0.06)


@pytest.mark.parametrize(
    ("tau", "left", "of_576"),
    [
        (0.5, (0.844635, 0.726764, 0.571399, 0.540031, 0.397428, 0.3), (486, 418, 329, 311, 228, 172)),
        (1.0, (0.861941, 0.741689, 0.603629, 0.541595, 0.409328, 0.3), None),
    ],
)
def test_shares_as_written(tau: float, left: tuple[float, ...], of_576: tuple[int, ...] | None) -> None:
    found = shares_left(SENSITIVITY, tau=tau, least=0.3)
    assert found == pytest.approx(left, abs=1e-6)
    if of_576 is not None:
        pyramid = pv.Pyramid(layers=range(2, 8), ratios=found)
        assert pyramid.resolve(12).counts(576)[1:] == of_576


def plain_shares(sensitivity: tuple[float, ...], tau: float, least: float) -> list[float]:
    def percentile(share: float) -> float:
        ranked, place = sorted(sensitivity), share * (len(sensitivity) - 1)
        low = int(place)
        return ranked[low] + (place - low) * (ranked[min(low + 1, len(ranked) - 1)] - ranked[low])

    low, high = percentile(0.1), percentile(0.9)
    scaled_to = [min(max((s - low) / (high - low), 0.1), 0.9) for s in sensitivity]
    weights = [math.exp((1 - s) / tau) for s in scaled_to]
    left, total = [], 0.0
    for weight in weights:
        total += (1 - least) * weight / sum(weights)
        left.append(max(least, 1 - total))
    return left


@pytest.mark.parametrize("seed", range(5))
def test_shares_equal_plain_loops(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    sensitivity = tuple((torch.rand(3 + seed, generator=generator).double() ** 2).tolist())
    assert shares_left(sensitivity, tau=0.2 + seed / 3, least=0.1 + seed / 9) == pytest.approx(
        plain_shares(sensitivity, 0.2 + seed / 3, 0.1 + seed / 9), abs=1e-12
    )


def test_flat_sensitivities_are_a_straight_line() -> None:
    assert shares_left((0.1,) * 4, least=0.2) == pytest.approx((0.8, 0.6, 0.4, 0.2))
    assert shares_left((0.1,), least=0.25) == (0.25,)


def test_four_bits_as_written() -> None:
    row = torch.tensor([0.9, -2.1, 0.4, 3.5]).double()
    assert four_bits(row).tolist() == [1, -2, 0.5, 3.5]
    assert float((four_bits(row) - row).norm()) == pytest.approx(0.173205, abs=1e-6)
    assert float(row.norm()) == pytest.approx(4.198809, abs=1e-6)
    assert four_bits(torch.zeros(2, 3)).tolist() == [[0, 0, 0]] * 2


# -- scores -----------------------------------------------------------------------------------------------------------


def plain_scaled(signal: list[float]) -> list[float]:
    ranked = sorted(signal)

    def percentile(share: float) -> float:
        place = share * (len(ranked) - 1)
        low = int(place)
        return ranked[low] + (place - low) * (ranked[min(low + 1, len(ranked) - 1)] - ranked[low])

    low, high = percentile(0.1), percentile(0.9)
    return [min(max((each - low) / (high - low), 0), 1) for each in signal]


@torch.no_grad()
@pytest.mark.parametrize("which", ["magnitude", "residual", "inter", "intra", "all"])
def test_scores_equal_plain_loops(which: str) -> None:
    """By the model's own attention weights at the layer that comes next, with text in front, between and behind."""
    model = llama()
    text, boundary, length = model.get_decoder(), 2, 30
    visual = torch.zeros(1, length, dtype=torch.bool)
    visual[:, 4:12] = visual[:, 14:23] = True
    asks = torch.zeros(1, length, dtype=torch.bool)
    asks[:, 25:] = True
    embeds = torch.randn(1, length, text.config.hidden_size, generator=torch.Generator().manual_seed(3)).double()
    weights = {} if which == "all" else dict.fromkeys(("magnitude", "residual", "inter", "intra"), 0.0) | {which: 1.0}
    loop = LayerLoop(text, pv.Pyramid(layers=(boundary,), ratios=(0.5,), scorer=Quota(**weights)))
    position = torch.arange(length)[None]
    rows = loop.run(
        embeds, position, visual, probe=torch.tensor([[length - 1]]), question=asks, layout=Layout.one_picture(visual)
    )
    model.set_attn_implementation("eager")
    out = text(inputs_embeds=embeds, output_attentions=True, output_hidden_states=True)
    hidden, attention = out.hidden_states[boundary][0], out.attentions[boundary][0].mean(0)
    tokens = visual[0].nonzero()[:, 0].tolist()
    signals = {
        "magnitude": [math.sqrt(sum(float(v) ** 2 for v in hidden[i])) for i in tokens],
        "residual": [float((plain_four_bits(hidden[i]) - hidden[i]).norm()) for i in tokens],
        "inter": [sum(float(attention[q, i]) for q in range(25, length)) for i in tokens],
        "intra": [sum(float(attention[q, i]) for q in tokens) for i in tokens],
    }
    chosen = signals if which == "all" else {which: signals[which]}
    want = [sum(each) / len(chosen) for each in zip(*map(plain_scaled, chosen.values()), strict=True)]
    got = rows.boundaries[0].scores[0, tokens]
    torch.testing.assert_close(got, torch.tensor(want).to(got), atol=2e-5, rtol=0)


def plain_four_bits(row: Tensor) -> Tensor:
    scale = max(abs(float(v)) for v in row) / 7
    return torch.tensor([round(float(v) / scale) * scale for v in row], dtype=torch.float64)


def test_a_signal_in_which_nothing_differs_counts_for_nobody() -> None:
    visual = torch.ones(1, 8, dtype=torch.bool)
    noise = 1 + 1e-13 * torch.randn(1, 8, generator=torch.Generator().manual_seed(0)).double()
    assert scaled(noise, visual, torch.float64).eq(0).all()
    assert scaled(torch.zeros(1, 8), visual, torch.float32).eq(0).all()
    assert scaled(torch.ones(1, 8), torch.zeros_like(visual), torch.float32).eq(0).all()
    assert scaled(torch.arange(11.0)[None], torch.ones(1, 11, dtype=torch.bool), torch.float32)[
        0, [0, 1, 5, 9, 10]
    ].tolist() == [0, 0, 0.5, 1, 1]


@pytest.mark.parametrize("line", ["quota:inter=-1", "quota:magnitude=0,residual=0,inter=0,intra=0", "quota:tau=1"])
def test_other_weights_are_refused(line: str) -> None:
    with pytest.raises(pv.ConfigError):
        scorer_named(line)


# -- a schedule -------------------------------------------------------------------------------------------------------


def clips(count: int = 2) -> list[Clip]:
    made = []
    for n in range(count):
        chunks = [FrameChunk(video(2, seed=10 * n + i), (2.0 * i, 2.0 * i + 1)) for i in range(2)]
        made.append(Clip(str(n), chunks, ["what is shown first ?"]))
    return made


def test_measures_equal_plain_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    """What enters each layer, as its own hook sees it, token by token."""
    lm, seen, lm_clips = build("qwen2_5_vl"), [], clips()
    layers = lm.model.get_decoder().layers
    found = measure(lm, lm_clips)
    assert found.layers == tuple(range(lm.num_layers))
    hooks = [
        layer.register_forward_pre_hook(lambda _, args, i=i: seen.append((i, args[0][0])))
        for i, layer in enumerate(layers)
    ]
    lost: dict[int, list[float]] = {}
    for clip in lm_clips:
        stream = lm.stream(pv.Pyramid(stages=1), pv.Memory(tokens=None), standing_question=clip.questions[0])
        for chunk in clip.chunks:
            seen.clear()
            stream.push(chunk)
            tokens = len(lm.adapter.look(chunk.frames, chunk.seconds, first=0))
            for i, hidden in seen:
                for row in hidden[:tokens]:
                    q = plain_four_bits(row)
                    lost.setdefault(i, []).append(float((q - row).norm() / (row.norm() + 1e-6)))
    for hook in hooks:
        hook.remove()
    want = [sorted(lost[i])[(len(lost[i]) - 1) // 2] for i in range(lm.num_layers)]
    assert found.sensitivity == pytest.approx(want, abs=1e-9)
    assert all(0 <= each <= 1 for each in found.concentration) and all(-1 <= each <= 1 for each in found.redundancy)


def test_a_schedule_out_of_clips() -> None:
    lm, calibration = build("qwen2_5_vl"), clips()
    pyramid = quota_schedule(lm, calibration, least=0.25, layers=(1, 2, 4))
    measured = measure(lm, calibration)
    of = [measured.sensitivity[i] for i in (1, 2, 4)]
    assert pyramid == pv.Pyramid(layers=(1, 2, 4), ratios=tuple(shares_left(of, least=0.25)), scorer="quota")
    assert pyramid.ratios is not None and pyramid.ratios[-1] == 0.25
    again = quota_schedule(lm, calibration, boundaries=2, base=pv.Pyramid(scorer="contrast", allocator="uniform"))
    assert again.scorer == "contrast" and again.allocator == "uniform" and len(again.layers or ()) == 2
    stream = lm.stream(pyramid)
    assert stream.push(video(4), [0, 1, 2, 3]).kept[-1] == int(stream.push(video(4), [4, 5, 6, 7]).kept[0] * 0.25)


def test_candidates_are_alike_and_attended_in_few_places() -> None:
    layers = tuple(range(16))
    flat = (0.5,) * 16
    peak = tuple(1.0 if 5 <= n < 8 else 0.0 for n in layers)
    assert candidates(Measured(layers, flat, peak, flat), 16, 3) == (5, 6, 7)
    assert candidates(Measured(layers, flat, flat, flat), 16, 4) == (2, 3, 4, 5)
    assert candidates(Measured(layers, flat, flat, tuple(map(float, layers))), 16, 4) == (10, 11, 12, 13)
    assert candidates(Measured((3, 7), flat[:2], flat[:2], flat[:2]), 8, 6) == (3, 7)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (dict(clips=[]), "clips is empty"),
        (dict(least=0), "least is 0"),
        (dict(tau=0), "tau is 0"),
        (dict(layers=(2, 1)), "not strictly increasing"),
        (dict(layers=(1, 77)), "77"),
        (dict(layers=()), "expected some of 0, 1, 2"),
        (dict(boundaries=0), "boundaries is 0"),
        (dict(base="quota"), "expected a Pyramid"),
    ],
)
def test_other_arguments_are_refused(given: dict[str, Any], match: str) -> None:
    with pytest.raises(pv.ConfigError, match=match):
        quota_schedule(**({"lm": build("qwen2_5_vl"), "clips": clips(1)} | given))
