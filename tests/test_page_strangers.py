"""What a stranger gets from the running page, by plain HTTP: files, other visitors' videos, routes, room on disk."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import pytest
from gradio_client import Client, handle_file
from media import steady, write_video

from demos.gallery import CLIPS
from demos.screenshots import serving

SETTINGS = ["built-in", 0, 8, "0.5, 0.25, 0.125", 6144, "pyramid", "", ""]  # the first that programs may give
NAMES = ("a.mp4", "b.mp4", ".hidden.mp4", "notes.txt", ".env")


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path, Path]]:
    """The app with narrow limits: its address, the folder of its videos, and the one in which it stores uploads."""
    videos, temporary = tmp_path_factory.mktemp("videos"), tmp_path_factory.mktemp("temporary")
    video = write_video(videos / "a.mp4", steady(20, rate=2), rate=2).read_bytes()
    for name in NAMES[1:]:
        (videos / name).write_bytes(b"secret text" if "mp4" not in name else video)
    (videos.parent / "outside.mp4").write_bytes(video)
    (videos / "link.mp4").symlink_to(videos.parent / "outside.mp4")
    options = ("--max-megabytes", "1", "--most", "12", "--most-each", "4", "--most-megabytes", "12")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(temporary))
        with serving("--videos", str(videos), *options) as address:
            yield address.rstrip("/"), videos, next(temporary.glob("pdrop-video-*"))


def get(address: str, path: str, method: str = "GET", **headers: str) -> httpx.Response:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.request(method, f"{address}{path}", headers=sent, trust_env=False, timeout=60)


def raw(address: str, target: str, method: str = "GET") -> bytes:
    """The answer to a request whose target is sent as it is."""
    place = urlsplit(address)
    with socket.create_connection((str(place.hostname), place.port or 80), 60) as sending:
        sending.sendall(f"{method} {target} HTTP/1.1\r\nHost: {place.netloc}\r\nConnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: sending.recv(2**16), b""))


class Tab:
    """A browser's page, as far as HTTP goes."""

    def __init__(self, address: str, client: str = "203.0.113.1") -> None:
        self.address, self.headers = address, {"X-Forwarded-For": client, "Origin": address}
        self.hash, self.name = f"tab{time.monotonic_ns()}", ""
        config = get(address, "/config").json()
        self.functions = {
            (target[1], config_label(config, target[0])): each["id"]
            for each in config["dependencies"]
            if each["backend_fn"]  # and not in the browser alone
            for target in each["targets"]
        }

    def act(self, *function: str, data: list[Any]) -> list[Any]:
        """Use one of the page's parts, as a browser does: what it gives back."""
        body = {"data": data, "fn_index": self.functions[function], "session_hash": self.hash}
        asked = {"headers": self.headers, "trust_env": False, "timeout": 60}
        answer = httpx.post(f"{self.address}/gradio_api/queue/join", json=body, **asked)  # type: ignore[arg-type]
        assert answer.status_code == 200, answer.text
        told = httpx.get(f"{self.address}/gradio_api/queue/data?session_hash={self.hash}", **asked)  # type: ignore[arg-type]
        lines = [json.loads(line.removeprefix("data: ")) for line in told.text.splitlines() if line]
        (done,) = (line for line in lines if line["msg"] == "process_completed")
        assert done["success"], done
        return list(done["output"]["data"])

    def watch(self, text: str) -> str:
        """Open a file by its name: the path at which the browser finds its video."""
        self.name, *_, preview = self.act(
            "submit",
            "A file in the server's folder, or a video on the web",
            data=[self.name, text, *SETTINGS, "none", "none"],
        )
        url = preview["url"] if "url" in preview else preview["value"]["url"]
        return str(url.removeprefix(self.address))

    def clear(self) -> None:
        self.act("click", "Start over", data=[self.name])
        self.name = ""


def config_label(config: dict[str, Any], number: int) -> str:
    """What a part of the page is called."""
    (props,) = (part["props"] for part in config["components"] if part["id"] == number) if number else ({},)
    label = props.get("label")
    return str(label if label and label != "Button" else props.get("value"))


