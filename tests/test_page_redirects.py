"""Addresses that lead elsewhere: each step is checked before it is taken, and all of them end in time."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import servers
from media import numbered, steady, write_video

import pdrop_video as pv
from demos.settings import Settings
from demos.sources import opener
from pdrop_video.guard import Guard, Refused
from pdrop_video.guard import rules as guard

PUBLIC, PRIVATE = "127.0.0.2", "127.0.0.1"


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


def test_a_server_that_drips_its_answer_is_given_up_in_time(watched: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_PATIENCE", 1.0)
    monkeypatch.setattr(guard, "_is_public", lambda _: True)

    def drip(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
        for _ in range(100):  # each in good time, all of it far too late
            over.wait(0.1)
            connection.sendall(b"x")
        connection.sendall(b"\r\nContent-Length: 0\r\n\r\n")

    with servers.serving(drip) as server:
        with pytest.raises(Refused, match="does not answer within 1 seconds"):
            watched.source(server.address.replace("tcp", "http"))
        assert server.connections == 1


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
