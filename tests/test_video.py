"""Reading videos: the right frames at the right times, from good files and from bad ones."""

from __future__ import annotations

import math
import socket
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from media import cut, number_of, numbered, restamp, scramble, spoil, steady, turn, write_audio, write_video

from pdrop_video.errors import ConfigError, FrameError, PDropError, VideoError
from pdrop_video.video import FrameChunk, VideoReader, open_video, picture
from pdrop_video.video.decode import Decoder, Losses

# Screen recordings look like this: bursts, and long waits in which nothing new is shown.
IRREGULAR = [Fraction(ms, 1000) for ms in (0, 40, 80, 120, 900, 940, 1800, 1840, 1880, 1920, 1960, 3000, 3040, 3900)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module")
def clip(folder: Path) -> Path:
    """Two seconds, 30 frames a second, H.264 with B-frames."""
    return write_video(folder / "clip.mp4", steady(60), options={"bf": "3", "g": "30"})


def long_clip(folder: Path, name: str, **settings: object) -> Path:
    """Write six seconds with a keyframe every half second, to be damaged."""
    path = folder / name
    return path if path.exists() else write_video(path, steady(180), options={"g": "15"}, **settings)  # type: ignore[arg-type]


def read(video: VideoReader) -> tuple[list[int], list[float]]:
    """Numbers and seconds of all frames."""
    numbers: list[int] = []
    seconds: list[float] = []
    for chunk in video:
        numbers += [number_of(picture) for picture in chunk.frames.numpy()]
        seconds += chunk.seconds
    return numbers, seconds


def wanted(times: Sequence[Fraction], fps: Fraction | int) -> list[int]:
    """Apply the sampling rule word by word: for each tick, the first frame at or after it."""
    taken: list[int] = []
    for tick in range(math.floor(times[-1] * fps) + 1):
        index = next((i for i, time in enumerate(times) if time + Fraction(1, 1000) >= Fraction(tick) / fps), None)
        if index is not None and index not in taken:
            taken.append(index)
    return taken


def whole_but_for_the_end(numbers: list[int]) -> bool:
    """Tell whether frames come in order without a gap, but for B-frames missing among the last few."""
    return numbers[:-4] == list(range(len(numbers) - 4)) and numbers == sorted(set(numbers))


# --- which frames, and when ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("fps", [1, 2, 3, 7, 10, 29.97, 30, 0.4])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_steady_rate_gives_the_frame_at_each_tick(folder: Path, suffix: str, fps: float) -> None:
    path = folder / f"steady.{suffix}"
    if not path.exists():
        write_video(path, steady(60))
    numbers, seconds = read(open_video(path, fps=fps))
    stamps = [round(time, 3) for time in steady(60)] if suffix == "mkv" else steady(60)  # Matroska rounds to 1 ms
    assert numbers == wanted(stamps, Fraction(fps))
    assert seconds == pytest.approx([float(stamps[number]) for number in numbers], abs=1e-9)


@pytest.mark.parametrize("fps", [1, 2, 5])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_variable_rate_goes_by_the_frames_own_times(folder: Path, suffix: str, fps: int) -> None:
    path = folder / f"irregular.{suffix}"
    if not path.exists():
        write_video(path, IRREGULAR)
    with open_video(path, fps=fps) as video:
        average = video.info.average_rate
        numbers, seconds = read(video)
    assert numbers == wanted(IRREGULAR, fps)
    assert seconds == pytest.approx([float(IRREGULAR[number]) for number in numbers], abs=6e-4)
    assert average is not None
    by_index = sorted({round(tick * average / fps) for tick in range(math.floor(3.9 * fps) + 1)})
    assert numbers != by_index, "the file would not tell the two rules apart"


@pytest.mark.parametrize("suffix", ["mkv", "ts", "mp4"])
def test_seconds_count_from_the_streams_start_time(folder: Path, suffix: str) -> None:
    path = write_video(folder / f"late.{suffix}", steady(45), start=1.4)
    with open_video(path, fps=5) as video:
        assert video.info.start == pytest.approx(1.4)
        assert video.info.duration == pytest.approx(1.5, abs=0.05)
        numbers, seconds = read(video)
        assert video.warnings == []
    assert numbers == [0, 6, 12, 18, 24, 30, 36, 42]
    assert seconds == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4], abs=6e-4)


