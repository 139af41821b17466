"""The gate `event`: the numbers of its specification, the rule as plain loops, and any cut of a stream."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import pdrop_video as pv
from pdrop_video.gate import Watched
from pdrop_video.gate.event import Event, fired

ROW = [[100, 100, 100, 100], [100, 104, 150, 100], [100, 108, 150, 130], [100, 112, 150, 130], [100, 130, 90, 130]]
"""Four pixels in five frames: still, a slow rise, a jump up and down, a jump."""


def grey(levels: Tensor) -> Tensor:
    """Pictures [frames, rows, columns, 3] of levels."""
    return levels.to(torch.uint8)[..., None].expand(*levels.shape, 3).contiguous()


def watched(frames: Tensor, seconds: list[float], grid: tuple[int, int]) -> Watched:
    return Watched(frames, tuple(seconds), grid)


@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.int16])
def test_events_by_hand(kind: torch.dtype) -> None:
    """The specification's numbers: two keyframes behind the first, and their active pixels."""
    unit = 4096 if kind == torch.int16 else 1
    level = (torch.tensor(ROW, dtype=torch.float64) + 1).log() * unit
    level = level.round().to(kind) if kind == torch.int16 else level.to(kind)
    reference, total = level[0], torch.zeros(4)
    apart, counts, keys, masks = [], [], [0], []
    for number in range(1, 5):
        apart.append((level[number] - reference).double() / unit)
        count, reference = fired(level[number], reference, round(0.2 * unit) if unit > 1 else 0.2)
        counts.append(count.tolist())
        total = total + count
        if total.sum() >= 3:
            keys.append(number)
            masks.append((total > 0).int().tolist())
            total = torch.zeros(4)
    want = [
        [0, 0.0388, 0.4022, 0],
        [0, 0.0762, 0.0022, 0.2601],
        [0, 0.1123, 0.0022, 0.0601],
        [0, 0.2601, -0.5043, 0.0601],
    ]
    torch.testing.assert_close(torch.stack(apart), torch.tensor(want, dtype=torch.float64), atol=6e-4, rtol=0)
    assert counts == [[0, 0, 2, 0], [0, 0, 0, 1], [0, 0, 0, 0], [0, 1, 2, 0]]
    assert keys == [0, 2, 4] and masks == [[0, 0, 1, 1], [0, 1, 1, 0]]
    # plain differences of the slow pixel never fire
    assert all(int(fired(level[i], level[i - 1], 0.2 * unit)[0][1]) == 0 for i in range(1, 5))


def test_the_gate_by_hand() -> None:
    """The same pixels; two of four that fired since the last keyframe make one: frames 0, 2 and 4."""
    frames = grey(torch.tensor(ROW)[:, None])
    gated, carried = Event(kappa=0.5, max_gap=100)(watched(frames, [0, 1, 2, 3, 4], (1, 4)), {})
    assert gated.kept == (0, 2, 4) and gated.worth is None and gated.saliency is not None
    want = [[1, 1, 1, 1], [0, 0, 2, 0], [0, 0, 2, 1], [0, 0, 0, 0], [0, 1, 2, 0]]
    assert gated.saliency.dtype == torch.float32 and gated.saliency[:, 0].tolist() == want
    assert carried["events"].tolist() == [[0, 0, 0, 0]] and float(carried["last"]) == 4


