"""Whole runs with the built-in model: what is on record is what the library answers, however the run is cut."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from stub import result
from typer import Typer
from typer.testing import CliRunner, Result
from videomme import make_videomme

import pdrop_video as pv
from eval import run
from eval.config import configured
from eval.execute import execute
from eval.record import Record, read_run
from eval.tasks import Item, task_named

VIDEOS = 4
QUICK = {"frames": 8, "chunk": 4, "max_new_tokens": 4}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_videomme(tmp_path_factory.mktemp("data") / "videomme", VIDEOS, clips=VIDEOS)


@pytest.fixture(scope="module")
def lm() -> pv.VideoLM:
    return pv.load(device="cpu")


def executed(data: Path, out: Path, **more: Any) -> dict[str, Record]:
    settings = configured(None, {"task": "videomme", "data": data, "out": out, **QUICK, **more})
    execute(settings)
    return {record.item: record for record in read_run(out).records}


def watched(lm: pv.VideoLM, path: Path, pyramid: pv.Pyramid, memory: pv.Memory, **more: Any) -> pv.VideoStream:
    """What the library does with the four seconds by itself: eight frames in two chunks."""
    stream = lm.stream(pyramid, memory, **more)
    with pv.open_video(path, fps=2, chunk=4) as video:
        for chunk in video:
            stream.push(chunk)
    return stream


def items(data: Path) -> list[Item]:
    return task_named("videomme", data).items()


def test_answers_are_the_library_s_own(data: Path, tmp_path: Path, lm: pv.VideoLM) -> None:
    pyramid, memory = {"ratios": [0.5, 0.25, 0.125], "scorer": "novelty"}, {"tokens": 64, "evictor": "pyramid"}
    records = executed(data, tmp_path, frames=None, fps=2, pyramid=pyramid, memory=memory)
    task = task_named("videomme", data)
    for item in items(data):
        stream = watched(lm, item.path, pv.Pyramid(**pyramid), pv.Memory(**memory))
        answer, record = stream.ask(task.ask(item, ()).text, 4), records[item.id]
        assert (record.response, record.error) == (answer.text, None)
        assert (record.frames, record.visual_tokens) == (answer.frames, answer.visual_tokens) == (8, 64)
        assert (tuple(record.kept), record.cache_bytes) == (answer.kept, answer.cache_bytes)
        assert record.at == answer.seconds[1] and record.shared == 3
        assert record.seconds.keys() == {"decode", "prefill", "first_token", "generate"}
        assert record.flops > 0


def test_likelihoods_are_the_library_s_own(data: Path, tmp_path: Path, lm: pv.VideoLM) -> None:
    records = executed(data, tmp_path, frames=None, fps=2, pyramid="none", memory="none", answer="likelihood")
    for item in items(data):
        stream = watched(lm, item.path, pv.Pyramid(stages=1), pv.Memory(tokens=None))
        choices = [option[3:] for option in item.options]
        expected = stream.likelihood(item.question, choices)
        (turn,), record = records[item.id].turns, records[item.id]
        assert turn.likelihoods == expected
        assert record.response == "ABCD"[max(range(4), key=lambda i: expected[i])]
    assert all(record.correct for record in records.values())  # the built-in model knows these clips
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["answers_read_by"] == "likelihood" and summary["accuracy"]["strict_all"]["mean"] == 1.0
    assert "by the length-normalised likelihood" in (tmp_path / "summary.md").read_text()


def test_a_known_question_ranks_and_the_video_is_watched_for_each(data: Path, tmp_path: Path, lm: pv.VideoLM) -> None:
    more = {"frames": None, "fps": 2, "pyramid": "0.25,0.1", "question_aware": True, "answer": "likelihood"}
    records = executed(data, tmp_path, **more)
    for item in items(data):
        stream = watched(lm, item.path, pv.Pyramid(ratios=(0.25, 0.1)), pv.Memory(), standing_question=item.question)
        assert records[item.id].turns[0].likelihoods == stream.likelihood(
            item.question, [option[3:] for option in item.options]
        )
        assert records[item.id].shared == 1
    assert "one ingestion a question" in (tmp_path / "summary.md").read_text()


def test_the_recency_baseline_sees_the_last_frames_alone(data: Path, tmp_path: Path, lm: pv.VideoLM) -> None:
    records = executed(data, tmp_path, frames=None, fps=2, last_frames=4, answer="likelihood", chunk=3)
    for item in items(data):
        with pv.open_video(item.path, fps=2, chunk=100) as video:
            (whole,) = video
        stream = lm.stream(pv.Pyramid(stages=1), pv.Memory(tokens=None))
        stream.push(whole.frames[-4:], whole.seconds[-4:])
        assert records[item.id].turns[0].likelihoods == stream.likelihood(
            item.question, [option[3:] for option in item.options]
        )
        assert records[item.id].visual_tokens == 32
    assert "Recency baseline: each question saw the last 4 frames only." in (tmp_path / "summary.md").read_text()


def test_a_cut_run_goes_on_to_the_same_result(data: Path, tmp_path: Path) -> None:
    whole = executed(data, tmp_path / "whole")
    executed(data, tmp_path / "cut", limit=2)  # in the middle of a video
    first = (tmp_path / "cut" / "summary.json").read_text()
    assert json.loads(first)["items"]["expected"] == 2
    executed(data, tmp_path / "cut", limit=7)
    cut = executed(data, tmp_path / "cut")

    def bare(records: dict[str, Record]) -> dict[str, Record]:
        return {name: replace(record, seconds={}, spent={}, shared=1) for name, record in records.items()}

    assert bare(cut) == bare(whole) and len(whole) == 3 * VIDEOS
    assert result(tmp_path / "cut") == result(tmp_path / "whole")
    lines = [line for path in (tmp_path / "cut").glob("records*.jsonl") for line in path.read_text().splitlines()]
    assert len(lines) == 3 * VIDEOS


def broken(data: Path, folder: Path) -> Path:
    """The same data with one video that is no video, and one that is not there."""
    folder.mkdir()
    (folder / "videomme").symlink_to(data / "videomme")
    (folder / "data").mkdir()
    for path in (data / "data").iterdir():
        (folder / "data" / path.name).symlink_to(path)
    (folder / "data" / "video0001.mp4").unlink()
    (folder / "data" / "video0001.mp4").write_bytes(b"no video at all")
    (folder / "data" / "video0002.mp4").unlink()
    return folder


def test_an_item_s_error_is_recorded_and_tried_again_when_asked(data: Path, tmp_path: Path) -> None:
    bad = broken(data, tmp_path / "bad")
    records = executed(bad, tmp_path / "out")
    failed = {name: record.error for name, record in records.items() if record.error}
    assert set(failed) == {f"00{video}-{number}" for video in (2, 3) for number in (1, 2, 3)}
    assert "VideoError: " in str(failed["002-1"]) and "cannot be opened as a video" in str(failed["002-1"])
    assert "there is no" in str(failed["003-1"]).lower()
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["items"]["errors"] == 6 and summary["accuracy"]["strict_all"]["items"] == 12
    assert executed(data, tmp_path / "out")["002-1"].error  # finished is finished
    again = executed(data, tmp_path / "out", retry=True)
    assert not any(record.error for record in again.values())
    assert {n: r.response for n, r in again.items()} == {
        n: r.response for n, r in executed(data, tmp_path / "fresh").items()
    }


def test_strict_makes_an_error_fatal(data: Path, tmp_path: Path) -> None:
    with pytest.raises(pv.VideoError, match="cannot be opened as a video"):
        executed(broken(data, tmp_path / "bad"), tmp_path / "out", strict=True)
    done = {record.item for record in read_run(tmp_path / "out").records}
    assert done == {"001-1", "001-2", "001-3"}  # what was finished is kept


def test_another_configuration_needs_another_folder(data: Path, tmp_path: Path) -> None:
    executed(data, tmp_path, limit=1)
    with pytest.raises(pv.ConfigError, match="run with other settings \\(frames: 8 -> 4\\)"):
        executed(data, tmp_path, limit=1, frames=4)


def test_time_is_accounted_for(data: Path, tmp_path: Path) -> None:
    records = executed(data, tmp_path)
    time = json.loads((tmp_path / "summary.json").read_text())["time"]
    total = sum(sum(record.spent.values()) for record in records.values())
    assert time["total"] == pytest.approx(total) and time["total"] == pytest.approx(
        time["decode"] + time["model"] + time["runner"]
    )
    assert time["runner_share"] == pytest.approx(time["runner"] / time["total"])
    assert all(set(record.spent) == {"decode", "model", "runner"} for record in records.values())
    decoded = [
        max(r.seconds["decode"] for r in records.values() if r.video == v) for v in {r.video for r in records.values()}
    ]
    assert time["decode"] == pytest.approx(sum(decoded))  # once a video, not once a question


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
        (["videomme-subtitles", "--fps", "1", "--data", "EMPTY"], "download"),
    ],
)
def test_wrong_settings_get_one_sentence(data: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    places = [] if "Field required" in message else ["--out", str(tmp_path / "out")]
    if places and "EMPTY" not in arguments:
        places += ["--data", str(data)]
    done = command(*[str(tmp_path) if a == "EMPTY" else a for a in arguments], *places)
    assert done.exit_code == 1
    assert message in done.stderr and done.stderr.count("error:") == 1 and "Traceback" not in done.stderr


def test_videos_that_are_all_missing(data: Path, tmp_path: Path) -> None:
    (tmp_path / "videomme").symlink_to(data / "videomme")
    with pytest.raises(pv.ConfigError, match=r"none of the 4 videos is there, for example .*video0000\.mp4"):
        executed(tmp_path, tmp_path / "out")
