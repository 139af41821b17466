"""Live sources on the page: one that stalls, dies, comes back or never answers, and what a visitor can do meanwhile."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from functools import cache, partial

import pytest
from media import steady, write_video
from servers import Script, send, serving

import pdrop_video as pv
from demos import views
from demos.session import Session
from demos.sessions import Sessions
from demos.settings import Settings
from pdrop_video.video import Connection

SETTINGS = Settings(fps=10, chunk=2)
PATIENT = Connection(connect_timeout=60, read_timeout=60)
HASTY = Connection(read_timeout=0.5, retries=4, wait=0.5)
built_in = cache(pv.load)


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Two seconds of MPEG-TS."""
    path = tmp_path_factory.mktemp("live") / "stream.ts"
    return write_video(path, steady(60), options={"g": "10", "bf": "0"}).read_bytes()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "_SILENCE", 0.2)


def until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def watching(address: str, connection: Connection) -> Session:
    session = Sessions({"built-in": built_in}).open()
    source = partial(pv.open_video, address, SETTINGS.fps, SETTINGS.chunk, policy="latest", connection=connection)
    session.begin(SETTINGS, "a camera", source, live=True)
    return session


def shown(session: Session) -> str:
    return views.progress(session.progress, session.title)


def in_two(data: bytes, go_on: threading.Event) -> Script:
    """Send one half, and the other when told."""

    def run(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(data[: len(data) // 2])
        go_on.wait(60)
        connection.sendall(data[len(data) // 2 :])
        over.wait(60)

    return run


@pytest.mark.usefixtures("watchdog")
def test_a_source_that_stalls_is_asked_about_meanwhile_and_goes_on_after(stream: bytes) -> None:
    go_on = threading.Event()
    with serving(in_two(stream, go_on)) as server:
        session = watching(server.address, PATIENT)
        until(
            lambda: session.progress.frames > 0 and "Waiting for a camera" in shown(session), "the page says it waits"
        )
        assert "No picture has come for" in shown(session)
        *_, turn = session.follow(session.ask("Which color is the first thing in the video?"))
        assert turn.answer is not None and not turn.error
        before = session.progress
        assert before.state == "watching"
        assert turn.answer.frames == before.frames
        go_on.set()
        until(lambda: session.progress.frames > before.frames, "it goes on")
        assert session.progress.seconds[1] > before.seconds[1]
        session.clear()


@pytest.mark.usefixtures("watchdog")
def test_a_source_that_dies_is_connected_to_again_and_given_up_in_the_end(stream: bytes) -> None:
    with serving(send(stream), send(stream), pause=0.7) as server:
        session = watching(server.address, HASTY)
        until(lambda: "is being made again" in shown(session), "the page says that the connection is made again")
        assert "Waiting for a camera" in shown(session)
        before = session.progress.frames
        until(lambda: session.progress.frames > before, "it goes on")
        until(lambda: not session.progress.running, "it is given up")
    now = session.progress
    assert (now.state, now.reconnects, now.silence, now.connected) == ("done", 1, 0, True)
    assert "The connection was lost and made again 1 time." in shown(session)
    assert "The connection was lost for good: 4 attempts to make it again failed" in shown(session)
    assert "Waiting" not in shown(session)


@pytest.mark.parametrize("moment", ["opening", "silent", "lost"])
@pytest.mark.usefixtures("watchdog")
def test_stop_and_a_question_need_no_source_that_answers(stream: bytes, moment: str) -> None:
    script = send(b"", "stall") if moment == "opening" else send(stream, "close" if moment == "lost" else "stall")
    patience = Connection(connect_timeout=60, read_timeout=60, retries=9, wait=30, longest_wait=30)
    with serving(script) as server:
        session = watching(server.address, patience)
        if moment == "opening":
            until(lambda: server.connections == 1, "it is connected")
        else:
            until(lambda: session.progress.frames > 0 and "Waiting for" in shown(session), "it says that it waits")
        turn = session.ask("Which color is the first thing in the video?")  # when opening, it waits for a first frame
        session.stop_watching()
        assert session.progress.state == "stopped", "at once, and not when the source lets go"
        *_, turn = session.follow(turn)
        assert bool(turn.error) == (moment == "opening")
        if moment == "opening":
            assert session.watcher._thread.is_alive(), (
                "the answer did not wait for FFmpeg, which hangs until its time is up"
            )
        else:
            session.watcher.join(10)
            assert session.progress.state == "stopped"
            assert not session.progress.message
