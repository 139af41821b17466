"""Seats of the page: who watches holds one, who looks does not; and what those that have watched may remember."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial

import numpy as np
import pytest
import torch

import pdrop_video as pv
from demos.camera import BrowserCamera
from demos.gallery import CLIPS
from demos.seats import Seats
from demos.session import Session, SessionError
from demos.sessions import Sessions
from demos.settings import Settings

CLIP = CLIPS / "clip.mp4"
built_in = cache(pv.load)
SETTINGS = Settings(chunk=2)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def sessions(**how: object) -> Sessions:
    return Sessions({"built-in": built_in}, **how)


def clip_source() -> partial[object]:
    return partial(pv.open_video, str(CLIP), built_in().adapter.fps, SETTINGS.chunk)


class Sitting:
    """A thread that wants a seat, and leaves it when it is let go."""

    def __init__(self, seats: Seats) -> None:
        self.seated, self.stopped, self.gone = threading.Event(), threading.Event(), threading.Event()
        self.told: list[int] = []
        self.waits = threading.Event()
        self._leave = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(seats,), daemon=True)
        self._thread.start()

    def _tell(self, place: int) -> None:
        self.told.append(place)
        self.waits.set()

    def _run(self, seats: Seats) -> None:
        with seats.taken(self._tell, self.stopped):
            self.seated.set()
            self._leave.wait(60)
        self.gone.set()

    def leave(self) -> None:
        self._leave.set()
        assert self.gone.wait(10)


@pytest.mark.usefixtures("watchdog")
def test_the_line_is_first_come_first_served() -> None:
    seats = Seats(1)
    one = Sitting(seats)
    assert one.seated.wait(10) and one.told == []
    two = Sitting(seats)
    assert two.waits.wait(10)
    three = Sitting(seats)
    assert three.waits.wait(10)
    assert (two.told[0], three.told[0]) == (1, 2)
    one.leave()
    assert two.seated.wait(10)
    assert not three.seated.wait(0.5)
    two.stopped.set()  # its source may hang for a minute yet
    assert three.seated.wait(10)
    assert three.told[-1] == 1 and not two.gone.is_set()
    for each in (two, three):
        each.leave()


@pytest.mark.usefixtures("watchdog")
def test_who_is_stopped_in_the_line_makes_way() -> None:
    seats = Seats(1)
    one = Sitting(seats)
    assert one.seated.wait(10)
    two, three = Sitting(seats), Sitting(seats)
    assert two.waits.wait(10) and three.waits.wait(10)
    first, last = sorted((two, three), key=lambda each: each.told[0])
    first.stopped.set()
    assert first.seated.wait(10), "it goes on at once, to see that it was stopped"
    first.leave()
    assert not last.seated.wait(0.3)
    one.leave()
    assert last.seated.wait(10) and last.told[-1] == 1
    last.leave()


@contextmanager
def endless(session: Session) -> Iterator[BrowserCamera]:
    """Let a session watch a camera that goes on until the block is over."""
    camera = BrowserCamera(chunk=2)
    session.begin(SETTINGS, "camera", lambda: camera, live=True)
    camera.put(np.zeros((224, 224, 3), np.uint8))
    camera.put(np.zeros((224, 224, 3), np.uint8))
    try:
        yield camera
    finally:
        camera.close()


@pytest.mark.usefixtures("watchdog")
def test_who_has_watched_blocks_nobody_and_is_still_answered() -> None:
    all_ = sessions(seats=1)
    first, second, third = (all_.open() for _ in range(3))
    first.begin(SETTINGS, "clip", clip_source())
    first.watcher.join(60)
    assert first.progress.state == "done"
    with endless(second):
        assert second.watcher.watched.wait(60), "the seat is free, though the first one looks on"
        *_, turn = first.follow(first.ask("What shape is shown first in the video?"))
        assert (turn.text, turn.error) == ("cross", "")
        third.begin(SETTINGS, "clip", clip_source())
        assert not third.watcher.watched.wait(0.5)
        assert (third.progress.state, third.progress.place) == ("queued", 1)
        second.stop_watching()
        third.watcher.join(60)
        assert third.progress.state == "done"


def pushed(all_: Sessions, seconds: int) -> Session:
    """A session that remembers so many seconds of frames."""
    session = all_.open()
    session.begin(SETTINGS, "frames", None)
    times = [float(second) for second in range(seconds)]
    session.push(pv.FrameChunk(torch.zeros(seconds, 224, 224, 3, dtype=torch.uint8), tuple(times), "frames"))
    return session


def test_what_those_remember_that_have_watched_is_bounded() -> None:
    """Those that nobody asked for longest are closed, and no more of them than need be; who asks is told why."""
    clock = Clock()
    all_ = sessions(remember=10**9, clock=clock)
    first, second, third = (pushed(all_, seconds) for seconds in (4, 4, 8))
    size = first.progress.cache_bytes
    assert size == second.progress.cache_bytes > 0
    all_.open()  # which has watched nothing yet
    assert all_.sweep() == []
    clock.now = 5
    all_.get(first.name)
    all_.remember = size + third.progress.cache_bytes
    assert all_.sweep() == [second.name]
    with pytest.raises(SessionError, match="closed to make room for the videos of others; open the video again"):
        all_.get(second.name)
    assert all_.sweep() == [] and len(all_.names) == 3


@pytest.mark.usefixtures("watchdog")
def test_who_is_watching_is_not_closed_for_what_is_remembered() -> None:
    all_ = sessions(remember=0)
    session = all_.open()
    with endless(session):
        assert session.watcher.watched.wait(60) and session.progress.cache_bytes > 0
        assert all_.sweep() == []
    session.watcher.join(60)
    assert all_.sweep() == [session.name]
