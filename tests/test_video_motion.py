"""What a codec says of motion: where it says it, over which frames, and that frames are the same with it and without.

Clips are encoded here, with libx264 and the encoders beside it, from pictures whose motion is known.
"""

from __future__ import annotations

from dataclasses import fields
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.codec.context import Flags2
from media import steady, turn, write_video

import pdrop_video as pv
from pdrop_video.video import Motion
from pdrop_video.video.ahead import Buffer
from pdrop_video.video.drawn import Shot
from pdrop_video.video.motion import Gatherer, evened, largest
from pdrop_video.video.picture import Upright

SIZE, RATE, GROUP = (128, 96), 10, 20
"""Width and height; frames a second; frames between two I-frames."""


def background(width: int = SIZE[0], height: int = SIZE[1]) -> np.ndarray:
    grey = np.random.default_rng(0).integers(60, 180, (-(-height // 8), -(-width // 8)))
    return grey.repeat(8, 0).repeat(8, 1)[:height, :width, None].repeat(3, 2).astype(np.uint8)


def pictures(count: int = 45, first: int = 5, last: int = 12, size: tuple[int, int] = SIZE) -> list[np.ndarray]:
    """A textured square of 32 pixels at (16, 16) that walks 4 pixels a frame in frames `first` to `last`."""
    square = np.random.default_rng(1).integers(0, 255, (8, 8, 3)).repeat(4, 0).repeat(4, 1)
    shown = []
    for number in range(count):
        left = 16 + 4 * (min(max(number, first - 1), last) - first + 1)
        picture = background(*size)
        picture[16:48, left : left + 32] = square
        shown.append(picture)
    return shown


def clip(path: Path, shown: list[np.ndarray], **how: object) -> Path:
    given = {"options": {"g": str(GROUP), "sc_threshold": "0", "refs": "1"}, "size": SIZE, "rate": RATE, **how}
    return write_video(path, steady(len(shown), RATE), pictures=shown, **given)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clip(tmp_path_factory.mktemp("walk") / "walk.mp4", pictures())


def read(path: Path | str, **how: object) -> pv.FrameChunk:
    with pv.open_video(path, **{"fps": None, "motion": True, **how}) as video:  # type: ignore[arg-type]
        return pv.FrameChunk.cat(list(video))


def told(chunk: pv.FrameChunk) -> Motion:
    assert chunk.motion is not None
    return chunk.motion


def plainly(path: Path, width: int, height: int) -> list[tuple[bool, np.ndarray]]:
    """Of every frame, whether it is an I-frame, and the longest vector over each pixel, inf without; by plain loops."""
    found = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.flags2 |= Flags2.export_mvs
        for frame in container.decode(stream):
            vectors = frame.side_data.get("MOTION_VECTORS")
            pixels = np.full((height, width), -1.0)
            for v in [] if vectors is None else vectors.to_ndarray():
                left, top = int(v["dst_x"]) - int(v["w"]) // 2, int(v["dst_y"]) - int(v["h"]) // 2
                length = (int(v["motion_x"]) ** 2 + int(v["motion_y"]) ** 2) ** 0.5 / int(v["motion_scale"])
                part = slice(max(top, 0), top + int(v["h"])), slice(max(left, 0), left + int(v["w"]))
                pixels[part] = np.maximum(pixels[part], length)
            key = int(frame.pict_type) == 1
            found.append((key, np.zeros_like(pixels) if key else np.where(pixels < 0, np.inf, pixels)))
    return found


def over_cells(pixels: np.ndarray) -> np.ndarray:
    height, width = pixels.shape
    return pixels.reshape(height // 8, 8, width // 8, 8).max((1, 3))


@pytest.mark.parametrize("options", [{}, {"bf": "0", "refs": "1"}, {"bf": "3", "g": "13", "refs": "4"}])
def test_vectors_are_those_of_all_frames_in_between(tmp_path: Path, options: dict[str, str]) -> None:
    """Against plain loops over pixels: every frame, and every seventh, with B-frames and I-frames in between."""
    path = clip(tmp_path / "clip.mp4", pictures(), options={"g": str(GROUP), "sc_threshold": "0", **options})
    frames = plainly(path, *SIZE)
    for every in (1, 7):
        chunk = read(path, at=[Fraction(number, RATE) for number in range(0, len(frames), every)])
        motion = told(chunk)
        for place, number in enumerate(range(0, len(frames), every)):
            since = frames[max(number - every + 1, 0) : number + 1]
            keys = [i for i, (key, _) in enumerate(since) if key]
            most = np.max([pixels for _, pixels in since], 0)
            latest = np.max([pixels for _, pixels in since[keys[-1] if keys else 0 :]], 0)
            assert np.allclose(motion.most[place], over_cells(most))
            assert np.allclose(motion.latest[place], over_cells(latest))
            assert bool(motion.key[place]) == frames[number][0]
            assert bool(motion.begun[place]) == bool(keys) and bool(motion.known[place]) == (not keys)
        assert motion.most.max() >= 4 and motion.begun.sum() >= 3


def test_dynamic_cells_are_where_the_square_is(walk: Path) -> None:
    motion = told(read(walk, fps=2.0))  # frames 0, 5, 10, ...
    moved = motion.most >= 1
    assert not moved[0].any() and not moved[4:].any()  # it has come to rest
    for number, (left, right) in ((1, (16, 52)), (2, (20, 72)), (3, (40, 80))):
        near = torch.zeros_like(moved[0])
        near[:8, left // 16 * 2 - 2 : -(-right // 16) * 2 + 2] = True  # with the macroblocks beside it
        assert not (moved[number] & ~near).any() and moved[number, 2:6].sum() >= 16


def test_a_square_that_appears_in_place_is_uncovered(tmp_path: Path) -> None:
    shown = [background() for _ in range(10)]
    noise = np.random.default_rng(3).integers(0, 255, (32, 48, 3), np.uint8)
    for picture in shown[5:]:
        picture[32:64, 48:96] = noise
    expected = torch.zeros(12, 16, dtype=torch.bool)
    expected[4:8, 6:12] = True
    for bf in ("0", "3"):
        new = told(read(clip(tmp_path / f"{bf}.mp4", shown, options={"bf": bf, "sc_threshold": "0"}))).most.isinf()
        first = int(new.flatten(1).any(1).nonzero()[0, 0])  # B-frames before the next P-frame are copied from there
        assert first == 5 if bf == "0" else 5 <= first <= 8
        assert torch.equal(new[first], expected) and new.sum() == expected.sum()


def same(first: pv.FrameChunk, second: pv.FrameChunk) -> bool:
    return torch.equal(first.frames, second.frames) and (first.seconds, first.lost) == (second.seconds, second.lost)


@pytest.mark.parametrize(
    ("codec", "suffix", "exports"),
    [
        ("libx264", "mp4", True),
        ("mpeg4", "mp4", True),
        ("libx265", "mp4", False),
        ("libvpx-vp9", "mkv", False),
        ("libsvtav1", "mkv", False),
        ("mjpeg", "avi", False),
    ],
)
def test_frames_are_the_same_and_a_codec_without_vectors_says_so(
    tmp_path: Path, codec: str, suffix: str, exports: bool
) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"no encoder {codec}")
    options = {"x265-params": "log-level=error"} if codec == "libx265" else {}
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    base = Fraction(1, RATE) if suffix == "avi" or codec == "mpeg4" else Fraction(1, 90000)
    path = clip(
        tmp_path / f"clip.{suffix}", pictures(20), codec=codec, options=options, pix_fmt=pix_fmt, time_base=base
    )
    chunk, without = read(path), read(path, motion=False)
    assert same(chunk, without) and without.motion is None
    motion = told(chunk)
    assert bool(motion.known.any()) == exports and bool((motion.most >= 1).any()) == exports
    assert bool(motion.key[0]) == (codec != "mjpeg") and not motion.key[1:].all()
    if not exports:
        assert not motion.most.any()


@pytest.mark.parametrize("matrix", [(0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0), (-1, 0, 0, 1)])
def test_motion_turns_with_the_picture(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    """On sides that 8 doesn't divide, too: what was left is right in a mirror."""
    size = (132, 100)
    stored = clip(tmp_path / "stored.mp4", pictures(12, size=size), size=size)
    plain, turned = read(stored, fps=5.0), read(turn(stored, tmp_path / "turned.mp4", matrix), fps=5.0)
    turns = {(0, 1): 3, (-1, 0): 2, (0, -1): 1}[matrix[:2]]
    mirrored = matrix == (-1, 0, 0, 1)

    def upright(grid: torch.Tensor) -> torch.Tensor:
        return grid.flip(2) if mirrored else torch.rot90(grid, turns, (1, 2))

    assert torch.equal(turned.frames, upright(plain.frames.flatten(3)))
    assert torch.equal(told(turned).most, upright(told(plain).most)) and (told(plain).most > 1).any()
    assert told(plain).most.shape[1:] == (13, 17)


def test_cells_by_hand() -> None:
    """Blocks of 16, 8 and odd sizes, beside each other and over each other, inside and outside."""
    new = np.inf
    blocks = [
        (0, 0, 16, 16, 3, 4),
        (8, 8, 8, 8, 6, 8),
        (20, 0, 8, 8, 1, 0),
        (24, 16, 16, 16, 2, 0),
        (-8, 16, 8, 8, 9, 9),
    ]
    most = largest(np.array(blocks).T, (24, 30), 2, np.array([0, 0, 0, 0, 1]))
    assert most[0].tolist() == [[5, 5, 1, 1], [5, 10, new, new], [new, new, new, 2]]
    assert most[1].tolist() == [[new] * 4] * 3
    assert largest([np.empty(0)] * 6, (8, 8)).tolist() == [[[new]]]
    # 30 pixels as four cells of 7.5: the second reaches from 7.5 to 15, over the first and the second 8
    assert evened(np.array([[1, 2, 3, 4]], np.float32), (8, 30), (1, 4)).tolist() == [[1, 2, 3, 4]]
    assert evened(np.array([[4, 3, 2, 1]], np.float32), (8, 30), (1, 4)).tolist() == [[4, 4, 3, 2]]
    assert evened(np.arange(8, dtype=np.float32)[None], (8, 64), (1, 3)).tolist() == [[2, 5, 7]]


def test_frames_that_were_passed_over_are_said_to_be_unknown(tmp_path: Path) -> None:
    """From keyframe to keyframe: what was not decoded is not known, however it moved."""
    path = clip(tmp_path / "long.mp4", pictures(200, 1, 12), options={"g": "20", "sc_threshold": "0"})
    with pv.open_video(path, at=[0.1, 0.5, 15.5], motion=True) as video:
        motion = told(next(video))
        assert video.frames_decoded < 100
    assert motion.known.tolist() == [False, True, False] and motion.most.amax((1, 2))[1] >= 4


def test_after_a_loss_nothing_is_known_until_the_next_frame_is_handed_out(walk: Path) -> None:
    with av.open(str(walk)) as container:
        stream = container.streams.video[0]
        stream.codec_context.flags2 |= Flags2.export_mvs
        frames = list(container.decode(stream))
    gatherer, known = Gatherer(Upright(frames[0]), stills=False), []
    for number, frame in enumerate(frames[:16]):
        gatherer.see(frame, mark=int(number >= 5) + int(number >= 10))  # something was lost before frames 5 and 10
        if number % 2 == 1:
            known.append(bool(gatherer.take().known))
    assert known == [False, True, False, True, True, False, True, True]


def test_chunks_and_threads_change_nothing(walk: Path) -> None:
    whole = told(read(walk, fps=2.0))
    for how in ({"chunk": 1}, {"chunk": 3, "ahead": 0}, {"chunk": 4, "ahead": 3}):
        other = told(read(walk, fps=2.0, **how))
        assert all(torch.equal(getattr(whole, f.name), getattr(other, f.name)) for f in fields(Motion))


def test_what_a_dropped_frame_said_the_next_one_says(walk: Path) -> None:
    """In the room between two threads, of any size, and in front of a stream: as if the rest alone had been read."""
    every, chunk = told(read(walk)), read(walk)
    shots = [Shot(np.zeros((1, 1, 3), np.uint8), Fraction(i), 0, every.part(i, i + 1)) for i in range(len(every))]
    for room in (1, 3):
        buffer: Buffer[Shot] = Buffer(room, latest=True, heir=Shot.after)
        for shot in shots[8:24]:  # an I-frame among them
            buffer.put(shot)
        left = [buffer.get() for _ in range(room)]
        assert [shot.time for shot in left] == list(range(24 - room, 24))
        one = told(read(walk, at=[Fraction(i, RATE) for i in (7, *range(24 - room, 24))]))
        for i, shot in enumerate(left, 1):
            assert shot.motion is not None
            for field in fields(Motion):
                assert torch.equal(getattr(shot.motion, field.name)[0], getattr(one, field.name)[i]), (i, field.name)
        assert one.begun[1] and not one.key[1] and one.most[1].max() >= 4
    rest = chunk.part(8, 16).after(chunk.part(1, 8))
    assert torch.equal(told(rest).most[0], every.most[1:9].amax(0)) and told(rest).known.all()
    assert torch.equal(told(chunk).most, every.most)  # nothing was written on
    other = Motion(torch.zeros(1, 2, 2), torch.zeros(1, 2, 2), *torch.ones(3, 1, dtype=torch.bool))
    assert told(rest).after(other).known.tolist() == [False] + [True] * 7


def test_parts_and_copies_carry_it_on(walk: Path) -> None:
    chunk = read(walk)
    part = chunk.part(3, 9)
    assert torch.equal(told(part).most, told(chunk).most[3:9]) and part.seconds == chunk.seconds[3:9]
    copy = chunk.clone()
    assert told(copy).most.data_ptr() != told(chunk).most.data_ptr() and same(copy, chunk)
    again = pv.FrameChunk.of(chunk.frames, chunk.seconds, motion=chunk.motion)
    assert pv.FrameChunk.checked(again).motion is chunk.motion
    assert pv.FrameChunk.cat([part, pv.FrameChunk.of(chunk.frames[:1], [9.0])]).motion is None


def test_what_is_no_motion_is_refused(walk: Path) -> None:
    motion, frames = told(read(walk)), torch.zeros(2, 8, 8, 3, dtype=torch.uint8)
    with pytest.raises(pv.FrameError, match="2 frames came with the motion of 45"):
        pv.FrameChunk.of(frames, [0, 1], motion=motion)
    with pytest.raises(pv.FrameError, match="expected a Motion, or None"):
        pv.FrameChunk.of(frames, [0, 1], motion=motion.most)  # type: ignore[arg-type]
    with pytest.raises(pv.FrameError, match=r"key 'bool \[44\]'.* expected most and latest of float32"):
        Motion(motion.most, motion.latest, motion.key[1:], motion.begun, motion.known)
    with pytest.raises(pv.FrameError, match="no tensor"):
        Motion(motion.most, motion.latest, None, motion.begun, motion.known)  # type: ignore[arg-type]
    with pytest.raises(pv.ConfigError, match="decoder='pyav' alone"):
        pv.open_video(walk, decoder="decord", motion=True)
    with pytest.raises(pv.ConfigError, match="motion is 1"):
        pv.open_video(walk, motion=1)  # type: ignore[arg-type]
