"""decord as the second backend: the same frames as the first, and no hang or crash of it reaches the caller."""

from __future__ import annotations

import subprocess
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from media import cut, numbered, scramble, steady, turn, write_video
from test_video import IRREGULAR
from test_video_sparse import textured

from pdrop_video.errors import ConfigError, VideoError
from pdrop_video.video import Connection, decord_file, open_video
from pdrop_video.video.decord_file import DecordFrames

pytest.importorskip("decord", reason="decord has wheels for Linux and Windows on x86-64 alone")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("decord")


@pytest.fixture(scope="module")
def clip(folder: Path) -> Path:
    return write_video(folder / "clip.mp4", steady(90), pictures=list(textured(0)), options={"g": "12", "bf": "3"})


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """Note each process that is started."""
    processes: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def noted(*args: object, **kwargs: object) -> subprocess.Popen[bytes]:
        processes.append(popen(*args, **kwargs))  # type: ignore[call-overload]
        return processes[-1]

    monkeypatch.setattr(decord_file.subprocess, "Popen", noted)
    return processes


def fake(folder: Path, monkeypatch: pytest.MonkeyPatch, opening: str, decoding: str) -> None:
    """Put a module named decord on the process's path that does as it is told."""
    package = folder / f"fake{len(list(folder.iterdir()))}"
    package.mkdir()
    (package / "decord.py").write_text(
        "import ctypes, os, sys, time\n"
        "class VideoReader:\n"
        f"    def __init__(self, path):\n        {opening}\n"
        "    def __len__(self):\n        return 90\n"
        f"    def get_batch(self, numbers):\n        {decoding}\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(package))


@pytest.mark.parametrize(
    ("name", "settings", "tolerance"),
    [
        ("plain.mp4", {}, 0),
        ("variable.mkv", {}, 0),
        ("full.mp4", {"pix_fmt": "yuv444p"}, 0),
        ("tagged.mp4", {"colorspace": 1}, 0),
        ("hevc.mp4", {"codec": "libx265", "options": {"x265-params": "log-level=none"}}, 0),
        ("turned.mp4", {}, 0),
        # decord takes 10 bits to 8 by a way of its own, which differs by up to 85 levels at edges
        ("deep.mp4", {"pix_fmt": "yuv420p10le"}, 8),
    ],
)
def test_both_give_the_same_frames(
    folder: Path, name: str, settings: dict[str, object], tolerance: int, started: list[object]
) -> None:
    times = IRREGULAR if name == "variable.mkv" else steady(90)
    pictures = list(textured(5))[: len(times)]
    path = write_video(folder / name, times, pictures=pictures, **settings)  # type: ignore[arg-type]
    if name == "turned.mp4":
        path = turn(path, folder / "upright.mp4", (0, 1, -1, 0))
    for wishes in ({"fps": 2}, {"fps": None}, {"frames": 5}, {"at": [0.5, 1.1]}, {"fps": 4, "start": 0.9, "end": 2}):
        ours, theirs = (
            list(open_video(path, decoder=decoder, chunk=4, **wishes))  # type: ignore[arg-type]
            for decoder in ("pyav", "decord")
        )
        assert [chunk.seconds for chunk in theirs] == [chunk.seconds for chunk in ours]
        one, other = (torch.cat([chunk.frames for chunk in chunks]).int() for chunks in (ours, theirs))
        difference = (one - other).abs().float()
        assert (difference.mean() if tolerance else difference.max()) <= tolerance
    assert len(started) == 5


H264, HEVC = {"g": "15", "bf": "2"}, "keyint=15:log-level=none"


@pytest.mark.parametrize(
    ("name", "codec", "options", "reason"),
    [
        ("b.mp4", "libx264", H264, None),
        ("b.mkv", "libx264", H264, None),
        ("b.flv", "libx264", H264, None),
        ("plain.avi", "mpeg4", {"g": "15"}, None),
        ("hidden.webm", "libvpx", {"g": "15", "auto-alt-ref": "1", "lag-in-frames": "10"}, None),
        ("closed.mp4", "libx265", {"x265-params": f"{HEVC}:open-gop=0"}, None),
        ("b.ts", "libx264", H264, "in the wrong place"),
        ("b.avi", "libx264", H264, "in the wrong place"),
        ("b.vob", "mpeg2video", H264, "in the wrong place"),
        ("plain.wmv", "wmv2", {"g": "15"}, "in the wrong place"),
        ("open.mp4", "libx265", {"x265-params": f"{HEVC}:open-gop=1"}, "the order of decoding"),
        ("mpeg2.mkv", "mpeg2video", H264, "the order of decoding"),
        ("mpeg4.mp4", "mpeg4", H264, "the order of decoding"),
        ("refreshed.mp4", "libx264", {"g": "20", "bf": "0", "x264-params": "intra-refresh=1"}, "none that decoding"),
    ],
)
def test_a_picture_is_the_one_of_its_time_or_none(
    folder: Path, name: str, codec: str, options: dict[str, str], reason: str | None
) -> None:
    path = write_video(folder / name, steady(60, 10), codec=codec, options=options, time_base=Fraction(1, 10), rate=10)
    (ours,) = open_video(path, frames=5)
    if reason is None:
        (theirs,) = open_video(path, frames=5, decoder="decord")
        assert theirs.seconds == ours.seconds
        assert torch.equal(theirs.frames, ours.frames)
        return
    with pytest.raises(VideoError, match=f"decord would give other pictures of .*{name}.*{reason}"):
        open_video(path, frames=5, decoder="decord")


def test_pictures_that_decord_leaves_lying_are_refused(folder: Path) -> None:
    stills = write_video(
        folder / "stills.mov", steady(20), codec="mjpeg", pix_fmt="yuvj420p", time_base=Fraction(1, 30)
    )
    with pytest.raises(VideoError, match="does not turn them upright"):
        open_video(turn(stills, folder / "lying.mov", (0, 1, -1, 0)), decoder="decord")


def test_the_reader_tells_the_same_of_the_file(clip: Path) -> None:
    with open_video(clip) as ours, open_video(clip, decoder="decord") as theirs:
        assert theirs.info == ours.info
        assert len(list(theirs)) == len(list(ours))
        assert (theirs.frames_read, theirs.frames_decoded) == (6, 6)
        assert (theirs.lost, theirs.warnings, theirs.dropped, theirs.reconnects) == (0, [], 0, 0)


# a sleep by a function that keeps Python's lock, as a hang in native code does
HANG = "ctypes.PyDLL(None).sleep(60)"


@pytest.mark.parametrize(
    ("opening", "decoding", "message"),
    [
        (HANG, "pass", r"took longer than 1\.5 s and was ended while opening it, in .*clip\.mp4"),
        ("pass", HANG, r"took longer than 1\.5 s and was ended while decoding frames 0 to 45"),
        ("os.abort()", "pass", "crashed while opening it"),
        ("pass", "os.kill(os.getpid(), 11)", "crashed while decoding frames 0 to 45"),
        ("pass", "raise RuntimeError('a word of its own')", r"cannot read .*clip\.mp4 \(a word of its own\)"),
        ("print('chatter', flush=True)", "raise OSError", "cannot read .*OSError"),
    ],
)
@pytest.mark.parametrize("ahead", [0, 1])
def test_a_hang_or_a_crash_is_one_clear_error(
    folder: Path,
    clip: Path,
    monkeypatch: pytest.MonkeyPatch,
    started: list[subprocess.Popen[bytes]],
    opening: str,
    decoding: str,
    message: str,
    ahead: int,
) -> None:
    fake(folder, monkeypatch, opening, decoding)
    limit = Connection(decoder_timeout=1.5)
    with pytest.raises(VideoError, match=message):
        list(open_video(clip, chunk=4, decoder="decord", connection=limit, ahead=ahead))
    (process,) = started
    assert process.poll() is not None, "the process is gone"


def test_other_frames_than_the_packets_tell_of_are_refused(
    folder: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = write_video(folder / "shorter.mp4", steady(60))
    fake(folder, monkeypatch, "pass", "pass")
    with pytest.raises(VideoError, match=r"decord would .*shorter\.mp4.*finds 90 frames, and the packets hold 60"):
        open_video(other, decoder="decord")


def test_closing_ends_the_process(clip: Path, started: list[subprocess.Popen[bytes]]) -> None:
    for ahead in (0, 1):
        video = open_video(clip, fps=None, chunk=1, decoder="decord", ahead=ahead)
        next(video)
        assert started[-1].poll() is None
        video.close()
        started[-1].wait(5)


def test_what_decord_cannot_read_is_one_clear_error(folder: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(VideoError, match=r"no frame that can be decoded|cannot be opened"):
        start = clip.read_bytes().index(b"mdat") + 8
        noise = scramble(clip, folder / "noise.mp4", start / clip.stat().st_size, 1.0)
        open_video(noise, decoder="decord")
    with pytest.raises(VideoError, match=r"cannot be opened as a video|no moving pictures"):
        open_video(cut(clip, folder / "cut.mp4", 0.02), decoder="decord")
    av1 = write_video(folder / "new.mp4", steady(20), codec="libsvtav1", options={"preset": "12"})
    with pytest.raises(VideoError, match=r"decord (cannot read|would give|crashed).*new\.mp4"):
        list(open_video(av1, decoder="decord"))
    with pytest.raises(VideoError, match="stored mirrored, which decord ignores"):
        open_video(turn(clip, folder / "mirrored.mp4", (-1, 0, 0, 1)), decoder="decord")
    with pytest.raises(ConfigError, match="which reads files alone"):
        open_video("http://127.0.0.1:1/clip.mp4", decoder="decord")
    monkeypatch.setattr(decord_file, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="decord', which is not installed here"):
        open_video(clip, decoder="decord")


def test_frames_are_what_they_say(folder: Path) -> None:
    path = write_video(folder / "numbered.mp4", steady(60), options={"g": "250"})
    (chunk,) = open_video(path, at=[Fraction(7, 30), Fraction(59, 30)], decoder="decord")
    assert torch.equal(chunk.frames, torch.cat([part.frames for part in open_video(path, fps=None)])[[7, 59]])
    assert (chunk.frames[0, :, 2:10].float().mean() > 125) == bool(numbered(7)[0, 5, 0] > 125)
    assert isinstance(open_video(path, decoder="decord")._drawn, DecordFrames)
