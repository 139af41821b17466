"""Sparse reading: seeking gives bit for bit the frames of reading everything, chosen by the rule, for less decoding."""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Iterator
from fractions import Fraction
from itertools import product
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from media import cut, number_of, scramble, steady, turn, write_audio, write_video

from pdrop_video.errors import ConfigError, VideoError
from pdrop_video.video import file, frame_times, open_video, track
from pdrop_video.video.decode import Decoder

FRAMES = 90
X264 = {"g": "12", "bf": "3"}
# codec, its options, suffix, pixel format
FILES = {
    "h264": ("libx264", X264, "mp4", "yuv420p"),
    "h264-mov": ("libx264", X264, "mov", "yuv420p"),
    "h264-mkv": ("libx264", X264, "mkv", "yuv420p"),
    "h264-10-bit": ("libx264", X264, "mp4", "yuv420p10le"),
    "h264-open-gop": ("libx264", {**X264, "x264-params": "open-gop=1:b-pyramid=normal"}, "mp4", "yuv420p"),
    "h264-open-gop-mkv": ("libx264", {**X264, "x264-params": "open-gop=1"}, "mkv", "yuv420p"),
    "h264-intra-refresh": ("libx264", {"g": "20", "x264-params": "intra-refresh=1"}, "mp4", "yuv420p"),
    "h264-one-keyframe": ("libx264", {"g": "250"}, "mp4", "yuv420p"),
    "h264-ts": ("libx264", X264, "ts", "yuv420p"),
    "h264-avi": ("libx264", X264, "avi", "yuv420p"),
    "hevc-open-gop": ("libx265", {"g": "12", "x265-params": "open-gop=1:log-level=none"}, "mp4", "yuv420p"),
    "hevc-mkv": ("libx265", {"g": "12", "x265-params": "open-gop=0:log-level=none"}, "mkv", "yuv420p"),
    "vp8-hidden-frames": ("libvpx", {"g": "12", "auto-alt-ref": "1", "lag-in-frames": "10"}, "webm", "yuv420p"),
    "vp9-hidden-frames": ("libvpx-vp9", {"g": "12", "auto-alt-ref": "1", "lag-in-frames": "10"}, "webm", "yuv420p"),
    "av1": ("libsvtav1", {"g": "12", "preset": "12", "svtav1-params": "lp=1"}, "mp4", "yuv420p"),
    "mpeg4": ("mpeg4", {"g": "12", "bf": "2"}, "mp4", "yuv420p"),
    "mpeg4-avi": ("mpeg4", {"g": "12"}, "avi", "yuv420p"),
    "mpeg2-mkv": ("mpeg2video", {"g": "12", "bf": "2"}, "mkv", "yuv420p"),
    "mjpeg": ("mjpeg", {}, "mov", "yuvj420p"),
    "ffv1": ("ffv1", {}, "mkv", "yuv420p"),
}
STEADY = {"h264-avi", "mpeg4", "mpeg4-avi", "mpeg2-mkv", "mjpeg", "ffv1"}
SEEKING = set(FILES) - {"h264-one-keyframe", "h264-ts", "h264-avi", "mpeg4-avi", "h264-intra-refresh"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sparse")


@pytest.fixture
def jumps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Make a seek worth while always, and note where each one led."""
    made: list[int] = []
    jump = Decoder.jump

    def noted(self: Decoder, index: object, stamp: int) -> None:
        made.append(stamp)
        jump(self, index, stamp)  # type: ignore[arg-type]

    monkeypatch.setattr(Decoder, "jump", noted)
    monkeypatch.setattr(file, "_SEEK_COST", 1)
    return made


def textured(seed: int) -> Iterator[np.ndarray]:
    """Draw patches that move and change, so that no two frames look alike and a wrong one shows."""
    generator = np.random.default_rng(seed)
    patches = generator.integers(0, 255, (8, 12, 3), np.uint8)
    for index in range(FRAMES):
        patches[generator.integers(8), generator.integers(12)] = generator.integers(0, 255, 3)
        yield np.roll(np.kron(patches, np.ones((8, 8, 1), np.uint8)), index, 1)


def irregular(seed: int) -> list[Fraction]:
    waits = random.Random(seed).choices([20, 33, 40, 100, 500], k=FRAMES)
    return [Fraction(sum(waits[:index]), 1000) for index in range(FRAMES)]


def make(folder: Path, name: str, start: float) -> Path:
    codec, options, suffix, pix_fmt = FILES[name]
    path = folder / f"{name}-{start}.{suffix}"
    times = steady(FRAMES) if name in STEADY else irregular(len(name))
    unit = {"time_base": Fraction(1, 30)} if name in STEADY else {}
    pictures = list(textured(len(name)))
    return write_video(
        path, times, codec=codec, options=options, pix_fmt=pix_fmt, pictures=pictures, start=start, **unit
    )


def everything(path: Path) -> tuple[torch.Tensor, list[float]]:
    chunks = list(open_video(path, fps=None, ahead=0))
    return torch.cat([chunk.frames for chunk in chunks]), [second for chunk in chunks for second in chunk.seconds]


def ticked(seconds: list[float], fps: float, start: float = 0, end: float = math.inf) -> list[int]:
    """Apply the rule of `fps` word by word: the first frame at or after each tick, then only those between."""
    ticks = (tick / fps for tick in range(math.floor(seconds[-1] * fps) + 2))
    firsts = {next((i for i, second in enumerate(seconds) if second >= tick - 0.001), None) for tick in ticks}
    return sorted(i for i in firsts if i is not None and start - 1e-6 <= seconds[i] < end)


@pytest.mark.parametrize("start", [0, 1.4])
@pytest.mark.parametrize("name", FILES)
def test_frames_are_bit_for_bit_those_of_reading_everything(
    folder: Path, name: str, start: float, jumps: list[int]
) -> None:
    path = make(folder, name, start)
    frames, seconds = everything(path)
    assert len(seconds) == FRAMES
    assert not jumps
    assert frame_times(path) == tuple(seconds)
    some = sorted(random.Random(name).sample(range(FRAMES), 5))
    middle, late = seconds[FRAMES // 2], seconds[FRAMES // 2] + 0.11
    for settings, chosen in [
        ({"frames": 7}, np.linspace(0, FRAMES - 1, 7, dtype=int).tolist()),
        ({"frames": 4, "start": middle}, (45 + np.linspace(0, 44, 4, dtype=int)).tolist()),
        ({"at": [seconds[index] for index in some]}, some),
        ({"at": lambda times: [times[index] for index in some]}, some),
        ({"at": [late]}, [bisect_right(seconds, late) - 1]),
        ({"fps": None, "start": middle, "end": seconds[60]}, list(range(45, 60))),
        ({"fps": 0.4}, ticked(seconds, 0.4)),
        ({"fps": 3, "start": 2.1, "end": 2.9}, ticked(seconds, 3, 2.1, 2.9)),
    ]:
        with open_video(path, **settings) as video:  # type: ignore[arg-type]
            chunks = list(video)
            assert (video.lost, video.warnings) == (0, []), settings
        assert [second for chunk in chunks for second in chunk.seconds] == [seconds[index] for index in chosen], (
            settings
        )
        assert torch.equal(torch.cat([chunk.frames for chunk in chunks]), frames[chosen]), settings
    assert bool(jumps) == (name in SEEKING) or name == "h264-intra-refresh"


def test_negative_times_and_rotation(folder: Path, jumps: list[int]) -> None:
    whole = write_video(folder / "early.mkv", steady(FRAMES), pictures=list(textured(1)), start=-0.5, options=X264)
    turned = turn(write_video(folder / "flat.mp4", steady(FRAMES), options=X264), folder / "turned.mp4", (0, 1, -1, 0))
    for path in (whole, turned):
        frames, seconds = everything(path)
        (chunk,) = open_video(path, frames=3)
        assert torch.equal(chunk.frames, frames[[0, 44, 89]])
        assert list(chunk.seconds) == [seconds[index] for index in (0, 44, 89)]
        assert jumps
        jumps.clear()


def test_an_edit_list_hides_frames_from_the_index_too(folder: Path, jumps: list[int]) -> None:
    """B-frames give an mp4 an edit list; one that begins a second later hides the frames before."""
    path = write_video(folder / "edited.mp4", steady(FRAMES), pictures=list(textured(2)), options=X264)
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 4
    assert data[at] == 0, "not the short form of the list"
    media_time = int.from_bytes(data[at + 12 : at + 16], "big")
    with av.open(str(path)) as container:
        second = round(1 / container.streams.video[0].time_base)
    data[at + 12 : at + 16] = (media_time + second).to_bytes(4, "big")
    path.write_bytes(data)
    frames, seconds = everything(path)
    assert len(seconds) == FRAMES - 30
    assert frame_times(path) == tuple(seconds)
    (chunk,) = open_video(path, frames=4)
    assert torch.equal(chunk.frames, frames[np.linspace(0, FRAMES - 31, 4, dtype=int)])
    assert jumps


def test_a_keyframe_that_does_not_keep_its_promise_is_backed_off_from(
    folder: Path, jumps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index is told that every packet is a keyframe; frames must still come out as if it were not."""
    path = write_video(folder / "liar.mkv", steady(FRAMES), pictures=list(textured(3)), options={"g": "20", "bf": "0"})
    frames, _ = everything(path)
    honest = track.build_index

    def lying(container: object, stream: object) -> object:
        index = honest(container, stream)  # type: ignore[arg-type]
        assert index is not None
        keys = [type(index.keys[0])(stamp, None, index.positions[stamp]) for stamp in index.stamps]
        index.keys[:] = keys
        return index

    monkeypatch.setattr(track, "build_index", lying)
    (chunk,) = open_video(path, frames=6)
    assert torch.equal(chunk.frames, frames[np.linspace(0, FRAMES - 1, 6, dtype=int)])
    assert jumps


@pytest.mark.parametrize(
    ("settings", "most"), [({"start": 8}, 40), ({"frames": 4}, 130), ({"fps": 0.2}, 70), ({"at": [9.0]}, 40)]
)
def test_what_is_not_needed_is_not_decoded(folder: Path, settings: dict[str, object], most: int) -> None:
    path = folder / "long.mp4"
    if not path.exists():
        write_video(path, steady(250, 25), rate=25, options={"g": "25"})
    with open_video(path, **settings) as video:  # type: ignore[arg-type]
        list(video)
        assert video.frames_decoded <= most + 20  # what is in flight in the decoder's threads


def test_dense_sampling_reads_through(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file.Track, "index", lambda _: pytest.fail("the index is not worth its price here"))
    path = write_video(folder / "dense.mp4", steady(60), options=X264)
    assert sum(len(chunk) for chunk in open_video(path, fps=2, start=0.5)) == 3


def test_times_are_exact_numbers_of_the_rule(folder: Path) -> None:
    path = write_video(folder / "numbers.mp4", steady(100), options=X264)
    for frames in (1, 2, 3, 50, 99, 100, 1000):
        chunks = list(open_video(path, frames=frames, chunk=16))
        numbers = [number_of(picture) for chunk in chunks for picture in chunk.frames.numpy()]
        exact = [index * 99 // max(frames - 1, 1) for index in range(frames)] if frames < 100 else list(range(100))
        assert numbers == exact


def test_repeated_and_unsorted_times_give_each_frame_once(folder: Path) -> None:
    path = write_video(folder / "once.mp4", steady(60), options=X264)
    (chunk,) = open_video(path, at=torch.tensor([1.51, 0.0, 1.5, 0.01]))
    assert [number_of(picture) for picture in chunk.frames.numpy()] == [0, 45]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frames": 0}, "frames is 0"),
        ({"frames": 2.5}, "frames is 2.5"),
        ({"frames": True}, "frames is True"),
        ({"at": []}, "at is empty"),
        ({"at": 3.0}, "at is 3.0"),
        ({"at": "12"}, "at is '12'"),
        ({"at": [1, -1]}, "a time of at is -1"),
        ({"at": [math.nan]}, "a time of at is nan"),
        ({"at": [1], "frames": 2}, "at names every frame"),
        ({"at": [1], "start": 0.5}, "at names every frame"),
        ({"decoder": "opencv"}, "decoder is 'opencv'"),
        ({"ahead": -1}, "ahead is -1"),
        ({"ahead": True}, "ahead is True"),
        ({"policy": "newest"}, "policy is 'newest'"),
        ({"protocols": "file; http"}, "protocols is"),
    ],
)
def test_settings_that_make_no_sense_are_refused(folder: Path, settings: dict[str, object], message: str) -> None:
    path = write_video(folder / "settings.mp4", steady(10))
    with pytest.raises(ConfigError, match=message):
        open_video(path, **settings)  # type: ignore[arg-type]


