"""Sessions in a folder that replicas share: when one dies another goes on, bit for bit; the client knows from where.

Two stores in one process; a store "dies" by losing its locks, as the operating system would take them.
"""

from __future__ import annotations

import asyncio
import base64
import os
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hosted import built_in, picture, png
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect
from test_session import same

import pdrop_video as pv
from pdrop_video.serve import Limits, Settings, create_app
from pdrop_video.serve.refusals import Refusal
from pdrop_video.serve.shared import SharedSessions

pytestmark = pytest.mark.usefixtures("watchdog")
QUESTION = "How many things are shown?"
PATH = "/v1/streaming/sessions"
RECIPE = {"pyramid": {"stages": 3}, "memory": {"tokens": 60}}
FRAMES = [picture(seed) for seed in range(8)]
NAME = "a-name-that-the-client-chose"


class Replica:
    """One application with its store, and a client of it; its store is never written by itself."""

    def __init__(self, folder: Path, limits: Limits | None = None, every: float = 3600.0) -> None:
        settings = Settings(limits=limits or Limits())
        self.app = app = create_app(built_in(), settings, sessions=partial(SharedSessions, folder=folder, every=every))
        self.store: SharedSessions = app.state.service.sessions
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self.http = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")

    async def open(self, name: str = NAME, **how: Any) -> httpx.Response:
        headers = {"serve-multiplexed-model-id": name}
        return await self.http.post(PATH, json={"recipe": RECIPE, **how}, headers=headers)

    async def push(self, first: int, last: int, name: str = NAME, **headers: str) -> httpx.Response:
        images = [base64.b64encode(png(frame)).decode() for frame in FRAMES[first:last]]
        frames = [{"image": image, "seconds": 0.5 * i} for i, image in enumerate(images, first)]
        said = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.http.post(f"{PATH}/{name}/frames", json={"frames": frames}, headers=said)

    async def ask(self, name: str = NAME, **how: Any) -> httpx.Response:
        return await self.http.post(f"{PATH}/{name}/ask", json={"question": QUESTION, **how})

    def stream(self, name: str = NAME) -> pv.VideoStream:
        return self.store._open[name].stream.stream

    def die(self) -> None:
        for lock in self.store._locks.values():
            lock.release()


def alone(*pushes: tuple[int, int]) -> pv.VideoStream:
    stream = built_in().stream(pv.Recipe.from_dict(RECIPE))
    for first, last in pushes:
        stream.push(np.stack(FRAMES[first:last]), [0.5 * i for i in range(first, last)])
    return stream


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_when_one_dies_another_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """From the last copy; nothing is done before the client has heard from where; then all is the plain stream's."""

    async def both() -> None:
        one, two = Replica(tmp_path), Replica(tmp_path)
        opened = await one.open()
        assert opened.json()["id"] == NAME and opened.json()["resume_from_seconds"] is None
        assert opened.headers["resume-from-seconds"] == "start"
        assert (await one.push(0, 3)).headers["resume-from-seconds"] == "start"
        elsewhere = await two.push(3, 5)  # sent astray: it is where it is
        assert code(elsewhere) == (503, "session_elsewhere") and elsewhere.headers["retry-after"] == "1"
        await one.store.keep(one.store._open[NAME])
        later = await one.push(3, 5)
        assert later.headers["resume-from-seconds"] == "1.0"
        assert later.json()["session"]["resume_from_seconds"] == 1.0
        same(one.stream(), alone((0, 3), (3, 5)))
        one.die()

        for refused in (
            await two.push(5, 7),
            await two.push(5, 7, resume_from_seconds="2.0"),
            await two.ask(),
            await two.http.post(f"{PATH}/{NAME}/fork"),
            await two.http.post(f"{PATH}/{NAME}/source", json={"url": "a.mp4"}),
        ):
            assert code(refused) == (409, "session_resumed") and "up to 1.0 s" in refused.json()["error"]["message"]
            assert refused.headers["resume-from-seconds"] == "1.0"
        state = (await two.http.get(f"{PATH}/{NAME}")).json()
        assert state["seconds"] == [0.0, 1.0] and state["resume_from_seconds"] == 1.0
        same(two.stream(), alone((0, 3)))
        again = await two.push(2, 5, resume_from_seconds="1.0")
        assert code(again) == (409, "already_watched") and "up to 1.0 s" in again.json()["error"]["message"]
        for first, last in ((3, 5), (5, 7)):
            assert (await two.push(first, last)).status_code == 200
        plain = alone((0, 3), (3, 5), (5, 7))
        same(two.stream(), plain)
        want = plain.ask(QUESTION)
        answer = (await two.ask()).json()
        assert (answer["text"], answer["remembered"]) == (want.text, list(want.kept))

    asyncio.run(both())


