"""What is counted while a request comes in: uploads and other bodies, with a length or in chunks, whole or in parts."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response

from demos import intake, uploads
from demos.intake import Intake, Load
from demos.uploads import AROUND, Uploads
from pdrop_video.guard import Allowance, Exhausted

PART = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.mp4"\r\n\r\n'
END = b"\r\n--x--\r\n"
FORM = {"content-type": "multipart/form-data; boundary=x"}


class Body:
    """A body in chunks, without a length; `read` says how much of it was."""

    def __init__(self, *parts: bytes) -> None:
        self.parts, self.read = parts, 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self.parts:
            for first in range(0, len(part), 10_000):
                self.read += len(part[first : first + 10_000])
                yield part[first : first + 10_000]


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """An app that reads all and keeps it for as long as it has the request."""
    held.append(Request(scope, receive))
    await held[-1].body()
    await Response("read")(scope, receive, send)


held: list[Request] = []


def post(
    middle: Intake, content: Any, path: str = "/gradio_api/upload", client: str = "203.0.113.1", **headers: str
) -> Any:
    async def sending() -> httpx.Response:
        transport = httpx.ASGITransport(middle, client=(client, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://page") as sender:
            said = FORM if path.startswith("/gradio_api/upload") else {"content-type": "application/json"}
            return await sender.post(path, content=content, headers={**said, **headers})

    return asyncio.run(sending())


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def store(folder: Path, **how: Any) -> tuple[Intake, Uploads]:
    kept = Uploads(folder, **{"largest": 100_000, **how})
    return Intake(nothing, upload=kept.largest, store=kept), kept


def empty(kept: Uploads) -> bool:
    return files(kept.folder) == [] and kept.bytes.taken == kept.files.taken == 0


def test_an_upload_is_stored_and_counted_as_the_file_it_is(tmp_path: Path) -> None:
    middle, kept = store(tmp_path)
    answer = post(middle, Body(PART, bytes(70_000), END))
    (path,) = answer.json()
    assert Path(path).read_bytes() == bytes(70_000) and Path(path).name == "a.mp4"
    assert (kept.bytes.taken, kept.files.taken) == (70_000, 1)
    assert post(middle, Body(PART, bytes(70_000), END)).json() == [path], "sent twice, it is one"
    assert (kept.bytes.taken, kept.files.taken) == (70_000, 1)
    assert post(middle, Body(PART, bytes(70_000), END), client="203.0.113.2").json() == [path]
    assert (kept.bytes.taken, kept.files.taken) == (140_000, 2)
    over = [kept.hold(Path(path)) for _ in range(3)]
    for end in over:
        assert Path(path).exists()
        end()
        end()
    assert empty(kept)


def test_a_file_without_a_length_is_read_no_further_than_to_its_limit(tmp_path: Path) -> None:
    middle, kept = store(tmp_path)
    body = Body(PART, bytes(3_000_000), END)
    answer = post(middle, body)
    said = "The file is larger than 0.0953674 MB, the largest that this page takes; cut it, or make it smaller."
    assert (answer.status_code, answer.text) == (413, said)
    assert body.read < 130_000
    assert empty(kept)


def test_a_length_that_is_too_large_is_refused_before_a_byte_is_read(tmp_path: Path) -> None:
    middle, kept = store(tmp_path)
    for length in (str(100_001 + AROUND), "9" * 30, "-1", "x"):
        body = Body(PART, END)
        assert post(middle, body, **{"content-length": length}).status_code == 413
        assert body.read == 0
    assert empty(kept)


@pytest.mark.parametrize(
    "parts",
    [
        [PART, b"a\r\n", PART, b"b", END],
        [PART.replace(b'"files"', b'"other"'), b"a", END],
        [b'--x\r\nContent-Disposition: form-data; name="files"\r\n\r\n', b"a", END],
        [b'--x\r\nContent-Disposition: form-data; name="field"\r\n\r\na\r\n' * 3000, END],
        [b"--x\r\nContent-Disposition: form-data\r\n\r\n", b"a", END],
        [b"--x\r\nX: " + bytes(9000) + b"\r\n\r\n", END],
        [b"no form at all"],
        [],
    ],
)
def test_a_form_of_any_other_kind_leaves_nothing(tmp_path: Path, parts: list[bytes]) -> None:
    middle, kept = store(tmp_path)
    assert post(middle, Body(*parts)).status_code in (400, 413)
    assert empty(kept)


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data;boundary",
             "multipart/form-data; boundary=x; charset=nonsense"]
)  # fmt: skip
def test_a_form_that_is_announced_wrongly_leaves_nothing(tmp_path: Path, kind: str) -> None:
    middle, kept = store(tmp_path)
    answer = post(middle, Body(PART.replace(b"x\r", b"y\r"), b"a", END), **{"content-type": kind})
    assert answer.status_code == 400
    assert empty(kept)


def test_bytes_of_an_address_and_of_all_count_while_they_come_in(tmp_path: Path) -> None:
    middle, kept = store(tmp_path, each=250_000, most=400_000)
    for number in range(2):
        assert post(middle, Body(PART, bytes([number]) * 90_000, END)).status_code == 200
    body = Body(PART, bytes([2]) * 90_000, END)
    answer = post(middle, body)
    assert answer.status_code == 429 and "Your address may have 250,000 bytes of uploads" in answer.text
    assert body.read < 90_000, "it is given up where the limit is"
    assert kept.bytes.taken == 180_000 and len(files(tmp_path)) == 2
    other = [post(middle, Body(PART, bytes([3 + n]) * 90_000, END), client=f"203.0.113.{n + 2}") for n in range(3)]
    assert [answer.status_code for answer in other] == [200, 200, 503]
    assert "of this server are taken" in other[-1].text
    assert kept.bytes.taken == 360_000 and kept.files.taken == len(files(tmp_path)) == 4


def test_uploads_under_way_count_together(tmp_path: Path) -> None:
    middle, kept = store(tmp_path, files_each=2)
    go_on = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield PART
        await go_on.wait()
        yield b"a" + END

    async def all_at_once() -> list[int]:
        transport = httpx.ASGITransport(middle, client=("203.0.113.1", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://page") as sender:
            begun = [
                asyncio.ensure_future(sender.post("/gradio_api/upload", content=slow(), headers=FORM)) for _ in range(5)
            ]
            while sum(task.done() for task in begun) < 3:
                await asyncio.sleep(0.01)
            go_on.set()
            return sorted([(await task).status_code for task in begun])

    assert asyncio.run(all_at_once()) == [200, 200, 429, 429, 429]
    assert (kept.files.taken, kept.bytes.taken) == (1, 1), "both were the same file"


def test_what_is_broken_off_or_never_opened_is_swept_away_and_counted_until_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    middle, kept = store(tmp_path)

    async def broken() -> None:
        messages = [
            {"type": "http.request", "body": PART + bytes(5000), "more_body": True},
            {"type": "http.disconnect"},
        ]

        async def receive() -> Any:
            return messages.pop(0)

        headers = [(b"content-type", FORM["content-type"].encode())]
        scope = {"type": "http", "method": "POST", "path": "/gradio_api/upload", "query_string": b"",
                 "headers": headers, "client": ("203.0.113.1", 1)}  # fmt: skip
        await middle(scope, receive, None)

    asyncio.run(broken())
    (path,) = post(middle, Body(PART, b"whole", END)).json()
    (opened,) = post(middle, Body(PART, b"opened", END)).json()
    over = kept.hold(Path(opened))
    kept.sweep()
    assert len(files(tmp_path)) == 3 and kept.files.taken == 3
    monkeypatch.setattr(uploads, "_BROKEN_OFF", -1.0)
    kept.sweep()
    assert sorted(files(tmp_path)) == sorted([Path(path), Path(opened)])
    monkeypatch.setattr(uploads, "_UNOPENED", -1.0)
    kept.sweep()
    assert files(tmp_path) == [Path(opened)] and kept.files.taken == 1
    over()
    assert empty(kept)


def test_names_of_uploads_are_harmless(tmp_path: Path) -> None:
    middle, _ = store(tmp_path, files_each=99)
    for name in (
        "../../a.mp4",
        "/etc/passwd",
        ".bashrc",
        "..",
        "",
        "a" * 1000 + ".mp4",
        "ü" * 300 + ".mp4",
        "a\0b.mp4",
    ):
        part = PART.replace(b"a.mp4", name.encode())
        (path,) = post(middle, Body(part, name.encode() + b"!", END)).json()
        inside = Path(path).relative_to(tmp_path)
        assert len(inside.parts) == 2 and not inside.name.startswith(".") and Path(path).is_file()


# -- what is no upload -------------------------------------------------------------------------------------------------


def call(middle: Intake, said: Any, **how: Any) -> Any:
    path = how.pop("path", "/gradio_api/queue/join")
    return post(middle, Body(said if isinstance(said, bytes) else json.dumps(said).encode()), path, **how)


def test_requests_that_wait_count_together_until_nobody_has_them() -> None:
    middle = Intake(nothing, upload=10, other=100_000)
    large = {"data": ["x" * 60_000]}
    assert call(middle, large).status_code == 200
    assert call(middle, large).status_code == 429, "the first still waits"
    assert call(middle, large, client="203.0.113.2").status_code == 200
    assert call(middle, large, client="203.0.113.3").status_code == 200
    assert call(middle, large, client="203.0.113.4").status_code == 503
    worked_on = Load.of(held.pop(0).scope)
    assert worked_on is not None
    worked_on.let_go()
    assert middle._waiting.taken < 130_000
    assert call(middle, large).status_code == 200
    held.clear()
    gc.collect()
    assert middle._waiting.taken == 0
    worked_on.let_go()
    assert middle._waiting.taken == 0
    for _ in range(2):
        assert call(middle, large, path="/gradio_api/run/push").status_code == 200, "it is over with its answer"
    held.clear()


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({"data": ["x" * 50_000], "session_hash": "a" * 20, "fn_index": 3}, 200),
        ({"data": ["a, b [c] {d}" * 200] * 9, "event_data": {"value": "x" * 9000}}, 200),
        ({"data": [], "session_hash": "a" * 3000}, 413),
        ({"data": [], "trigger_id": 1, "\u0065vent_id": ["a" * 3000]}, 413),
        ({"data": [0] * 30_000}, 413),
        (b'{"data": ' + b"[" * 30_000, 413),
        (b'{"data": ' + b"[" * 15_000 + b"]" * 15_000 + b"}", 400),
        (b"no json", 200),
    ],
)
def test_a_request_of_many_values_or_long_names_is_refused(said: Any, status: int) -> None:
    assert call(Intake(nothing, upload=10), said).status_code == status
    held.clear()


def test_a_request_that_comes_to_a_halt_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "_SILENCE", 0.05)
    middle, kept = store(tmp_path)

    async def halting() -> AsyncIterator[bytes]:
        yield PART
        await asyncio.sleep(60)

    for path in ("/gradio_api/upload", "/gradio_api/queue/join"):
        assert post(middle, halting(), path).status_code == 408
    assert empty(kept)


def test_an_address_has_its_share_of_the_requests_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "_AT_ONCE", (2, 3))
    over = asyncio.Event()

    async def waiting(scope: Any, receive: Any, send: Any) -> None:
        await over.wait()
        await Response()(scope, receive, send)

    middle = Intake(waiting, upload=10)

    async def asked(client: str) -> int:
        transport = httpx.ASGITransport(middle, client=(client, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://page") as sender:
            return (await sender.get("/gradio_api/heartbeat/x")).status_code

    async def many() -> list[int]:
        begun = [asyncio.ensure_future(asked(client)) for client in ("a", "a", "a", "b", "c")]
        while sum(task.done() for task in begun) < 2:
            await asyncio.sleep(0.01)
        over.set()
        return [await task for task in begun] + [await asked("a")]

    assert asyncio.run(many()) == [200, 200, 429, 200, 503, 200]


def test_an_allowance_takes_all_or_nothing() -> None:
    room = Allowance("seats", 3, 5)
    room.take("a", 2)
    with pytest.raises(Exhausted, match="Your address may have 3 seats"):
        room.take("a", 2)
    room.take("b", 3)
    with pytest.raises(Exhausted, match="All the 5 seats"):
        room.take("a", 1)
    room.give_back("b", 3)
    room.take("a", 1)
    assert room.taken == 3
