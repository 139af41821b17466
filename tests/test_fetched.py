"""Files from web servers that strangers name: the number that was checked is the one asked, and not for ever."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import pytest

from pdrop_video.guard import Guard, Refused, fetched, rules

pytestmark = pytest.mark.usefixtures("watchdog")
PUBLIC, PRIVATE = "127.0.0.2", "127.0.0.1"
Answer = Callable[[BaseHTTPRequestHandler], None]


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, Answer], str]]:
    """Servers at a number that counts as public here, and at one that does not."""
    monkeypatch.setattr(rules, "_is_public", lambda number: number == PUBLIC)
    with ExitStack() as stack:

        def serve(number: str, answer: Answer) -> str:
            class Handler(BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    answer(self)

                def log_message(self, *_: object) -> None:
                    pass

            server = ThreadingHTTPServer((number, 0), Handler)
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            return f"http://{number}:{server.server_address[1]}/clip.mp4"

        yield serve


def sends(content: bytes, status: int = 200, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("content-length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def got(url: str, *, private: bool = False, most: int = 1000, patience: float = 30.0) -> bytes:
    file = BytesIO()
    fetched(Guard((Path(),), private=private), url, file, most, patience)
    return file.getvalue()


def test_a_file_comes_and_so_does_one_that_lies_elsewhere(web: Callable[[str, Answer], str]) -> None:
    url = web(PUBLIC, sends(b"a video"))
    assert got(url) == b"a video"
    assert got(web(PUBLIC, sends(b"", 302, location=url))) == b"a video"
    assert got(web(PRIVATE, sends(b"a video")), private=True) == b"a video"


def test_nothing_private_is_reached_directly_or_over_others(web: Callable[[str, Answer], str]) -> None:
    reached: list[str] = []
    private = web(PRIVATE, lambda handler: reached.append(handler.path))
    for url in (private, web(PUBLIC, sends(b"", 302, location=private))):
        with pytest.raises(Refused, match="private network"):
            got(url)
    for elsewhere in ("file:///etc/passwd", "rtsp://127.0.0.2/x", "ftp://127.0.0.2/x"):
        with pytest.raises(Refused):
            got(web(PUBLIC, sends(b"", 302, location=elsewhere)))
    assert reached == []


def test_a_name_that_changes_its_number_gets_the_one_that_was_checked(
    web: Callable[[str, Answer], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second time it is asked for, the name leads to this machine: nobody asks a second time."""
    hosts: list[str] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        hosts.append(handler.headers["host"])
        sends(b"a video")(handler)

    port = web(PUBLIC, answer).split(":")[2].partition("/")[0]
    numbers, plain = iter([PUBLIC, PRIVATE]), socket.getaddrinfo

    def looked_up(host: object, *rest: object, **more: object) -> object:
        return plain(next(numbers) if host == "changing.example" else host, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", looked_up)
    assert got(f"http://changing.example:{port}/clip.mp4") == b"a video"
    assert hosts == [f"changing.example:{port}"] and next(numbers) == PRIVATE


def test_what_is_too_large_too_slow_or_not_there_is_refused(web: Callable[[str, Answer], str]) -> None:
    def slow(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            while True:  # a byte now and then, for ever
                handler.wfile.write(b"x" * 2**16)
                time.sleep(0.02)
        except OSError:
            pass

    assert len(got(web(PUBLIC, sends(b"x" * 1000)))) == 1000
    with pytest.raises(Refused, match="larger"):
        got(web(PUBLIC, sends(b"x" * 1001)))
    with pytest.raises(Refused, match="does not come within"):
        got(web(PUBLIC, slow), most=2**40, patience=0.3)
    with pytest.raises(Refused, match="status 404"):
        got(web(PUBLIC, sends(b"", 404)))
    with pytest.raises(Refused, match="more than 5 times"):
        got(web(PUBLIC, sends(b"", 302, location="/again")))
    with pytest.raises(Refused, match="expected an address of http"):
        got("rtsp://127.0.0.2/x")