@pytest.fixture
def tab(app: tuple[str, Path, Path]) -> Iterator[Tab]:
    visitor = Tab(app[0])
    yield visitor
    if visitor.name:
        visitor.clear()


def test_a_video_of_the_folder_plays_for_the_session_that_opened_it_and_no_other(
    app: tuple[str, Path, Path], tab: Tab
) -> None:
    address, videos, stored = app
    content = (videos / "a.mp4").read_bytes()
    path = tab.watch("a.mp4")
    whole = get(address, path)
    assert (whole.status_code, whole.content) == (200, content)
    assert whole.headers["content-type"] == "video/mp4" and "attachment" not in str(whole.headers)
    head = get(address, path, "HEAD")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(content)))
    for asked, first, last in (("0-1", 0, 2), ("100-", 100, None), ("-50", -50, None), ("5-99", 5, 100)):
        part = get(address, path, Range=f"bytes={asked}")
        assert (part.status_code, part.content) == (206, content[first:last])
    assert get(address, path, Range=f"bytes={len(content)}-").status_code == 416
    assert get(address, path, Range="bytes=0-1,3-4").content == content
    assert str(videos) not in path and not any(each.is_file() for each in stored.rglob("*.mp4")), "nothing is copied"
    for other in (str(videos / "a.mp4"), str(videos / "b.mp4"), path.replace("a.mp4", "b.mp4"), f"{path}/../b.mp4"):
        assert get(address, other if "file=" in other else f"/gradio_api/file={other}").status_code == 403
    other_tab = Tab(address, "203.0.113.2")
    second = other_tab.watch("a.mp4")
    assert second != path
    tab.clear()
    assert get(address, path).status_code == 403, "it goes with its session"
    assert get(address, second).content == content
    third = other_tab.watch("b.mp4")
    assert get(address, second).status_code == 403, "and with the next video"
    assert get(address, third).status_code == 200
    other_tab.clear()
    assert get(address, third).status_code == 403


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_no_file_is_served_by_its_path(app: tuple[str, Path, Path], tab: Tab, method: str) -> None:
    address, videos, stored = app
    tab.watch("a.mp4")
    paths = [
        *(str(videos / name) for name in (*NAMES, "link.mp4", "../outside.mp4", "")),
        str(CLIPS / "clip.mp4"), str(CLIPS / "clip.json"), __file__, "/etc/passwd", "a.mp4", "./a.mp4", str(stored),
        "http://127.0.0.1/", "file:///etc/passwd", "~/.bashrc", "", "\0",
    ]  # fmt: skip
    for path in paths:
        once, twice = quote(path, safe=""), quote(quote(path, safe=""), safe="")
        for written in (quote(path), once, twice, f"/{quote(path)}", quote(path).replace("/", "//")):
            for route in ("/gradio_api/file=", "/gradio_api/file/", "/file=", "/file/", "/gradio_api/proxy="):
                answer = raw(address, f"{route}{written}", method)
                assert answer.split()[1] in (b"403", b"404", b"400"), (route, written, answer)
                assert b"secret" not in answer and b"ftyp" not in answer
    for target in ("/assets/../../../../etc/passwd", "/static/..%2f..%2f..%2fetc/passwd", "/svelte/%2e%2e/%2e%2e/x"):
        assert raw(address, target, method).split()[1] in (b"403", b"404", b"405")


def test_what_is_no_video_or_hidden_is_not_opened_and_so_not_shown(app: tuple[str, Path, Path], tab: Tab) -> None:
    program = Client(app[0], verbose=False)
    for text in (".hidden.mp4", "notes.txt", ".env", "link.mp4", "../outside.mp4"):
        with pytest.raises(Exception, match=r"There is no video|cannot be opened|holds text") as caught:
            program.predict(text, api_name="/open")
        assert "secret" not in str(caught.value)