def test_b_frames_come_in_order_of_presentation(clip: Path) -> None:
    with av.open(str(clip)) as container:
        stamps = [packet.pts for packet in container.demux(video=0) if packet.size]
    assert stamps != sorted(stamps), "the file has no B-frames and would prove nothing"
    numbers, seconds = read(open_video(clip, fps=None))
    assert numbers == list(range(60))
    assert seconds == pytest.approx([index / 30 for index in range(60)])


def test_rate_above_the_files_own_gives_each_frame_once(clip: Path) -> None:
    assert read(open_video(clip, fps=120)) == read(open_video(clip, fps=None))


@pytest.mark.parametrize("chunk", [1, 3, 8, 100])
def test_chunk_size_changes_nothing_but_the_chunks(clip: Path, chunk: int) -> None:
    with open_video(clip, fps=10, chunk=chunk) as video:
        chunks = list(video)
        assert video.frames_read == 20
        assert video.frames_decoded == 60
    assert [len(part) for part in chunks] == [chunk] * (20 // chunk) + [20 % chunk] * (20 % chunk > 0)
    assert torch.equal(
        torch.cat([part.frames for part in chunks]), torch.cat([part.frames for part in open_video(clip, fps=10)])
    )
    assert all(part.source == str(clip) and part.lost == 0 for part in chunks)


def test_start_and_end_pick_from_the_same_frames(clip: Path) -> None:
    numbers, seconds = read(open_video(clip, fps=4, start=0.4, end=1.5))
    assert seconds == [0.5, pytest.approx(0.7667, abs=1e-3), 1.0, pytest.approx(1.2667, abs=1e-3)]
    assert numbers == [15, 23, 30, 38]  # 1.5 s itself is left out


def test_only_taken_frames_are_converted(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    converted: list[object] = []
    convert = picture.to_rgb
    monkeypatch.setattr(picture, "to_rgb", lambda *args: converted.append(args) or convert(*args))
    assert len(read(open_video(clip, fps=2))[0]) == len(converted) == 4


def test_frames_without_times_follow_the_stated_rate_and_it_is_said(folder: Path) -> None:
    path = write_video(folder / "bare.h264", steady(50, 25), rate=25)
    with open_video(path, fps=5) as video:
        numbers, seconds = read(video)
        assert "without a presentation time: 50 frames" in "\n".join(video.warnings)
    assert numbers == [0, 5, 10, 15, 20, 25, 30, 35, 40, 45]
    assert seconds == pytest.approx([index / 5 for index in range(10)])


def test_info_tells_what_the_container_promises(clip: Path) -> None:
    with open_video(str(clip)) as video:
        info = video.info
    assert (info.width, info.height, info.rotation, info.mirrored, info.codec) == (96, 64, 0, False, "h264")
    assert (info.duration, info.average_rate, info.start, info.frames) == (2.0, 30.0, 0.0, 60)


# --- pictures -----------------------------------------------------------------------------------------------------


def test_colours_are_rgb_and_follow_the_files_own_matrix(folder: Path) -> None:
    red, green, blue = 200, 60, 30
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue  # ITU-R BT.709, limited range
    planes = np.full((96, 64), round(16 + 219 * luma / 255), np.uint8)
    planes[64:80] = round(128 + 224 * (blue - luma) / 255 / 1.8556)
    planes[80:] = round(128 + 224 * (red - luma) / 255 / 1.5748)
    frame = av.VideoFrame.from_ndarray(planes, "yuv420p")
    path = write_video(folder / "hd.mp4", [0], pictures=[frame], size=(64, 64), colorspace=1)
    (chunk,) = open_video(path)
    assert chunk.frames[0].float().mean((0, 1)).tolist() == pytest.approx([red, green, blue], abs=4)


# Shown pictures, worked out by hand from the corners of a stored picture [[A, B], [C, D]].
@pytest.mark.parametrize(
    ("matrix", "shown", "rotation", "mirrored"),
    [
        ((1, 0, 0, 1), "AB/CD", 0, False),
        ((0, 1, -1, 0), "CA/DB", 270, False),  # a quarter turn clockwise, as phones held upright write it
        ((-1, 0, 0, -1), "DC/BA", 180, False),
        ((0, -1, 1, 0), "BD/AC", 90, False),
        ((-1, 0, 0, 1), "BA/DC", 0, True),
        ((1, 0, 0, -1), "CD/AB", 180, True),
        ((0, 1, 1, 0), "AC/BD", 270, True),
        ((0, -1, -1, 0), "DB/CA", 90, True),
    ],
)
def test_frames_are_turned_upright(
    folder: Path, matrix: tuple[int, int, int, int], shown: str, rotation: int, mirrored: bool
) -> None:
    grey = {"A": 20, "B": 90, "C": 160, "D": 230}
    picture = np.repeat(
        np.kron(np.array([[20, 90], [160, 230]], np.uint8), np.ones((32, 48), np.uint8))[..., None], 3, 2
    )
    flat = write_video(folder / "flat.mp4", steady(2), pictures=[picture] * 2)
    with open_video(turn(flat, folder / "turned.mp4", matrix), fps=None) as video:
        (chunk,) = video
        info = video.info
    height, width = chunk.frames.shape[1:3]
    assert (width, height) == (info.width, info.height) == ((96, 64) if matrix[0] else (64, 96))
    assert (info.rotation, info.mirrored) == (rotation, mirrored)
    corners = [chunk.frames[0, y, x, 0].item() for y in (10, height - 10) for x in (10, width - 10)]
    assert corners == pytest.approx([grey[letter] for letter in shown.replace("/", "")], abs=6)


@pytest.mark.parametrize(
    ("codec", "pix_fmt"),
    [
        ("libx264", "yuv420p10le"),
        ("libx264", "yuv444p"),
        ("ffv1", "yuv422p10le"),
        ("ffv1", "gray"),
        ("ffv1", "gray16le"),
        ("ffv1", "bgra"),
        ("mjpeg", "yuvj420p"),
    ],
)
def test_any_pixel_format_becomes_rgb(folder: Path, codec: str, pix_fmt: str) -> None:
    path = folder / f"{codec}-{pix_fmt}.mkv"
    write_video(path, steady(12), codec=codec, pix_fmt=pix_fmt, time_base=Fraction(1, 30))
    with open_video(path, fps=None, chunk=12) as video:
        (chunk,) = video
    assert chunk.frames.dtype == torch.uint8
    assert chunk.frames.shape == (12, 64, 96, 3)
    assert [number_of(picture) for picture in chunk.frames.numpy()] == list(range(12))
    assert chunk.frames[1, 20:40, 3:9].float().mean().item() == pytest.approx(220, abs=5)
    assert chunk.frames[1, 20:40, 50:90].float().mean().item() == pytest.approx(30, abs=5)


def test_odd_sizes_are_kept(folder: Path) -> None:
    path = write_video(folder / "odd.mkv", steady(3), codec="ffv1", pix_fmt="bgra", size=(97, 33))
    (chunk,) = open_video(path, fps=None)
    assert chunk.frames.shape == (3, 33, 97, 3)
    assert np.array_equal(chunk.frames[2].numpy(), numbered(2, 97, 33))


def test_changed_resolution_is_scaled_to_the_first(folder: Path) -> None:
    small = write_video(folder / "small.ts", steady(15))
    large = write_video(folder / "large.ts", steady(15), size=(128, 96), start=1)
    path = folder / "changing.ts"
    path.write_bytes(small.read_bytes() + large.read_bytes())
    with open_video(path, fps=None) as video:
        numbers, _ = read(video)
        assert [line for line in video.warnings if "resolution" in line] == [
            "the resolution changes on the way; frames are scaled to 96 x 64"
        ]
    assert numbers == [*range(15), *range(15)]


# --- bad files ----------------------------------------------------------------------------------------------------


def refused(folder: Path, name: str) -> Path:
    """Make the file (or not) that `name` describes."""
    path = folder / name
    if name == "folder.mp4":
        path.mkdir(exist_ok=True)
    elif name == "empty.mp4":
        path.write_bytes(b"")
    elif name in ("text.mp4", "text.txt"):
        path.write_text("This is not a video.\n" * 50)
    elif name == "subtitles.srt":
        path.write_text("1\n00:00:00,000 --> 00:00:01,000\nHello\n\n")
    elif name in ("sound.m4a", "cover.mp4"):
        write_audio(path, cover=name == "cover.mp4")
    elif name == "no-index.mp4":
        cut(write_video(folder / "small.mp4", steady(10)), path, 0.02)
    elif name == "all-noise.mp4":
        whole = write_video(folder / "small.mp4", steady(10))
        start = whole.read_bytes().index(b"mdat") + 8
        scramble(whole, path, start / whole.stat().st_size, 1.0)
    return path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.mp4", "there is no file"),
        ("folder.mp4", "is a folder"),
        ("empty.mp4", "is empty"),
        ("text.mp4", "cannot be opened as a video"),
        ("text.txt", "holds text"),
        ("subtitles.srt", "only: subtitle"),
        ("sound.m4a", "only: audio;"),
        ("cover.mp4", "only: audio, cover picture;"),
        ("no-index.mp4", "cannot be opened as a video"),
        ("all-noise.mp4", "holds no frame that can be decoded"),
    ],
)
def test_what_is_no_video_is_refused_when_opened(folder: Path, name: str, message: str) -> None:
    with pytest.raises(VideoError, match=message) as caught:
        open_video(refused(folder, name))
    assert isinstance(caught.value, PDropError)
    assert name in str(caught.value)


