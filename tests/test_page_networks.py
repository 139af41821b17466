"""Which numbers are public; lists of addresses, names that change their number, servers that send one elsewhere."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
import servers
from media import numbered, steady, write_video

import pdrop_video as pv
from demos.settings import Settings
from demos.sources import opener
from pdrop_video.guard import Guard, Refused, Relay, Route
from pdrop_video.guard import rules as guard
from pdrop_video.guard.networks import is_public

PUBLIC, PRIVATE = "127.0.0.2", "127.0.0.1"


@pytest.mark.parametrize(
    "number",
    [
        "0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254",
        "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.9", "192.0.0.192", "192.0.2.1", "192.88.99.1",
        "192.168.0.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "240.0.0.1",
        "255.255.255.255", "168.63.129.16",
        "::", "::1", "fc00::1", "fd00:ec2::254", "fe80::1", "febf::1", "fec0::1", "feff::1", "ff02::1", "ff0e::1",
        "100::1", "2001:2::1", "2001:10::1", "2001:20::1", "2001:db8::1", "3fff::1", "5f00::1", "4000::1",
        "64:ff9b:1::1", "2606:4700::1%eth0", "fe80::1%eth0", "", "public", "1", "0x8080808", "8.8.8.8:80", "008.8.8.8",
    ],
)  # fmt: skip
def test_a_number_that_is_not_global_is_not_public(number: str) -> None:
    assert not is_public(number)


@pytest.mark.parametrize("number", ["1.1.1.1", "8.8.8.8", "168.63.129.15", "172.32.0.1", "100.128.0.1", "192.0.1.1"])
@pytest.mark.parametrize("inside", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "168.63.129.16", "0.0.0.0"])
def test_a_number_of_ipv4_counts_in_every_form_of_ipv6(number: str, inside: str) -> None:
    def forms(value: str) -> list[str]:
        return [f"::ffff:{value}", f"64:ff9b::{value}", str(IPv6Address(0x2002 << 112 | int(IPv4Address(value)) << 80))]

    def never(value: str) -> list[str]:  # compatible, translated, and translated by a network of its own
        return [f"::{value}", f"::ffff:0:{value}", f"64:ff9b:1::{value}", f"fec0::{value}"]

    def teredo(server: str, client: str) -> str:
        turned = int(IPv4Address(client)) ^ 0xFFFFFFFF
        return str(IPv6Address(0x20010000 << 96 | int(IPv4Address(server)) << 64 | turned))

    assert is_public(number) and not is_public(inside)
    assert all(map(is_public, forms(number)))
    assert not any(map(is_public, [*forms(inside), *never(number), *never(inside)]))
    assert is_public(teredo(number, number))
    assert not is_public(teredo(number, inside)) and not is_public(teredo(inside, number))


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Guard:
    """A guard for which one of this machine's own numbers is a public one."""
    monkeypatch.setattr(guard, "_is_public", lambda number: number == PUBLIC or is_public(number))
    return Guard((tmp_path,))


