"""The browser's camera without a browser: what still comes in once it was let go, and how it begins anew."""

from __future__ import annotations

from dataclasses import astuple
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pdrop_video as pv
from demos.actions import Actions
from demos.gallery import CLIPS
from demos.sessions import Sessions
from demos.settings import Settings
from demos.uploads import Uploads
from demos.visitor import Visitor
from pdrop_video.guard import Guard

built_in = cache(pv.load)
SETTINGS, PAGE = astuple(Settings(chunk=2)), Visitor("page")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Camera:
    """The page's actions, and a camera that sends one picture after the other."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.sessions = Sessions({"built-in": built_in}, clock=self.clock)
        self.actions = Actions(self.sessions, Guard((CLIPS,)), Uploads(folder))
        self.name = ""

    def sends(self, visitor: Visitor = PAGE) -> Any:
        """A picture; returns the session that the page then shows."""
        self.actions.picture(self.name, np.zeros((224, 224, 3), np.uint8), *SETTINGS, visitor=visitor)
        self.name = self.sessions.shown(visitor.page)
        return self.sessions.get(self.name) if self.name else None


@pytest.mark.parametrize("way", ["another video", "stop", "start over"])
def test_pictures_that_were_under_way_begin_nothing(tmp_path: Path, way: str) -> None:
    camera = Camera(tmp_path)
    session = camera.sends()
    assert session.title == "your webcam" and camera.sends().camera is session.camera is not None
    if way == "another video":
        camera.actions.address(camera.name, str(CLIPS / "clip.mp4"), *SETTINGS, visitor=PAGE)
    elif way == "stop":
        camera.actions.stop_watching(camera.name, visitor=PAGE)
    else:
        camera.actions.clear(camera.name, visitor=PAGE)
    for camera.clock.now in (0.0, 2.0):
        now = camera.sends()
        assert now is None if way == "start over" else now.camera is None and now is session
    if way == "another video":
        assert session.title == "clip.mp4"
        session.watcher.join(60)
        assert session.progress.state == "done"
    assert camera.sends(Visitor("another page")).title == "your webcam", "whose camera nobody stopped"
    camera.clock.now = 10.0
    camera.name = ""
    assert camera.sends().title == "your webcam", "it was started again"
    for name in camera.sessions.names:
        camera.sessions.close(name)


def test_a_camera_that_was_silent_begins_anew(tmp_path: Path) -> None:
    camera = Camera(tmp_path)
    session = camera.sends()
    first = session.camera
    first.close()
    session.watcher.join(60)
    assert session.progress.state == "done"
    assert camera.sends() is session and session.camera is not first and session.progress.running
    camera.sessions.close(session.name)
