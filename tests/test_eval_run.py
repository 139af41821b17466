"""Whole runs with the built-in model: what is on record is what the library answers, however the run is cut."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from media import packets, spoil
from stub import result
from typer.testing import CliRunner
from videomme import make_videomme

import pdrop_video as pv
from eval import run
from eval.drivers.jobs import serial
from eval.runner.config import configured
from eval.runner.execute import execute
from eval.stats.record import Record, read_run
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
        assert record.flops > 0 and record.tower_flops and not record.front_flops


def test_likelihoods_are_the_library_s_own(data: Path, tmp_path: Path, lm: pv.VideoLM) -> None:
    records = executed(data, tmp_path, frames=None, fps=2, pyramid="none", memory="none", answer="likelihood")
    for item in items(data):
        stream = watched(lm, item.path, pv.Pyramid(stages=1), pv.Memory(tokens=None))
        choices = [option[3:] for option in item.options]
        expected = stream.likelihood(item.question, choices)
        (turn,), record = records[item.id].turns, records[item.id]
        assert turn.likelihoods == expected
        assert record.response == "ABCD"[max(range(4), key=lambda i: expected[i])]
    right = sum(record.correct for record in records.values())
    assert right > len(records) / 2  # guessing is right in a quarter
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["answers_read_by"] == "likelihood"
    assert summary["accuracy"]["strict_all"]["mean"] == pytest.approx(right / len(records))
    assert "by the length-normalised likelihood" in (tmp_path / "summary.md").read_text()


def test_every_second_between_records_is_somebody_s(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("eval.runner.clock.perf_counter", lambda: now)

    def slow(jobs: Any, make: Any) -> Any:
        nonlocal now
        for record in serial(jobs, make):
            yield record
            now += 1  # writing it down took so long

    settings = configured(None, {"task": "videomme", "data": data, "out": tmp_path, **QUICK, "limit": 6})
    execute(settings, driver=slow)
    assert [r.spent["runner"] for r in read_run(tmp_path).records] == [0, 1, 1, 1, 1, 1]  # on two videos


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


def test_a_damaged_video_is_marked_in_its_records_and_in_the_summary(data: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "videomme").symlink_to(data / "videomme")
    shutil.copytree(data / "data", bad / "data")
    path = bad / "data" / "video0001.mp4"
    spoil(data / "data" / "video0001.mp4", path, range(len(packets(path)) // 2, len(packets(path)) - 2))
    records = executed(bad, tmp_path / "out", frames=None, fps=4)
    marked = {name: record.warnings for name, record in records.items() if record.warnings}
    assert set(marked) == {"002-1", "002-2", "002-3"}
    assert all("could not be decoded: " in said[0] for said in marked.values())
    assert all(record.error is None for record in records.values())
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["items"]["damaged"], summary["items"]["errors"]) == (3, 0)
    assert "3 items were asked about a video that could not be read whole" in (tmp_path / "out/summary.md").read_text()


def test_errors_on_record_have_an_exit_code_of_their_own(data: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(run.main)
    more = ["--out", str(tmp_path / "out"), "--frames", "4", "--max-new-tokens", "2"]
    done = CliRunner().invoke(app, ["videomme", "--data", str(broken(data, tmp_path / "bad")), *more])
    assert done.exit_code == 3, done.output
    assert "6 of 12 items ended in an error and count as wrong" in done.stderr
    assert (tmp_path / "out" / "summary.json").exists()
    done = CliRunner().invoke(app, ["videomme", "--data", str(data), *more, "--retry"])
    assert done.exit_code == 0 and "ended in an error" not in done.stderr


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


def test_videos_that_are_all_missing(data: Path, tmp_path: Path) -> None:
    (tmp_path / "videomme").symlink_to(data / "videomme")
    with pytest.raises(pv.ConfigError, match=r"none of the 4 videos is there, for example .*video0000\.mp4"):
        executed(tmp_path, tmp_path / "out")
