"""Decoding ahead in a thread: the same frames, in bounded memory, every error at the consumer, no thread left over."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from media import spoil, steady, write_video

from pdrop_video.errors import VideoError
from pdrop_video.video import file, open_video
from pdrop_video.video.ahead import Ahead


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("ahead") / "clip.mp4", steady(90), options={"g": "15"})


def until(true: Callable[[], bool]) -> bool:
    """Wait for something that happens in another thread; False if it does not within a generous time."""
    deadline = time.monotonic() + 10
    while not true() and time.monotonic() < deadline:
        time.sleep(0.01)
    return true()


def alive() -> int:
    return sum(thread.name == "pdrop-video-ahead" for thread in threading.enumerate())


@pytest.mark.parametrize("ahead", [1, 2, 50])
def test_ahead_changes_no_frame(clip: Path, ahead: int) -> None:
    plain, threaded = (list(open_video(clip, fps=None, chunk=7, ahead=number)) for number in (0, ahead))
    assert [chunk.seconds for chunk in threaded] == [chunk.seconds for chunk in plain]
    assert all(torch.equal(one.frames, other.frames) for one, other in zip(threaded, plain, strict=True))
    assert not alive()


@pytest.mark.parametrize("ahead", [1, 3])
def test_no_more_frames_are_decoded_than_there_is_room_for(
    clip: Path, ahead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Count the pictures that exist at once, by their own deaths."""
    living = most = 0
    convert = file.Upright.convert

    def counted(self: file.Upright, frame: object) -> np.ndarray | None:
        nonlocal living, most
        picture = convert(self, frame)  # type: ignore[arg-type]
        assert picture is not None
        living += 1
        most = max(most, living)
        weakref.finalize(picture, died)
        return picture

    def died() -> None:
        nonlocal living
        living -= 1

    monkeypatch.setattr(file.Upright, "convert", counted)
    with open_video(clip, fps=None, chunk=4, ahead=ahead) as video:
        room = 4 * ahead
        # the chunk in the making, the frames in the buffer, one that waits for room
        for _ in video:
            assert until(lambda: video.frames_decoded >= min(video.frames_read + room + 1, 90))
            time.sleep(0.02)  # had it gone on, it would have done so by now
            assert video.frames_decoded <= min(video.frames_read + room + 1, 90)
    assert room <= most <= 4 + room + 2


def test_errors_arrive_behind_the_frames_before_them(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert, calls = file.Upright.convert, iter(range(100))

    def fails_later(self: file.Upright, frame: object) -> np.ndarray | None:
        if next(calls) == 10:
            raise MemoryError("no room for a picture")
        return convert(self, frame)  # type: ignore[arg-type]

    monkeypatch.setattr(file.Upright, "convert", fails_later)
    video = open_video(clip, fps=None, chunk=5, ahead=8)
    assert [len(next(video)), len(next(video))] == [5, 5]
    with pytest.raises(MemoryError, match="no room for a picture"):
        next(video)
    with pytest.raises(VideoError, match="is closed"):
        next(video)
    assert until(lambda: not alive())


def test_a_chunk_carries_the_losses_up_to_it_and_not_those_met_ahead(clip: Path) -> None:
    stills = write_video(clip.with_name("stills.mkv"), steady(40), codec="mjpeg", pix_fmt="yuvj420p")
    damaged = spoil(stills, clip.with_name("spoiled.mkv"), [20])
    with open_video(damaged, fps=None, chunk=4, ahead=9) as video:
        first = next(video)
        assert until(lambda: video.frames_decoded > 30)
        assert (first.lost, video.lost) == (0, 1)
        assert [chunk.lost for chunk in video][-1] == 1


def test_closing_ends_the_thread(clip: Path) -> None:
    video = open_video(clip, fps=None, chunk=1)
    assert not alive(), "nothing runs before something is asked for"
    next(video)
    assert alive() == 1
    video.close()
    assert until(lambda: not alive())


def test_a_forgotten_reader_ends_its_thread(clip: Path) -> None:
    video = open_video(clip, fps=None, chunk=1)
    next(video)
    gone = weakref.ref(video)
    del video
    gc.collect()
    assert gone() is None
    assert until(lambda: not alive())


def test_what_was_never_read_is_freed(clip: Path) -> None:
    freed: list[str] = []
    unread = Ahead(iter([1, 2]), 1, release=lambda: freed.append("once"))
    unread.close()
    unread.close()
    assert freed == ["once"]


def test_who_closes_while_the_thread_is_being_started_frees_nothing_under_its_hands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    freed: list[bool] = []

    def items() -> Iterator[int]:
        freed.append(False)
        yield from range(3)

    ahead = Ahead(items(), 1, release=lambda: freed.append(True))
    closing, start = threading.Thread(target=ahead.close), ahead._thread.start

    def while_somebody_closes() -> None:
        closing.start()
        closing.join(0.3)  # its chance to free what the thread will draw from
        start()

    monkeypatch.setattr(ahead._thread, "start", while_somebody_closes)
    with pytest.raises(StopIteration):
        while True:
            next(ahead)
    closing.join()
    assert until(lambda: freed == [False, True])


@pytest.mark.parametrize("latest", [False, True])
def test_a_full_buffer_waits_or_drops_the_oldest(latest: bool) -> None:
    drawn: list[int] = []

    def items() -> Iterator[int]:
        for number in range(10):
            drawn.append(number)
            yield number

    ahead = Ahead(items(), 3, latest=latest)
    ahead.start()
    assert until(lambda: len(drawn) == (10 if latest else 4))
    assert until(lambda: ahead.buffer.dropped == (7 if latest else 0))
    assert list(ahead) == ([7, 8, 9] if latest else list(range(10)))
    assert ahead.buffer.most == 3
