"""What strangers may send and open, through the app as it is started: sizes, lengths, sessions, where it listens."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from gradio_client import Client, handle_file
from media import steady, write_video
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

import pdrop_video as pv
from demos.intake import Intake
from demos.screenshots import serving
from demos.sessions import Sessions
from demos.settings import Settings
from demos.uploads import Uploads

PUBLIC, PRIVATE = "127.0.0.2", "127.0.0.1"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The app with narrow limits: its address, and the folder in which it stores what it is sent."""
    folder = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        with serving("--max-megabytes", "1", "--max-minutes", "0.5", "--most-each", "2") as address:
            yield address, next(folder.glob("pdrop-video-*"))
    assert not list(folder.glob("pdrop-video-*")), "nothing is left when the page is stopped"


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def until_empty(folder: Path) -> None:
    deadline = time.monotonic() + 30
    while files(folder):
        assert time.monotonic() < deadline, files(folder)
        time.sleep(0.05)


def test_what_is_too_big_is_refused_and_nothing_of_it_is_kept(app: tuple[str, Path]) -> None:
    address, folder = app
    for size in (2**20 + 1, 3 * 2**20):  # the first ends inside of what a request may have around its file
        big = {"files": ("big.mp4", bytes(size), "video/mp4")}
        answer = httpx.post(f"{address}gradio_api/upload", files=big, trust_env=False)
        assert answer.status_code == 413
        assert answer.text.startswith("The file is larger than 1 MB, the largest that this page takes; ")
    assert files(folder) == []


def test_many_files_at_a_time_are_no_way_around_the_limit(app: tuple[str, Path]) -> None:
    address, folder = app
    many = [("files", (f"{number}.mp4", bytes([number]) * 900_000, "video/mp4")) for number in range(3)]
    assert httpx.post(f"{address}gradio_api/upload", files=many, trust_env=False).status_code == 413
    for path in files(folder):  # until they are swept away
        path.unlink()


def test_a_request_that_is_no_upload_has_a_limit_too() -> None:
    read: list[int] = []

    async def reading(scope: Any, receive: Any, send: Any) -> None:
        try:
            read.append(len(await Request(scope, receive).body()))
            answer = Response()
        except HTTPException as error:
            answer = Response(error.detail, error.status_code)
        await answer(scope, receive, send)

    async def sizes(*lengths: int) -> list[int]:
        transport = httpx.ASGITransport(Intake(reading, upload=10, other=1000))
        async with httpx.AsyncClient(transport=transport, base_url="http://page") as sender:
            return [(await sender.post("/", content=bytes(length))).status_code for length in lengths]

    assert asyncio.run(sizes(0, 1000, 1001)) == [200, 200, 413]
    assert read == [0, 1000]


def test_what_lasts_too_long_or_is_no_video_is_one_sentence_and_nothing_of_it_is_kept(
    app: tuple[str, Path], tmp_path: Path
) -> None:
    address, folder = app
    long = write_video(tmp_path / "long.mp4", steady(40, rate=1), rate=1)
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video at all" * 100)
    program = Client(address, verbose=False)
    for path, sentence in (
        (long, "The video lasts 0.7 minutes, and this page takes at most 0.5; cut it, or start the server with"),
        (bad, "bad.mp4 cannot be opened as a video"),
    ):
        with pytest.raises(Exception, match=sentence) as caught:
            program.predict(handle_file(path), api_name="/open")
        assert str(folder) not in str(caught.value)
        assert files(folder) == []


def test_an_upload_goes_with_the_last_session_that_watches_it(app: tuple[str, Path], tmp_path: Path) -> None:
    address, folder = app
    path = write_video(tmp_path / "short.mp4", steady(20, rate=2), rate=2)
    program = Client(address, verbose=False)
    one, two = (program.predict(handle_file(path), api_name="/open") for _ in range(2))
    (kept,) = files(folder)
    assert kept.read_bytes() == path.read_bytes()
    program.predict(one, api_name="/close")
    assert files(folder) == [kept]
    program.predict(two, api_name="/close")
    until_empty(folder)


def test_an_upload_that_is_broken_off_is_swept_away(app: tuple[str, Path]) -> None:
    address, folder = app
    place = urlsplit(address)
    assert place.hostname is not None
    head = (
        f"POST /gradio_api/upload HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Length: 900000\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
        '--x\r\nContent-Disposition: form-data; name="files"; filename="a.mp4"\r\n\r\n'
    )
    with socket.create_connection((place.hostname, place.port or 80)) as sending:
        sending.sendall(head.encode() + bytes(400_000))
        deadline = time.monotonic() + 30
        while not files(folder):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    (begun,) = files(folder)
    time.sleep(1)
    uploads = Uploads(folder)
    uploads.sweep()
    assert files(folder) == [begun], "it may still be under way"
    os.utime(begun, (0, 0))
    uploads.sweep()
    assert files(folder) == []


def test_a_video_that_promises_nothing_is_watched_up_to_the_limit(tmp_path: Path) -> None:
    raw = write_video(tmp_path / "raw.h264", steady(120))
    session = Sessions({"built-in": pv.load}, longest=2.0).open()
    session.begin(Settings(fps=10, chunk=2), "raw", partial(pv.open_video, raw, 10, 2))
    assert session.watcher is not None
    session.watcher.join(60)
    assert session.progress.state == "done"
    assert session.progress.message == "Watched the first 0.0 minutes, this page's limit."
    assert session.progress.seconds is not None
    assert 1.8 <= session.progress.seconds[1] < 2.2


def test_an_address_has_its_share_of_the_sessions(app: tuple[str, Path]) -> None:
    here, elsewhere = (  # as a proxy on this machine says
        Client(app[0], verbose=False, headers={"X-Forwarded-For": client}) for client in ("203.0.113.7", "203.0.113.8")
    )
    names = [here.predict("", api_name="/open") for _ in range(2)]
    with pytest.raises(Exception, match="Your address has 2 sessions here, the most that one may have"):
        here.predict("", api_name="/open")
    names.append(elsewhere.predict("", api_name="/open"))
    here.predict(names[0], api_name="/close")
    names.append(here.predict("", api_name="/open"))
    assert [here.predict(name, api_name="/close") for name in names] == [False, True, True, True]


def test_it_listens_on_this_machine_alone(app: tuple[str, Path]) -> None:
    port = urlsplit(app[0]).port
    assert port is not None
    socket.create_connection((PRIVATE, port), 5).close()
    with pytest.raises(ConnectionRefusedError):  # what listens on all addresses is found here too
        socket.create_connection((PUBLIC, port), 5)
