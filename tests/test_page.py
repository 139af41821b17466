"""The page without a browser: what a stranger may open, sessions and their end, standing questions, the endpoints."""

from __future__ import annotations

import gc
import json
import socket
import threading
import weakref
from dataclasses import astuple
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest

import pdrop_video as pv
from demos import views
from demos.actions import Actions
from demos.app import CLIPS
from demos.camera import BrowserCamera
from demos.guard import Guard, Refused
from demos.session import SessionError, Turn
from demos.sessions import Sessions
from demos.settings import Settings
from demos.standing import Standing
from demos.uploads import Uploads
from demos.watching import Progress

CLIP = CLIPS / "clip.mp4"
QUESTIONS = [(item["question"], item["answer"]) for item in json.loads((CLIPS / "clip.json").read_text())["questions"]]
built_in = cache(pv.load)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def guarded(tmp_path: Path) -> tuple[Guard, Path]:
    folder = tmp_path / "uploads"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(b"video")
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    (folder / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    (folder / "away").symlink_to(tmp_path)
    return Guard((folder,)), folder


def test_files_of_the_folder_are_opened(tmp_path: Path) -> None:
    guard, folder = guarded(tmp_path)
    for text in ("a.mp4", str(folder / "a.mp4"), " a.mp4 "):
        assert guard.source(text).target == str(folder / "a.mp4")


@pytest.mark.parametrize(
    "text",
    [
        "../secret.mp4", "../../etc/passwd", "/etc/passwd", "link.mp4", "away/secret.mp4", "missing.mp4", "", ".",
        "a.mp4\n/etc/passwd", "a\0.mp4", "x" * 5000, "file:a.mp4", "file:///etc/passwd", "concat:a.mp4|/etc/passwd",
        "subfile,,start,0,end,9,,:/etc/passwd", "data:video/mp4;base64,AAAA", "pipe:0", "crypto:a.mp4", "async:a.mp4",
        "/dev/stdin", "/dev/video0", "/dev/video0/../../etc/passwd", "gopher://8.8.8.8/", "http://", "http://[::1",
    ],
)  # fmt: skip
def test_what_is_elsewhere_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(Refused):
        guarded(tmp_path)[0].source(text)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.1", "2130706433", "0x7f000001", "localhost", "0.0.0.0", "10.1.2.3", "172.16.0.1",
        "192.168.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.1", "[::1]", "[fe80::1]", "[fc00::1]",
        "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]",
    ],
)  # fmt: skip
@pytest.mark.parametrize("scheme", ["http", "rtsp", "tcp"])
def test_private_networks_are_refused_unless_allowed(scheme: str, host: str, tmp_path: Path) -> None:
    address = f"{scheme}://{host}:8554/a"
    with pytest.raises(Refused, match="private network"):
        guarded(tmp_path)[0].source(address)
    assert Guard((tmp_path,), private=True).source(address).target == address


def test_a_name_with_one_private_number_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = ["8.8.8.8", "10.0.0.1"]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(0, 0, 0, "", (number, 0)) for number in numbers])
    with pytest.raises(Refused, match="private network"):
        guarded(tmp_path)[0].source("rtsp://camera.example/a")
    numbers.pop()
    source = Guard((tmp_path / "uploads",)).source("rtsp://me:pass@camera.example/a")
    assert source.target == "rtsp://me:pass@8.8.8.8/a"  # what was checked is what is opened
    assert source.live
    assert "pass" not in source.name


def sessions(**how: object) -> Sessions:
    return Sessions({"built-in": built_in}, **how)  # type: ignore[arg-type]


def clip_source(settings: Settings) -> partial[object]:
    return partial(pv.open_video, str(CLIP), settings.fps or built_in().adapter.fps, settings.chunk)


def test_answers_are_the_librarys_own() -> None:
    settings = Settings()
    session = sessions().open()
    session.begin(settings, "clip", clip_source(settings))
    session.watcher.join(60)
    stream = settings.open(built_in())
    with pv.open_video(str(CLIP), built_in().adapter.fps, settings.chunk) as reader:
        for chunk in reader:
            stream.push(chunk)
    assert session.progress.state == "done"
    assert session.progress.frames == stream._state.frames
    assert session.progress.entered == stream.visual_tokens
    assert session.progress.cache_bytes == stream.cache_bytes <= session.progress.bound
    for question, _ in QUESTIONS[:3]:
        turn = session.ask(question)
        *_, last = session.follow(turn)
        assert last.text == stream.ask(question).text


def test_a_session_nobody_looks_at_is_closed_and_its_memory_freed() -> None:
    clock = Clock()
    all_ = sessions(idle=100.0, clock=clock)
    first, second = all_.open(), all_.open()
    settings = Settings()
    first.begin(settings, "clip", clip_source(settings))
    first.watcher.join(60)
    held = weakref.ref(first.stream._state.cache.layers[0].keys)
    clock.now = 90
    all_.get(second.name)
    clock.now = 101
    assert all_.sweep() == [first.name]
    assert all_.names == [second.name]
    gc.collect()
    assert held() is None
    with pytest.raises(SessionError):
        all_.get(first.name)
    with pytest.raises(SessionError):
        first.ask("what ?")


