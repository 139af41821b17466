"""Live sessions: however frames come in, the stream is the library's, bit for bit; and all of it is bounded."""

from __future__ import annotations

import asyncio
import base64
import concurrent.futures
import json
import struct
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import websockets
import websockets.sync.client
from families import build
from hosted import CLIPS, Hosted, built_in, hosted, picture, png, until, watched
from test_session import same

import pdrop_video as pv
from pdrop_video.serve import Limits, Settings
from pdrop_video.stream.events import Terms

pytestmark = pytest.mark.usefixtures("watchdog")
QUESTION = "How many things are shown?"
PATH = "/v1/streaming/sessions"
RECIPE = {"pyramid": {"stages": 3}, "memory": {"tokens": 60}}
FRAMES = [picture(seed) for seed in range(6)]
TIMES = [0.5 * i for i in range(6)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosted]:
    with hosted(Settings(folders=(CLIPS,), saves=tmp_path_factory.mktemp("saves"))) as running:
        yield running


@pytest.fixture
def http(server: Hosted) -> Iterator[httpx.Client]:
    with server.http() as client:
        yield client


def opened(http: httpx.Client, **how: Any) -> str:
    answer = http.post(PATH, json={"recipe": RECIPE, **how})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def alone(**how: Any) -> pv.VideoStream:
    return built_in().stream(pv.Recipe.from_dict(RECIPE), **how)


def stream_of(server: Hosted, name: str) -> pv.VideoStream:
    return server.service.sessions._open[name].stream.stream


def as_json(frames: Any, seconds: Any) -> dict[str, Any]:
    images = [base64.b64encode(png(frame)).decode() for frame in frames]
    return {"frames": [{"image": i, "seconds": s} for i, s in zip(images, seconds, strict=True)]}


def said(events: httpx.Response) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in events.text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_frames_in_json_and_in_forms_are_the_librarys(server: Hosted, http: httpx.Client) -> None:
    """Two pushes in each way; sizes may change; answers whole and in pieces; a kept turn."""
    plain = alone(system="Be brief.")
    for i in (0, 3):
        plain.push(np.stack(FRAMES[i : i + 3]), TIMES[i : i + 3])
    plain.push(picture(9, 84, 56)[None], [3.0])
    names, hot = [opened(http, system="Be brief.") for _ in range(2)], {"temperature": 2, "seed": 3}
    for i in (0, 3):
        body = http.post(f"{PATH}/{names[0]}/frames", json=as_json(FRAMES[i : i + 3], TIMES[i : i + 3])).json()
        assert body["frames"] == 3 and body["session"]["frames"] == i + 3
        files = [("frames", (f"{j}.png", png(FRAMES[j]), "image/png")) for j in range(i, i + 3)]
        form = http.post(f"{PATH}/{names[1]}/frames", files=files, data={"seconds": TIMES[i : i + 3]})
        assert form.json() | {"session": None} == body | {"session": None}
    for name in names:
        assert http.post(f"{PATH}/{name}/frames", json=as_json([picture(9, 84, 56)], [3.0])).status_code == 200
        same(stream_of(server, name), plain)
        want = plain.ask(QUESTION)
        answer = http.post(f"{PATH}/{name}/ask", json={"question": QUESTION}).json()
        assert (answer["text"], answer["finished"]) == (want.text, want.finished)
        assert (answer["remembered"], answer["visual_tokens"]) == (list(want.kept), want.visual_tokens)
        *pieces, last = said(http.post(f"{PATH}/{name}/ask", json={"question": QUESTION, "stream": True}))
        assert "".join(piece["text"] for piece in pieces) == last["text"] == want.text
        state = http.get(f"{PATH}/{name}").json()
        assert state["seconds"] == [0.0, 3.0] and state["bytes_remembered"] == plain.status.cache_bytes
        same(stream_of(server, name), plain)  # a question leaves no trace
        http.post(f"{PATH}/{name}/ask", json={"question": QUESTION, "keep": True, "max_tokens": 8, **hot})
    plain.ask(QUESTION, 8, keep=True, sampling=pv.Sampling(2.0, seed=3))
    for name in names:
        same(stream_of(server, name), plain)
        assert http.delete(f"{PATH}/{name}").status_code == 204
        assert http.get(f"{PATH}/{name}").json()["error"]["code"] == "session_not_found"


