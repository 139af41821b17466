"""IPIBench's tasks of one answer: when is asked, what counts as an answer, and scores worked out by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from benchmarks import ipibench, record_of
from PIL import Image

from eval.runner.config import configured
from eval.runner.execute import execute
from eval.stats.record import Record, Turn, read_run
from eval.tasks import Item, Task, task_named
from eval.tasks.ipibench import GROUPS
from pdrop_video import ConfigError


def talked(task: Task, one: Item, says: Mapping[int, str]) -> tuple[list[float], Record]:
    """At which seconds of the pictures is asked, where the model says this then, and its record."""
    asked, turns = [], []
    dialogue = task.dialogue(one, ())
    try:
        ask = next(dialogue)
        while True:
            assert ask.at is not None and ask.text == one.question
            asked.append(ask.at)
            turns.append(Turn(ask.at, says.get(int(ask.at), "<silence>")))
            ask = dialogue.send(turns[-1].text)
    except StopIteration as end:
        return asked, record_of(task, one, end.value, turns)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return ipibench(tmp_path)


def test_it_is_asked_around_the_moment_until_it_answers(data: Path) -> None:
    """Four seconds before and behind, within the video; pictures are counted from the first, which is second 3."""
    task = task_named("ipibench-rap", data)
    middle, early = task.items()
    assert talked(task, middle, {})[0] == [1, 2, 3, 4, 5, 6, 7, 8, 9]  # seconds 4 to 12
    assert talked(task, early, {})[0] == [0, 1, 2, 3, 4, 5]  # seconds 3 to 8
    assert (middle.first, middle.end, middle.path) == (1, 9, data / "Image/1fps/IRP/RAP/0")
    late = task_named("ipibench-rtp", data)
    assert talked(late, late.items()[0], {})[0] == [5, 6, 7, 8, 9, 10]  # the video ends
    assert talked(task, middle, {4: "Yes: <Attention>"})[0] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("part", "number", "says", "official", "strict"),
    [
        ("rap", 0, {5: "<attention>"}, 1, 1),
        ("rap", 0, {4: "<attention>"}, 1, 1),  # one second early
        ("rap", 0, {3: "<attention>"}, 0, 0),
        ("rap", 0, {5: "attention"}, 0, 0),
        ("rap", 0, {}, 0, 0),
        ("pt", 0, {5: "<attention> To  the LEFT"}, 1, 1),
        ("pt", 0, {5: "<attention> it is to the left"}, 0, 1),
        ("pt", 0, {2: "<attention> to the left"}, 0, 0),
        ("pt", 1, {5: "<attention> on the table"}, 1, 0),  # an ending more or less
        ("pt", 1, {5: "<attention> on desk"}, 1, 1),
        ("pt", 1, {5: "<attention> under it"}, 0, 0),
        ("pu", 0, {5: "<attention> There are three."}, 1, 1),
        ("pu", 0, {5: "<attention> 13"}, 1, 0),
        ("pu", 0, {5: "<attention>"}, 1, 0),  # nothing is part of everything
        ("pu", 1, {5: "<attention> Red"}, 1, 1),
        ("pu", 1, {5: "<attention> blue"}, 0, 0),
        ("rp", 0, {6: "<attention> Open"}, 1, 1),
        ("rp", 0, {6: "<attention> opened"}, 0, 0),
    ],
)
def test_scores_by_hand(data: Path, part: str, number: int, says: dict[int, str], official: int, strict: int) -> None:
    task = task_named(f"ipibench-{part}", data)
    record = talked(task, task.items()[number], says)[1]
    assert (record.official_score, record.score) == (official, strict)
    assert record.answered == any("<attention>" in text for text in says.values())


def test_through_the_runner_over_pictures(data: Path, tmp_path: Path) -> None:
    """Pictures are named by the second of the video; the model is asked on those up to then."""
    folder = data / "Image" / "1fps" / "IRP" / "RTP" / "0"
    folder.mkdir(parents=True)
    for second in range(3, 14):
        Image.new("RGB", (64, 64), (20 * second, 0, 0)).save(folder / f"{second}.jpg")
    settings = {"task": "ipibench-rtp", "data": data, "out": tmp_path / "run", "fps": 1, "max_new_tokens": 2}
    execute(configured(None, settings))
    (record,) = read_run(tmp_path / "run").records
    assert record.error is None and [turn.at for turn in record.turns] == [5, 6, 7, 8, 9, 10]
    assert (record.frames, record.at) == (11, 10.0)
    (entry,) = json.loads((tmp_path / "run" / "ipibench" / "IRP" / "RTP.json").read_text())
    assert entry["result_time"] == -1


def test_files_for_the_official_scripts(data: Path, tmp_path: Path) -> None:
    task = task_named("ipibench-pt", data)
    says = [{4: "<attention> to the left"}, {}]
    records = [talked(task, one, said)[1] for one, said in zip(task.items(), says, strict=True)]
    (path,) = task.outputs(records, tmp_path / "out")
    assert path == tmp_path / "out" / "ipibench" / "PM" / "PT.json"
    first, second = json.loads(path.read_text())
    assert (first["id"], first["result_time"], first["result_text"]) == (0, 7, "to the left")
    assert (second["id"], second["result_time"], second["result_text"]) == (1, -1, "")
    assert first["ego_spatial"] is True and first["answer"][0]["trigger_time"] == 8


def test_files_that_are_wrong(data: Path) -> None:
    path = data / "Benchmark" / "IRP" / "RAP.json"
    rows = json.loads(path.read_text())
    for change, said in (
        ({"answer": []}, "at least 1"),
        ({"video_st": 20}, "is not between"),
        ({"question": [{"text": " "}]}, "expected some text"),
    ):
        path.write_text(json.dumps([{**rows[0], **change}]))
        with pytest.raises(ConfigError, match=said):
            task_named("ipibench-rap", data).items()
    for part in GROUPS:
        with pytest.raises(ConfigError, match=r"there is no .*/Benchmark/"):
            task_named(f"ipibench-{part}", data / "nowhere").items()
