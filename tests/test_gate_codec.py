"""The gate `codec`: CodecSight's rule by its numbers, what pixels add, and that pushes of any size change nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from families import build
from test_video_motion import SIZE, clip, pictures, read
from torch import Tensor

import pdrop_video as pv
from pdrop_video.gate import Gated, Watched
from pdrop_video.gate.codec import Codec
from pdrop_video.stream.front import Front
from pdrop_video.video import Motion
from pdrop_video.video.motion import largest

Blocks = Sequence[tuple[float, ...]]
P1: Blocks = [(0, 0, 16, 16, 0, 0), (16, 0, 16, 16, 3, 4), (48, 48, 16, 16, 0.5, 0)]
P2: Blocks = [(0, 48, 16, 16, 2, 0)]


def motion_of(frames: Sequence[Blocks | None], size: tuple[int, int] = (64, 64)) -> Motion:
    """Of frames that are all handed out, by their blocks; None is an I-frame. Where no block is, nothing moves."""
    still = [(0, 0, size[1], size[0], 0, 0)]
    most = [largest(np.array([*still, *(blocks or [])], float).T, size)[0] for blocks in frames]
    grid = torch.from_numpy(np.stack(most))
    key = torch.tensor([blocks is None for blocks in frames])
    return Motion(grid, grid, key, key, ~key)


def watched(
    motion: Motion | None, frames: Tensor | None = None, grid: tuple[int, int] = (2, 2), apart: float = 1.0
) -> Watched:
    if frames is None:
        assert motion is not None
        frames = torch.full((len(motion), 64, 64, 3), 100, dtype=torch.uint8)
    return Watched(frames, tuple(apart * number for number in range(len(frames))), grid, motion)


def worth(gated: Gated) -> list[list[list[int]]]:
    assert gated.worth is not None
    assert gated.kept == tuple(gated.worth.flatten(1).any(1).nonzero()[:, 0].tolist())
    return gated.worth.int().tolist()


ALL, NOTHING = [[1, 1], [1, 1]], [[0, 0], [0, 0]]


def test_the_specs_example_sticks_until_the_next_i_frame() -> None:
    gated, _ = Codec()(watched(motion_of([None, P1, P2, [], None, []])), {})
    assert worth(gated) == [ALL, [[1, 0], [0, 0]], [[1, 0], [1, 0]], [[1, 0], [1, 0]], ALL, NOTHING]
    assert gated.kept == (0, 1, 2, 3, 4)


def test_without_stickiness_a_change_is_encoded_once() -> None:
    gated, _ = Codec(sticky=False)(watched(motion_of([None, P1, P2, [], None, []])), {})
    assert worth(gated) == [ALL, [[1, 0], [0, 0]], [[0, 0], [1, 0]], NOTHING, ALL, NOTHING]


def test_patches_of_a_group_and_the_threshold() -> None:
    """Groups of one patch: the patch alone; and .5 pixels count from a tau of .5."""
    gated, _ = Codec(group=1)(watched(motion_of([None, P1]), grid=(4, 4)), {})
    assert gated.worth is not None and gated.worth[1].nonzero().tolist() == [[0, 1]]
    assert worth(Codec(tau=0.5)(watched(motion_of([None, P1])), {})[0])[1] == [[1, 0], [0, 1]]
    assert worth(Codec(tau=5.01)(watched(motion_of([None, P1])), {})[0])[1] == NOTHING


def test_an_i_frame_that_was_not_handed_out_hides_nothing_and_ends_stickiness() -> None:
    """Between the first and the second frame something moves, an I-frame comes, then something else moves."""
    before, after = (largest(np.array([(0, 0, 64, 64, 0, 0), *blocks], float).T, (64, 64))[0] for blocks in (P1, P2))
    most = torch.from_numpy(np.stack([before * 0, np.maximum(before, after), after * 0]))
    latest = torch.from_numpy(np.stack([before * 0, after, after * 0]))
    key, begun = torch.tensor([True, False, False]), torch.tensor([True, True, False])
    seen = watched(Motion(most, latest, key, begun, ~begun))
    assert worth(Codec()(seen, {})[0]) == [ALL, [[1, 0], [1, 0]], [[0, 0], [1, 0]]]
    assert worth(Codec(sticky=False)(seen, {})[0]) == [ALL, [[1, 0], [1, 0]], NOTHING]


def test_what_is_old_is_encoded_again_place_by_place() -> None:
    gated, _ = Codec(sticky=False, max_age=3.0)(watched(motion_of([[], [], P2, [], [], [], []])), {})
    assert [int(frame.sum()) for frame in torch.tensor(worth(gated))] == [4, 0, 1, 3, 0, 1, 3]
    assert worth(gated)[3] == [[1, 1], [0, 1]]
    # times that went through floats, of three frames a second
    assert Codec()(watched(motion_of([[]] * 25), apart=1 / 3), {})[0].kept == (0, 24)
    # and times that a container rounded to milliseconds, but none that is earlier than that
    assert Codec()(watched(motion_of([[]] * 2), apart=7.9995), {})[0].kept == (0, 1)
    assert Codec()(watched(motion_of([[]] * 2), apart=7.998), {})[0].kept == (0,)


def test_a_scene_cut_is_encoded_whole() -> None:
    """Ten of sixteen patches are more than .6, nine are not; what sticks from before does not count."""
    columns = [(0.0, 0.0, 32.0, 64.0, 4.0, 0.0), (32.0, 0.0, 16.0, 16.0, 4.0, 0.0)]
    more = [*columns, (48.0, 16.0, 16.0, 16.0, 4.0, 0.0)]
    assert worth(Codec(group=1)(watched(motion_of([[], columns]), grid=(4, 4)), {})[0])[1] != [[1] * 4] * 4
    assert worth(Codec(group=1)(watched(motion_of([[], more]), grid=(4, 4)), {})[0])[1] == [[1] * 4] * 4
    twice = worth(Codec(group=1)(watched(motion_of([[], columns, more[2:]]), grid=(4, 4)), {})[0])
    assert sum(map(sum, twice[2])) == 10


def plain_pixels(
    gate: Codec, frames: Tensor, grid: tuple[int, int], seconds: Sequence[float]
) -> list[list[list[bool]]]:
    """What pixels alone decide, by plain loops; sides are whole numbers of patches."""
    (rows, columns), (height, width) = grid, frames.shape[1:3]
    tall, wide = height // (rows * gate.group), width // (columns * gate.group)
    luma = ((frames.long() * torch.tensor([38, 75, 15])).sum(-1) + 64) // 128
    last, when, said = luma[0].clone(), [[seconds[0]] * columns for _ in range(rows)], [[[True] * columns] * rows]
    for frame, now in zip(luma[1:], seconds[1:], strict=True):
        dynamic = [
            [
                (frame - last)[y * tall : (y + 1) * tall, x * wide : (x + 1) * wide].abs().double().mean()
                >= gate.pixels
                for x in range(columns * gate.group)
            ]
            for y in range(rows * gate.group)
        ]
        entirely = sum(map(sum, dynamic)) > gate.cut * rows * columns * gate.group**2
        wanted = [[False] * columns for _ in range(rows)]
        for y in range(rows):
            for x in range(columns):
                parts = [
                    line[x * gate.group : (x + 1) * gate.group] for line in dynamic[y * gate.group :][: gate.group]
                ]
                wanted[y][x] = bool(entirely or any(map(any, parts)) or now - when[y][x] >= gate.max_age)
                if wanted[y][x]:
                    when[y][x] = now
                    part = slice(y * tall * gate.group, (y + 1) * tall * gate.group)
                    part = part, slice(x * wide * gate.group, (x + 1) * wide * gate.group)
                    last[part] = frame[part]
        said.append(wanted)
    return said


@pytest.mark.parametrize("group", [1, 2, 3])
def test_pixels_by_the_formula_as_plain_loops(group: int) -> None:
    """Places that drift and jump at random, against what was last encoded there."""
    generator = torch.Generator().manual_seed(group)
    drift = torch.randint(-4, 5, (24, 4, 5), generator=generator).cumsum(0)
    drift += 60 * (torch.rand(24, 4, 5, generator=generator) > 0.9)
    drift[15:] += 90
    noise = torch.randint(-3, 4, (24, 24, 30, 3), generator=generator)
    base = drift.repeat_interleave(6, 1).repeat_interleave(6, 2)[..., None] + noise + 100
    frames, gate = base.clamp(0, 255).to(torch.uint8), Codec(group=group, max_age=6.5)
    seen = watched(None, frames, (4, 5))
    expected = torch.tensor(plain_pixels(gate, frames, (4, 5), seen.seconds))
    gated, _ = gate(seen, {})
    assert gated.worth is not None and torch.equal(gated.worth, expected)
    assert expected[15].all() and 0.05 < expected[1:15].float().mean() < 0.8


def test_a_lamp_that_brightens_slowly_is_seen_by_pixels_alone(tmp_path: Path) -> None:
    shown = []
    for number in range(12):
        picture = np.full((96, 128, 3), 90, np.uint8)
        picture[32:64, 64:96] = 90 + 9 * number
        shown.append(picture)
    chunk = read(clip(tmp_path / "lamp.mp4", shown, options={"g": "50", "sc_threshold": "0", "bf": "0"}))
    seen = Watched(chunk.frames, chunk.seconds, (3, 4), chunk.motion)
    vectors, both = (Codec(pixels=pixels, sticky=False)(seen, {})[0] for pixels in (255.0, 8.0))
    assert len(vectors.kept) <= 4  # the encoder finds hardly a block that it can't predict from the same place
    assert both.worth is not None and len(both.kept) >= 11
    assert both.worth[1:].nonzero()[:, 1:].unique(dim=0).tolist() == [[1, 2]]


def test_a_moving_square_and_nothing_else_is_encoded(tmp_path: Path) -> None:
    """It walks at (16, 16) in frames 5 to 12, of which every second is seen; the next I-frame is frame 20."""
    options = {"g": "20", "sc_threshold": "0", "refs": "1", "bf": "0"}
    chunk = read(clip(tmp_path / "walk.mp4", pictures(40), options=options), fps=5.0)
    seen = Watched(chunk.frames, chunk.seconds, (6, 8), chunk.motion)
    once, _ = Codec(sticky=False)(seen, {})
    assert once.kept == (0, 3, 4, 5, 6, 10)
    assert once.worth is not None
    for number, left in zip((3, 4, 5, 6), (16, 24, 32, 40), strict=True):
        place = torch.zeros(6, 8, dtype=torch.bool)
        place[:4, max(left // 16 - 1, 0) : -(-(left + 40) // 16) + 1] = True  # and macroblocks of 16 pixels around it
        assert not (once.worth[number] & ~place).any() and once.worth[number, 1:3].sum() >= 4
    sticky, _ = Codec()(seen, {})
    assert sticky.worth is not None
    assert sticky.kept == (0, 3, 4, 5, 6, 7, 8, 9, 10)
    assert torch.equal(sticky.worth[9], once.worth[3:7].any(0)) and sticky.worth[10].all()


def test_without_motion_and_with_a_codec_that_tells_nothing_pixels_decide(tmp_path: Path) -> None:
    if "libx265" not in av.codecs_available:
        pytest.skip("no encoder")
    options = {"x265-params": "log-level=error:keyint=300:bframes=0"}
    chunk = read(clip(tmp_path / "clip.mp4", pictures(30), codec="libx265", options=options), fps=5.0)
    with_, without = (Codec()(Watched(chunk.frames, chunk.seconds, (6, 8), m), {})[0] for m in (chunk.motion, None))
    assert with_.worth is not None and without.worth is not None
    assert torch.equal(with_.worth, without.worth) and 1 < len(with_.kept) < len(chunk)


@pytest.mark.parametrize("sizes", [[1] * 20, [3, 1, 7, 9], [20]])
@pytest.mark.parametrize("grid", [(6, 8), (5, 7), (40, 100)])
def test_chunks_of_any_size_decide_the_same(tmp_path: Path, sizes: list[int], grid: tuple[int, int]) -> None:
    """On grids that don't divide the picture, too, and on one that is finer than it."""
    chunk = read(clip(tmp_path / "walk.mp4", pictures(40)), fps=5.0)
    gate, begin, carried, parts = Codec(max_age=2.0), 0, {}, []
    whole, left = gate(Watched(chunk.frames, chunk.seconds, grid, chunk.motion), {})
    for size in sizes:
        part = chunk.part(begin, begin + size)
        before = {name: tensor.clone() for name, tensor in carried.items()}
        gated, after = gate(Watched(part.frames, part.seconds, grid, part.motion), carried)
        assert all(torch.equal(carried[name], before[name]) for name in before)
        assert sum(tensor.nbytes for tensor in after.values()) <= gate.most_bytes(*SIZE[::-1])
        assert gated.worth is not None
        parts.append(gated.worth)
        begin, carried = begin + size, after
    assert whole.worth is not None
    assert torch.equal(torch.cat(parts), whole.worth)
    assert all(torch.equal(left[name], carried[name]) for name in left) and len(left) == len(carried)


