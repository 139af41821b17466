"""The gate `static`: only the patches that changed, and whole frames from time to time."""

from __future__ import annotations

import pytest
import torch
from families import build
from torch import Tensor

import pdrop_video as pv
from pdrop_video.gate import Watched, gate_named
from pdrop_video.gate.static import Static

SECONDS = tuple(0.5 * i for i in range(12))


def random_walk(frames: int, height: int, width: int) -> Tensor:
    """A picture of which some patches change from time to time, some by little."""
    generator = torch.Generator().manual_seed(0)
    out = [torch.randint(0, 200, (height, width, 3), generator=generator)]
    for _ in range(frames - 1):
        now = out[-1].clone()
        for _ in range(2):
            y, x = (int(torch.randint(0, side - 1, (), generator=generator)) for side in (height, width))
            now[y : y + 2, x : x + 2] += torch.randint(-9, 10, (), generator=generator)
        out.append(now.clamp(0, 255))
    return torch.stack(out).to(torch.uint8)


def by_loops(frames: Tensor, side: int, gate: Static) -> tuple[list[int], list[list[list[bool]]]]:
    """The rule patch by patch, on square patches."""
    kept, worth, whole = [], [], 0.0
    rows, columns = frames.shape[1] // side, frames.shape[2] // side
    last = frames[0].clone()
    for number, frame in enumerate(frames):
        everything = not number or (gate.max_age is not None and SECONDS[number] - whole >= gate.max_age)
        changed = [[everything] * columns for _ in range(rows)]
        for row in range(rows):
            for column in range(columns):
                here = slice(row * side, row * side + side), slice(column * side, column * side + side)
                apart = (frame[here].double() - last[here].double()).abs().mean()
                changed[row][column] = everything or float(apart) > gate.threshold
        worth.append(changed)
        if any(map(any, changed)):
            kept.append(number)
            whole = SECONDS[number] if everything or not gate.parts else whole
            for row in range(rows):
                for column in range(columns):
                    if changed[row][column] or not gate.parts:
                        here = slice(row * side, row * side + side), slice(column * side, column * side + side)
                        last[here] = frame[here]
    return kept, worth


@pytest.mark.parametrize(
    "gate", [Static(1), Static(1, True), Static(1, True, 2), Static(1, False, 1.5), Static(0, True)]
)
def test_the_rule_as_plain_loops(gate: Static) -> None:
    """However the stream is cut, and within the promised bytes."""
    frames = random_walk(12, 8, 12)
    kept, worth = by_loops(frames, 4, gate)
    assert 1 < len(kept) < 12 or gate.threshold == 0
    for sizes in ([12], [1] * 12, [5, 1, 6]):
        got: list[int] = []
        masks, carried, begin = [], {}, 0
        for size in sizes:
            part = Watched(frames[begin : begin + size], SECONDS[begin : begin + size], (2, 3))
            before = {name: tensor.clone() for name, tensor in carried.items()}
            gated, after = gate(part, carried)
            assert all(torch.equal(carried[name], tensor) for name, tensor in before.items())
            assert sum(tensor.nbytes for tensor in after.values()) == gate.most_bytes(8, 12)
            got += [begin + number for number in gated.kept]
            masks.append(gated.worth)
            carried, begin = after, begin + size
        assert got == kept
        if gate.parts:
            assert torch.cat(masks).tolist() == worth
        else:
            assert masks == [None] * len(sizes)


def test_patches_that_do_not_divide_the_picture() -> None:
    """A pixel on a border counts to both patches, and is kept with the one that begins before it or at it."""
    frames = torch.full((3, 4, 5, 3), 50, dtype=torch.uint8)
    frames[1, :, :2] += 40  # the first of two patches, which share column 2
    frames[2] = frames[1]
    frames[2, :, 2] += 40
    gated, carried = Static(4, parts=True)(Watched(frames, SECONDS[:3], (1, 2)), {})
    assert gated.kept == (0, 1, 2) and gated.worth is not None
    assert gated.worth[:, 0].tolist() == [[True, True], [True, False], [True, True]]
    assert torch.equal(carried["last"], frames[2])


def test_a_stream_gets_only_what_changed() -> None:
    """One patch of sixteen in each frame that goes on; the whole picture anew after two seconds."""
    lm = build("llava_onevision")
    side = lm.adapter.grid(64, 64)[0]
    frames = torch.full((8, 64, 64, 3), 60, dtype=torch.uint8)
    for number in range(1, 8):
        frames[number:, : 64 // side, : 64 // side] += 20 * (number % 2 == 1)
    stream = lm.stream(pv.Pyramid(stages=1), pv.Memory(tokens=None), gate="static:parts=true,max_age=2")
    entered = [stream.push(frames[i : i + 1], [SECONDS[i]]).visual_tokens for i in range(8)]
    assert entered == [side**2, 1, 0, 1, side**2, 1, 0, 1]


def test_names() -> None:
    assert gate_named("static:threshold=5") == Static(5)
    assert gate_named("static:max_age=null") == Static()
    for wrong, said in (
        ("max_age=0", "max_age is 0.0; expected a number above 0"),
        ("parts=2", "expected True or False"),
    ):
        with pytest.raises(pv.ConfigError, match=said):
            gate_named(f"static:{wrong}")
