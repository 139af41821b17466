"""AOT in calls and streams: borders, attention that families do or don't hand over, parameters, costs."""

from __future__ import annotations

import pytest
import torch
from families import FAMILIES, build, video
from test_exact import chunks, next_logits
from test_reduce_aot import drawn
from torch.utils.flop_counter import FlopCounterMode

import pdrop_video as pv
from pdrop_video.reduce import REDUCERS, Tokens, reducer_named
from pdrop_video.reduce.aot import AOT
from pdrop_video.registry import name_of


def test_segments_do_not_depend_on_what_else_a_call_brings() -> None:
    tokens, aot = drawn(5, 8, (4, 4), holes=0.3), AOT(keep=0.3)
    whole, _ = aot(tokens, {})
    assert whole.weights is not None
    kept, rows = [], torch.zeros_like(whole.weights)
    for first in (0, 4):
        part = ((tokens.step // 4) * 4 == first).nonzero()[:, 0]
        alone = Tokens(
            tokens.features[part],
            tokens.step[part] - first,
            tokens.row[part],
            tokens.column[part],
            tokens.seconds[first : first + 4],
            tokens.grid,
            first,
            {k: v[part] for k, v in tokens.tower.items()},
        )
        reduced, _ = aot(alone, {})
        assert reduced.weights is not None
        rows[len(kept) : len(kept) + len(reduced.kept), part] = reduced.weights
        kept += part[reduced.kept].tolist()
    assert whole.kept.tolist() == kept
    torch.testing.assert_close(whole.weights, rows)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "llava_onevision"])
def test_a_stream_does_not_depend_on_its_chunks(family: str) -> None:
    lm = build(family)
    frames = video(11 * lm.adapter.frames_per_step)
    logits = []
    for sizes in ([len(frames)], [1] * len(frames), [3, 1, 5, len(frames) - 9]):
        stream = lm.stream(pv.Pyramid(stages=1), pv.Memory(tokens=None), reducer="aot:keep=0.3,anchors=features")
        for part, times in chunks(frames, [0.5 * i for i in range(len(frames))], sizes):
            stream.push(part, times)
        logits.append(next_logits(stream))
        assert "reducer" not in stream.status.carried_bytes
    for each in logits[1:]:
        torch.testing.assert_close(each, logits[0], atol=1e-9, rtol=0)


def test_a_tower_that_says_nothing_of_attention_is_refused() -> None:
    """By the front, with its name; not where anchors go by features."""
    assert AOT().needs == ("attention", "attention_early") and AOT(anchors="features").needs == ()
    unknowing = [name for name in FAMILIES if not {*AOT().needs} <= {*build(name).adapter.knows}]
    for family in unknowing[:1]:
        with pytest.raises(pv.ConfigError, match=r"AOT\(.*needs attention"):
            build(family).stream(reducer="aot")
    line = 'aot:keep=0.1,duplicate_first=true,anchors="features"'
    assert name_of(REDUCERS, reducer_named(line)) == line


def test_its_parameters_have_bounds() -> None:
    for wrong in (
        {"keep": 0},
        {"quantile": 1.1},
        {"mean": -0.1},
        {"spatial": 5},
        {"eps": 0.01},
        {"rounds": 0},
        {"windows": 0},
        {"within": 1},
        {"across": None},
        {"duplicate_first": "no"},
        {"anchors": "norm"},
        {"unit": 0},
    ):
        (name,) = wrong
        with pytest.raises(pv.ConfigError, match=name):
            AOT(**wrong)


def test_what_it_costs() -> None:
    """Against products counted one by one, with all the rounds that its plans can take."""
    tokens = drawn(2, 4, (8, 8), hidden=64)
    for aot in (AOT(keep=0.2, rounds=1), AOT(keep=0.5, rounds=1), AOT(across=False, rounds=1)):
        with FlopCounterMode(display=False) as counter:
            reduced, _ = aot(tokens, {})
            assert reduced.weights is not None
            reduced.weights @ tokens.features
        assert aot.flops(len(tokens), 64) == pytest.approx(counter.get_total_flops(), rel=0.15)
