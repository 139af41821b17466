"""Models of the hub: what comes is said before it comes, what is there is not spoken of, and no hub is one sentence.

The real client of the hub asks a pretended one on this machine.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from families import build
from huggingface_hub import ModelCardData, ModelInfo
from media import steady, write_video
from pretended_hub import NAME, Hub, hub
from rich.console import Console
from typer.testing import CliRunner, Result

from pdrop_video import cli
from pdrop_video.cli import console
from pdrop_video.cli.fetching import announced, said, size
from pdrop_video.models import hub as asked
from pdrop_video.models.hub import Missing

pytestmark = pytest.mark.usefixtures("watchdog")
NOBODY = "http://127.0.0.1:9"
WEIGHTS = ".safetensors"
COMMAND = [sys.executable, "-c", "from pdrop_video.cli import run; run()"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model as repositories hold them: beside what is loaded lie other formats of the same weights."""
    folder = tmp_path_factory.mktemp("checkpoint")
    lm = build("qwen2_5_vl")
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text('{"size": {"shortest_edge": 3136, "longest_edge": 12544}}')
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    (folder / "pytorch_model.bin").write_bytes(b"x" * 3_000_000)
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.safetensors").write_bytes(b"x" * 3_000_000)
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", steady(20, rate=10), rate=10)


@pytest.fixture
def served(checkpoint: Path) -> Iterator[Hub]:
    with hub(checkpoint, license="apache-2.0") as made:
        yield made


def needed(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.suffix in (".json", ".jinja", ".safetensors")]


def begin(clip: Path, hub: Hub, cache: Path, *more: str) -> subprocess.Popen[str]:
    command = [*COMMAND, "ask", str(clip), "what is shown ?", "--model", NAME, "--max-new-tokens", "2", *more]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, env={**os.environ, **hub.environment(cache)}, **pipes)


def test_size_and_licence_are_said_before_any_file_comes_and_never_again(
    served: Hub, checkpoint: Path, clip: Path, tmp_path: Path
) -> None:
    process = begin(clip, served, tmp_path, "--json")
    assert process.stderr is not None
    first = process.stderr.readline()
    assert served.fetched == []
    files = needed(checkpoint)
    total = size(sum(path.stat().st_size for path in files))
    assert first == f"{NAME} will be fetched: {total} in {len(files)} files, licence apache-2.0; once, then cached.\n"
    served.may_send.set()
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    assert err == f"{NAME} was fetched.\n"
    assert json.loads(out)["answers"][0]["text"]
    assert sorted(served.fetched) == sorted(path.name for path in files)  # each of them once, and no other format

    for address in (served.address, NOBODY):
        served.address = address
        again = begin(clip, served, tmp_path, "--json")
        told, err = again.communicate(timeout=100)
        assert again.returncode == 0 and err == "" and texts(told) == texts(out)
    assert len(served.fetched) == len(files)


def texts(out: str) -> list[str]:
    return [answer["text"] for answer in json.loads(out)["answers"]]


