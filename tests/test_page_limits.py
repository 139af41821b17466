"""What strangers may send and open, through the app as it is started: sizes, lengths, where it listens, redirects."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from gradio_client import Client, handle_file
from media import numbered, steady, write_video
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

import pdrop_video as pv
from demos import guard
from demos.guard import Guard, Refused
from demos.intake import Intake
from demos.screenshots import serving
from demos.sessions import Sessions
from demos.settings import Settings
from demos.sources import opener
from demos.uploads import Uploads

PUBLIC, PRIVATE = "127.0.0.2", "127.0.0.1"

# -- uploads ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The app with narrow limits: its address, and the folder in which it stores what it is sent."""
    folder = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        with serving("--max-megabytes", "1", "--max-minutes", "0.5") as address:
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
    big = {"files": ("big.mp4", bytes(2**20 + 1), "video/mp4")}
    answer = httpx.post(f"{address}gradio_api/upload", files=big, trust_env=False)
    assert answer.status_code == 413
    assert answer.text == "File size exceeded maximum allowed size of 1048576 bytes."
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


def test_it_listens_on_this_machine_alone(app: tuple[str, Path]) -> None:
    port = urlsplit(app[0]).port
    assert port is not None
    socket.create_connection((PRIVATE, port), 5).close()
    with pytest.raises(ConnectionRefusedError):  # what listens on all addresses is found here too
        socket.create_connection((PUBLIC, port), 5)


# -- redirects --------------------------------------------------------------------------------------------------------


class Host:
    """A web server that sends everybody elsewhere, or has a file for them.

    Attributes
    ----------
    address : str
    visitors : list of str
        What each of them calls itself.
    """

    def __init__(self, number: str, elsewhere: str = "", content: bytes = b"", *, only: str = "") -> None:
        self.visitors = visitors = []  # type: list[str]

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                agent = self.headers.get("User-Agent", "")
                visitors.append(agent)
                sent_away = elsewhere and only in agent
                self.send_response(302 if sent_away else 200)
                if sent_away:
                    self.send_header("Location", elsewhere)
                self.send_header("Content-Length", "0" if sent_away else str(len(content)))
                self.end_headers()
                if not sent_away:
                    self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer((number, 0), Handler)
        self.address = f"http://{number}:{self._server.server_address[1]}/clip.ts"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def chain(*hosts: tuple[str, str, bytes], only: str = "") -> Iterator[list[Host]]:
    """Hosts of which each sends one to the next."""
    with ExitStack() as stack:
        made: list[Host] = []
        for number, elsewhere, content in reversed(hosts):
            made.insert(0, Host(number, elsewhere or (made[0].address if made else ""), content, only=only))
            stack.callback(made[0].close)
        yield made


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Guard:
    """A guard for which one of this machine's own numbers is a public one."""
    real = guard._is_public
    monkeypatch.setattr(guard, "_is_public", lambda number: number == PUBLIC or real(number))
    return Guard((tmp_path,))


@pytest.mark.parametrize("hops", [1, 2, 3, 4, 5])
def test_a_redirect_to_a_private_network_is_refused_at_every_hop(watched: Guard, hops: int) -> None:
    with chain(*[(PUBLIC, "", b"")] * hops, (PRIVATE, "", b"secret")) as hosts:
        with pytest.raises(Refused, match="private network"):
            watched.source(hosts[0].address)
        assert [len(host.visitors) for host in hosts] == [1] * hops + [0]


@pytest.mark.parametrize(
    "elsewhere",
    [
        "file:///etc/passwd",
        "rtsp://127.0.0.1/a",
        "http://localhost/",
        "http://2130706433/",
        "//127.0.0.1/",
        "gopher://a",
    ],
)
def test_a_redirect_to_what_would_not_be_opened_is_refused(watched: Guard, elsewhere: str) -> None:
    with chain((PUBLIC, "", b""), (PUBLIC, elsewhere, b"")) as hosts, pytest.raises(Refused):
        watched.source(hosts[0].address)


def test_a_chain_without_an_end_is_refused(watched: Guard) -> None:
    with chain(*[(PUBLIC, "", b"")] * 7) as hosts, pytest.raises(Refused, match="more than 5 times"):
        watched.source(hosts[0].address)


def test_who_sends_the_decoder_alone_elsewhere_is_not_followed(watched: Guard, tmp_path: Path) -> None:
    video = write_video(tmp_path / "clip.ts", steady(30), pictures=[numbered(i) for i in range(30)]).read_bytes()
    settings = Settings()
    with chain((PUBLIC, "", video), (PRIVATE, "", b"secret"), only="Lavf") as (public, private):
        source = watched.source(public.address)
        with pytest.raises(pv.VideoError), opener(source, settings, 2.0)() as reader:
            list(reader)
        assert any("Lavf" in agent for agent in public.visitors)
        assert private.visitors == []
    with chain((PUBLIC, "", b""), (PUBLIC, "", video), only="httpx") as (first, last):
        source = watched.source(first.address)
        assert source.target == last.address
        with opener(source, settings, 2.0)() as reader:
            assert sum(len(chunk) for chunk in reader) == 2
