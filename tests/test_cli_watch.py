"""`pdrop-video watch`: what is printed, written and posted; servers that refuse, stall and lose; Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from media import steady, write_video
from servers import send, serving
from typer.testing import CliRunner, Result

import pdrop_video as pv
from pdrop_video import cli
from pdrop_video.cli.webhook import Webhook

CLIP = Path(__file__).parent.parent / "demos" / "clips" / "clip.mp4"
FISH, CROSS = "Does a fish appear?", "Is a red cross shown?"
ONE: dict[str, Any] = {"n": 1}


def watch(source: object, *options: object) -> Result:
    return CliRunner().invoke(cli.app, ["watch", str(source), *map(str, options)])


@contextmanager
def listening(*answers: int | Callable[[BaseHTTPRequestHandler], None]) -> Iterator[tuple[str, list[Any]]]:
    """A server that gives these answers one after another, then 200; its address, and what came: number and JSON."""
    came: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.headers["Content-Type"] == "application/json"
            answer = answers[len(came)] if len(came) < len(answers) else 200
            came.append(body)
            if callable(answer):
                answer(self)
            else:
                self.send_response(answer)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

        def do_GET(self) -> None:
            came.append("GET")

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/hook?token=secret", came
    finally:
        server.shutdown()
        server.server_close()


def cut_off(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


def test_events_are_printed_appended_and_posted(tmp_path: Path) -> None:
    """As the library has them, behind what the file had; by a server that fails twice and then accepts."""
    stream = pv.load().stream()
    watches = [stream.watch_for(question, 1.0, sure=0.8, clear=0.3) for question in (FISH, CROSS)]
    want = []
    with pv.open_video(CLIP, fps=2, chunk=2) as reader:
        for chunk in reader:
            stream.push(chunk)
            want += [event for each in watches for event in each.poll()]
    stream.close()
    want += [event for each in watches for event in each.poll()]
    assert len(want) == 4 and [event.cut for event in want] == [False, False, True, True]
    said = [
        {
            **{"source": str(CLIP), "question": event.question, "from": event.begin, "to": event.end},
            **{"peak": round(event.peak, 6), "cut": event.cut},
        }
        for event in want
    ]
    path = tmp_path / "seen.jsonl"
    path.write_text('{"before": 1}\n{"torn')
    with listening(500, cut_off) as (address, came):
        result = watch(
            *(CLIP, "--when", FISH, "--when", CROSS, "--every", 1, "--sure", 0.8, "--clear", 0.3),
            *("--fps", 2, "--chunk", 2, "--jsonl", path, "--webhook", address),
        )
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [{"before": 1}, *said]
    assert came == [said[0], said[0], *said]  # twice in vain
    assert "warning" not in result.stderr and "secret" not in result.output
    assert result.stdout.splitlines()[:2] == [f"0:04  began: {CROSS}", f"0:09  began: {FISH}"]
    assert re.fullmatch(
        rf"0:11  watched to the end of: {re.escape(FISH)} \(since 0:09, \d+% .*\)", result.stdout.splitlines()[2]
    )


def test_a_server_that_stalls_keeps_nobody_waiting() -> None:
    """Puts return at once; the oldest give way; each loss is said once, and all is counted."""
    free, lost = threading.Event(), list[str]()

    def stall(handler: BaseHTTPRequestHandler) -> None:
        free.wait(60)
        handler.send_response(204)
        handler.end_headers()

    with listening(stall) as (address, came):
        hook = Webhook(address, lost.append, queue=3)
        hook.put({"n": 0})
        while not came:
            time.sleep(0.01)
        for n in range(1, 6):
            hook.put({"n": n})
        assert len(lost) == 2 and '{"n": 1} (3 newer' in lost[0] and '{"n": 2} (3 newer' in lost[1]
        assert "127.0.0.1" in lost[0] and "secret" not in lost[0]
        free.set()
        hook.close(60)
    assert came == [{"n": 0}, {"n": 3}, {"n": 4}, {"n": 5}]
    assert (hook.delivered, hook.lost, len(lost)) == (4, 2, 2)


def test_what_could_not_be_delivered_is_said() -> None:
    lost: list[str] = []
    with listening(500, 503, 429) as (address, came), Webhook(address, lost.append, attempts=3, wait=0.01) as hook:
        hook.put(ONE)
        hook.put({"n": 2})
    assert came == [ONE, ONE, ONE, {"n": 2}]
    assert (hook.delivered, hook.lost) == (1, 1)
    assert lost == ['not delivered to 127.0.0.1: {"n": 1} (it answered 429, 3 times)']
    for refusal in (400, 404, 302, 307):  # another attempt would change nothing, and a redirect would lose the event
        lost.clear()
        with listening(refusal) as (address, came), Webhook(address, lost.append, wait=0.01) as hook:
            hook.put(ONE)
        assert came == [ONE] and lost == [f'not delivered to 127.0.0.1: {{"n": 1}} (it answered {refusal})']
    lost.clear()
    with listening(lambda handler: time.sleep(1)) as (address, came):
        with Webhook(address, lost.append, timeout=0.1, attempts=1) as hook:
            hook.put(ONE)
        assert len(lost) == 1 and "timed out" in lost[0]
    lost.clear()
    hook = Webhook("http://127.0.0.1:9/", lost.append, wait=30)  # nobody listens, and the next attempt is far
    hook.put(ONE)
    hook.put({"n": 2})
    hook.close(0.2)
    assert len(lost) == hook.lost == 2 and all("no time for it within 0.2 s" in each for each in lost)


def test_the_wait_doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    wait_for = threading.Condition.wait_for

    def waiting(self: Any, predicate: Any, timeout: float | None = None) -> bool:
        if timeout is None:
            return wait_for(self, predicate)
        waits.append(timeout)
        return False

    monkeypatch.setattr(threading.Condition, "wait_for", waiting)
    lost: list[str] = []
    with listening(*[500] * 9) as (address, _), Webhook(address, lost.append, attempts=9) as hook:
        hook.put(ONE)
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30]


def test_what_is_wrong_is_said_before_a_model_is_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pv, "load", lambda *_, **__: 1 / 0)
    for options, match in (
        (("--when", " "), "is empty"),
        (("--when", FISH, "--every", 0), "every is 0"),
        (("--when", FISH, "--sure", 0.4), "clear below sure"),
        (("--when", FISH, "--webhook", "ftp://a/b"), "such as https://"),
        (("--when", FISH, "--webhook", "http:///b"), "such as https://"),
        (("--when", FISH, "--webhook", "http://a:b@c/d"), "password"),
        (("--when", FISH, "--webhook", "http://a/b", "--webhook-attempts", 0), "attempts is 0"),
        (("--when", FISH, "--jsonl", tmp_path), "no regular file"),
        (("--when", FISH, "--policy", "newest"), "policy"),
        (("--when", FISH, "--start", 3, "--end", 2), "end"),
    ):
        result = watch(CLIP, *options)
        assert result.exit_code == 1 and match in result.stderr, (options, result.output)
    assert "Missing option '--when'" in watch(CLIP).stderr
    gone = watch(tmp_path / "none.mp4", "--when", FISH)
    assert gone.exit_code == 1 and "none.mp4" in gone.stderr


@pytest.mark.usefixtures("watchdog")
@pytest.mark.parametrize("stop", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_ctrl_c_writes_what_lasts(stop: signal.Signals, tmp_path: Path) -> None:
    """Of a camera that shows nothing more: the event that began is cut, in the file and for the webhook."""
    seen, data = tmp_path / "seen.jsonl", write_video(tmp_path / "a.ts", steady(60), options={"g": "10", "bf": "0"})
    with serving(send(data.read_bytes(), "stall")) as server, listening() as (address, came):
        command = [sys.executable, "-c", "from pdrop_video.cli import run; run()", "watch", server.address]
        options = [
            "--when",
            "How many things?",
            "--sure",
            "1e-30",
            "--clear",
            "0",
            "--every",
            "0.1",
            "--timeout",
            "100",
        ]
        process = subprocess.Popen(
            [*command, *options, "--fps", "10", "--chunk", "2", "--jsonl", str(seen), "--webhook", address],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(pv.__file__).parent.parent), "PYTHONUNBUFFERED": "1"},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job may ignore it
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "0:00  began: How many things?\n"
        (began,) = map(json.loads, seen.read_text().splitlines())  # on the disk by now
        process.send_signal(stop)
        out, errors = process.communicate()
    assert process.returncode == 0, errors
    _, ended = map(json.loads, seen.read_text().splitlines())
    assert (began["from"], began["to"], began["cut"]) == (ended["from"], None, False)
    assert ended["to"] >= ended["from"] and ended["cut"] and "watched to the end of" in out
    assert came == [began, ended] and "Traceback" not in errors
