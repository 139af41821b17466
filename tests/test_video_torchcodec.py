"""torchcodec as the third backend: what is asked of it, what is refused, and, where it runs, the first one's frames."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from media import steady, turn, write_video
from test_video import IRREGULAR
from test_video_sparse import textured

import pdrop_video as pv
from pdrop_video.errors import ConfigError, VideoError
from pdrop_video.video import open_video, torchcodec_file

WISHES: list[dict[str, Any]] = [
    {"fps": 2},
    {"fps": None},
    {"frames": 5},
    {"at": [0.5, 1.1]},
    {"fps": 4, "start": 0.9, "end": 2},
]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("torchcodec")
    return write_video(folder / "clip.mkv", IRREGULAR, pictures=list(textured(5))[: len(IRREGULAR)])


def every(path: Path, **wishes: Any) -> tuple[torch.Tensor, list[float]]:
    chunks = list(open_video(path, chunk=3, **wishes))
    return torch.cat([chunk.frames for chunk in chunks]), [s for chunk in chunks for s in chunk.seconds]


class Fake:
    """What torchcodec's decoder is asked; it answers from the whole video as the first backend decodes it."""

    late, missing, asked = 0.0, 0, []

    def __init__(self, path: str, dimension_order: str, device: str) -> None:
        assert dimension_order == "NHWC"
        self.device = device
        self.frames, self.seconds = every(Path(path), fps=None)

    def __len__(self) -> int:
        return len(self.frames) - self.missing

    def get_frames_at(self, numbers: list[int]) -> SimpleNamespace:
        type(self).asked.append(numbers)
        seconds = torch.tensor([self.seconds[n] + self.late for n in numbers], dtype=torch.float64)
        return SimpleNamespace(data=self.frames[numbers], pts_seconds=seconds)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[Fake]:
    made = type("Made", (Fake,), {"asked": []})
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", module := ModuleType("torchcodec.decoders"))
    module.VideoDecoder = made  # type: ignore[attr-defined]
    monkeypatch.setattr(torchcodec_file, "find_spec", lambda name: name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return made


@pytest.mark.parametrize("wishes", WISHES)
def test_the_wanted_frames_alone_are_asked_for(clip: Path, fake: type[Fake], wishes: dict[str, Any]) -> None:
    ours, times = every(clip, **wishes)
    theirs, same_times = every(clip, decoder="torchcodec", **wishes)
    assert same_times == times and torch.equal(theirs, ours)
    assert sum(map(len, fake.asked)) == len(times) and all(len(numbers) <= 3 for numbers in fake.asked)


def test_a_stream_watches_them(clip: Path, fake: type[Fake]) -> None:
    stream = pv.load().stream()
    for chunk in open_video(clip, fps=2, decoder="torchcodec"):
        assert isinstance(chunk.frames, torch.Tensor)
        stream.push(chunk)
    assert stream._state.frames == len(every(clip, fps=2)[1])


def test_other_pictures_are_refused(clip: Path, fake: type[Fake], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake, "late", 0.04)
    with pytest.raises(VideoError, match="its frame 0 is that of"):
        every(clip, decoder="torchcodec")
    monkeypatch.setattr(fake, "missing", 1)
    with pytest.raises(VideoError, match=f"finds {len(IRREGULAR) - 1} frames, and the packets hold {len(IRREGULAR)}"):
        open_video(clip, decoder="torchcodec")
    upright = turn(write_video(clip.parent / "turned.mp4", steady(20)), clip.parent / "upright.mp4", (0, 1, -1, 0))
    with pytest.raises(VideoError, match="stored turned or mirrored; use decoder='pyav'"):
        open_video(upright, decoder="torchcodec")


def test_what_it_fails_with_is_said(clip: Path, fake: type[Fake], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Fake, numbers: list[int]) -> None:
        raise RuntimeError("no such codec\nand much more")

    monkeypatch.setattr(fake, "get_frames_at", broken)
    with pytest.raises(VideoError, match=r"torchcodec can't read .*clip.mkv \(no such codec\); use decoder='pyav'"):
        every(clip, decoder="torchcodec")


def test_who_lacks_it_is_told(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchcodec_file, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="is not installed here"):
        open_video(clip, decoder="torchcodec")
    monkeypatch.setattr(torchcodec_file, "find_spec", lambda name: name)

    def no_library(name: str) -> None:
        raise RuntimeError("Could not load libtorchcodec.\nLikely causes: ...")

    monkeypatch.setattr(torchcodec_file, "import_module", no_library)
    with pytest.raises(ConfigError, match=r"can't be loaded \(Could not load libtorchcodec\.\)"):
        open_video(clip, decoder="torchcodec")
    with pytest.raises(ConfigError, match="expected one of 'pyav', 'decord', 'torchcodec'"):
        open_video(clip, decoder="opencv")  # type: ignore[arg-type]


@pytest.mark.torchcodec
def test_a_transport_stream_is_right_or_refused(tmp_path: Path) -> None:
    """0.13 gives the first frame that it can decode in the place of one before it."""
    path = write_video(tmp_path / "late.ts", steady(90), pictures=list(textured(5)), options={"g": "15", "bf": "2"})
    ours, seconds = every(path, fps=2)
    refused, theirs, same = "", ours, seconds
    try:
        theirs, same = every(path, fps=2, decoder="torchcodec")
    except VideoError as error:
        refused = str(error)
    assert not refused or "other pictures" in refused
    assert same == seconds and torch.equal(theirs.cpu(), ours)


@pytest.mark.torchcodec
@pytest.mark.parametrize(
    ("name", "settings", "tolerance"),
    [
        ("plain.mp4", {}, 0),
        ("variable.mkv", {}, 0),
        ("closed.mp4", {"options": {"g": "12", "bf": "3"}}, 0),
        ("hevc.mp4", {"codec": "libx265", "options": {"x265-params": "log-level=none"}}, 0),
        ("tagged.mp4", {"colorspace": 1}, 0),
        ("full.mp4", {"pix_fmt": "yuv444p"}, 0),
    ],
)
def test_both_give_the_same_frames(tmp_path: Path, name: str, settings: dict[str, Any], tolerance: int) -> None:
    """With the real torchcodec: `make test-torchcodec`."""
    times = IRREGULAR if name == "variable.mkv" else steady(90)
    path = write_video(tmp_path / name, times, pictures=list(textured(5))[: len(times)], **settings)
    for wishes in WISHES:
        (ours, seconds), (theirs, same) = every(path, **wishes), every(path, decoder="torchcodec", **wishes)
        assert same == seconds
        assert (theirs.cpu().int() - ours.int()).abs().max() <= tolerance
