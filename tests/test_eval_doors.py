"""The doors of `eval`: what is wrong is said in one sentence before any work, and leaves nothing behind."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import typer
from stub import Stub, written
from typer.testing import CliRunner, Result
from videomme import make_videomme

import pdrop_video as pv
from eval import paraphrase, run, tables
from eval.compare import compare
from eval.runner import worker
from eval.runner.config import configured
from eval.runner.doors import encodable, out_folder
from eval.runner.execute import execute

UNREADABLE = os.fsdecode(b"caf\xe9")  # as a command line of another encoding comes in


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_videomme(tmp_path_factory.mktemp("data") / "videomme", 2)


def command(entry: Any, *arguments: object) -> Result:
    app = entry
    if not isinstance(entry, typer.Typer):
        app = typer.Typer()
        app.command()(entry)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(done: Result, code: int, said: str) -> None:
    assert done.exit_code == code, done.output
    assert done.stderr.count("error:") == 1 and said in done.stderr
    assert done.exception is None or isinstance(done.exception, SystemExit)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", UNREADABLE], "model is 'caf\\udce9', which has half of a character"),
        (["--revision", UNREADABLE], "revision is 'caf\\udce9'"),
        (["--paraphrase", UNREADABLE], "paraphrase is"),
        (["--pyramid", UNREADABLE], "pyramid is"),
        (["--data", UNREADABLE], "data is"),
        (["--out", UNREADABLE], "out is"),
        (["--cache", UNREADABLE], "cache is"),
        (["--config", UNREADABLE], "--config is"),
        (["--shard", UNREADABLE], "--shard is"),
        (["--device", "cpu\0"], "NUL character"),
        (["--out", "FILE"], "file can't be written (File exists); choose another --out"),
        (["--out", "FILE/below"], "file is no folder"),
        (["--out", "x" * 300], "File name too long"),
        (["--ray-timeout", "nan"], "--ray-timeout is nan"),
        (["--ray-timeout", "-1"], "--ray-timeout is -1"),
        (["--ray-cpus", "-1"], "--ray-cpus is -1"),
        (["--ray-gpus", "inf"], "--ray-gpus is inf"),
        (["--cache-gb", "0"], "cache_gb: Input should be greater than 0"),
        (["--limit", "0"], "limit: Input should be greater than or equal to 1"),
        (["--chunk", "0"], "chunk: Input should be greater than or equal to 1"),
    ],
)
def test_eval_run(arguments: list[str], said: str, data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    arguments = [argument.replace("FILE", str(tmp_path / "file")) for argument in arguments]
    places = {"--data": data, "--out": tmp_path / "out"}
    given = [part for name, value in places.items() if name not in arguments for part in (name, value)]
    refused(command(run.main, "videomme", "--fps", 1, *given, *arguments), 1, said)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--margin", "0"], "--margin is 0"),
        (["--margin", "nan"], "--margin is nan"),
        (["--margin", "3"], "--margin is 3"),
        (["--out", "FILE"], "can't be written"),
        (["--out", UNREADABLE], "--out is"),
        ([UNREADABLE], "each of RUN is"),
        (["RUN"], "holds no run.json"),
    ],
)
def test_eval_compare(arguments: list[str], said: str, tmp_path: Path) -> None:
    (tmp_path / "FILE").touch()
    arguments = [str(tmp_path / a) if a in ("FILE", "RUN") else a for a in arguments]
    refused(command(compare, tmp_path / "a", tmp_path / "b", *arguments), 2, said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["runs", "a", "--pruned", "b", "--reworded", "c", "--seed", "-1"], "--seed is -1"),
        (["runs", "a", "--pruned", "b", "--reworded", "c", "--out", "FILE"], "can't be written"),
        (["runs", "a", "--pruned", UNREADABLE, "--reworded", "c"], "each of RUN is"),
        (["synthetic", "--ratios", ".5", "--out", "FILE"], "can't be written"),
        (["synthetic", "--ratios", ".5", "--video-seed", "-1"], "--video-seed is -1"),
        (["synthetic", "--ratios", ".5", "--split", UNREADABLE], "--split is"),
        (["synthetic", "--ratios", UNREADABLE], "--ratios is"),
        (["synthetic", "--ratios", ".5", "--model", UNREADABLE], "--model is"),
    ],
)
def test_eval_paraphrase(arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "FILE").touch()
    monkeypatch.setattr(pv, "load", lambda *a, **k: pytest.fail("the model was loaded"))
    arguments = [str(tmp_path / a) if a == "FILE" else a for a in arguments]
    refused(command(paraphrase.app, *arguments), 2, said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing"], "there is no table 'nothing'"),
        (["chunks", "--margin", "0"], "--margin is 0"),
        (["chunks", "--out", "FILE"], "can't be written"),
        (["chunks", "--runs", "FILE"], "choose another --runs"),
        (["chunks", "--fps", "-1"], "fps: Input should be greater than 0"),
        (["chunks", "--answer", "guess"], "answer: Input should be"),
        (["chunks", "--only", UNREADABLE], "each of --only is"),
        (["chunks", "--model", UNREADABLE], "model is"),
    ],
)
def test_eval_tables(
    arguments: list[str], said: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "FILE").touch()
    monkeypatch.setattr(pv, "load", lambda *a, **k: pytest.fail("the model was loaded"))
    arguments = [str(tmp_path / a) if a == "FILE" else a for a in arguments]
    places = {"--out": tmp_path / "out", "--runs": tmp_path / "runs"}
    given = [part for name, value in places.items() if name not in arguments for part in (name, value)]
    refused(command(tables.main, *arguments, "--data", data, *given), 1, said)


def test_a_folder_is_nobody_s_until_the_first_record(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    settings = {"task": "videomme", "data": data, "out": out, "fps": 1}
    with pytest.raises(pv.PDropError):
        execute(configured(None, {**settings, "model": "/nope"}))  # a slip in the name
    assert not (out / "run.json").exists()
    right = configured(None, {**settings, "pyramid": "none"})
    execute(right, make=lambda index: Stub(right))
    assert json.loads((out / "run.json").read_text())["config_digest"] == right.digest
    assert len(written(out)) == 6
    with pytest.raises(pv.ConfigError, match=r"run with other settings \(model: None -> '/nope'; pyramid"):
        execute(configured(None, {**settings, "model": "/nope"}))


def test_a_run_that_was_killed_owns_its_folder_and_goes_on(data: Path, tmp_path: Path) -> None:
    settings = configured(None, {"task": "videomme", "data": data, "out": tmp_path / "out", "fps": 1})

    class Dies(Stub):
        def __call__(self, job: Any) -> Any:
            yield next(iter(super().__call__(job)))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(settings, make=lambda index: Dies(settings))
    assert len(written(tmp_path / "out")) == 1
    with pytest.raises(pv.ConfigError, match="run with other settings"):
        execute(configured(None, {**settings.model_dump(), "fps": 2.0}))
    execute(settings, make=lambda index: Stub(settings))
    assert len(set(written(tmp_path / "out"))) == len(written(tmp_path / "out")) == 6


def test_wrong_data_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "load_model", lambda config, index: pytest.fail("the model was loaded"))
    data = make_videomme(tmp_path / "data", 1)
    (data / "videomme/test-00000-of-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(pv.ConfigError, match="is no Parquet file"):
        execute(configured(None, {"task": "videomme", "data": data, "out": tmp_path / "out", "fps": 1}))
    assert not (tmp_path / "out").exists()


def test_an_out_folder_is_looked_at_and_not_made(tmp_path: Path) -> None:
    assert out_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert not (tmp_path / "a").exists()
    assert encodable("x", {"é": ["ü", 1, None]}) == {"é": ["ü", 1, None]}
    for wrong in ("\ud800", ["\udfff"], {"a": {"b": "\ud800"}}, {"\ud800": 1}, Path(UNREADABLE), "a\0"):
        with pytest.raises(pv.ConfigError, match=r"half of a character|NUL"):
            encodable("x", wrong)