def test_a_websocket_carries_frames_in_and_answers_out(server: Hosted, http: httpx.Client) -> None:
    """Binary frames and frames in JSON; two questions at a time, one of them cancelled; an error ends nothing."""
    plain, name = alone(), opened(http)
    for frame, second in zip(FRAMES, TIMES, strict=True):
        plain.push(frame[None], [second])

    async def talk() -> list[dict[str, Any]]:
        heard: list[dict[str, Any]] = []

        async def hear(*kinds: str) -> dict[str, Any]:
            while True:
                heard.append(json.loads(await socket.recv()))
                if heard[-1]["type"] in kinds:
                    return heard[-1]

        url = f"ws://127.0.0.1:{server.port}{PATH}/{name}/ws"
        async with websockets.connect(url, proxy=None) as socket:
            for i, (frame, second) in enumerate(zip(FRAMES, TIMES, strict=True)):
                if i % 2:
                    await socket.send(struct.pack(">d", second) + png(frame))
                else:
                    await socket.send(json.dumps({"type": "frame", **as_json([frame], [second])["frames"][0]}))
            for _ in FRAMES:
                await hear("watched")
            await socket.send(struct.pack(">d", 1.0) + png(FRAMES[0]))
            assert "go back" in (await hear("error"))["error"]["message"]
            for wrong in (
                "{",
                "[]",
                '{"type": "x"}',
                '{"type": "ask"}',
                '{"type": "frame", "image": "%", "seconds": 9}',
            ):
                await socket.send(wrong)
                assert (await hear("error"))["error"]["type"] == "invalid_request_error"
            await socket.send(b"short")
            await hear("error")
            with built_in().turnstile:  # while the model is held, nothing is answered
                for asked in ("never", "a"):
                    await socket.send(json.dumps({"type": "ask", "id": asked, "question": QUESTION}))
                await socket.send(json.dumps({"type": "ask", "id": "a", "question": QUESTION}))
                assert (await hear("error"))["error"]["code"] == "queue_full"
                await socket.send(json.dumps({"type": "cancel", "id": "never"}))
                assert (await hear("cancelled"))["id"] == "never"
            assert (await hear("answer"))["id"] == "a"
        return heard

    heard = asyncio.run(talk())
    (answer,) = [each for each in heard if each["type"] == "answer" and each["id"] == "a"]
    pieces = [each["text"] for each in heard if each["type"] == "piece" and each["id"] == "a"]
    assert "".join(pieces) == answer["text"] == plain.ask(QUESTION).text
    same(stream_of(server, name), plain)
    http.delete(f"{PATH}/{name}")


def test_the_server_watches_a_source_by_itself_and_an_event_says_when_it_ends(
    server: Hosted, http: httpx.Client
) -> None:
    name = str(http.post(PATH, json={}).json()["id"])
    assert http.post(f"{PATH}/{name}/source", json={"url": "clip.mp4"}).json()["source"]["state"] == "watching"
    with http.stream("GET", f"{PATH}/{name}/events") as events:
        lines = events.iter_lines()
        assert next(line for line in lines if line.startswith("event:")) == "event: source"
        event = json.loads(next(lines).removeprefix("data: "))
    assert event == {"url": "clip.mp4", "state": "ended", "error": None}
    same(stream_of(server, name), watched())
    for url in ("/etc/passwd", "http://127.0.0.1:9/a.mp4", "rtsp://10.0.0.1/x", "file:/etc/passwd", "/dev/video0"):
        assert http.post(f"{PATH}/{name}/source", json={"url": url}).status_code == 400
    http.delete(f"{PATH}/{name}")


def test_a_saved_session_goes_on_as_if_nothing_had_happened(server: Hosted, http: httpx.Client) -> None:
    """Saved, forked, ended, resumed by another name: all go on bit for bit as the plain stream."""
    plain, name = alone(), opened(http)
    plain.push(np.stack(FRAMES[:3]), TIMES[:3])
    http.post(f"{PATH}/{name}/frames", json=as_json(FRAMES[:3], TIMES[:3]))
    saved = http.post(f"{PATH}/{name}/save").json()
    fork = http.post(f"{PATH}/{name}/fork").json()["id"]
    http.delete(f"{PATH}/{name}")
    resumed = http.post(PATH, json={"resume": saved["saved"]}).json()["id"]
    plain.push(np.stack(FRAMES[3:]), TIMES[3:])
    for each in (fork, resumed):
        http.post(f"{PATH}/{each}/frames", json=as_json(FRAMES[3:], TIMES[3:]))
        same(stream_of(server, each), plain)
        http.delete(f"{PATH}/{each}")
    for wrong in ("nothing-of-that-name", "../../etc/passwd", "", "x" * 5000):
        assert http.post(PATH, json={"resume": wrong}).json()["error"]["code"] == "saved_session_not_found"