@pytest.fixture
def here(served: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The same hub for this process, which has imported the client long ago."""
    served.may_send.set()
    lead(monkeypatch, served.address)
    monkeypatch.setattr(asked.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(asked.constants, "HF_HUB_DISABLE_XET", True)
    return served


def lead(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(asked.constants, "ENDPOINT", address)
    monkeypatch.setattr(asked.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})


def test_a_bar_on_a_terminal(here: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """It shows the bytes that the hub's client counts, of all files together."""
    shown = StringIO()
    monkeypatch.setattr(console, "ERRORS", Console(file=shown, force_terminal=True, width=150))
    assert announced(NAME).fetch() == NAME
    total = sum(path.stat().st_size for path in needed(here.folder))
    bars = re.findall(r"fetching somebody/tiny.*?([\d.]+)/([\d.]+) MB", shown.getvalue())
    assert bars and bars[-1] == (f"{total / 1e6:.1f}",) * 2


def test_without_a_network_one_sentence_and_the_built_in_model_where_that_was_asked_for(
    here: Hub, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lead(monkeypatch, NOBODY)
    asking = ["ask", clip, "what is shown ?", "--model", NAME, "--max-new-tokens", 2]
    refused = run(*asking)
    assert refused.exit_code == 1 and refused.stdout == "" and refused.stderr.count("\n") == 1
    assert refused.stderr.startswith(f"error: '{NAME}' can't be fetched: the hub does not answer (")
    assert refused.stderr.endswith("leave --model out: the built-in model needs no network.\n")
    instead = run(*asking, "--or-built-in")
    warned, watching, *_ = instead.stderr.splitlines()
    assert warned.startswith(f"warning: '{NAME}' can't be fetched, as the hub does not answer; the built-in model goes")
    assert watching == "watching clip.mp4 with the built-in model"
    assert instead.exit_code == 0 and instead.stdout.startswith("Q: what is shown ?\nA: ")


@pytest.mark.parametrize("naming", [(NAME,), ("--model", NAME)])
def test_info_says_what_would_come_and_leaves_the_weights_where_they_are(here: Hub, naming: tuple[str, ...]) -> None:
    result = run("info", *naming)
    total = size(sum(path.stat().st_size for path in needed(here.folder)))
    assert result.exit_code == 0, result.output
    assert f"to fetch before it is used │ {total} in " in re.sub(" +", " ", result.stdout)
    plain = re.sub(r"[\s│]+", " ", result.stdout)  # where a cell breaks depends on how wide the others are
    assert "licence apache-2.0" in plain and "qwen2_5_vl" in plain
    assert here.fetched and not [name for name in here.fetched if name.endswith(WEIGHTS)]


@pytest.mark.parametrize(
    "name, gated, wanted",
    [("somebody/else", False, "the hub has no model 'somebody/else'"), (NAME, True, "accepted its licence")],
)
def test_a_model_that_nobody_gives(here: Hub, clip: Path, name: str, gated: bool, wanted: str) -> None:
    """It is no matter of the network: another model is not taken in its place."""
    here.gated = gated
    result = run("ask", clip, "what ?", "--model", name, "--or-built-in")
    assert result.exit_code == 1 and result.stderr.startswith("error: ") and wanted in result.stderr
    assert result.stdout == "" and here.fetched == []


def test_content_that_another_revision_brought_does_not_count(
    served: Hub, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A card that changes gives a model a new revision, with the old weights."""
    info = ModelInfo(**{"id": NAME, "sha": "f" * 40, "siblings": [served.listed(name) for name in served.files()]})
    monkeypatch.setattr(asked.HfApi, "model_info", lambda *_, **__: info)
    monkeypatch.setattr(asked.constants, "HF_HUB_CACHE", str(tmp_path))
    blobs = tmp_path / f"models--{NAME.replace('/', '--')}" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / served.etag("model.safetensors")).write_bytes(b"")
    found = asked.missing(NAME)
    assert found is not None and list(found.files) == [
        p.name for p in sorted(needed(checkpoint)) if p.suffix != WEIGHTS
    ]
    for name in found.files:
        (blobs / served.etag(name)).write_bytes(b"")
    assert asked.missing(NAME) is None


def test_files_that_loading_reads() -> None:
    shards = [f"model-0000{i}-of-00002.safetensors" for i in (2, 1)]
    repository = [
        *shards,
        "model.safetensors.index.json",
        "a.jinja",
        "x/y.json",
        "consolidated.safetensors",
        "README.md",
    ]
    assert asked._needed(repository) == ["model.safetensors.index.json", "a.jinja", *reversed(shards)]
    assert asked._needed([*repository, "model.safetensors"])[-1] == "model.safetensors"


@pytest.mark.parametrize(
    "card, licence",
    [
        ({"license": "mit"}, "licence mit;"),
        ({"license": "other", "license_name": "its-own"}, "licence its-own;"),
        ({"license": "other", "license_link": "https://example.org/terms"}, "licence https://example.org/terms;"),
        ({"license": ["mit", "apache-2.0"]}, "licence mit, apache-2.0;"),
        ({}, "licence not named on its card;"),
    ],
)
def test_licences_as_cards_name_them(card: dict[str, Any], licence: str) -> None:
    found = Missing("a/b", None, asked._licence(ModelCardData(**card)), {"model.safetensors": 2_030_000_000})
    assert said(found) == f"2.03 GB in 1 file, {licence} once, then cached"


def test_sizes_as_the_hub_writes_them() -> None:
    assert [size(n) for n in (0, 999, 1000, 2_029_990_624, 10**13)] == [
        "0 bytes",
        "999 bytes",
        "1 kB",
        "2.03 GB",
        "10 TB",
    ]
