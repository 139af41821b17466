"""The command line with sources on the network: time-outs, attempts, queues, protocols, and Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from media import steady, write_video
from servers import send, serving
from typer.testing import CliRunner, Result

import pdrop_video as pv
from pdrop_video import cli

QUESTION = "Which color is the first thing in the video?"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of MPEG-TS, 30 frames a second."""
    return write_video(tmp_path_factory.mktemp("live") / "stream.ts", steady(60), options={"g": "10", "bf": "0"})


def ask(source: object, *options: object) -> Result:
    return CliRunner().invoke(cli.app, ["ask", str(source), QUESTION, "--json", *map(str, options)])


def answered(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_source_that_says_nothing_is_given_up_after_the_timeout() -> None:
    with serving(send(b"", "stall")) as server:
        result = ask(server.address, "--timeout", 0.3)
    assert result.exit_code == 1
    assert "no answer within 0.3 s" in result.stderr
    with serving() as server:
        assert "connect_timeout is 0.0; expected" in ask(server.address, "--timeout", 0).stderr


@pytest.mark.parametrize("retries", [0, 1])
def test_a_lost_source_is_tried_so_often(path: Path, retries: int) -> None:
    with serving(send(path.read_bytes())) as server:
        (warning,) = answered(ask(server.address, "--retries", retries, "--policy", "block"))["warnings"]
    assert f"lost for good: {retries} attempt" in warning


def test_the_policy_decides_whether_frames_are_dropped(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    push = pv.VideoStream.push

    def slowly(self: pv.VideoStream, *frames: Any, **more: Any) -> Any:
        time.sleep(0.05)  # longer than the frames of a push take to come, on any machine
        return push(self, *frames, **more)

    monkeypatch.setattr(pv.VideoStream, "push", slowly)
    data, options = path.read_bytes(), ("--retries", 0, "--fps", 30, "--chunk", 2)
    with serving(send(data), send(data), send(data)) as server:
        whole = answered(ask(server.address, *options, "--policy", "block"))
        newest, usual = (answered(ask(server.address, *options, *more)) for more in (("--policy", "latest"), ()))
    assert whole["answers"][0]["frames"] == 60
    for dropped in (newest, usual):
        assert dropped["answers"][0]["frames"] < 60
        assert any("dropped because they came faster" in warning for warning in dropped["warnings"])
    assert "policy is 'newest'; expected" in ask(path, "--policy", "newest").stderr


def test_a_list_of_files_is_read_by_the_protocols_that_are_named(path: Path) -> None:
    playlist = path.with_suffix(".m3u8")
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{path.name}\n#EXT-X-ENDLIST\n")
    result = ask(playlist)
    assert result.exit_code == 1
    assert "list of other files" in result.stderr
    listed, itself = answered(ask(playlist, "--protocols", "file")), answered(ask(path))
    assert listed["answers"][0]["visual_tokens"] == itself["answers"][0]["visual_tokens"]
    assert listed["answers"][0]["text"] == itself["answers"][0]["text"]


@pytest.mark.usefixtures("watchdog")
def test_ctrl_c_ends_the_watching_and_not_the_command(path: Path) -> None:
    with serving(send(path.read_bytes(), "stall")) as server:
        command = [sys.executable, "-c", "from pdrop_video.cli import run; run()", "ask", server.address, QUESTION]
        process = subprocess.Popen(
            [*command, "--fps", "10", "--chunk", "2", "--timeout", "100"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(pv.__file__).parent.parent)},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job may ignore it
        )
        assert process.stderr is not None
        for line in process.stderr:
            if line.rstrip().endswith("frames"):
                break
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate()
    assert process.returncode == 0, errors
    assert f"Q: {QUESTION}\nA: " in out
    assert "stopped watching" in errors


@pytest.mark.parametrize("code", [0, 3])
def test_a_source_that_does_not_answer_keeps_no_command_from_ending(code: int) -> None:
    """A thread within a read is left there, by an end that nothing is taken down for; what was printed is out."""
    script = (
        "import atexit, sys, threading, time\n"
        "from pdrop_video.cli import running\n"
        "from pdrop_video.video.ahead import Ahead\n"
        "def items():\n"
        "    yield 1\n"
        "    begun.set()\n"
        "    time.sleep(1000)\n"
        "def app():\n"
        "    ahead = Ahead(items(), 2)\n"
        "    next(ahead)\n"
        "    begun.wait()\n"
        "    ahead.close()\n"
        "    print('answered')\n"
        f"    sys.exit({code})\n"
        "begun, running.app = threading.Event(), app\n"
        "atexit.register(print, 'taken down')\n"
        "running.run()\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (run.returncode, run.stdout) == (code, "answered\n"), run.stderr