@contextmanager
def host(number: str, files: dict[str, bytes]) -> Iterator[tuple[str, list[str]]]:
    """A web server: its address without a slash at the end, and what it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            content = files.get(self.path, b"")
            self.send_response(200 if content else 404)
            kind = {"m3u8": "application/vnd.apple.mpegurl", "mpd": "application/dash+xml"}
            self.send_header("Content-Type", kind.get(self.path.rpartition(".")[2], "video/mp2t"))
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer((number, 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://{number}:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()


HEAD = "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:2\n"
LISTS = {
    "segments": ("a.m3u8", HEAD + "#EXTINF:2,\n{private}/s.ts\n#EXT-X-ENDLIST\n"),
    "nested": ("a.m3u8", "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=9\n{public}/b.m3u8\n"),
    "nested at once": ("a.m3u8", "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=9\n{private}/b.m3u8\n"),
    "key": ("a.m3u8", HEAD + '#EXT-X-KEY:METHOD=AES-128,URI="{private}/k"\n#EXTINF:2,\ns.ts\n#EXT-X-ENDLIST\n'),
    "map": ("a.m3u8", HEAD + '#EXT-X-MAP:URI="{private}/i.mp4"\n#EXTINF:2,\ns.ts\n#EXT-X-ENDLIST\n'),
    "media": ("a.m3u8", '#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="a",URI="{private}/b.m3u8"\n'
              '#EXT-X-STREAM-INF:BANDWIDTH=9,AUDIO="a"\nb.m3u8\n'),
    "by another name": ("a.ts", HEAD + "#EXTINF:2,\n{private}/s.ts\n#EXT-X-ENDLIST\n"),
    "concat": ("a.txt", "ffconcat version 1.0\nfile {private}/s.ts\n"),
    "dash": ("a.mpd", '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
             'mediaPresentationDuration="PT2S"><Period><AdaptationSet mimeType="video/mp4"><Representation id="1" '
             'bandwidth="9"><BaseURL>{private}/s.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>'),
    "session": ("a.sdp", "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=a\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
                "a=rtpmap:96 H264/90000\n"),
}  # fmt: skip


@pytest.mark.parametrize("kind", LISTS)
@pytest.mark.parametrize("live", [False, True])
def test_a_list_of_other_addresses_leads_nowhere(watched: Guard, kind: str, live: bool, tmp_path: Path) -> None:
    name, text = LISTS[kind]
    video = write_video(tmp_path / "clip.ts", steady(20), pictures=[numbered(i) for i in range(20)]).read_bytes()
    files = {"/s.ts": video, "/s.mp4": video, "/i.mp4": video, "/k": bytes(16)}
    with host(PRIVATE, {**files, "/b.m3u8": (HEAD + "#EXTINF:2,\ns.ts\n").encode()}) as (private, private_asked):
        inner = (HEAD + f"#EXTINF:2,\n{private}/s.ts\n#EXT-X-ENDLIST\n").encode()
        shown = dict(files)
        with host(PUBLIC, shown) as (public, public_asked):
            shown[f"/{name}"] = text.format(private=private, public=public).encode()
            shown["/b.m3u8"] = inner
            source = watched.source(f"{public}/{name}", live=live)
            with pytest.raises(pv.VideoError), opener(source, Settings(), 2.0)() as reader:
                list(reader)
            assert set(public_asked) == {f"/{name}"}, "it was found, and is all that was read"
        assert private_asked == []


@pytest.mark.parametrize("kind", ["segments", "concat", "session"])
def test_a_list_that_comes_without_http_leads_nowhere_either(watched: Guard, kind: str) -> None:
    name, text = LISTS[kind]
    with host(PRIVATE, {"/s.ts": b"secret"}) as (private, asked):
        said = text.format(private=private, public="").encode()
        with socket.create_server((PUBLIC, 0)) as listening:

            def answer() -> None:
                connection, _ = listening.accept()
                with connection:
                    connection.sendall(said)

            threading.Thread(target=answer, daemon=True).start()
            source = watched.source(f"tcp://{PUBLIC}:{listening.getsockname()[1]}/{name}")
            with pytest.raises(pv.VideoError), opener(source, Settings(), 2.0)() as reader:
                list(reader)
        assert asked == []


class Listener:
    """A server at two numbers of this machine, on one port, that keeps what it is told first and answers nothing."""

    def __init__(self) -> None:
        self.told: dict[str, list[bytes]] = {PUBLIC: [], PRIVATE: []}
        self._sockets = [socket.create_server((PUBLIC, 0))]
        self.port = self._sockets[0].getsockname()[1]
        self._sockets.append(socket.create_server((PRIVATE, self.port)))
        for each in self._sockets:
            threading.Thread(target=self._listen, args=(each,), daemon=True).start()

    def _listen(self, listening: socket.socket) -> None:
        number = listening.getsockname()[0]
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            self.told[number].append(b"")
            connection.settimeout(0.5)
            with connection, suppress(OSError):  # by TCP alone nothing is told
                self.told[number][-1] = connection.recv(4096)

    def close(self) -> None:
        for each in self._sockets:
            each.shutdown(socket.SHUT_RDWR)
            each.close()


@pytest.mark.parametrize("scheme", ["http", "https", "rtsp", "rtsps", "rtmp", "tcp"])
def test_a_name_that_changes_its_number_is_opened_at_the_one_that_was_checked(
    watched: Guard, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`localhost` is public when it is checked; whoever looks it up after that finds this machine."""
    listener = Listener()
    try:
        with monkeypatch.context() as checked:
            checked.setattr(socket, "getaddrinfo", lambda *_, **__: [(0, 0, 0, "", (PUBLIC, 0))])
            checked.setattr(guard, "_followed", lambda text, parts: (text, parts))
            source = watched.source(f"{scheme}://localhost:{listener.port}/a.ts")
        with pytest.raises(pv.VideoError), opener(source, Settings(), 2.0)() as reader:
            list(reader)
        assert listener.told[PUBLIC] and not listener.told[PRIVATE]
        if scheme in ("https", "rtsps"):
            assert all(b"localhost" in hello and hello[0] == 22 for hello in listener.told[PUBLIC]), "TLS for the name"
        if scheme == "http":
            assert f"Host: localhost:{listener.port}".encode() in listener.told[PUBLIC][0]
    finally:
        listener.close()