def test_nothing_is_lost_when_a_replica_lets_go_and_a_kept_turn_is_written_at_once(tmp_path: Path) -> None:
    async def both() -> None:
        one, two, three = (Replica(tmp_path) for _ in range(3))
        await one.open()
        await one.push(0, 3)
        kept = await one.ask(keep=True, max_tokens=6)
        assert kept.headers["resume-from-seconds"] == "1.0"
        one.die()
        plain = alone((0, 3))
        plain.ask(QUESTION, 6, keep=True)
        await two.push(3, 5, resume_from_seconds="1.0")
        plain.push(np.stack(FRAMES[3:5]), [1.5, 2.0])
        same(two.stream(), plain)
        with built_in().turnstile:  # while the model is held, pushes wait
            pushing = []
            for i in (5, 6):
                pushing.append(asyncio.ensure_future(two.push(i, i + 1)))
                while two.store.waiting < len(pushing):
                    await asyncio.sleep(0.01)
            closing = asyncio.ensure_future(two.store.close())  # as a replica that is told to stop
            await asyncio.sleep(0.01)
            assert code(await two.push(7, 8)) == (503, "moving")
        await closing
        assert [answer.status_code for answer in await asyncio.gather(*pushing)] == [200, 200]
        assert (await three.push(7, 8)).status_code == 200  # at once: there is nothing to be heard of
        for i in (5, 6, 7):
            plain.push(FRAMES[i][None], [0.5 * i])
        same(three.stream(), plain)

    asyncio.run(both())


@asynccontextmanager
async def at_work(replica: Replica) -> AsyncIterator[None]:
    work = asyncio.ensure_future(replica.store.sweep_for_ever())
    yield
    assert not work.done()
    work.cancel()


def test_what_changed_is_written_again_and_again_and_nothing_else(tmp_path: Path) -> None:
    """Nor does one that can't be written stop the others; its client goes on hearing of its last copy."""
    names = [NAME, "another-name-of-a-client", "a-third-name-of-a-client"]

    async def one() -> None:
        replica = Replica(tmp_path, every=0.02)
        for name in names:
            await replica.open(name)
            assert (await replica.push(0, 2, name)).status_code == 200
        async with at_work(replica):
            while any(replica.store._open[name].copy.second != 0.5 for name in names):
                await asyncio.sleep(0.01)
            before = os.stat(tmp_path / f"{NAME}.pdrop").st_ino
            (tmp_path / f"{names[1]}.pdrop").unlink()
            (tmp_path / f"{names[1]}.pdrop").mkdir()
            for frame in range(2, 6):
                await replica.push(frame, frame + 1, names[1])
                await replica.push(frame, frame + 1, names[2])
                while replica.store._open[names[2]].copy.second != 0.5 * frame:
                    await asyncio.sleep(0.01)
            assert os.stat(tmp_path / f"{NAME}.pdrop").st_ino == before
            state = (await replica.http.get(f"{PATH}/{names[1]}")).json()
            assert (state["seconds"], state["resume_from_seconds"]) == ([0.0, 2.5], 0.5)
        replica.die()
        other = Replica(tmp_path)
        state = (await other.http.get(f"{PATH}/{names[2]}")).json()
        assert state["seconds"] == [0.0, 2.5]
        same(other.stream(names[2]), replica.stream(names[2]))

    asyncio.run(one())