@pytest.mark.parametrize("source", [b"a.mp4", 3, None, np.zeros((2, 4, 4, 3), np.uint8), "", "a\0.mp4"])
def test_a_source_that_is_no_path_is_refused(source: object) -> None:
    with pytest.raises(VideoError, match="expected the path of a video file"):
        open_video(source)  # type: ignore[arg-type]


def test_a_file_may_be_named_like_an_address(folder: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "http:clip.mp4").write_bytes(clip.read_bytes())
    monkeypatch.chdir(folder)
    assert read(open_video("http:clip.mp4")) == read(open_video(clip))


def test_a_playlist_cannot_reach_the_network(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/part.ts"
        path = folder / "list.m3u8"
        path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{address}\n#EXT-X-ENDLIST\n")
        with pytest.raises(VideoError):
            open_video(path)
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        *[({"fps": fps}, "fps is") for fps in (0, -1, math.nan, math.inf, True, "2")],
        *[({"chunk": chunk}, "chunk is") for chunk in (0, -8, 2.0, True, None)],
        *[({"start": start}, "start is") for start in (-1, math.nan, False)],
        *[({"end": end}, "end is") for end in (0, -1, math.inf)],
        ({"start": 2, "end": 2}, "end is 2 and start is 2"),
    ],
)
def test_settings_out_of_range_are_refused(clip: Path, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_video(clip, **settings)  # type: ignore[arg-type]


def test_numpy_numbers_are_settings_too(clip: Path) -> None:
    assert read(open_video(clip, fps=np.float32(2), chunk=np.int64(3))) == read(open_video(clip, fps=Fraction(2)))


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_truncated_file_gives_its_frames_and_a_report(folder: Path, suffix: str) -> None:
    path = cut(long_clip(folder, f"long.{suffix}"), folder / f"truncated.{suffix}", 0.6)
    with open_video(path, fps=None) as video:
        numbers, seconds = read(video)
        warnings = video.warnings
    assert 50 < len(numbers) < 150
    assert whole_but_for_the_end(numbers)
    assert seconds == pytest.approx([number / 30 for number in numbers], abs=6e-4)
    assert ("damaged or cut short: 1 packet" in warnings) == (suffix == "mp4")  # Matroska drops it without a word
    (ending,) = [line for line in warnings if "promised" in line]
    assert ending == f"cut short: the container promised 6.0 s, decoding ended at {seconds[-1] + 1 / 30:.1f} s"


def test_a_truncated_transport_stream_ends_cleanly(folder: Path) -> None:
    path = cut(long_clip(folder, "long.ts"), folder / "truncated.ts", 0.6)
    numbers, _ = read(open_video(path, fps=None))
    assert 50 < len(numbers) < 150
    assert whole_but_for_the_end(numbers)


def test_whole_files_are_reported_whole(folder: Path) -> None:
    for suffix in ("mp4", "mkv", "ts"):
        with open_video(long_clip(folder, f"long.{suffix}")) as video:
            read(video)
            assert (video.warnings, video.lost) == ([], 0)


@pytest.mark.parametrize("suffix", ["mp4", "ts"])
def test_reading_goes_on_after_a_corrupt_middle(folder: Path, suffix: str) -> None:
    path = scramble(long_clip(folder, f"long.{suffix}"), folder / f"corrupt.{suffix}", 0.45, 0.55)
    with open_video(path, fps=None) as video:
        chunks = list(video)
        assert video.lost > 0
        assert video.warnings
    assert chunks[-1].lost == video.lost
    assert chunks[0].lost == 0, "what is lost is counted when it is met, not before"
    pictures = [picture for chunk in chunks for picture in chunk.frames.numpy()]
    seconds = [second for chunk in chunks for second in chunk.seconds]
    good = [abs(number_of(p) - s * 30) < 0.5 for p, s in zip(pictures, seconds, strict=True)]
    assert all(good[:20]) and all(good[-40:]), "frames before and after the damage are right, at the right times"
    assert 110 < len(good) < 180


def test_a_packet_that_cannot_be_decoded_is_counted_and_passed_over(folder: Path) -> None:
    whole = write_video(folder / "stills.mkv", steady(20), codec="mjpeg", pix_fmt="yuvj420p", time_base=Fraction(1, 30))
    path = spoil(whole, folder / "two-packets.mkv", [7, 8])
    with open_video(path, fps=None) as video:
        numbers, seconds = read(video)
        assert video.lost == 2
        assert video.warnings == ["could not be decoded: 2 packets"]
    assert numbers == [*range(7), *range(9, 20)]
    assert seconds == pytest.approx([number / 30 for number in numbers], abs=6e-4)


def test_frames_that_the_decoder_patched_up_are_counted(folder: Path) -> None:
    grain = np.random.default_rng(0).integers(0, 30, (40, 64, 96, 3), np.uint8)
    pictures = [numbered(index) + grain[index] for index in range(40)]  # detail, so that packets have a body
    whole = write_video(
        folder / "grain.mp4", steady(40), pictures=pictures, options={"g": "10", "bf": "0", "crf": "18"}
    )
    path = spoil(whole, folder / "patched.mp4", [5, 15, 25, 35], 0.6, noise=True)
    with open_video(path, fps=None) as video:
        numbers, _ = read(video)
        assert len(numbers) == 40, "H.264 hides such faults: every packet gives a frame"
        assert 1 <= video.lost <= 4
        assert video.warnings[0].startswith("decoded with guessed parts: ")


@pytest.mark.parametrize(("errors", "flushed"), [(1, False), (31, False), (1000, True)])
def test_errors_between_packets_are_counted_and_passed_over(errors: int, flushed: bool) -> None:
    failures = iter(range(errors))

    def demux(_: object) -> Iterator[SimpleNamespace]:
        if next(failures, None) is not None:
            raise av.FFmpegError(1, "unreadable")
        yield SimpleNamespace(is_corrupt=False, is_keyframe=True, pts=0, frames=["a", "b"])

    def decode(packet: SimpleNamespace | None) -> list[SimpleNamespace]:
        return [SimpleNamespace(name=name, is_corrupt=False) for name in (packet.frames if packet else ["held"])]

    container = SimpleNamespace(format=SimpleNamespace(name="any"), demux=demux)
    stream = SimpleNamespace(codec_context=SimpleNamespace(), decode=decode)
    losses = Losses()
    frames = [frame.name for frame in Decoder(container, stream, losses)]  # type: ignore[arg-type]
    assert frames == (["held"] if flushed else ["a", "b"]), "after giving up, what the decoder holds still comes"
    assert losses.unreadable == losses.total == min(errors, 32)


def test_times_that_go_back_or_repeat_are_skipped(folder: Path) -> None:
    whole = write_video(folder / "clocked.mkv", steady(20, 10), codec="ffv1", pix_fmt="bgra", rate=10)
    path = restamp(whole, folder / "backward.mkv", {5: 400, 11: 300})
    with open_video(path, fps=None) as video:
        numbers, seconds = read(video)
        assert video.lost == 2
        assert video.warnings == ["skipped because their times repeat or go back: 2 frames"]
    assert numbers == [index for index in range(20) if index not in (5, 11)]
    assert seconds == pytest.approx([number / 10 for number in numbers])


def test_files_joined_end_to_end_are_read_to_the_end(folder: Path) -> None:
    part = write_video(folder / "part.ts", steady(60))
    path = folder / "joined.ts"
    path.write_bytes(part.read_bytes() * 2)
    with open_video(path, fps=None) as video:
        numbers, seconds = read(video)
        assert any("clock was set back 1 time;" in line for line in video.warnings)
    assert numbers[:60] == list(range(60))
    assert numbers[-40:] == list(range(20, 60))
    assert all(earlier < later for earlier, later in pairwise(seconds))
    assert seconds[-1] - seconds[-40] == pytest.approx(39 / 30)


def test_nothing_between_start_and_end_is_an_error(clip: Path) -> None:
    video = open_video(clip, start=10)
    with pytest.raises(VideoError, match=r"no frame at or after 10 s; the last frame seen is at 1\.967 s"):
        next(video)


# --- one pass, closed once ----------------------------------------------------------------------------------------


def test_there_is_one_pass(clip: Path) -> None:
    with open_video(clip) as video:
        assert len(list(video)) == 1
        assert list(video) == []


def test_a_closed_reader_says_so(clip: Path) -> None:
    video = open_video(clip, fps=10)
    next(video)
    video.close()
    video.close()
    with pytest.raises(VideoError, match="is closed; open the video again"):
        next(video)


def test_an_interrupted_reader_is_closed(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    video = open_video(clip)
    monkeypatch.setattr(picture, "to_rgb", interrupt)
    with pytest.raises(KeyboardInterrupt):
        next(video)
    with pytest.raises(VideoError, match="is closed"):
        next(video)


# --- chunks from the caller ---------------------------------------------------------------------------------------

FRAMES = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)


@pytest.mark.parametrize(
    "seconds", [[0, 0.5], (0.0, 0.5), np.array([0, 0.5]), torch.tensor([0, 0.5]), iter([0, Fraction(1, 2)])]
)
@pytest.mark.parametrize("kind", ["array", "tensor", "readonly", "strided", "reversed", "transposed"])
def test_a_chunk_takes_arrays_and_tensors(kind: str, seconds: object) -> None:
    frames: np.ndarray | torch.Tensor = FRAMES.copy()
    if kind == "tensor":
        frames = torch.from_numpy(frames)
    elif kind == "readonly":
        frames.flags.writeable = False
    elif kind == "strided":
        frames = np.repeat(frames, 2, axis=2)[:, :, ::2]
    elif kind == "reversed":
        frames = np.ascontiguousarray(frames[..., ::-1])[..., ::-1]
    elif kind == "transposed":
        frames = np.ascontiguousarray(frames.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    seconds = (0, Fraction(1, 2)) if hasattr(seconds, "__next__") else seconds  # the parameter is shared
    chunk = FrameChunk.of(frames, seconds, source="camera")  # type: ignore[arg-type]
    assert torch.equal(chunk.frames, torch.from_numpy(FRAMES))
    assert (chunk.seconds, chunk.source, chunk.lost, len(chunk)) == ((0.0, 0.5), "camera", 0, 2)
    assert all(type(second) is float for second in chunk.seconds)


def test_a_chunk_copies_nothing_without_need() -> None:
    array = FRAMES.copy()
    tensor = torch.from_numpy(array)
    assert FrameChunk.of(array, [0, 1]).frames.data_ptr() == tensor.data_ptr()
    assert FrameChunk.of(tensor, [0, 1]).frames is tensor
    array.flags.writeable = False
    assert FrameChunk.of(array, [0, 1]).frames.data_ptr() != tensor.data_ptr(), "read-only memory must stay untouched"


@pytest.mark.parametrize(
    ("frames", "seconds", "message"),
    [
        (FRAMES.astype(np.float32), [0, 1], "dtype float32; expected uint8"),
        (FRAMES.astype(np.uint16), [0, 1], "dtype uint16; expected uint8"),
        (torch.from_numpy(FRAMES).half(), [0, 1], "dtype torch.float16; expected uint8"),
        (FRAMES.tolist(), [0, 1], "frames are a list"),
        (FRAMES[0], [0], r"shape \(4, 5, 3\).*frames\[None\]"),
        (FRAMES.transpose(0, 3, 1, 2), [0, 1], r"shape \(2, 3, 4, 5\).*colours seem to come second"),
        (np.zeros((2, 4, 5, 4), np.uint8), [0, 1], "alpha"),
        (np.zeros((2, 4, 5, 1), np.uint8), [0, 1], "grey"),
        (np.zeros((2, 4), np.uint8), [0, 1], r"shape \(2, 4\); expected \[frames, height, width, 3\]"),
        (FRAMES[:0], [], "at least one frame"),
        (np.zeros((2, 0, 5, 3), np.uint8), [0, 1], "1 x 1 pixel"),
        (np.zeros((2, 4, 0, 3), np.uint8), [0, 1], "1 x 1 pixel"),
        (FRAMES, [0], "2 frames came with 1 times"),
        (FRAMES, [0, 1, 2], "2 frames came with 3 times"),
        (FRAMES, [1, 0], "times go back: frame 1 is at 0.0 s after frame 0 at 1.0 s"),
        (FRAMES, [1, 1], "strictly increasing"),
        (FRAMES, [0, math.nan], "time of frame 1 is nan"),
        (FRAMES, [-math.inf, 0], "time of frame 0 is -inf"),
        (FRAMES, 2.0, "seconds are 2.0; expected one time"),
        (FRAMES, np.float64(2.0), "expected one time"),
        (FRAMES, torch.tensor(2.0), "expected one time"),
        (FRAMES, "01", "expected one time"),
        (FRAMES, [0, None], "not a number"),
        (FRAMES, [[0, 1]], "not a number"),
    ],
)
def test_a_chunk_refuses_what_breaks_its_rules(frames: object, seconds: object, message: str) -> None:
    with pytest.raises(FrameError, match=message):
        FrameChunk.of(frames, seconds)  # type: ignore[arg-type]


def test_the_constructor_checks_the_same_rules() -> None:
    tensor = torch.from_numpy(FRAMES)
    for frames, seconds in (
        (FRAMES, (0.0, 1.0)),
        (tensor, [0.0, 1.0]),
        (tensor, (1.0, 0.0)),
        (tensor.float(), (0.0, 1.0)),
    ):
        with pytest.raises(FrameError):
            FrameChunk(frames, seconds)  # type: ignore[arg-type]
