"""DTD, which never depends on how a stream is cut."""

from __future__ import annotations

import pytest
import torch
from families import build, video
from peers import clip, ragged, some, sound, streamed
from test_exact import next_logits
from test_front import tokens_of

import pdrop_video as pv
from pdrop_video.reduce import reducer_named
from pdrop_video.reduce.dtd import DTD

GRID = (3, 4)


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(a @ b / max(float(a.norm() * b.norm()), 1e-300))


@pytest.mark.parametrize("threshold", [-0.3, 0.25, 0.5, 0.9])
def test_by_threshold(threshold: float) -> None:
    """Each token against the one before at its place, whether or not that one stayed."""
    features = clip(6, 12)
    want = [i for i in range(72) if i < 12 or not cosine(features[i], features[i - 12]) > threshold]
    assert streamed(DTD(threshold), features, GRID, []) == want
    assert 12 < len(want) < 72


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.8, 1.0])
def test_by_share(keep: float) -> None:
    """Each step loses as many, those most like their past."""
    features, want = clip(5, 12, seed=1), list(range(12))
    for step in range(1, 5):
        own = range(12 * step, 12 * step + 12)
        order = sorted(own, key=lambda i: cosine(features[i], features[i - 12]))
        want += sorted(order[: 12 - int(12 * (1 - keep))])
    assert streamed(DTD(keep=keep), features, GRID, []) == want


@pytest.mark.parametrize("reducer", [DTD(), DTD(0.8), DTD(keep=0.3)])
def test_chunks_do_not_matter(reducer: DTD) -> None:
    features = clip(9, 12, seed=2).float()
    whole = streamed(reducer, features, GRID, [])
    for cuts in ([1], [4], [1, 2, 3, 4, 5, 6, 7, 8], [2, 3, 7]):
        assert streamed(reducer, features, GRID, cuts) == whole


def test_a_still_picture_goes() -> None:
    """But for its first step: a chunk of which nothing stays is no error. Noise of the last bit is no change."""
    features = torch.randn(12, 8, dtype=torch.float64).repeat(4, 1)
    features *= 1 + 1e-15 * torch.randn(48, 1, dtype=torch.float64)
    reduced, carried = DTD(0.99)(tokens_of(features, GRID), {})
    assert reduced.kept.tolist() == list(range(12))
    reduced, _ = DTD(0.99)(tokens_of(features, GRID, 4), carried)
    assert reduced.kept.tolist() == []
    # at the threshold itself a token stays, as everything below does
    assert len(DTD(1.0)(tokens_of(features, GRID, 4), carried)[0].kept) == 48


def test_what_a_gate_left_out_is_compared_with_what_was_seen_last() -> None:
    features = clip(3, 12, seed=3)
    features[24] = features[0] * 2
    features[12] = -features[0]
    tokens = tokens_of(features, GRID)
    without = some(tokens, torch.tensor([i for i in range(36) if i != 12]))
    assert 24 in DTD()(tokens, {})[0].kept
    assert 23 not in DTD()(without, {})[0].kept  # the same token, one number earlier
    assert DTD()(some(tokens, torch.arange(1)), {})[0].kept.tolist() == [0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_zeros_and_small_numbers(dtype: torch.dtype) -> None:
    """A token of zeros is like nothing."""
    features = clip(5, 12, seed=4).to(dtype)
    features[12:30] = 0
    for reducer in (DTD(), DTD(keep=0.4)):
        tokens = ragged(features, GRID, empty=(2,))
        reduced, carried = reducer(tokens, {})
        sound(reduced, tokens)
        assert carried["last"].isfinite().all() and carried["last"].dtype == dtype
    zeros = [i for i, feature in enumerate(features) if not feature.any()]
    assert set(zeros) <= set(streamed(DTD(0.1), features, GRID, [2]))


@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava_onevision"])
def test_pushes_that_show_nothing_new(family: str) -> None:
    """Of a still stream nothing enters after its first step, and what is asked is answered."""
    lm = build(family)
    stream = lm.stream(reducer="dtd", pyramid=pv.Pyramid(stages=1))
    picture, entered = video(1).repeat(4, 1, 1, 1), []
    for number in range(3):
        stream.push(pv.FrameChunk(picture, tuple(2.0 * number + 0.5 * i for i in range(4))))
        entered.append(stream.visual_tokens)
        assert torch.isfinite(next_logits(stream)).all()
    assert entered[0] == entered[1] == entered[2] > 0
    assert stream.status.seconds == (0.0, 5.5)


def test_settings() -> None:
    assert reducer_named("dtd:keep=0.3") == DTD(keep=0.3)
    assert reducer_named("dtd:threshold=-0.5") == DTD(-0.5)
    assert DTD().left(100) is None
    for bad in ({"threshold": 1.5}, {"threshold": None}, {"keep": 0.0}):
        with pytest.raises(pv.ConfigError):
            DTD(**bad)  # type: ignore[arg-type]
