"""Settings from the command line and a file: all that a stream offers can be chosen; wrong ones get one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from huggingface_hub import constants
from typer import Typer
from typer.testing import CliRunner, Result
from videomme import make_videomme

import pdrop_video as pv
from eval import run
from eval.runner.clock import Clock
from eval.runner.config import configured
from eval.runner.execute import execute
from eval.runner.header import hub_commit
from eval.runner.metered import Metered
from eval.stats.record import digest, read_run
from eval.tasks import Item, task_named
from pdrop_video.costs.decoder import DecoderShape

QUICK = {"frames": 8, "chunk": 4, "max_new_tokens": 4}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_videomme(tmp_path_factory.mktemp("data") / "videomme", 2, clips=2)


@pytest.fixture(scope="module")
def lm() -> pv.VideoLM:
    return pv.load(device="cpu")


def items(data: Path) -> list[Item]:
    return task_named("videomme", data).items()


def command(*arguments: Any) -> Result:
    app = Typer()
    app.command()(run.main)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_line_and_its_file(data: Path, tmp_path: Path) -> None:
    settings = {"task": "videomme", "data": str(data), "fps": 2, "pyramid": {"ratios": [0.5, 0.2]}, "memory": 128}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    out = tmp_path / "out"
    done = command("--config", tmp_path / "run.yaml", "--out", out, "--frames", 4, "--memory", "none", "--limit", 3)
    assert done.exit_code == 0, done.output
    header = read_run(out).header
    configuration = header["configuration"]
    assert (configuration["frames"], configuration["fps"]) == (4, None)
    assert (configuration["pyramid"], configuration["memory"]) == ({"ratios": [0.5, 0.2]}, {"tokens": None})
    assert header["model"] == "built-in" and header["packages"]["torch"] and header["git_commit"]
    assert "strict, all questions" in done.stdout and "videomme 0/1: 3 of 3 items" in done.stderr
    assert {path.name for path in out.iterdir() if not path.name.startswith((".", "records"))} == {
        "run.json",
        "summary.json",
        "summary.md",
        "videomme.json",
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["videomme"], "data: Field required; out: Field required"),
        (["nothing", "--fps", "1"], "there is no task 'nothing'; choose one of videomme,"),
        (["videomme"], "neither fps nor frames was given"),
        (["videomme", "--fps", "1", "--frames", "8"], "both fps=1 and frames=8 were given"),
        (["videomme", "--fps", "1", "--pyramid", "{ratio: 2}"], "ratio is 2; expected a share in"),
        (["videomme", "--fps", "1", "--pyramid", "{speed: 2}"], "unexpected keyword argument 'speed'"),
        (["videomme", "--fps", "1", "--memory", "-4"], "expected a whole number from 1"),
        (["videomme", "--fps", "1", "--pyramid", "[1"], "pyramid is not YAML"),
        (["videomme", "--fps", "1", "--shard", "3/3"], "expected i/n with i from 0"),
        (["videomme", "--fps", "1", "--last-frames", "4", "--question-aware"], "has nothing to rank"),
        (["videomme", "--fps", "1", "--last-frames", "4", "--pyramid", ".5"], "last_frames=4 drops nothing"),
        (["videomme", "--fps", "1", "--last-frames", "4", "--memory", "64"], "last_frames=4 drops nothing"),
        (["videomme", "--fps", "1", "--decode", "again"], "there is no decode 'again'"),
        (["videomme", "--fps", "1", "--decode", "fixation", "--answer", "likelihood"], "is for generated answers"),
        (["videomme", "--fps", "1", "--retrieve", "4"], "retrieve=4 without an archive to retrieve from"),
        (["videomme", "--fps", "1", "--pyramid", "no.json"], "'no.json' can't be read"),
        (["videomme", "--fps", "1", "--ask-pyramid", "{ratios: [.5], scorer: fusion}"], "has scorer='fusion', which"),
        (["videomme", "--fps", "1", "--ask-pyramid", "{ratios: [.5], allocator: uniform}"], "has allocator='uniform'"),
        (["videomme-subtitles", "--fps", "1", "--data", "EMPTY"], "download"),
        (["videomme", "--fps", "1", "--pyramid", "{scorer: [1]}"], "scorer is [1]; expected a name. See"),
        (["videomme", "--fps", "1", "--memory", "{evictor: 5}"], "evictor is 5; expected a name. See"),
        (["videomme", "--fps", "inf"], "fps: Input should be a finite number"),
        (["videomme", "--fps", "1", "--cache", "FILE"], "can't hold decoded frames"),
        (["videomme", "--fps", "1", "--config", "FILE"], "can't be read (it is no text)"),
    ],
)
def test_wrong_settings_get_one_sentence(data: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    places = [] if "Field required" in message else ["--out", str(tmp_path / "out")]
    if places and "EMPTY" not in arguments:
        places += ["--data", str(data)]
    (tmp_path / "file").write_bytes(b"\xff\xfe\x00")
    named = {"EMPTY": tmp_path, "FILE": tmp_path / "file"}
    done = command(*[named.get(argument, argument) for argument in arguments], *places)
    assert done.exit_code == 1
    assert message in done.stderr and done.stderr.count("error:") == 1 and "Traceback" not in done.stderr


PYRAMID = {"layers": [2, 4], "ratios": [0.5, 0.25], "scorer": "value_norm", "allocator": "uniform"}
MEMORY = {"tokens": 75, "shape": "pyramid", "evictor": "random", "positions": "compact", "archive": 10**7}
ASKING = {"layers": [1, 3], "ratios": [0.5, 0.1]}


@pytest.mark.parametrize("answer", ["generate", "likelihood"])
def test_all_that_a_stream_offers_can_be_chosen(answer: str, data: Path, tmp_path: Path, lm: pv.VideoLM) -> None:
    chosen = {"pyramid": PYRAMID, "memory": MEMORY, "ask_pyramid": ASKING, "retrieve": 2}
    looking = {"decode": "dstp:tau=1.0,steps=1"} if answer == "generate" else {}
    more = {"frames": None, "fps": 4, "chunk": 2, "limit": 3, "answer": answer, **chosen, **looking}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({"task": "videomme", "data": str(data), **QUICK, **more}))
    assert command("--config", tmp_path / "run.yaml", "--out", tmp_path / "out").exit_code == 0
    records = {record.item: record for record in read_run(tmp_path / "out").records}
    task, asked = task_named("videomme", data), {"pyramid": pv.Pyramid(**ASKING), "retrieve": 2}
    for item in items(data)[:3]:
        torch.manual_seed(int(digest(0, item.video), 16) % 2**63)  # the evictor draws
        stream = lm.stream(pv.Pyramid(**PYRAMID), pv.Memory(**MEMORY))
        with pv.open_video(item.path, fps=4, chunk=2) as video:
            for chunk in video:
                stream.push(chunk)
        record, ask = records[item.id], task.ask(item, ())
        assert (record.archive_bytes, tuple(record.kept)) == (stream.status.archive_bytes, kept(stream))
        assert record.archive_bytes > 0
        if answer == "generate":
            assert record.response == stream.ask(ask.text, 4, **asked, **looking).text
        else:
            expected = stream.likelihood(ask.cloze, ask.choices, **asked)
            assert record.turns[0].likelihoods == expected
            for left_out in asked:  # each of them matters here
                assert expected != stream.likelihood(ask.cloze, ask.choices, **{**asked, left_out: None})
    assert "archive on the host" in (tmp_path / "out" / "summary.md").read_text()


def kept(stream: pv.VideoStream) -> tuple[int, ...]:
    return tuple(int(stream.held(stage).visual.sum()) for stage in range(3))


def test_a_question_s_cost_is_that_of_what_it_attends_to(data: Path, lm: pv.VideoLM) -> None:
    for pyramid, retrieve in [(None, None), (ASKING, None), (None, 99), (ASKING, 99), ({"ratios": [1.0, 0.9]}, None)]:
        asking = None if pyramid is None else pv.Pyramid(**pyramid)
        stream = lm.stream(pv.Pyramid(ratios=(0.5, 0.25)), pv.Memory(tokens=75, archive=10**7))
        with pv.open_video(items(data)[0].path, fps=4, chunk=2) as video:
            for chunk in video:
                stream.push(chunk)
        metered = Metered(stream, DecoderShape.of(lm.model.config), Clock())
        answer = stream.ask("What is seen?", 1, pyramid=asking, retrieve=retrieve)
        schedule = (asking or pv.Pyramid(ratios=(0.5, 0.25))).resolve(lm.num_layers)
        attended, own = metered.attended(asking, retrieve), stream.loop.schedule
        for layer, evidence in zip((0, *schedule.layers), answer.evidence, strict=True):
            assert attended[layer][0] == sum(evidence.tokens)
            if retrieve is None:
                assert attended[layer][1] == answer.cache_tokens[layer] - answer.kept[own.stage(layer)]
    costs = [metered.asking_flops(5, 1, retrieve=steps) for steps in (None, 1, 2, 99)]
    assert costs == sorted(set(costs))


def test_names_of_settings(data: Path, tmp_path: Path) -> None:
    """Settings that answers depend on are in a run's name; places are not."""

    def name(**more: Any) -> str:
        return configured(None, {"task": "videomme", "data": data, "out": tmp_path, **QUICK, **more}).digest

    archive = {"tokens": 75, "archive": 10**7}
    names = [
        name(),
        name(pyramid={"scorer": "novelty"}),
        name(pyramid={"allocator": "uniform"}),
        name(ask_pyramid=ASKING),
        name(memory={"evictor": "random"}),
        name(memory={"positions": "compact"}),
        name(memory=archive),
        name(memory=archive, retrieve=2),
        name(decode="fixation"),
        name(decode="fixation:keep=0.1"),
    ]
    assert len(set(names)) == len(names)
    assert name(decode="none") == name(decode=None) == name()
    # a default that hangs on something else is named as if it had been said
    looks = [name(ask_pyramid=ASKING, decode=decode) for decode in (None, "dstp", "none")]
    assert looks[0] == looks[1] != looks[2]
    assert name(ask_pyramid=ASKING, answer="likelihood") == name(ask_pyramid=ASKING, answer="likelihood", decode="none")
    stored = [
        name(memory={"bytes": 10**6, **more}) for more in ({}, {"storage": "int8_per_token"}, {"storage": "full"})
    ]
    assert stored[0] == stored[1] != stored[2]
    assert name(memory={**archive, "archive_folder": str(tmp_path)}) == name(memory=archive)
    pv.Pyramid(**PYRAMID).save(tmp_path / "found.json")
    assert name(pyramid=str(tmp_path / "found.json")) == name(pyramid={**PYRAMID, "positions": "original"})