@pytest.mark.parametrize("line", ["Location: ", "location:", "\rLo\rcation: "])
def test_a_camera_that_sends_one_elsewhere_is_not_followed(watched: Guard, line: str) -> None:
    with servers.serving(servers.send(b"secret", "stall")) as private:
        elsewhere = f"rtsp://127.0.0.1:{private.port}/a"
        said = f"RTSP/1.0 302 Moved\r\nCSeq: 1\r\n{line}{elsewhere}\r\n\r\n".encode()
        with socket.create_server((PUBLIC, 0)) as listening:
            asked: list[bytes] = []

            def answer() -> None:
                connection, _ = listening.accept()
                with connection:
                    asked.append(connection.recv(4096))
                    connection.sendall(said)
                    connection.recv(4096)

            threading.Thread(target=answer, daemon=True).start()
            address = f"rtsp://{PUBLIC}:{listening.getsockname()[1]}/a"
            source = watched.source(address)
            with pytest.raises(pv.VideoError) as caught, opener(source, Settings(), 2.0)() as reader:
                list(reader)
        assert asked and asked[0].startswith(b"OPTIONS rtsp://")
        assert private.connections == 0
    assert PUBLIC in str(caught.value) and "127.0.0.1" not in str(caught.value)


def test_a_relay_carries_both_ways_and_ends_with_its_context() -> None:
    def echo(connection: socket.socket, over: threading.Event) -> None:
        while data := connection.recv(4096):
            connection.sendall(data[::-1])

    with servers.serving(echo, echo) as server, Relay(Route("127.0.0.1", server.port, "", "rtsp")) as relay:
        host, _, port = relay.host.partition(":")
        with socket.create_connection((host, int(port)), 5) as one:
            for said in (b"abc", b"\r\n:noitacol\n"[::-1]):
                one.sendall(said[::-1])
                assert one.recv(4096) == (said if said == b"abc" else b""), "a Location ends it"
        other = socket.create_connection((host, int(port)), 5)
        other.sendall(b"abc")
        assert other.recv(4096) == b"cba"
    with other:
        assert other.recv(4096) == b"", "what is under way ends, too"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), 5)


@pytest.mark.parametrize("text", [".hidden.mp4", ".private/a.mp4", "public/.a.mp4"])
def test_hidden_files_are_not_opened(tmp_path: Path, text: str) -> None:
    for name in (text, "public/a.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"video")
    assert Guard((tmp_path,)).file("public/a.mp4")
    for written in (text, str(tmp_path / text)):
        with pytest.raises(Refused, match="There is no video"):
            Guard((tmp_path,)).source(written)


def test_a_text_without_an_end_is_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(Refused) as caught:
        Guard((tmp_path,)).source("x" * 2001)
    assert len(str(caught.value)) < 200
