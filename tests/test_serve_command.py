"""`pdrop-video serve`: what is wrong is said before anything begins; a server that is stopped leaves nothing behind."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from pdrop_video.cli import app

pytestmark = pytest.mark.usefixtures("watchdog")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--recipe", "nothing.yaml"], "nothing.yaml"),
        (["--gate", "nothing"], "nothing"),
        (["--api-key", " "], "--api-key"),
        (["--saves", "/proc/x"], "--saves"),
        (["--host", "999.1.1.1"], "--host"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(options: list[str], says: str) -> None:
    result = CliRunner().invoke(app, ["serve", "--port", "0", *options])
    assert result.exit_code == 1 and "error:" in result.output and says in result.output
    assert "Traceback" not in result.output


def test_a_port_that_is_taken_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = CliRunner().invoke(app, ["serve", "--port", str(taken.getsockname()[1])])
    assert result.exit_code == 1 and "choose another --host or --port" in result.output


@pytest.mark.parametrize("sent", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_it_serves_until_it_is_told_to_stop(sent: int, tmp_path: Path) -> None:
    """With a session open and somebody listening: it ends all the same, and its folder for videos is gone."""
    command = [sys.executable, "-c", "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"]
    command[-1] += "from pdrop_video.cli import app; app()"
    more = ["serve", "--port", "0", "--host-name", "x.example", "--saves", str(tmp_path / "saves")]
    environment = {"TMPDIR": str(tmp_path), "PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin"}
    with subprocess.Popen([*command, *more], stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        found = re.search(r"(http://127\.0\.0\.1:\d+)/v1", process.stdout.readline())
        assert found is not None
        with httpx.Client(base_url=found[1], timeout=60, trust_env=False) as http:
            assert http.get("/health", headers={"host": "x.example"}).json()["status"] == "ok"
            name = http.post("/v1/streaming/sessions").json()["id"]
            assert list(tmp_path.glob("pdrop-video-*"))
            with http.stream("GET", f"/v1/streaming/sessions/{name}/events") as events:
                next(events.iter_lines())
                process.send_signal(sent)
                process.wait()
    assert not list(tmp_path.glob("pdrop-video-*")) and (tmp_path / "saves").is_dir()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--ray"], "--shared"),
        (["--ray", "--shared", "/proc/x"], "/proc/x"),
        (["--ray", "--shared", "shared", "--port", "0"], "--port"),
        (["--replicas", "3"], "--ray"),
        (["--shared", "shared"], "--ray"),
    ],
)
def test_what_is_wrong_with_many_replicas_is_said_before_any_is_started(
    options: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["serve", *options])
    assert result.exit_code == 1 and "error:" in result.output and says in result.output
    assert "Traceback" not in result.output
