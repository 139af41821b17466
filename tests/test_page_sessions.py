"""Sessions of the page without a browser: limits, standing questions, and the end of those that nobody looks at."""

from __future__ import annotations

import gc
import json
import weakref
from dataclasses import asdict, astuple
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
from media import steady, write_video
from told import told

import pdrop_video as pv
from demos import views
from demos.actions import Actions
from demos.camera import BrowserCamera
from demos.gallery import CLIPS
from demos.session import SessionError
from demos.sessions import Sessions
from demos.settings import Settings
from demos.standing import Standing
from demos.turn import Turn
from demos.uploads import Uploads
from demos.visitor import Visitor
from pdrop_video.guard import Guard

CLIP = CLIPS / "clip.mp4"
QUESTIONS = [(item["question"], item["answer"]) for item in json.loads((CLIPS / "clip.json").read_text())["questions"]]
built_in = cache(pv.load)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


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


def test_a_visitor_sees_what_is_left_out(tmp_path: Path) -> None:
    """A video of two still pictures: two frames of each are looked at, and stand for the others."""
    pictures = [np.full((224, 224, 3), shade, np.uint8) for shade in (200, 60)]
    shown = [pictures[number // 16] for number in range(32)]
    write_video(tmp_path / "still.mp4", steady(32, 8), pictures=shown, size=(224, 224), rate=8)
    actions = Actions(sessions(), Guard((tmp_path,)), Uploads(tmp_path))
    how = {"fps": 2, "chunk": 4, "ratios": "none"}
    plain = actions.begin("", "still.mp4", Settings(**how))
    left_out = actions.begin("", "still.mp4", Settings(**how, gate="static", reducer="evs:keep=0.25"))
    for session, skipped, entered in ((plain, 0, 64), (left_out, 4, 16 + 4)):
        session.watcher.join(60)
        now = session.progress
        assert (now.frames, now.skipped, now.entered, now.kept) == (8, skipped, entered, (entered,))
        shown = views.progress(now)
        assert ("<dt>Left out</dt><dd>4</dd>" in shown) == bool(skipped)
    first = "16 of 16 pieces kept"
    for second, of_plain, of_left_out in (
        (0.0, first, first),
        (1.0, first, f"{first}, as seen at 0.0 s"),
        (2.0, first, "4 of 16 pieces kept"),
        (3.0, first, "4 of 16 pieces kept, as seen at 2.0 s"),
    ):
        for session, said in ((plain, of_plain), (left_out, of_left_out)):
            assert f'alt="stage 1 at {second} s: {said}"' in views.overlays(session, second)


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
    for look in (all_.get, all_.check):
        with pytest.raises(SessionError, match=r"closed, as nobody used it for 1\.66667 minutes; open the video again"):
            look(first.name)
    clock.now = 190
    all_.check(second.name)  # which is no use of it
    clock.now = 191
    assert all_.sweep() == [second.name]
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
    first = actions.address("", str(CLIP), *settings, visitor=Visitor("p"))[0]
    actions.clear(first)
    name, shown, *_ = actions.tick(first, visitor=Visitor("p"))
    assert name == ""
    assert 'data-state="idle"' in shown
    second = actions.address("", str(CLIP), *settings, visitor=Visitor("p"))[0]
    assert actions.tick(first, visitor=Visitor("p"))[0] == second
    actions.sessions.close(second)  # and not by its visitor, who is told so
    assert "This session was closed" in actions.tick(second, visitor=Visitor("p"))[1]


def test_a_reload_in_the_middle_of_an_answer_shows_it_grow_to_its_end(tmp_path: Path) -> None:
    actions = Actions(sessions(), Guard((CLIPS,)), Uploads(tmp_path))
    session = actions.begin("", str(CLIP), Settings(), visitor=Visitor("before"))
    session.chat.append(turn := Turn("what ?", "a red"))
    shown = actions.restore(session.name, Visitor("after"))

    def answer() -> str:
        return told(next(shown)[4][1]["content"])

    assert answer() == "a red"
    session._grow(turn, "a red circle")
    assert answer() == "a red circle"
    turn.done = True
    session._grow(turn, "a red circle.")
    assert answer() == "a red circle. (stopped)"
    assert list(shown) == []
    actions.leave(Visitor("before"))
    assert session.left is None, "the page after the reload shows it"


def test_the_limit_of_sessions() -> None:
    all_ = sessions(most=2)
    all_.open()
    all_.open()
    with pytest.raises(SessionError, match="2 places"):
        all_.open()


def test_one_address_has_its_share_of_the_sessions_and_no_more() -> None:
    all_ = sessions(most=12)
    mine = [all_.open(client="203.0.113.7").name for _ in range(3)]
    with pytest.raises(SessionError, match="3 sessions here, the most that one may have"):
        all_.open(client="203.0.113.7")
    assert all_.open(mine[0], client="203.0.113.7").name == mine[0]
    others = [all_.open(client=client) for client in ("203.0.113.8", *[""] * 4)]
    assert len({*mine, *(session.name for session in others)}) == 8
    all_.close(mine[1])
    all_.open(client="203.0.113.7")
    assert sessions(most=1).each == 2


def test_a_session_that_comes_to_nothing_is_none(tmp_path: Path) -> None:
    all_ = sessions(most=1, largest=100)
    actions = Actions(all_, Guard((CLIPS,)), Uploads(tmp_path))
    for settings in ({"memory": 101}, {"ratios": "a"}, {"evictor": "none"}):
        with pytest.raises(pv.PDropError):
            actions.begin("", str(CLIP), Settings(**settings))  # type: ignore[arg-type]
        assert all_.names == []
    session = actions.begin("", str(CLIP), Settings(memory=100))
    session.watcher.join(60)
    with pytest.raises(pv.PDropError):
        actions.begin(session.name, str(CLIP), Settings(memory=101))
    assert session.progress.frames, "what was watched before is still there"


def test_a_webcam_that_is_not_watched_is_told_in_the_panel(tmp_path: Path) -> None:
    all_ = sessions(most=1)
    actions = Actions(all_, Guard(()), Uploads(tmp_path))
    other = all_.open()
    picture = np.zeros((8, 8, 3), np.uint8)
    for _ in range(2):
        name, shown, *_ = actions.picture("", picture, *astuple(Settings()), visitor=Visitor("p"))
        assert name == "" and "All 1 places of this server are taken" in shown
    all_.close(other.name)
    wrong = [each if name != "ratios" else "a" for name, each in asdict(Settings()).items()]
    for _ in range(2):
        name, shown, *_ = actions.picture("", picture, *wrong, visitor=Visitor("p"))
        assert all_.names == [name] and "ratios are" in shown
    name, _, _, _, chat, preview = actions.picture("", picture, *astuple(Settings()), visitor=Visitor("p"))
    assert all_.names == [name] and all_.get(name).progress.state in ("opening", "watching")
    assert (chat, preview) == ([], None), "nothing is left of what was watched before"
    all_.close(name)


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


def test_texts_of_visitors_are_bounded_in_tokens() -> None:
    """Two thousand characters may be more tokens than that; the bound is the library's, for every door."""
    session = sessions().open()
    session.begin(Settings(), "clip", clip_source(Settings()))
    session.watcher.join(60)
    held = session.stream.lm
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(held, "bounded", partial(pv.VideoLM.bounded, held, most=8))
        for call in (
            lambda: session.ask("what is shown first in the video ? " * 9),
            lambda: session.look_out(Standing("what is shown first in the video ? " * 9)),
            lambda: Settings(probe="what is shown first in the video ? " * 3).open(held),
        ):
            with pytest.raises(pv.ConfigError, match=r"expected 8 (tokens )?at most"):
                call()
    assert not session.chat and not session.standing


def test_who_looks_out_before_anything_is_watched_is_told_later(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As one does with a webcam. Whether the model can take the question is asked where there is one."""
    all_ = sessions()
    actions = Actions(all_, Guard((CLIPS,)), Uploads(tmp_path))
    name, *_ = actions.look_out("", QUESTIONS[0][0], "no such answer")
    session = all_.get(name)
    assert [item.question for item in session.standing] == [QUESTIONS[0][0]]
    with monkeypatch.context() as patch:
        patch.setattr(pv.VideoLM, "bounded", lambda lm, what, text: (_ for _ in ()).throw(pv.ConfigError("too long")))
        with pytest.raises(pv.ConfigError, match="too long"):
            actions.begin(name, str(CLIP), Settings())
    assert len(session.standing) == 1 and not session.progress.frames
    session = actions.begin(name, str(CLIP), Settings())
    session.watcher.join(60)
    (standing,) = session.standing
    assert not standing.true and not standing.events and standing.now == "now 0% likely"


def test_tell_me_when_is_the_library_s(tmp_path: Path) -> None:
    """What is shown are the events of watches; another video begins anew, and what is removed is asked no more."""
    actions = Actions(sessions(), Guard((CLIPS,)), Uploads(tmp_path))
    name, *_ = actions.look_out("", "Does a fish appear?", "")
    actions.look_out(name, "Is a key shown?", "No")
    session = actions.begin(name, str(CLIP), Settings())
    session.watcher.join(60)
    with pv.open_video(CLIP, session.stream.lm.adapter.fps, Settings().chunk) as reader:
        plain = Settings().open(session.stream.lm)
        watches = [
            plain.watch_for("Does a fish appear?", 1.0),
            plain.watch_for("Is a key shown?", 1.0, options=("no", "yes")),
        ]
        events: list[list[pv.Event]] = [[], []]
        for chunk in reader:
            plain.push(chunk)
            for each, watch in zip(events, watches, strict=True):
                each += watch.poll()
    assert [list(standing.events) for standing in session.standing] == events and all(events)
    assert [standing.true for standing in session.standing] == [True, True]
    shown = actions.tick(name)[2]
    assert f"since {events[0][0].begin:.1f} s" in shown and 'data-true="true"' in shown and "% likely" in shown
    actions.look_out(name, "Is a circle shown?", "")  # all was watched: asked at once
    assert session.standing[2].true
    first = session.standing[0]
    session = actions.begin(name, str(CLIP), Settings())
    session.watcher.join(60)
    assert session.standing[0] is not first and list(session.standing[0].events) == events[0]
    actions.forget_standing(name)
    assert session.stream.watches == () and not session.standing