def test_times_behind_the_end_are_refused(folder: Path) -> None:
    path = write_video(folder / "short.mp4", steady(60))
    with pytest.raises(VideoError, match=r"the frame at 60 s, but .*short\.mp4 ends at 1\.967 s"):
        open_video(path, at=[0, 60])


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_a_damaged_file_gives_the_same_frames_sparsely_and_says_what_is_missing(folder: Path, suffix: str) -> None:
    whole = write_video(folder / f"whole.{suffix}", steady(180), options={"g": "15"})
    for name, path in {
        "cut": cut(whole, folder / f"cut.{suffix}", 0.6),
        "torn": scramble(whole, folder / f"torn.{suffix}", 0.45, 0.55),
    }.items():
        frames, seconds = everything(path)
        with open_video(path, frames=5) as video:
            chunks = list(video)
            warnings = video.warnings
        chosen = [seconds.index(second) for chunk in chunks for second in chunk.seconds]
        assert chosen[0] == 0 and chosen[-1] >= len(seconds) - 5
        intact = [i for i, index in enumerate(chosen) if number_of(frames[index].numpy()) == round(30 * seconds[index])]
        pictures = torch.cat([chunk.frames for chunk in chunks])
        assert len(intact) >= 4
        assert torch.equal(pictures[intact], frames[[chosen[i] for i in intact]])
        if name == "cut" and suffix != "ts":
            assert any("promised 6.0 s" in line for line in warnings)


def test_frame_times_of_what_is_no_video(folder: Path) -> None:
    with pytest.raises(VideoError, match="only: audio"):
        frame_times(write_audio(folder / "sound.m4a"))


def test_times_without_time_stamps_are_those_that_reading_gives(folder: Path) -> None:
    path = write_video(folder / "bare.h264", steady(50, 25), rate=25)
    _, seconds = everything(path)
    assert frame_times(path) == tuple(seconds)
    (chunk,) = open_video(path, frames=3)
    assert [number_of(picture) for picture in chunk.frames.numpy()] == [0, 24, 49]


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "name"), list(product(range(8), FILES)))
def test_any_choice_of_frames(folder: Path, seed: int, name: str, jumps: list[int]) -> None:
    dice = random.Random(f"{seed} {name}")
    path = make(folder, name, dice.choice([0, 0.7, 5]))
    frames, seconds = everything(path)
    for _ in range(20):
        chosen = sorted(dice.sample(range(FRAMES), dice.randint(1, 12)))
        (chunk,) = open_video(path, at=[seconds[index] for index in chosen], chunk=16, ahead=dice.randint(0, 1))
        assert torch.equal(chunk.frames, frames[chosen])
