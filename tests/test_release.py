"""What is released: the wheel that `make release-check` has built and installed into an environment with nothing else.

Every command is the installed one, run in a folder without the checkout, and answers about the example clip.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zipfile import ZipFile

import httpx
import pytest
from videomme import make_videomme

import pdrop_video as pv

pytestmark = pytest.mark.release
ROOT = Path(__file__).parent.parent
BIN = ROOT / ".venv-release" / "bin"
CLIPS = ROOT / "demos" / "clips"
CLIP = CLIPS / "clip.mp4"
QUESTION, ANSWER = "What colour is shown first in the video?", "green"
ALONE = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | {"COLUMNS": "200"}


@pytest.fixture(scope="module")
def wheel() -> Path:
    (built,) = (ROOT / "dist").glob("*.whl")
    return built


def run(folder: Path, *command: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """An installed command, in `folder`."""
    line = [BIN / command[0], *command[1:]]
    done = subprocess.run(line, cwd=folder, env=ALONE, capture_output=True, text=True, timeout=600)
    assert done.returncode == code, done.stdout + done.stderr
    return done


@contextmanager
def begun(folder: Path, *arguments: str) -> Iterator[str]:
    """A command that serves: the address that it says."""
    command = [str(BIN / "pdrop-video"), *arguments]
    with subprocess.Popen(command, cwd=folder, env=ALONE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            said, address = "", None
            while address is None and (line := process.stdout.readline()):  # what the start does comes first
                said += line
                address = re.search(r"http://127\.0\.0\.1:\d+", line)
            assert address is not None, said
            yield address[0]
        finally:
            process.terminate()


def test_the_wheel_holds_the_checkout_once_and_nothing_else(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    inside = {name: content for name, content in held.items() if ".dist-info/" not in name}
    for name, content in inside.items():
        parts = Path(name).parts
        assert parts[0] == "pdrop_video"
        source = Path(*parts[1:]) if parts[1] in ("demos", "eval") else Path(name)
        assert content == (ROOT / source).read_bytes(), name
    assert not {part for name in inside for part in Path(name).parts} & {
        "tests",
        "results",
        "synthetic",
        "bench",
        "gpu",
    }
    binary = {name for name, content in inside.items() if b"\0" in content}
    clips = {f"pdrop_video/demos/clips/{path.name}" for path in CLIPS.iterdir()}
    assert "pdrop_video/builtin/model.safetensors" in binary
    assert binary <= clips | {"pdrop_video/builtin/model.safetensors"}
    assert clips <= inside.keys() and "pdrop_video/py.typed" in inside
    assert wheel.stat().st_size < 24e6


def test_wheel_and_sdist_are_this_version(wheel: Path) -> None:
    (sdist,) = (ROOT / "dist").glob("*.tar.gz")
    assert wheel.name == f"pdrop_video-{pv.__version__}-py3-none-any.whl"
    assert sdist.name == f"pdrop_video-{pv.__version__}.tar.gz"
    with tarfile.open(sdist) as archive:
        tops = {Path(name).parts[1] for name in archive.getnames() if len(Path(name).parts) > 2}
    assert tops == {"pdrop_video", "demos", "eval", "examples"}


def test_only_the_packages_own_name_is_taken(tmp_path: Path) -> None:
    code = (
        "import importlib.util as u, pdrop_video as p; "
        "print(p.__version__, p.__file__, u.find_spec('eval'), u.find_spec('demos'))"
    )
    version, file, *others = run(tmp_path, "python", "-c", code).stdout.split()
    assert version == pv.__version__ and Path(file).is_relative_to(BIN.parent) and others == ["None", "None"]
    assert run(tmp_path, "pdrop-video", "--version").stdout == f"{version}\n"


def test_ask(tmp_path: Path) -> None:
    done = run(tmp_path, "pdrop-video", "ask", CLIP, QUESTION, "--json")
    assert [answer["text"] for answer in json.loads(done.stdout)["answers"]] == [ANSWER]


def test_the_page_opens_and_answers(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with begun(tmp_path, "demo", "--port", str(port)) as address:
        page = httpx.get(address, trust_env=False)
        assert page.status_code == 200 and "gradio" in page.text
        code = f"from pdrop_video.demos.client import ask; print(ask({str(CLIP)!r}, [{QUESTION!r}], {address!r}))"
        assert run(tmp_path, "python", "-c", code).stdout == f"{[ANSWER]}\n"


def test_runs_in_two_processes_and_their_comparison(tmp_path: Path) -> None:
    """Processes find the runner under the name that it has in the wheel."""
    data = make_videomme(tmp_path / "data", videos=2, clips=2)
    for name, pyramid in (("full", "none"), ("pruned", "0.5,0.25,0.125")):
        how = ["--frames", "4", "--workers", "2", "--pyramid", pyramid, "--out", name]
        run(tmp_path, "pdrop-video", "eval", "run", "videomme", "--data", data, *how)
    summary = json.loads((tmp_path / "full" / "summary.json").read_text())
    assert summary["header"]["git_commit"] is None and summary["header"]["version"] == pv.__version__
    run(tmp_path, "pdrop-video", "eval", "compare", "full", "pruned", "--out", "tables")
    full, pruned = json.loads((tmp_path / "tables" / "compare.json").read_text())["runs"]
    assert full["items"] == pruned["items"] > 1 and pruned["tflops"] < full["tflops"]
    assert "pdrop-video eval run [OPTIONS]" in run(tmp_path, "pdrop-video", "eval", "run", "--help").stdout


def test_the_server_answers(tmp_path: Path) -> None:
    with begun(tmp_path, "serve", "--port", "0", "--videos", str(CLIPS)) as address:
        content = [{"type": "video_url", "video_url": {"url": CLIP.name}}, {"type": "text", "text": QUESTION}]
        asked = {"model": "built-in", "messages": [{"role": "user", "content": content}]}
        answer = httpx.post(f"{address}/v1/chat/completions", json=asked, timeout=120, trust_env=False)
    assert answer.json()["choices"][0]["message"]["content"] == ANSWER


def test_types_reach_who_uses_the_package(tmp_path: Path) -> None:
    """mypy passes a script as it is, and names the mistakes of one: the types are those of the wheel, not Any."""
    right, wrong = tmp_path / "right.py", tmp_path / "wrong.py"
    right.write_text((ROOT / "examples" / "stream.py").read_text(encoding="utf-8"), encoding="utf-8")
    mistakes = "pv.Memory(tokens='many')", "pv.load().stream().ask(1)", "pv.load().stream().ask('Who?').upper()"
    wrong.write_text("\n".join(["import pdrop_video as pv", *mistakes]) + "\n")
    plain = tmp_path / "mypy.ini"  # torch's own types take minutes to read, and are not in question
    plain.write_text("[mypy]\nstrict = True\n[mypy-torch.*,transformers.*]\nfollow_imports = skip\n")
    command = [sys.executable, "-m", "mypy", f"--config-file={plain}", f"--python-executable={BIN / 'python'}"]
    done = subprocess.run([*command, "right.py", "wrong.py"], cwd=tmp_path, env=ALONE, capture_output=True, text=True)
    found = re.findall(r"^(\w+)\.py:(\d+): error: .*\[([\w-]+)\]", done.stdout, re.MULTILINE)
    wanted = [("wrong", "2", "arg-type"), ("wrong", "3", "call-overload"), ("wrong", "4", "attr-defined")]
    assert found == wanted, done.stdout
