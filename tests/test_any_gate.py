"""Every listed gate: borders of pushes, what it carries, and pictures that show nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from families import video
from torch import Tensor

from pdrop_video.gate import GATES, Gate, Gated, Watched, gate_named

GRID = (3, 4)
LINES = (
    *GATES,
    "static:parts=true",
    "static:threshold=0",
    "static:parts=true,max_age=2",
    "event:centred=true",
    "surprise:threshold=1.2,parts=0",
    "codec:max_age=2,group=1",
)
CUTS = ([1] * 36, [2] * 18, [5, 1, 7, 3, 20], [1, 35], [12, 12, 12])


def film(frames: int, height: int = 60, width: int = 72, period: int = 0) -> Tensor:
    """A still picture, over which a square moves most of the time, and a cut; it begins again after `period` frames."""
    scenes = [video(1, seed, height, width)[0] // 2 + 64 for seed in (1, 2)]
    shown = []
    for at in range(frames):
        at = at % period if period else at
        picture = scenes[int(2 * at >= (period or frames))].clone()
        if at % 6 > 1:
            row, column = 3 * at % max(height - 20, 1), 5 * at % max(width - 20, 1)
            picture[row : row + 20, column : column + 20] = torch.tensor([250, 20 * (at % 9), 40], dtype=torch.uint8)
        shown.append(picture)
    return torch.stack(shown)


def decide(
    gate: Gate, frames: Tensor, sizes: Sequence[int], grid: tuple[int, int] = GRID, dt: float = 0.25
) -> tuple[list[int], dict[str, Tensor], list[int]]:
    """Frames that go on, what is said of all of them, and the bytes carried behind each push."""
    carried: dict[str, Tensor] = {}
    kept: list[int] = []
    said: dict[str, list[Tensor]] = {}
    held, begin = [], 0
    for size in sizes:
        part = frames[begin : begin + size]
        watched = Watched(part, tuple(dt * (begin + i) for i in range(len(part))), grid)
        gated, carried = checked(gate, watched, carried)
        kept += [begin + number for number in gated.kept]
        for name in ("worth", "saliency"):
            each = getattr(gated, name)
            said.setdefault(name, []).append(torch.zeros(0) if each is None else each)
        held.append(sum(tensor.nbytes for tensor in carried.values()))
        begin += size
    assert begin == len(frames)
    return kept, {name: torch.cat(each) for name, each in said.items()}, held


def checked(gate: Gate, watched: Watched, carried: Mapping[str, Tensor]) -> tuple[Gated, dict[str, Tensor]]:
    """Twice, which must be the same; what is given stays, and what comes out is as the protocol has it."""
    frames, before = watched.frames.clone(), {name: tensor.clone() for name, tensor in carried.items()}
    gated, held = gate(watched, carried)
    again, same = gate(Watched(frames, watched.seconds, watched.grid), before)
    assert torch.equal(frames, watched.frames)
    assert all(torch.equal(tensor, before[name]) for name, tensor in carried.items())
    assert gated.kept == again.kept and held.keys() == same.keys()
    assert all(torch.equal(tensor, same[name]) for name, tensor in held.items())
    assert list(gated.kept) == sorted({*gated.kept}) and {*gated.kept} <= {*range(len(frames))}
    shape: Any = (len(frames), *watched.grid)
    if gated.worth is not None:
        assert gated.worth.dtype == torch.bool and gated.worth.shape == shape
    if gated.saliency is not None:
        assert gated.saliency.dtype == torch.float32 and gated.saliency.shape == shape
        assert gated.saliency.isfinite().all() and (gated.saliency >= 0).all()
    assert not any(tensor.isnan().any() for tensor in held.values())
    assert sum(tensor.nbytes for tensor in held.values()) <= gate.most_bytes(*frames.shape[1:3])
    return gated, held


def test_every_gate_is_here() -> None:
    assert {*GATES} <= {*LINES}


@pytest.mark.parametrize("line", LINES)
def test_no_gate_sees_where_pushes_end(line: str) -> None:
    """Which frames go on, and what is said of all of them."""
    gate, frames = gate_named(line), film(36)
    kept, said, _ = decide(gate, frames, [36])
    assert 0 < len(kept) < 36 or line == "static:threshold=0"
    for sizes in CUTS:
        again, same, _ = decide(gate, frames, sizes)
        assert again == kept
        assert all(torch.equal(each, same[name]) for name, each in said.items())


@pytest.mark.parametrize("line", LINES)
def test_what_is_carried_stays_small(line: str) -> None:
    """From the first push on as much, whatever is shown; of pictures of every size within the bound."""
    gate = gate_named(line)
    *_, held = decide(gate, film(64, period=16), [2] * 32)
    assert len({*held}) == 1
    facts = getattr(gate, "facts", None)
    assert not held[0] or facts is None or facts.carries
    for height, width in ((1, 1), (8, 300), (500, 350), (337, 4)):
        decide(gate, film(3, height, width), [1, 2], (2, 2))


@pytest.mark.parametrize("line", LINES)
def test_pictures_may_show_nothing(line: str) -> None:
    """Black, white, equal, one frame, a grid of one, more cells than pixels, frames far apart; sizes that change."""
    gate = gate_named(line)
    black = torch.zeros(6, 40, 48, 3, dtype=torch.uint8)
    for frames in (black, black + 255, film(1).expand(6, -1, -1, -1), torch.cat([black, black + 255, black])):
        for grid in ((1, 1), (1, 7), (5, 1), GRID):
            kept, *_ = decide(gate, frames, [1, len(frames) - 1], grid)
            assert kept[0] == 0
    decide(gate, film(4, 6, 8), [2, 2], (7, 9))
    for dt in (1e-6, 1e6):
        decide(gate, film(6), [3, 3], dt=dt)
    carried: dict[str, Tensor] = {}
    for number, (height, width) in enumerate(((60, 72), (72, 60), (60, 72), (30, 36))):
        watched = Watched(film(2, height, width), (number, number + 0.5), GRID)
        gated, carried = checked(gate, watched, carried)
        # nothing is known of pictures of this size; surprise looks at samples of them, as many in all that have a grid
        assert gated.kept[:1] == (0,) or line.startswith("surprise")
    small, large = ((16, 24), (3, 4)), ((60, 72), (2, 3))  # as many samples, but for different cells
    carried = {}
    for number, ((height, width), grid) in enumerate((small, large, small)):
        gated, carried = checked(gate, Watched(film(1, height, width), (float(number),), grid), carried)
        assert gated.kept == (0,)


@pytest.mark.parametrize("line", LINES)
def test_a_still_picture_goes_on_once(line: str) -> None:
    """But for what a gate shows again from time to time."""
    kept, *_ = decide(gate_named(line), film(1).expand(12, -1, -1, -1), [12], dt=0.1)
    assert kept == [0]