LIKELY = [0.1, 0.8, 0.5, 0.3, 0.65, 0.9]
STANDING = {"question": "Is it red?", "every": 1.0, "sure": 0.7, "clear": 0.4}


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, float]]:
    """Looks find what is written above, by the second; gives what was asked, of how many options, and when."""
    asked: list[tuple[str, int, float]] = []

    def weighed(stream: pv.VideoStream, question: str, options: Any) -> tuple[float, tuple[float, float]]:
        assert stream.span is not None
        second = stream.span[1]
        asked.append((question, len(options), second))
        return second, (float(np.log(LIKELY[int(second)])), float(np.log(1 - LIKELY[int(second)])))

    monkeypatch.setattr(pv.VideoStream, "_weighed", weighed)
    return asked


def heard(http: httpx.Client, name: str, most: int, after: int = 0) -> list[tuple[int, str, Any]]:
    """So many events, or all up to the session's end: number, name and data."""
    got: list[tuple[int, str, Any]] = []
    with http.stream("GET", f"{PATH}/{name}/events", headers={"last-event-id": str(after)}) as events:
        block: dict[str, str] = {}
        for line in events.iter_lines():
            if line and not line.startswith(":"):
                key, _, value = line.partition(": ")
                block[key] = value
            elif block:
                got.append((int(block["id"]), block["event"], json.loads(block["data"])))
                block = {}
                if len(got) == most:
                    break
    return got


def test_standing_questions_are_the_librarys_watches(server: Hosted, http: httpx.Client, looks: Any) -> None:
    """Events are those of the plain stream's watch, told when the push is answered.

    Late listeners hear what they missed.
    Saved in the middle of an event, a session goes on with it under another name; ended, it cuts it.
    """
    plain = alone()
    watch = plain.watch_for("Is it red?", 1.0, sure=0.7, clear=0.4)
    for i, frame in enumerate(FRAMES):
        plain.push(frame[None], [float(i)])
    plain.close()
    want = [("begin" if each.end is None else "end", asdict(each)) for each in watch.poll()]
    assert [(name, each["begin"], each["end"], each["cut"]) for name, each in want] == [
        ("begin", 1, None, False),
        ("end", 1, 3, False),
        ("begin", 5, None, False),
        ("end", 5, 5, True),
    ]
    looks.clear()
    name = opened(http, standing_questions=[STANDING])
    url = f"ws://127.0.0.1:{server.port}{PATH}/{name}/ws"
    with websockets.sync.client.connect(url, proxy=None) as socket:
        socket.send("[]")
        assert json.loads(socket.recv())["type"] == "error"  # it listens
        for i in range(3):
            state = http.post(f"{PATH}/{name}/frames", json=as_json([FRAMES[i]], [float(i)])).json()["session"]
        assert json.loads(socket.recv()) == {"type": "event", "id": 1, "event": "begin", **want[0][1]}
    assert looks == [("Is it red?", 2, float(i)) for i in range(3)]  # before the push was answered
    (standing,) = state["standing_questions"]
    assert standing["likelihood"] == pytest.approx(0.5) and (standing["looks"], standing["failed"]) == (3, 0)
    assert heard(http, name, 1) == [(1, *want[0])] and standing["lasts"] == want[0][1]
    saved = http.post(f"{PATH}/{name}/save").json()["saved"]
    http.delete(f"{PATH}/{name}")
    name = http.post(PATH, json={"resume": saved}).json()["id"]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        listening = pool.submit(heard, http, name, 9)
        for i in range(3, 6):
            http.post(f"{PATH}/{name}/frames", json=as_json([FRAMES[i]], [float(i)]))
        assert heard(http, name, 1, after=1) == [(2, *want[2])]
        until(lambda: server.metric("pdrop_events_total") >= 3)
        http.delete(f"{PATH}/{name}")
        assert listening.result() == [(i + 1, *each) for i, each in enumerate(want[1:])]  # to the end, with the cut
    assert http.get(f"{PATH}/{name}").status_code == 404


