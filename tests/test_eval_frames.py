"""Which frames a viewing hands out, by rate and by every rule for N frames, and that the disk gives the same."""

from __future__ import annotations

import os
from pathlib import Path

import diskcache
import pytest
import torch
from media import cut, number_of, spoil, steady, write_video

import pdrop_video as pv
from eval.runner.frames import Frames, Viewing
from eval.runner.sampling import RULES, at_rate
from pdrop_video.video import track

TOTAL, RATE = 50, 10


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five seconds, fifty numbered frames, B-frames included, so that packets are out of order."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return write_video(path, steady(TOTAL, RATE), rate=RATE, options={"bf": "2", "g": "12"}, start=1)


def viewing(path: Path, **more: object) -> Viewing:
    given = {"start": 0.0, "end": None, "fps": None, "frames": None, "rule": "linspace", "chunk": 4, **more}
    return Viewing(path, **given)  # type: ignore[arg-type]


def numbers(chunks: list[pv.FrameChunk]) -> list[int]:
    return [number_of(picture.numpy()) for chunk in chunks for picture in chunk.frames]


def seconds(chunks: list[pv.FrameChunk]) -> list[float]:
    return [second for chunk in chunks for second in chunk.seconds]


@pytest.mark.parametrize(
    ("rule", "wanted", "expected"),
    [
        ("linspace", 8, [0, 7, 14, 21, 28, 35, 42, 49]),
        ("linspace", 1, [0]),
        ("linspace", 500, list(range(TOTAL))),
        ("middles", 5, [5, 15, 25, 35, 45]),
        ("middles", 500, list(range(TOTAL))),
        ("longvideobench", 4, [0, 12, 24, 36]),
        ("longvideobench", 64, [0, 10, 20, 30, 40]),  # five seconds: five frames
    ],
)
def test_n_frames_by_rule(clip: Path, rule: str, wanted: int, expected: list[int]) -> None:
    chunks = list(Frames()(viewing(clip, frames=wanted, rule=rule)))
    assert numbers(chunks) == expected
    assert seconds(chunks) == pytest.approx([i / RATE for i in expected])
    assert [len(chunk) for chunk in chunks[:-1]] == [4] * (len(chunks) - 1)


def test_n_frames_of_a_part(clip: Path) -> None:
    assert numbers(list(Frames()(viewing(clip, frames=3, start=1.0, end=2.0)))) == [10, 15, 20]
    with pytest.raises(pv.VideoError, match="no frame between 7 and 9 s"):
        list(Frames()(viewing(clip, frames=3, start=7.0, end=9.0)))


@pytest.mark.parametrize(
    ("rate", "frames", "duration", "wanted", "expected"),
    [
        # total = int(duration * rate), n = min(N, int(duration)), int(total / n) * i
        (10, 50, 5.0, 4, [0, 12, 24, 36]),
        (10, 60, 5.0, 4, [0, 12, 24, 36]),  # of a longer file; the frame at 5.0 s itself does not count
        (10, 60, 4.0, 64, [0, 10, 20, 30]),  # four seconds: four frames, of 40 and not of 41
        (15, 60, 3.95, 64, [0, 19, 38]),  # 59 frames, three seconds
        (15, 40, 3.95, 64, [0, 13, 26]),  # fewer than that are there
    ],
)
def test_longvideobench_counts_the_frames_of_a_duration(
    rate: int, frames: int, duration: float, wanted: int, expected: list[int], tmp_path: Path
) -> None:
    path = write_video(tmp_path / "clip.mp4", steady(frames, rate), rate=rate)
    chunks = list(Frames()(viewing(path, frames=wanted, end=duration, rule="longvideobench")))
    assert numbers(chunks) == expected


def test_frames_of_a_duration() -> None:
    assert [at_rate(1000, 15.0, rate) for rate in (30000 / 1001, 24000 / 1001, 25.0)] == [449, 359, 375]
    assert (at_rate(7, 15.0, 25.0), at_rate(7, 0.01, 25.0)) == (7, 1)


def warned(frames: Frames, wanted: Viewing) -> tuple[int, list[str]]:
    return len(numbers(list(frames(wanted)))), frames.warnings


