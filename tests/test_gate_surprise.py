"""The gate `surprise`: its rule in plain loops, however a stream is cut, and what it is for."""

from __future__ import annotations

from math import exp

import pytest
import torch
from families import build, video
from torch import Tensor

import pdrop_video as pv
from pdrop_video.gate import Watched
from pdrop_video.gate.surprise import Surprise

GRID = (3, 5)


def scene(frames: int, seed: int = 0) -> Tensor:
    """A scene under noise in which a strip never rests, a light grows, and a patch of colour comes twice."""
    made = torch.Generator().manual_seed(seed)
    picture = torch.randint(60, 180, (48, 80, 3), generator=made)
    shown = picture.expand(frames, -1, -1, -1).clone()
    shown += torch.randint(-3, 4, shown.shape, generator=made)
    shown[:, :16] += torch.randint(-40, 41, shown[:, :16].shape, generator=made)
    shown += 2 * torch.arange(frames)[:, None, None, None]
    shown[12:14, 20:30, 30:44] = torch.tensor([250, 20, 20])
    shown[20:22, 34:44, 2:12] = torch.tensor([20, 20, 250])
    return shown.clamp(0, 255).to(torch.uint8)


def by_hand(frames: Tensor, seconds: list[float], gate: Surprise) -> tuple[list[int], Tensor]:
    """The rule in plain loops, for pictures whose samples and cells are of equal sizes."""
    rows, columns = 2 * GRID[0], 2 * GRID[1]
    tall, wide = frames.shape[1] // (4 * rows), frames.shape[2] // (4 * columns)
    kept: list[int] = []
    maps = torch.zeros(len(frames), *GRID)
    background: dict[tuple[int, int, int], float] = {}
    usual: dict[tuple[int, int, int], float] = {}
    for t, frame in enumerate(frames.double()):
        weight = 1 - exp((seconds[t - 1] - seconds[t]) / gate.memory) if t else 1.0
        most = 0.0
        seen = {}
        for r in range(4 * rows):
            for c in range(4 * columns):
                red, green, blue = frame[r * tall : (r + 1) * tall, c * wide : (c + 1) * wide].mean((0, 1)).tolist()
                seen[0, r, c] = gate.brightness * (red + green + blue) / 3
                seen[1, r, c], seen[2, r, c] = (red - green) / 2, (red + green - 2 * blue) / 4
        background = background or dict(seen)
        for channel in range(3):
            for r in range(rows):
                for c in range(columns):
                    samples = [(channel, 4 * r + i, 4 * c + j) for i in range(4) for j in range(4)]
                    differs = sum(abs(seen[at] - background[at]) for at in samples) / 16
                    before = usual.get((channel, r, c), 0.0)
                    surprise = differs / (before + gate.noise)
                    most = max(most, surprise)
                    maps[t, r // 2, c // 2] = max(float(maps[t, r // 2, c // 2]), surprise)
                    usual[channel, r, c] = before + weight * (differs - before)
        background = {at: held + weight * (seen[at] - held) for at, held in background.items()}
        if not kept or most > gate.threshold or seconds[t] - seconds[kept[-1]] >= gate.max_gap:
            kept.append(t)
    return kept, maps


@pytest.mark.parametrize("gate", [Surprise(), Surprise(threshold=1.5, brightness=1, noise=2, memory=5, max_gap=3)])
def test_by_hand(gate: Surprise) -> None:
    frames, seconds = scene(26), [0.5 * i + 0.1 * (i % 3) for i in range(26)]
    gated, _ = gate(Watched(frames, tuple(seconds), GRID), {})
    kept, maps = by_hand(frames, seconds, gate)
    assert list(gated.kept) == kept
    assert gated.saliency is not None
    torch.testing.assert_close(gated.saliency, maps, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("size", [1, 3, 7, 26])
def test_however_a_stream_is_cut(size: int) -> None:
    frames, seconds = scene(26), tuple(0.5 * i for i in range(26))
    whole, last = Surprise()(Watched(frames, seconds, GRID), {})
    carried: dict[str, Tensor] = {}
    kept, maps = [], []
    for first in range(0, 26, size):
        given = {name: tensor.clone() for name, tensor in carried.items()}
        part = slice(first, first + size)
        gated, new = Surprise()(Watched(frames[part], seconds[part], GRID), carried)
        assert all(torch.equal(given[name], tensor) for name, tensor in carried.items())  # it was not written to
        carried = new
        kept += [first + number for number in gated.kept]
        assert gated.saliency is not None
        maps.append(gated.saliency)
    assert tuple(kept) == whole.kept and torch.equal(torch.cat(maps), whole.saliency)
    assert all(torch.equal(carried[name], tensor) for name, tensor in last.items())
    assert sum(tensor.nbytes for tensor in carried.values()) <= Surprise().most_bytes(48, 80)


def test_what_always_moves_is_nothing_new() -> None:
    """Noise, a strip that never rests and a growing light are usual; what appears is not, and is where it is."""
    gated, _ = Surprise(max_gap=1e9)(Watched(scene(26), tuple(0.5 * i for i in range(26)), GRID), {})
    assert gated.saliency is not None
    later = [number for number in gated.kept if number >= 6]  # the first seconds are new
    assert {12, 20} <= set(later) <= {12, 13, 20, 21}
    for number, place in ((12, (1, 2)), (20, (2, 0))):
        assert divmod(int(gated.saliency[number].argmax()), GRID[1]) == place


def test_a_picture_smaller_than_its_tokens_and_another_size() -> None:
    tiny = torch.randint(0, 256, (4, 3, 2, 3), dtype=torch.uint8)
    gated, carried = Surprise()(Watched(tiny, (0.0, 0.5, 1.0, 1.5), (4, 4)), {})
    assert gated.saliency is not None and gated.saliency.shape == (4, 4, 4)
    assert sum(tensor.nbytes for tensor in carried.values()) <= Surprise().most_bytes(3, 2)
    gated, _ = Surprise()(Watched(scene(2), (2.0, 2.5), GRID), carried)
    assert gated.kept[0] == 0


@pytest.mark.parametrize("bad", ["threshold=-1", "noise=0", "memory=0", "max_gap=0", "brightness=nan", "memory=1e9"])
def test_bad_settings(bad: str) -> None:
    with pytest.raises(pv.ConfigError, match=bad.split("=")[0]):
        build("qwen2_5_vl").stream(gate=f"surprise:{bad}")


def test_in_a_stream() -> None:
    """What it leaves out lasts, and its saliency reaches the tokens."""
    lm = build("qwen2_5_vl")
    frames = video(1).expand(12, -1, -1, -1).clone()
    frames[8:10, :28, :28] = torch.tensor([255, 0, 0], dtype=torch.uint8)
    stream = lm.stream(pv.Pyramid(stages=1), gate="surprise")
    stream.push(frames, [0.5 * i for i in range(12)])
    held = stream.held()
    assert sorted(set(held.seconds[held.visual].tolist())) == [0.0, 4.0]
    assert set(held.until[held.visual].tolist()) == {3.5, 5.5} and stream.status.skipped == 8