def test_what_a_standing_question_is_can_be_said(server: Hosted, http: httpx.Client, looks: Any) -> None:
    """Its options, its cooldown; a fork has its own; wrong ones open no session and leave no stream."""
    terms = {**STANDING, "cooldown": 2.5, "options": ["open", "shut"]}
    name = opened(http, standing_questions=[terms])
    (watch,) = stream_of(server, name).watches
    assert watch.terms == Terms("Is it red?", ("open", "shut"), 1.0, 0.7, 0.4, 2.5)
    forked = http.post(f"{PATH}/{name}/fork", json={"standing_questions": [{"question": "Is it big?"}]}).json()["id"]
    assert [each.terms for each in stream_of(server, forked).watches] == [Terms("Is it big?")]
    plain = http.post(f"{PATH}/{name}/fork").json()["id"]
    assert stream_of(server, plain).watches == ()
    for each in (name, forked, plain):
        http.delete(f"{PATH}/{each}")
    streams, seats = len(built_in().streams), server.service.sessions._seats.taken
    for wrong, says in (
        ({"sure": 0.3, "clear": 0.5}, "clear below sure"),
        ({"options": ["a", "a"]}, "once"),
        ({"options": []}, "options"),
        ({"question": "so " * 5000}, "4,096 at most"),
        ({"every": 0}, "every"),
        ({"cooldown": -1}, "cooldown"),
    ):
        answer = http.post(PATH, json={"recipe": RECIPE, "standing_questions": [{**STANDING, **wrong}]})
        assert answer.status_code == 400 and says in answer.json()["error"]["message"], answer.text
    many = http.post(PATH, json={"standing_questions": 9 * [STANDING]})
    assert many.status_code == 400
    assert (len(built_in().streams), server.service.sessions._seats.taken) == (streams, seats)


def test_notes_of_a_session_are_the_streams(server: Hosted, http: httpx.Client) -> None:
    """Taken as the library takes them, and remembered as there."""
    recipe = {"pyramid": {"stages": 3}, "memory": {"tokens": 1024}}
    plain = built_in().stream(pv.Recipe.from_dict(recipe))
    question = "What is seen from {begin} to {end}?"
    plain.summarise(1.0, question=question)
    name = http.post(PATH, json={"recipe": recipe, "notes": {"every": 1, "question": question}}).json()["id"]
    assert http.get(f"{PATH}/{name}/notes").json() == {"object": "list", "data": []}
    for i, frame in enumerate(FRAMES[:4]):
        plain.push(frame[None], [float(i)])
        http.post(f"{PATH}/{name}/frames", json=as_json([frame], [float(i)]))
    assert http.get(f"{PATH}/{name}/notes").json()["data"] == [asdict(note) for note in plain.notes] != []
    same(stream_of(server, name), plain)
    http.delete(f"{PATH}/{name}")
    small = http.post(PATH, json={"recipe": RECIPE, "notes": {}})  # 60 tokens have no room for them
    assert small.status_code == 400 and "a note of" in small.json()["error"]["message"]


def test_recipes_of_strangers_name_no_files_and_take_no_more_than_they_may(http: httpx.Client, tmp_path: Path) -> None:
    for recipe in (
        {"memory": {"tokens": None}},
        {"memory": {"tokens": 10**6}},
        {"memory": {"bytes": 10**13}},
        {"memory": {"tokens": 60, "archive": 10**13}},
        {"memory": {"tokens": 60, "archive": 10**4, "archive_folder": str(tmp_path / "a")}},
        {"pyramid": {"layers": [0], "ratios": [0.5], "scorer": "hawk:weights=/etc/passwd"}},
        {"pyramid": {"stages": 10**9}},
        {"gate": "nothing-like-it"},
        {"unknown": 1},
    ):
        answer = http.post(PATH, json={"recipe": recipe})
        assert answer.status_code == 400 and answer.json()["error"]["message"].endswith("."), recipe
    assert not (tmp_path / "a").exists()


def test_what_is_wrong_with_frames_is_said_and_leaves_the_stream_alone(server: Hosted, http: httpx.Client) -> None:
    plain, name = alone(), opened(http)
    plain.push(np.stack(FRAMES[:2]), TIMES[:2])
    url = f"{PATH}/{name}/frames"
    assert http.post(f"{PATH}/{name}/ask", json={"question": QUESTION}).json()["error"]["code"] == "conflict"
    http.post(url, json=as_json(FRAMES[:2], TIMES[:2]))
    wrong: list[tuple[int, dict[str, Any]]] = [
        (400, dict(json=as_json(FRAMES[:1], [0.2]))),  # the time goes back
        (400, dict(json={"frames": [{"image": "aGk=", "seconds": 9}]})),
        (400, dict(json={"frames": [{"image": "%", "seconds": 9}]})),
        (400, dict(json={"frames": []})),
        (
            400,
            dict(
                content=b'{"frames": [{"image": "aGk=", "seconds": NaN}]}', headers={"content-type": "application/json"}
            ),
        ),
        (400, dict(files=[("frames", ("a.png", png(FRAMES[0])))])),  # no second
        (400, dict(files=[("frames", ("a.png", png(FRAMES[0])))], data={"seconds": "soon"})),
        (415, dict(content=b"x", headers={"content-type": "text/plain"})),
        (413, dict(json={"frames": [{"image": "aGk=", "seconds": i} for i in range(1100)]})),
    ]
    for status, how in wrong:
        answer = http.post(url, **how)
        assert answer.status_code == status and answer.json()["error"]["message"].endswith("."), answer.text
    same(stream_of(server, name), plain)
    http.delete(f"{PATH}/{name}")