def test_what_could_not_be_read_is_said_from_the_file_and_from_the_disk(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mp4", steady(100, 10), rate=10, options={"g": "5"})
    spoilt = spoil(whole, tmp_path / "spoilt.mp4", range(25, 75))
    short = cut(whole, tmp_path / "short.mp4", 0.6)
    for frames in (Frames(), Frames(tmp_path / "kept"), Frames(tmp_path / "kept")):
        assert warned(frames, viewing(spoilt, fps=5.0))[1][0] == "could not be decoded: 50 packets"
        assert "could not be decoded: 50 packets" in warned(frames, viewing(spoilt, frames=16))[1]
        got, said = warned(frames, viewing(short, fps=1.0, end=9.0))
        assert got < 8 and said[-1].endswith(" s, in a part up to 9 s") and said[-1].startswith("no frame behind ")
        assert any("cut short" in sentence for sentence in warned(frames, viewing(short, fps=1.0))[1])
        assert warned(frames, viewing(whole, fps=1.0, end=9.0)) == (10, [])
        assert warned(frames, viewing(whole, fps=1.0, end=50.0)) == (10, [])  # the video has no more


def test_the_packets_are_read_once(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, build_index = [], track.build_index
    monkeypatch.setattr(track, "build_index", lambda *a: read.append(a) or build_index(*a))
    assert numbers(list(Frames()(viewing(clip, frames=3)))) == [0, 24, 49]
    assert len(read) == 1


def test_a_rate_up_to_a_moment_and_its_frame(clip: Path) -> None:
    assert numbers(list(Frames()(viewing(clip, fps=2.0, end=2.0)))) == [0, 5, 10, 15, 20]
    assert numbers(list(Frames()(viewing(clip, fps=2.0, start=1.0, end=2.4)))) == [10, 15, 20]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("total", [1, 2, 7, 100])
@pytest.mark.parametrize("wanted", [1, 2, 8, 64])
def test_every_rule_gives_increasing_indices(rule: str, total: int, wanted: int) -> None:
    indices = RULES[rule](total, wanted, total / 2)
    assert 1 <= len(indices) <= min(total, wanted)
    assert indices == sorted(set(indices)) and indices[0] >= 0 and indices[-1] < total


def same(first: list[pv.FrameChunk], second: list[pv.FrameChunk]) -> bool:
    pairs = zip(first, second, strict=True)
    return all(torch.equal(a.frames, b.frames) and (a.seconds, a.lost) == (b.seconds, b.lost) for a, b in pairs)


def test_the_disk_gives_the_same_without_the_file_being_read(clip: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(clip.read_bytes())
    status = copy.stat()
    wanted = viewing(copy, fps=5.0)
    first = list(Frames(tmp_path / "kept")(wanted))
    copy.write_bytes(bytes(status.st_size))  # the same size and time, nothing to decode
    os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert same(list(Frames(tmp_path / "kept")(wanted)), first)
    assert same(first, list(Frames()(viewing(clip, fps=5.0))))
    with pytest.raises(pv.VideoError):  # another viewing is not there
        list(Frames(tmp_path / "kept")(viewing(copy, fps=2.0)))
    os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    with pytest.raises(pv.VideoError):  # another file is not the same viewing
        list(Frames(tmp_path / "kept")(wanted))


def test_a_viewing_of_which_a_part_went_is_whole_again_and_is_read_chunk_by_chunk(clip: Path, tmp_path: Path) -> None:
    wanted = viewing(clip, fps=5.0)
    whole = list(Frames(tmp_path / "kept")(wanted))
    assert len(whole) == 7
    for gone in (0, 3, 6):
        with diskcache.Cache(str(tmp_path / "kept")) as kept:
            name = next(key for key in kept if "/" not in key)
            assert kept.delete(f"{name}/{gone}")
        assert same(list(Frames(tmp_path / "kept")(wanted)), whole)
        with diskcache.Cache(str(tmp_path / "kept")) as kept:
            assert f"{name}/{gone}" in kept  # for the next time
    chunks = Frames(tmp_path / "kept")(wanted)
    begun = [next(chunks)]
    with diskcache.Cache(str(tmp_path / "kept")) as kept:
        assert kept.delete(f"{name}/3") and kept.delete(name)  # while it is being watched
    assert same([*begun, *chunks], whole)
    chunks = Frames(tmp_path / "kept")(wanted)
    assert torch.equal(next(chunks).frames, whole[0].frames)
    with diskcache.Cache(str(tmp_path / "kept")) as kept:
        kept.set(f"{name}/1", kept.get(f"{name}/2"))
    assert torch.equal(next(chunks).frames, whole[2].frames)  # a long video is never all in memory


def test_a_viewing_that_was_broken_off_is_not_taken_for_whole(clip: Path, tmp_path: Path) -> None:
    wanted = viewing(clip, fps=5.0)
    next(Frames(tmp_path / "kept")(wanted))
    assert same(list(Frames(tmp_path / "kept")(wanted)), list(Frames()(wanted)))


def test_the_folder_stays_within_its_size(clip: Path, tmp_path: Path) -> None:
    limit = 2 * 2**20
    frames = Frames(tmp_path / "kept", gigabytes=limit / 2**30)
    whole = list(Frames()(viewing(clip, fps=10.0)))  # 0.9 MB of pixels
    for chunk in range(1, 9):
        assert same(list(frames(viewing(clip, fps=10.0, chunk=8))), list(Frames()(viewing(clip, fps=10.0, chunk=8))))
        assert numbers(list(frames(viewing(clip, fps=10.0, chunk=chunk)))) == numbers(whole)
        stored = sum(path.stat().st_size for path in (tmp_path / "kept").rglob("*.val"))
        assert stored <= limit + 2**20