def test_a_session_that_was_left_is_closed_unless_it_is_shown_or_asked_for_again() -> None:
    clock = Clock()
    all_ = sessions(grace=40.0, clock=clock)
    left, reloaded, twice, used, never = (all_.open() for _ in range(5))
    for page, session in (("a", left), ("b", reloaded), ("c", twice), ("d", twice), ("e", used)):
        all_.show(page, session.name)
    for page in "abce":
        all_.leave(page)
    all_.get(left.name)  # what was under way when the page was closed
    clock.now = 1
    all_.show("f", reloaded.name)
    clock.now = 10
    all_.get(used.name)  # by a program, or by a page that was cut off and is not
    clock.now = 41
    assert all_.sweep() == [left.name]
    all_.leave("d")
    all_.show("f", never.name)  # and so not the one before any more
    clock.now = 82
    assert all_.sweep() == [reloaded.name, twice.name]
    assert all_.names == [used.name, never.name]
    all_.show("x", "no such name")
    all_.leave("x")
    assert all_.shown("x") == ""


def test_a_late_look_does_not_bring_back_what_was_cleared(tmp_path: Path) -> None:
    actions = Actions(sessions(), Guard((CLIPS,)), Uploads(tmp_path))
    settings = astuple(Settings())
    first = actions.address("", str(CLIP), *settings, page="p")[0]
    actions.clear(first)
    name, shown, *_ = actions.tick(first, page="p")
    assert name == ""
    assert 'data-state="idle"' in shown
    second = actions.address("", str(CLIP), *settings, page="p")[0]
    assert actions.tick(first, page="p")[0] == second
    actions.sessions.close(second)  # and not by its visitor, who is told so
    assert "This session was closed" in actions.tick(second, page="p")[1]


def test_seats_the_line_and_the_limit() -> None:
    all_ = sessions(seats=1, most=3)
    one, two, three = (all_.open() for _ in range(3))
    with pytest.raises(SessionError, match="3 places"):
        all_.open()
    assert [all_.place(each.name) for each in (one, two, three)] == [0, 1, 2]
    told: list[int] = []
    seated = threading.Event()

    def wait() -> None:
        all_.wait_for_seat(three.name, told.append, threading.Event())
        seated.set()

    threading.Thread(target=wait, daemon=True).start()
    all_.close(two.name)
    assert not seated.wait(0.5)
    all_.close(one.name)
    assert seated.wait(10)
    assert told[-1] == 1


def test_names_cannot_be_chosen_by_a_visitor() -> None:
    session = sessions().open("mine")
    assert session.name != "mine"
    assert len(session.name) >= 24


def test_stopping_leaves_what_was_watched() -> None:
    session = sessions().open()
    session.begin(Settings(), "frames", None)
    camera = BrowserCamera(chunk=2)
    session.begin(Settings(chunk=2), "webcam", lambda: camera, live=True)
    for _ in range(2):
        camera.put(np.full((224, 224, 3), 200, np.uint8))
    assert session.watcher.watched.wait(60)
    session.stop_watching()
    session.watcher.join(60)
    assert session.progress.state == "stopped"
    assert session.progress.frames == 2
    assert not camera.put(np.zeros((224, 224, 3), np.uint8))


def test_a_slow_model_loses_the_oldest_pictures() -> None:
    camera = BrowserCamera(chunk=2)
    for shade in range(7):
        camera.put(np.full((4, 4, 3), shade, np.uint8))
    assert camera.dropped == 3
    chunk = next(iter(camera))
    assert [int(frame.flatten()[0]) for frame in chunk.frames] == [3, 4]


class Answers:
    """Stands for a stream that gives these answers, one second after another."""

    def __init__(self, *texts: str) -> None:
        self.texts = list(enumerate(texts))

    def ask(self, question: str, longest: int) -> object:
        second, text = self.texts.pop(0)
        return type("Said", (), {"text": text, "seconds": (0.0, float(second))})


def test_a_standing_question_notes_when_it_became_true_and_ceased() -> None:
    standing = Standing("Is there a dog?")
    stream = Answers("No.", "Yes, a dog.", "yes", "No", "Yesterday", "**Yes**")
    for _ in range(6):
        standing.ask(stream)  # type: ignore[arg-type]
    assert standing.spans == [(1.0, 2.0), (5.0, 5.0)]
    assert standing.true


@pytest.mark.parametrize(
    "wrong",
    [{"fps": -1}, {"fps": "x"}, {"chunk": 0}, {"chunk": 65}, {"memory": 0}, {"memory": float("nan")}, {"fps": True}],
)
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(pv.ConfigError):
        Settings(**wrong)  # type: ignore[arg-type]
    for ratios in ("a", "0.5; 0.2", "2", "0.5, -1"):
        with pytest.raises(pv.PDropError):
            Settings(ratios=ratios).open(built_in())


def test_text_of_strangers_stays_text() -> None:
    bad = "<script>alert(1)</script>"
    shown = [message["content"] for message in views.chat([Turn(bad, bad, done=True, error=bad)])]
    shown += [views.progress(Progress("failed", message=bad, warnings=(bad,)), bad)]
    shown += [views.standing([Standing(bad, bad, answer=bad)])]
    for text in shown:
        assert "<script" not in text
        assert "&lt;script" in text