def test_standing_questions_and_events_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What held goes on holding, so nothing is told twice; whoever heard the old events hears the new ones."""

    def weighed(self: Any, *question: Any, **how: Any) -> tuple[float, tuple[float, float]]:
        second = self.status.seconds[1]
        return second, (0.0, -9.0) if second < 2.0 else (-9.0, 0.0)

    monkeypatch.setattr(pv.VideoStream, "_weighed", weighed)

    async def both() -> None:
        one, two = Replica(tmp_path), Replica(tmp_path)
        await one.open(standing_questions=[{"question": "Is it red?", "every": 0.5}])
        await one.push(0, 1)
        while not one.store._open[NAME].events.last:
            await asyncio.sleep(0.01)
        await one.store.keep(one.store._open[NAME])
        one.die()
        for frame in range(1, 5):
            await two.push(frame, frame + 1, resume_from_seconds="0.0")
        session = two.store._open[NAME]
        await asyncio.sleep(0)  # what the pushing thread handed over
        heard = [each async for each in _until_end(session, after=1)]
        assert [(name, data.get("begin"), data.get("end")) for _, name, data in heard] == [
            ("resumed", None, None),
            ("end", 0.0, 2.0),
        ]
        assert heard[0][2] == {"resume_from_seconds": 0.0, "lost": True}

    async def _until_end(session: Any, after: int) -> AsyncIterator[Any]:
        session.events.end()
        async for each in session.events.after(after, 1.0):
            yield each

    asyncio.run(both())


def test_names_are_taken_once_and_files_end_with_their_session(tmp_path: Path) -> None:
    async def both() -> None:
        one, two = Replica(tmp_path), Replica(tmp_path)
        assert (await one.open()).status_code == 201
        for replica in (one, two):
            assert code(await replica.open()) == (409, "session_exists")
        assert code(await one.open("../../etc/passwd-and-more")) == (400, "invalid_value")
        assert code(await two.http.delete(f"{PATH}/{NAME}")) == (503, "session_elsewhere")
        assert (await one.http.delete(f"{PATH}/{NAME}")).status_code == 204
        assert not list(tmp_path.iterdir())
        for replica in (one, two):
            assert code(await replica.push(0, 1)) == (404, "session_not_found")
            assert replica.store._seats.taken == 0 and not replica.store._reserved
        assert (await two.open()).status_code == 201  # the name is free again
        unnamed = await two.http.post(PATH, json={"recipe": RECIPE})
        fork = await two.http.post(f"{PATH}/{NAME}/fork")
        assert len(list(tmp_path.glob("*.pdrop"))) == 3
        assert len({unnamed.json()["id"], fork.json()["id"], NAME}) == 3

    asyncio.run(both())


def test_a_full_replica_leaves_a_session_to_others(tmp_path: Path) -> None:
    async def three() -> None:
        bound = alone().cache_bound
        assert bound is not None
        one, two, full = Replica(tmp_path), Replica(tmp_path), Replica(tmp_path, Limits(session_bytes=bound))
        assert (await full.open("the-only-session-there")).status_code == 201
        await one.open()
        one.die()
        assert code(await full.push(0, 1)) == (503, "full")
        assert (await two.push(0, 1, resume_from_seconds="start")).status_code == 200
        assert full.store._seats.taken == 1

    asyncio.run(three())


def test_what_nobody_came_back_for_is_erased(tmp_path: Path) -> None:
    async def both() -> None:
        one, two = Replica(tmp_path), Replica(tmp_path)
        for name in (NAME, "another-name-of-a-client"):
            await one.open(name)
        one.store._locks[NAME].release()
        late = os.stat(tmp_path / f"{NAME}.json").st_mtime + 10
        two.store.tidy(late - 20)
        assert (tmp_path / f"{NAME}.pdrop").exists()
        two.store.tidy(late)
        assert {path.stem for path in tmp_path.iterdir()} == {"another-name-of-a-client"}

    asyncio.run(both())


def test_a_folder_that_cannot_be_used_is_refused_at_the_door(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (Path("/proc/x"), tmp_path / "file"):
        with pytest.raises(pv.ConfigError, match="choose another"):
            Replica(folder)


def test_a_websocket_is_refused_until_its_client_has_heard(tmp_path: Path) -> None:
    async def lost() -> None:
        one = Replica(tmp_path)
        await one.open()
        await one.push(0, 2)
        await one.store.keep(one.store._open[NAME])
        one.die()

    asyncio.run(lost())
    two = Replica(tmp_path)
    with TestClient(two.app, client=("127.0.0.1", 1)) as client:
        for said in ("", "?resume_from_seconds=0.4"):
            with (
                pytest.raises(WebSocketDisconnect) as refused,
                client.websocket_connect(f"{PATH}/{NAME}/ws{said}"),
            ):
                pass
            assert refused.value.code == 1008 and "up to 0.5 s" in refused.value.reason
        with client.websocket_connect(f"{PATH}/{NAME}/ws?resume_from_seconds=0.5") as ws:
            ws.send_bytes(struct.pack(">d", 0.5) + png(FRAMES[1]))
            assert ws.receive_json()["error"]["code"] == "already_watched"
            ws.send_bytes(struct.pack(">d", 1.0) + png(FRAMES[2]))
            watched = ws.receive_json()
            assert (watched["type"], watched["frames"], watched["resume_from_seconds"]) == ("watched", 3, 0.5)
        same(two.stream(), alone((0, 2), (2, 3)))


def test_a_stranger_cannot_use_a_session_that_went_on(tmp_path: Path) -> None:
    async def both() -> None:
        one, two = Replica(tmp_path), Replica(tmp_path)
        await one.open()
        one.die()
        with pytest.raises(Refusal) as error:
            await two.store.find(NAME, "somebody else")
        assert error.value.status == 404

    asyncio.run(both())