def test_the_header_has_the_hub_s_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit, repo = "0123456789abcdef" * 2 + "01234567", tmp_path / "models--some--model"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    (repo / "snapshots" / commit).mkdir(parents=True)
    (repo / "snapshots" / commit / "config.json").write_text("{}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub_commit("some/model", None) == hub_commit("some/model", "main") == commit
    assert hub_commit("some/other", "v2") == "v2"  # it can't be found
    assert hub_commit(None, None) is None
    assert hub_commit(str(repo), None) is None  # a folder


def test_settings_that_suit_no_item_are_refused_before_the_first(data: Path, tmp_path: Path) -> None:
    for number, wrong in enumerate(
        [{"pyramid": {"layers": [99]}}, {"pyramid": {"positions": "compact"}}, {"ask_pyramid": {"layers": [99]}}]
    ):
        with pytest.raises(pv.ConfigError, match=r"reach past the model|positions="):
            execute(
                configured(None, {"task": "videomme", "data": data, "out": tmp_path / str(number), **QUICK, **wrong})
            )
        with pytest.raises(pv.ConfigError, match=r"holds no run\.json"):  # nobody's yet
            read_run(tmp_path / str(number))


def test_damaged_files_get_one_sentence(tmp_path: Path) -> None:
    folder = make_videomme(tmp_path / "data", 1)
    table, how = folder / "videomme/test-00000-of-00001.parquet", ["videomme", "--fps", 1, "--data", folder]
    rows = pd.read_parquet(table)

    def said(number: int) -> str:
        done = command(*how, "--out", tmp_path / f"out{number}")
        assert done.exit_code == 1 and done.stderr.count("error:") == 1 and "Traceback" not in done.stderr
        return " ".join(done.stderr.split())

    for number, (column, wrong) in enumerate({"options": None, "answer": "E", "question": None}.items()):
        rows.assign(**{column: [wrong] * len(rows)}).to_parquet(table)
        assert f"is not in the official form: at 0 > {column}" in said(number)
    rows[:0].to_parquet(table)
    assert "has no question of videomme" in said(10)
    table.write_bytes(b"PAR1")
    assert "is no Parquet file" in said(11)
    rows.to_parquet(table)
    (tmp_path / "out12").mkdir()
    (tmp_path / "out12" / "run.json").write_text("{}")
    assert "run.json is damaged" in said(12)
