"""RotateK's codec: against the formula number by number, its bytes and its FLOPs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from test_subspace import khat
from torch.utils.flop_counter import FlopCounterMode

import pdrop_video as pv
from pdrop_video.costs.decoder import DecoderShape
from pdrop_video.costs.stream import StreamShape
from pdrop_video.memory import STORAGES
from pdrop_video.memory.storages import column_bytes, learned_bytes, reading_flops
from pdrop_video.memory.storages.rotatek import Directions, RotateK
from pdrop_video.stream.limits import reading_of


@pytest.mark.parametrize(("head_dim", "keep", "kept"), [(128, 0.25, 32), (64, 0.25, 16), (16, 0.3, 5), (10, 0.01, 1)])
def test_the_codec_by_the_formula(head_dim: int, keep: float, kept: int) -> None:
    """As many directions as the release has; whoever comes later is projected onto those of the first."""
    generator = torch.Generator().manual_seed(head_dim)
    keys = torch.randn(1, 2, 40, head_dim, generator=generator, dtype=torch.float64).cumsum(2) / 4 + 2
    codec = Directions(keep)
    learned = codec.learn(keys[:, :, :24])
    (coordinates,) = codec.encode(keys, learned)
    assert coordinates.shape == (1, 2, 40, kept) and kept == head_dim - min(int(head_dim * (1 - keep)), head_dim - 1)
    got = codec.decode((coordinates,), learned, torch.float64)
    if head_dim <= 16:
        torch.testing.assert_close(got[0, :, :24], khat(keys[0, :, :24], kept, None), atol=1e-9, rtol=0)
    axes, mean = learned[0][0], keys[0, :, :24].mean(1)
    projection = axes @ axes.mT
    want = keys[0] @ projection + (mean[:, None] - mean[:, None] @ projection)
    torch.testing.assert_close(got[0], want, atol=1e-9, rtol=0)
    lost = codec.lost(keys, learned)
    about = keys[0] - keys[0].mean(1, keepdim=True)
    share = [float((keys[0, h] - want[h]).square().sum() / about[h].square().sum()) for h in range(2)]
    assert lost.tolist() == pytest.approx(share, rel=1e-9) and min(share) > 0
    whole = Directions(1.0)
    assert whole.lost(keys, whole.learn(keys)).max() < 1e-20


def test_bytes_are_five_eighths() -> None:
    """Of key and value in 128 channels of 16 bits; and directions are counted beside."""
    storage = STORAGES["rotatek"]
    assert isinstance(storage, RotateK)
    sides = [column_bytes(storage(of), 4, 128, torch.bfloat16) for of in ("keys", "values")]
    assert sides == [4 * 32 * 2, 4 * 128 * 2] and sum(sides) / (2 * 4 * 128 * 2) == 0.625
    assert learned_bytes(storage("keys"), 4, 128, torch.bfloat16) == 4 * (128 * 32 + 128) * 4  # in float32


def test_reading_is_counted() -> None:
    """What PyTorch counts of making keys; a push, a question and an answer cost so much more for every column held."""
    storage = RotateK(recent=4)
    codec, generator = storage("keys"), torch.Generator().manual_seed(0)
    states = torch.randn(1, 3, 50, 32, generator=generator)
    learned = codec.learn(states)
    coordinates = codec.encode(states, learned)
    with FlopCounterMode(display=False) as counter:
        codec.decode(coordinates, learned, torch.float32)
    assert counter.get_total_flops() == 50 * reading_flops(storage, 3, 32, 32) == 50 * 3 * 2 * 8 * 32
    assert reading_flops(STORAGES["full"], 3, 32, 32) == 0
    decoder = DecoderShape(layers=4, hidden=64, heads=4, kv_heads=2, head_dim=16, mlp=160, vocabulary=96)
    reading = reading_of(storage, decoder)
    assert reading == (2 * 2 * 4 * 16,) * 4
    plain = StreamShape(decoder, pv.Pyramid(ratios=(0.5,)).resolve(4), limits=(100,) * 4)
    counted, past, each = replace(plain, reading=reading), (80, 80, 70, 70), reading[0]
    held = sum(past)
    assert counted.piece_flops(past, 8) - plain.piece_flops(past, 8) == each * (held + 70)
    assert counted.text_flops(past, 5) - plain.text_flops(past, 5) == each * held
    ranked = {0: 80, 2: 70}  # the first layers of both stages, which say what an answer rests on
    more = counted.asking_flops(past, 5, 3) - plain.asking_flops(past, 5, 3)
    assert counted.first_of(plain.schedule) == tuple(ranked)
    assert more == each * (held * 3 + sum(ranked.values()))