ROUTES = [
    ("GET", "/gradio_api/deep_link?session_hash=x"), ("GET", "/gradio_api/proxy=https://a.hf.space/"),
    ("POST", "/gradio_api/component_server"), ("POST", "/gradio_api/process_recording"),
    ("POST", "/gradio_api/vibe-edit"), ("GET", "/gradio_api/vibe-code"), ("GET", "/monitoring"),
    ("GET", "/monitoring/summary"), ("GET", "/gradio_api/runs"), ("POST", "/gradio_api/run-history/connect"),
    ("GET", "/gradio_api/dev/reload"), ("GET", "/gradio_api/token"), ("POST", "/login"), ("GET", "/logout"),
    ("GET", "/gradio_api/stream/x/1/1/playlist.m3u8"), ("GET", "/gradio_api/custom_component/x/client/component/x"),
    ("GET", "/gradio_api/profiling/traces"), ("GET", "/docs"), ("PUT", "/gradio_api/upload"), ("DELETE", "/"),
    ("POST", "/gradio_api//upload"), ("POST", "//gradio_api/upload"), ("GET", "/gradio_api/mcp/sse"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_what_the_page_does_not_need_is_not_there(app: tuple[str, Path, Path], method: str, path: str) -> None:
    address, _, stored = app
    tab = Tab(address)
    tab.act("click", "Remove all", data=[""])  # so that gradio knows the visitor
    before = sorted(stored.rglob("*"))
    answer = get(address, path.replace("=x", f"={tab.hash}"), method)
    assert (answer.status_code, answer.text) == (404, "There is nothing here.")
    assert sorted(stored.rglob("*")) == before


def test_what_the_page_says_of_itself_names_no_file_of_the_server(app: tuple[str, Path, Path]) -> None:
    address, videos, stored = app
    for path in ("/", "/config", "/gradio_api/info", "/gradio_api/openapi.json", "/gradio_api/queue/status"):
        answer = get(address, path)
        assert answer.status_code == 200
        for secret in (str(videos), str(stored), str(CLIPS.parent), str(Path.home())):
            assert secret not in answer.text.replace("/root/", "") if secret == "/root" else secret not in answer.text


FOREIGN = [
    {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"}, {"Origin": "x"},
    {"Origin": "http://127.0.0.1.evil.example"}, {"Referer": "https://evil.example/a"},
    {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": "cross-site", "Origin": "OWN"},
    {"Sec-Fetch-Site": "cross-site", "X-Forwarded-Host": "evil.example", "Origin": "https://evil.example"},
    {"Host": "evil.example:PORT", "Origin": "http://evil.example:PORT"}, {"Host": "evil.example:PORT"},
    {"Host": "evil.example:PORT", "X-Forwarded-Host": "evil.example:PORT", "Origin": "http://evil.example:PORT"},
    {"X-Forwarded-Host": "video.example", "Origin": "https://evil.example"},
]  # fmt: skip
OWN = [
    {}, {"Origin": "OWN"}, {"Referer": "OWN/"}, {"Origin": "OWN", "Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "none"}, {"Host": "localhost:PORT", "Origin": "http://localhost:PORT"},
    {"X-Forwarded-Host": "video.example", "X-Forwarded-Proto": "https", "Origin": "https://video.example"},
    {"X-Forwarded-Host": "video.example, inner", "Origin": "https://video.example"},
    {"Host": "video.example", "Origin": "https://video.example"},
    {"Host": "video.example:8443", "Origin": "https://video.example:8443", "Sec-Fetch-Site": "same-origin"},
]  # fmt: skip


@pytest.mark.parametrize("headers", FOREIGN + OWN)
def test_other_pages_are_refused_and_its_own_and_programs_are_not(
    app: tuple[str, Path, Path], headers: dict[str, str]
) -> None:
    address, _, stored = app
    port = str(urlsplit(address).port)
    sent = {name: value.replace("OWN", address).replace("PORT", port) for name, value in headers.items()}
    foreign = headers in FOREIGN
    files = {"files": ("a.mp4", b"video", "video/mp4")}
    before = sorted(stored.rglob("*"))
    uploaded = httpx.post(f"{address}/gradio_api/upload", files=files, headers=sent, trust_env=False)
    assert uploaded.status_code == (403 if foreign else 200)
    if foreign:
        assert sorted(stored.rglob("*")) == before
    opened = {"data": ["", *SETTINGS, False]}
    called = httpx.post(f"{address}/gradio_api/call/status", json={"data": ["x"]}, headers=sent, trust_env=False)
    assert called.status_code == (403 if foreign else 200), opened
    told = httpx.get(f"{address}/gradio_api/queue/status", headers=sent, trust_env=False)
    assert told.status_code == (403 if foreign else 200)
    asked = {**sent, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-forwarded-host"}
    preflight = httpx.options(f"{address}/gradio_api/upload", headers=asked, trust_env=False)
    assert "access-control-allow-origin" not in preflight.headers


def test_a_link_on_another_page_leads_to_the_page(app: tuple[str, Path, Path]) -> None:
    followed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Referer": "https://other.example/"}
    for path, status in (("/", 200), ("/config", 403), ("/gradio_api/startup-events", 403)):
        assert httpx.get(f"{app[0]}{path}", headers=followed, trust_env=False).status_code == status
    assert httpx.post(f"{app[0]}/", headers=followed, trust_env=False).status_code == 403


def upload(address: str, content: bytes, client: str, name: str = "a.mp4") -> httpx.Response:
    files, headers = {"files": (name, content, "video/mp4")}, {"X-Forwarded-For": client}
    return httpx.post(f"{address}/gradio_api/upload", files=files, headers=headers, trust_env=False, timeout=60)


def opened(address: str, path: str) -> str:
    """Let a session watch what was uploaded: its name. Gradio's own client would send the file once more.

    Gate and reducer, which a program of the version before does not know, are left out.
    """
    data = [{"path": path, "meta": {"_type": "gradio.FileData"}}, *SETTINGS, False]
    called = httpx.post(f"{address}/gradio_api/call/open", json={"data": data}, trust_env=False)
    told = get(address, f"/gradio_api/call/open/{called.json()['event_id']}")
    *_, event, said = told.text.strip().splitlines()
    assert event == "event: complete", told.text
    return str(json.loads(said.removeprefix("data: "))[0])


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_uploads_of_an_address_have_a_limit_and_go_with_their_sessions(
    app: tuple[str, Path, Path], tmp_path: Path
) -> None:
    address, _, stored = app
    video = write_video(tmp_path / "short.mp4", steady(20, rate=2), rate=2).read_bytes()
    before = files(stored)
    sent = [upload(address, video + bytes([number]), "203.0.113.9") for number in range(5)]
    assert [answer.status_code for answer in sent] == [200] * 4 + [429]
    assert sent[-1].text.startswith("Your address may have 4 uploads here at a time")
    assert upload(address, video, "203.0.113.10").status_code == 200
    paths = [answer.json()[0] for answer in sent[:4]]
    assert len(set(files(stored)) - set(before)) == 5
    program = Client(address, verbose=False, headers={"X-Forwarded-For": "203.0.113.9"})
    for path in paths:
        name = opened(address, path)
        assert get(address, f"/gradio_api/file={path}").content == Path(path).read_bytes()
        program.predict(name, api_name="/close")
        assert get(address, f"/gradio_api/file={path}").status_code == 403
    assert len(set(files(stored)) - set(before)) == 1
    other = program.predict(handle_file(tmp_path / "short.mp4"), api_name="/open")
    program.predict(other, api_name="/close")


def test_large_uploads_of_an_address_have_a_limit_together(app: tuple[str, Path, Path]) -> None:
    address, _, stored = app
    before = files(stored)
    sent = [upload(address, bytes([number]) * 1_000_000, "203.0.113.20").status_code for number in range(4)]
    assert sent == [200, 200, 200, 429], "3 MiB of them are its quarter"
    assert len(set(files(stored)) - set(before)) == 3
    assert upload(address, b"x", "203.0.113.20").status_code == 200, "what was refused counts no longer"


def test_what_was_uploaded_and_not_opened_is_not_shown(app: tuple[str, Path, Path]) -> None:
    address, _, stored = app
    for name in ("page.html", "picture.svg", "text.txt", "a.mp4"):
        answer = upload(address, b"<script>secret</script>", "203.0.113.30", name)
        (path,) = answer.json()
        assert Path(path).is_relative_to(stored)
        assert get(address, f"/gradio_api/file={quote(path)}").status_code == 403
