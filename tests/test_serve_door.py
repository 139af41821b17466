"""Who may come in and how much of everything: keys, names, rates, sizes, and clients that are slow or gone."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest
import websockets.sync.client
from hosted import CLIPS, Hosted, built_in, hosted, until
from websockets.exceptions import InvalidStatus

from pdrop_video.serve import Limits, Settings, running

pytestmark = pytest.mark.usefixtures("watchdog")
PATH = "/v1/streaming/sessions"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosted]:
    monkeypatch.setattr(running, "_UNSPOKEN", 0.3)
    monkeypatch.setattr(running, "_UNTAKEN", 0.3)
    with hosted(Settings(folders=(CLIPS,), limits=Limits(stall=0.3, body=10_000))) as server:
        yield server


def raw(server: Hosted, sent: bytes, *, buffer: int | None = None) -> socket.socket:
    connection = socket.socket()
    if buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    connection.connect(("127.0.0.1", server.port))
    connection.settimeout(60)
    connection.sendall(sent)
    return connection


def rest(connection: socket.socket) -> bytes:
    got = b""
    try:
        while data := connection.recv(65536):
            got += data
    except ConnectionResetError:
        pass
    return got


def test_without_the_key_nothing_is_told() -> None:
    """Neither by HTTP nor by WebSocket; any of several keys is right; what tells nothing of anybody stays open."""
    with hosted(Settings(keys=("right", "as well"))) as server, server.http() as http:
        for key in ("", "wrong", "right ish", "RIGHT"):
            headers = {"authorization": f"Bearer {key}"} if key else {}
            for path in ("/v1/models", "/metrics", f"{PATH}/x", "/nothing-there"):
                answer = http.get(path, headers=headers)
                assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
                assert answer.json()["error"]["code"] == "invalid_api_key"
        with pytest.raises(openai.AuthenticationError):
            server.client("wrong").models.list()
        for key in ("right", "as well"):
            assert [model.id for model in server.client(key).models.list()] == ["built-in"]
        for path in ("/health", "/docs", "/openapi.json"):
            assert http.get(path).status_code == 200
        name = http.post(PATH, headers={"authorization": "Bearer right"}).json()["id"]
        url = f"ws://127.0.0.1:{server.port}{PATH}/{name}/ws"
        for wrong in (url, f"{url}?api_key=wrong", f"{url}?api_key=as%20well"):  # the last is another's session
            with pytest.raises(InvalidStatus, match="403"):
                websockets.sync.client.connect(wrong, proxy=None)
        websockets.sync.client.connect(f"{url}?api_key=right", proxy=None).close()


def test_without_keys_other_pages_stay_outside() -> None:
    """What a browser sends for a page from elsewhere, and for a name that was led to this machine."""
    with hosted(Settings(hosts=("cameras.example",))) as server, server.http() as http:
        own = f"http://127.0.0.1:{server.port}"
        for headers in ({}, {"origin": own}, {"host": "cameras.example"}, {"host": "[::1]:80"}, {"host": "LOCALHOST"}):
            assert http.get("/v1/models", headers=headers).status_code == 200, headers
        foreign: list[dict[str, str]] = [
            {"origin": "http://evil.example"},
            {"origin": "null"},
            {"host": "evil.example"},
            {"host": "evil.example", "origin": "http://evil.example"},
        ]
        for headers in foreign:
            assert http.get("/v1/models", headers=headers).json()["error"]["code"] == "foreign_host", headers
        with pytest.raises(InvalidStatus, match="403"):
            websockets.sync.client.connect(
                f"ws://127.0.0.1:{server.port}{PATH}/x/ws", origin="http://evil.example", proxy=None
            )


def test_rates_and_requests_at_a_time_are_bounded() -> None:
    with hosted(Settings(limits=Limits(per_minute=5))) as server, server.http() as http:
        answers = [http.get("/health") for _ in range(8)]
        assert [each.status_code for each in answers] == [200] * 5 + [429] * 3
        assert answers[-1].json()["error"]["code"] == "rate_limit_exceeded" and answers[-1].headers["retry-after"]
    with hosted(Settings(limits=Limits(requests_each=2, requests=9))) as server, server.http() as http:
        name = http.post(PATH).json()["id"]
        with http.stream("GET", f"{PATH}/{name}/events"), http.stream("GET", f"{PATH}/{name}/events"):
            full = http.get("/health")
            assert full.status_code == 429 and full.headers["retry-after"]
        until(lambda: server.metric("pdrop_requests_in_flight") == 0)
        assert http.get("/health").status_code == 200


def test_requests_are_read_no_further_than_their_bound(impatient: Hosted) -> None:
    """One that says how large it is, and one that does not."""
    with impatient.http() as http:
        for how in (dict(content=b"x" * 10_001), dict(content=iter([b"x" * 6000, b"y" * 6000]))):
            answer = http.post(PATH, headers={"content-type": "application/json"}, **how)  # type: ignore[arg-type]
            assert answer.status_code == 413 and "10,000" in answer.json()["error"]["message"]


def test_half_open_connections_come_to_an_end(impatient: Hosted) -> None:
    """Nothing said; half a head; a head whose body never comes; all are let go, and others are served meanwhile."""
    head = b"POST /v1/streaming/sessions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    silent, half = raw(impatient, b""), raw(impatient, head)
    bodiless = raw(impatient, head + b"content-length: 100\r\n\r\n{")
    with impatient.http() as http:
        assert http.get("/health").status_code == 200
    asked = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"
    again = raw(impatient, asked)
    answer = b""
    while not answer.endswith(b"}"):
        answer += again.recv(4096)
    again.sendall(asked[:20])  # the second time it never comes to an end
    with impatient.http() as http:
        name = http.post(PATH).json()["id"]
    url = f"ws://127.0.0.1:{impatient.port}{PATH}/{name}/ws"
    with websockets.sync.client.connect(url, proxy=None) as talk:  # which says nothing either, and may
        silent_since = raw(impatient, b"")
        assert rest(silent) == rest(half) == rest(again) == rest(silent_since) == b""
        talk.send("{")
        assert "JSON" in talk.recv()
    got = rest(bodiless)
    assert b" 408 " in got.splitlines()[0] and b"send the request again" in got
    for each in (silent, half, again, silent_since, bodiless):
        each.close()
    until(lambda: impatient.metric("pdrop_requests_in_flight") == 0)


def test_a_client_that_takes_nothing_is_let_go(impatient: Hosted) -> None:
    """It asks for an answer in pieces without end and reads none: the answer is closed, and so is the connection."""
    events = impatient.service
    with impatient.http() as http:
        name = http.post(PATH).json()["id"]
    session = events.sessions._open[name]
    for i in range(900):  # more than the buffers of both sides hold
        session.events._past.append((i + 1, "x", {"filler": "y" * 20_000}))
    session.events._count = 900
    slow = raw(impatient, f"GET {PATH}/{name}/events HTTP/1.1\r\nhost: localhost\r\n\r\n".encode(), buffer=4096)
    until(lambda: impatient.metric("pdrop_requests_in_flight") == 1)
    until(lambda: impatient.metric("pdrop_requests_in_flight") == 0)
    assert session._busy == 0
    begun, got = time.monotonic(), rest(slow)
    assert len(got) < 900 * 20_000 and time.monotonic() - begun < 50  # it ends, before all was said
    slow.close()
    with impatient.http() as http:
        assert http.get(f"{PATH}/{name}").status_code == 200


def test_who_asked_and_hung_up_leaves_nothing_behind(impatient: Hosted) -> None:
    """A question that waits for the model, without streaming: the client is gone, and it is never answered."""
    forwards: list[int] = []
    layer = built_in().model.get_decoder().layers[-1]
    message = [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "clip.mp4"}}, _text("What?")]}]
    body = json.dumps({"model": "built-in", "messages": message}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n"
    sent = head.encode() + b"content-type: application/json\r\n\r\n" + body
    first = raw(impatient, sent + b"")
    assert b" 200 " in first.recv(4096)
    first.close()
    with built_in().turnstile:
        gone = raw(impatient, sent)
        until(lambda: len(built_in().turnstile._line) > 0)
        gone.close()
        until(lambda: impatient.metric("pdrop_requests_in_flight") == 0)
        hook = layer.register_forward_hook(lambda *_: forwards.append(1))
    with impatient.http() as http:
        assert http.get("/v1/models").status_code == 200
    until(lambda: not built_in().turnstile._line)
    hook.remove()
    assert forwards == []


def test_work_ends_at_the_deadline() -> None:
    with hosted(Settings(folders=(CLIPS,), limits=Limits(deadline=0.5))) as server, built_in().turnstile:
        part: dict[str, Any] = {"type": "video_url", "video_url": {"url": "clip.mp4"}}
        with pytest.raises(openai.InternalServerError) as late:
            server.client().chat.completions.create(
                model="built-in",
                messages=[{"role": "user", "content": [part, _text("What?")]}],  # type: ignore[list-item]
            )
        assert late.value.status_code == 504 and late.value.code == "deadline_exceeded"


def _text(said: str) -> dict[str, str]:
    return {"type": "text", "text": said}


def test_the_pages_and_the_figures_are_served() -> None:
    with hosted() as server, server.http() as http:
        assert http.get("/health").json() == {"status": "ok", "model": "built-in"}
        text = http.get("/metrics").text
        for name in (
            "streams",
            "sessions",
            "queue",
            "tokens_remembered",
            "bytes_remembered",
            "first_token_seconds_sum",
        ):
            assert f"\npdrop_{name} " in text, name
        assert http.get("/nothing").json()["error"]["type"] == "not_found_error"
        assert http.put("/health").status_code == 405