def test_sessions_are_bounded_in_number_in_bytes_and_in_time() -> None:
    """A full server says so, with Retry-After; nobody else can use a session; all is given back."""
    bound = alone().cache_bound
    assert bound is not None
    limits = Limits(sessions=3, sessions_each=2, session_bytes=3 * bound)
    with hosted(Settings(keys=("one", "two"), limits=limits), built_in()) as server:
        one, two = (server.http(headers={"authorization": f"Bearer {key}"}) for key in ("one", "two"))
        names = [opened(one), opened(one), opened(two)]
        for client, status in ((one, 429), (two, 503)):
            full = client.post(PATH, json={"recipe": RECIPE})
            assert full.status_code == status and int(full.headers["retry-after"]) >= 1
        assert two.get(f"{PATH}/{names[0]}").status_code == 404
        one.delete(f"{PATH}/{names[0]}")
        large = {"pyramid": {"stages": 3}, "memory": {"tokens": 61}}
        full = two.post(PATH, json={"recipe": large})
        assert full.status_code == 503 and "memory" in full.json()["error"]["message"]
        assert server.metric("pdrop_sessions") == 2
        for client, name in ((one, names[1]), (two, names[2])):
            assert client.delete(f"{PATH}/{name}").status_code == 204
        assert not server.service.sessions._reserved and server.service.sessions._seats.taken == 0
        one.close(), two.close()


def test_sessions_that_nobody_uses_end() -> None:
    """Not one that is listened to; all that the others had is given back."""
    with hosted(Settings(limits=Limits(idle=1.0))) as server, server.http() as one:
        names = ["", opened(one)]
        with one.stream("GET", f"{PATH}/{names[1]}/events") as events:  # who listens is there
            lines = events.iter_lines()  # held: the client hangs up when it goes
            assert next(lines).startswith(":")
            names[0] = opened(one)
            until(lambda: server.metric("pdrop_sessions_expired_total") == 1)
            assert one.get(f"{PATH}/{names[1]}").status_code == 200
            assert one.get(f"{PATH}/{names[0]}").status_code == 404
        lines.close()
        until(lambda: server.metric("pdrop_sessions") == 0)
        assert not server.service.sessions._reserved and server.service.sessions._seats.taken == 0


@pytest.mark.parametrize("count", [16, pytest.param(100, marks=pytest.mark.slow)])
def test_many_sessions_at_once_lose_nothing(count: int) -> None:
    """On the tiny model: every stream is the one that it would be alone."""
    lm = build("qwen2_5_vl")
    frames = [picture(seed, 28, 28) for seed in range(4)]
    plain = lm.stream(pv.Recipe.from_dict(RECIPE))
    for i in (0, 2):
        plain.push(np.stack(frames[i : i + 2]), [float(i), i + 1.0])
    want = plain.ask("what ?", 2).text

    async def one(client: httpx.AsyncClient) -> tuple[str, str]:
        name = (await client.post(PATH, json={"recipe": RECIPE})).json()["id"]
        for i in (0, 2):
            pushed = await client.post(f"{PATH}/{name}/frames", json=as_json(frames[i : i + 2], [float(i), i + 1.0]))
            assert pushed.status_code == 200, pushed.text
        answer = await client.post(f"{PATH}/{name}/ask", json={"question": "what ?", "max_tokens": 2})
        return name, answer.json()["text"]

    async def all_of_them(url: str) -> list[tuple[str, str]]:
        limits = httpx.Limits(max_connections=count)
        async with httpx.AsyncClient(base_url=url, timeout=240, trust_env=False, limits=limits) as client:
            return await asyncio.gather(*(one(client) for _ in range(count)))

    with hosted(Settings(), lm) as server:
        got = asyncio.run(all_of_them(server.url))
        assert {text for _, text in got} == {want} and len({name for name, _ in got}) == count
        for name, _ in got[::9]:
            same(stream_of(server, name), plain)
        assert server.metric("pdrop_frames_watched_total") == 4 * count