def test_frames_of_another_size_and_arrays_behind_a_video_begin_anew() -> None:
    gate = Codec()
    _, carried = gate(watched(motion_of([None, P1])), {})
    gated, _ = gate(watched(None, torch.zeros(2, 32, 64, 3, dtype=torch.uint8)), carried)
    assert worth(gated) == [ALL, NOTHING]
    gated, _ = gate(watched(None, torch.full((1, 64, 64, 3), 100, dtype=torch.uint8)), carried)
    assert worth(gated) == [NOTHING]  # the same picture, and nothing is known of what sticks


def test_a_stream_hands_motion_to_its_gate_and_a_failed_push_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunk = read(clip(tmp_path / "walk.mp4", pictures(40)), fps=5.0)
    lm, tokens = build("llava_onevision"), []

    take = Front.take

    def fails(*given: Any) -> None:
        take(*given)
        raise RuntimeError("behind the gate")

    for sizes in ([20], [4, 9, 7]):
        stream, begin = lm.stream(pv.Pyramid(stages=1), pv.Memory(tokens=None), gate="codec"), 0
        for size in sizes:
            with monkeypatch.context() as broken, pytest.raises(RuntimeError, match="behind"):
                broken.setattr(Front, "take", fails)
                stream.push(chunk.part(begin, begin + size))
            stream.push(chunk.part(begin, begin + size))
            begin += size
        table = stream.held()
        tokens.append((table.seconds[table.visual], table.index))
    assert all(torch.equal(one, other) for one, other in zip(*tokens, strict=True))
    bare = lm.stream(pv.Pyramid(stages=1), pv.Memory(tokens=None), gate="codec")
    bare.push(chunk.frames, chunk.seconds)
    assert 0 < bare.visual_tokens < stream.visual_tokens  # no stickiness without motion


@pytest.mark.parametrize(
    "wrong", [{"tau": 0}, {"pixels": 256}, {"max_age": math.inf}, {"group": 0}, {"cut": 0}, {"sticky": 1}]
)
def test_parameters_are_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(pv.ConfigError, match=next(iter(wrong))):
        Codec(**wrong)  # type: ignore[arg-type]
    assert pv.Recipe(gate="codec:tau=2,sticky=false").uses_motion and not pv.Recipe(gate="static").uses_motion