def by_loops(
    frames: list[Any], seconds: list[float], gate: Event, first: int = 336
) -> tuple[list[int], list[list[list[int]]]]:
    """The rule written out, pixel by pixel, in whole numbers; keyframes, and the events of each frame."""
    kept, maps, last = [], [], 0.0
    reference: list[list[int]] = []
    total: list[list[int]] = []
    theta, dark = round(4096 * gate.theta), round(4096 * math.log1p(gate.dark))
    for number, frame in enumerate(frames):
        height, width = len(frame), len(frame[0])
        up, over = math.ceil(height / first), math.ceil(width / first)
        level = []
        for top in range(0, height, up):
            level.append([])
            for left in range(0, width, over):
                block = [
                    frame[y][x] for y in range(top, min(top + up, height)) for x in range(left, min(left + over, width))
                ]
                luma = sum(77 * r + 150 * g + 29 * b for r, g, b in block) / len(block)
                level[-1].append(round(4096 * math.log1p(round(luma / 16) / 16)))
        if not number:
            reference, kept, last = level, [0], seconds[0]
            maps.append([[1] * len(line) for line in level])
            total = [[0] * len(line) for line in level]
            continue
        rows = zip(level, reference, strict=True)
        changes = sorted(a - b for line, before in rows for a, b in zip(line, before, strict=True))
        shift = changes[(len(changes) - 1) // 2] if gate.centred else 0
        for y, line in enumerate(level):
            for x, now in enumerate(line):
                before = reference[y][x] + shift
                if now < dark and before < dark:
                    continue
                count = abs(now - before) // theta
                total[y][x] += count
                reference[y][x] += (1 if now > before else -1) * count * theta
        maps.append([list(line) for line in total])
        share = sum(each > 0 for line in total for each in line) / sum(map(len, total))
        if share >= gate.kappa or seconds[number] - last >= gate.max_gap:
            kept.append(number)
            last, total = seconds[number], [[0] * len(line) for line in total]
    return kept, maps


def walk(frames: int, height: int, width: int, seed: int = 0, by: float = 9.0) -> Tensor:
    """Colours that wander, some of them near black."""
    generator = torch.Generator().manual_seed(seed)
    begin = 255 * torch.rand(height, width, 3, generator=generator) ** 3
    steps = by * torch.randn(frames, height, width, 3, generator=generator)
    return (begin + steps.cumsum(0)).clamp(0, 255).to(torch.uint8)


GATES = [
    Event(kappa=0.3),
    Event(theta=0.35, kappa=0.4, dark=30, max_gap=3.5),
    Event(kappa=0.2, centred=True),
    Event(kappa=0.9, theta=0.05, dark=0),
]


@pytest.mark.parametrize("gate", GATES, ids=str)
def test_the_rule_as_plain_loops(gate: Event) -> None:
    frames, seconds = walk(14, 6, 8), [0.5 * i for i in range(14)]
    gated, _ = gate(watched(frames, seconds, (6, 8)), {})
    kept, maps = by_loops(frames.tolist(), seconds, gate)
    assert list(gated.kept) == kept and 1 < len(kept) < 14
    assert gated.saliency is not None and gated.saliency.tolist() == maps


def test_a_large_picture_is_remembered_smaller() -> None:
    """Blocks of 2 x 3 pixels, those at the edges of fewer; a token has the mean of what it shows."""
    frames = walk(2, 337, 700, by=20)
    gate = Event(kappa=0.9)
    gated, carried = gate(watched(frames, [0, 1], (13, 18)), {})
    kept, maps = by_loops(frames.tolist(), [0, 1], gate)
    assert carried["reference"].shape == (169, 234) == (math.ceil(337 / 2), math.ceil(700 / 3))
    assert list(gated.kept) == kept
    means = torch.tensor(maps).float().view(2, 13, 13, 18, 13).mean((2, 4))
    torch.testing.assert_close(gated.saliency, means)


@pytest.mark.parametrize("gate", [Event(), *GATES], ids=str)
def test_any_cut_of_a_stream_gives_the_same(gate: Event) -> None:
    frames, seconds = walk(20, 12, 20, seed=1), [0.4 * i for i in range(20)]
    want, end = gate(watched(frames, seconds, (3, 4)), {})
    assert want.saliency is not None
    for sizes in ([1] * 20, [7, 13], [2, 3, 1, 9, 5]):
        kept: list[int] = []
        maps, carried, begin = [], {}, 0
        for size in sizes:
            before = {name: tensor.clone() for name, tensor in carried.items()}
            part = watched(frames[begin : begin + size], seconds[begin : begin + size], (3, 4))
            gated, after = gate(part, carried)
            assert all(torch.equal(carried[name], tensor) for name, tensor in before.items())
            assert sum(tensor.nbytes for tensor in after.values()) <= gate.most_bytes(12, 20) == 984
            kept += [begin + number for number in gated.kept]
            maps.append(gated.saliency)
            carried, begin = after, begin + size
        assert tuple(kept) == want.kept and torch.equal(torch.cat(maps), want.saliency)
        assert all(torch.equal(end[name], tensor) for name, tensor in carried.items())


def test_a_still_picture_goes_on_once_in_max_gap() -> None:
    frames = grey(torch.full((1, 8, 8), 90)).expand(11, -1, -1, -1)
    seconds = [0.5 * i for i in range(11)]
    for gap, kept in ((2.0, (0, 4, 8)), (1.0, (0, 2, 4, 6, 8, 10)), (60, (0,))):
        gated, _ = Event(max_gap=gap)(watched(frames, seconds, (2, 2)), {})
        assert gated.kept == kept and gated.saliency is not None
        assert not gated.saliency[1:].any()  # nothing happened, which is what a refreshed picture says


def test_flicker_fires_nothing_once_centred() -> None:
    """All levels up by a third, and one corner by more."""
    levels = torch.full((2, 8, 8), 60.0)
    levels[1] = 80
    levels[1, :2, :2] = 140
    frames = grey(levels)
    for centred, events in ((False, [[4.0, 1.0], [1.0, 1.0]]), (True, [[2.0, 0.0], [0.0, 0.0]])):
        gated, _ = Event(centred=centred)(watched(frames, [0, 0.5], (4, 4)), {})
        assert gated.saliency is not None
        assert gated.saliency[1, ::3, ::3].tolist() == events
        assert gated.kept == (0, 1)  # a sixteenth of the picture is more than .02 of it


def test_noise_in_the_dark_is_none() -> None:
    """Levels below 8 change threefold; into the light it counts."""
    frames = grey(torch.tensor([2, 7, 2, 7, 60])[:, None, None].expand(-1, 4, 4))
    seconds = [0.1 * i for i in range(5)]
    assert Event()(watched(frames, seconds, (1, 1)), {})[0].kept == (0, 4)
    assert Event(dark=0)(watched(frames, seconds, (1, 1)), {})[0].kept == (0, 1, 2, 3, 4)


def test_pictures_of_another_size_begin_anew() -> None:
    """Also where what is remembered of them is as large."""
    gate = Event()
    _, carried = gate(watched(grey(torch.full((1, 400, 400), 9)), [0], (2, 2)), {})
    gated, after = gate(watched(grey(torch.full((2, 399, 399), 9)), [0.1, 0.2], (2, 2)), carried)
    assert after["reference"].shape == carried["reference"].shape == (200, 200)
    assert gated.kept == (0,) and gated.saliency is not None
    assert gated.saliency[0].tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize("size", [(5, 9), (336, 337), (480, 854), (1080, 1920), (672, 4000)])
def test_most_bytes_is_a_bound(size: tuple[int, int]) -> None:
    _, carried = Event()(watched(torch.zeros(1, *size, 3, dtype=torch.uint8), [0], (2, 2)), {})
    assert sum(tensor.nbytes for tensor in carried.values()) <= Event().most_bytes(*size) <= 4 * 336**2 + 24


@pytest.mark.parametrize(
    "wrong, said",
    [
        ("theta=0", "theta is 0.0; expected a number from 0.01 to 5"),
        ("kappa=0", r"kappa is 0.0; expected a share"),
        ("max_gap=0", "max_gap is 0.0; expected a number above 0"),
        ("dark=-1", "dark is -1.0; expected a number from 0 to 255"),
        ("centred=1", "centred of gate event is 1; expected True or False"),
    ],
)
def test_bad_thresholds(wrong: str, said: str) -> None:
    from pdrop_video.gate import gate_named

    with pytest.raises(pv.ConfigError, match=said):
        gate_named(f"event:{wrong}")
