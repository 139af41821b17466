"""Rows that no run should begin with: each is refused before any work, with its file and its place."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import benchmarks
import pandas as pd
import pytest
from videomme import make_videomme

import pdrop_video as pv
from eval.tasks import task_named

Make = Callable[[Path], Path]
NOTHING = (None, "", "  ", float("nan"), "\ud800", True, [], {})
NO_OPTIONS = (None, [], ["one"], ["a", ""], ["a", None], ["a", float("nan")], "ab", ["x"] * 27)
NO_TEXT = (None, float("nan"), "\ud800", True, [], {})
NO_LIST = (None, [], ["one"], ["a", None], ["a", float("nan")], "ab", ["x"] * 27)
NO_SECONDS = (None, "3", -1, float("nan"), float("inf"), True, [1])
NO_CLOCK = (None, 3, "", "-1", "00:-1", "nan", "1:2:3:4", "inf", "1e3", "00:00:xx")
NO_LETTER = (None, "E", "", "AB", 1, float("nan"))
NO_COUNT = (None, -1, 1.5, "1", True, float("nan"))
FILES: dict[str, tuple[Make, str, list[Any], dict[str, tuple[Any, ...]]]] = {
    # the task: who makes its files, the file, the way to its first row, and what must not stand in a field of it
    "mlvu": (
        benchmarks.mlvu, "json/4_count.json", [0],
        {"video": NOTHING, "question": NO_TEXT, "candidates": NO_LIST, "answer": NO_TEXT},
    ),
    "mlvu-test": (
        benchmarks.mlvu_test, "test_question.json", [0],
        {"question": NO_TEXT, "candidates": NO_LIST, "question_id": ("AR_1", "")},
    ),
    "longvideobench": (
        benchmarks.longvideobench, "lvb_val.json", [0],
        {"question": NOTHING, "candidates": NO_OPTIONS, "correct_choice": (*NO_COUNT, 5), "duration": (*NO_SECONDS, 0),
         "starting_timestamp_for_subtitles": NO_SECONDS, "id": ("va_1", "")},
    ),
    "egoschema": (
        benchmarks.egoschema, "questions.json", [0],
        {"question": NOTHING, "option 3": NOTHING, "q_uid": ("00aa7247-9a4b-4667-8588-37df29d40fe8", "x", "")},
    ),
    "worldsense": (
        benchmarks.worldsense, "worldsense_qa.json", ["dvOkwKAs", "task0"],
        {"question": NOTHING, "candidates": NO_OPTIONS, "answer": NO_LETTER},
    ),
    "streamingbench-real": (
        benchmarks.streamingbench, "questions_real.json", [0, "questions", 0],
        {"question": NOTHING, "options": NO_OPTIONS, "answer": NO_LETTER, "time_stamp": NO_CLOCK},
    ),
    "streamingbench-sqa": (
        benchmarks.streamingbench, "questions_sqa.json", [0, 0, "questions", 0],
        {"question": NOTHING, "options": NO_OPTIONS, "answer": NO_LETTER, "time_stamp": NO_CLOCK},
    ),
    "streamingbench-proactive": (
        benchmarks.streamingbench, "questions_proactive.json", [0, "questions", 0],
        {"question": NOTHING, "ground_truth_output": NOTHING, "ground_truth_time_stamp": (*NO_CLOCK, "00:00:01")},
    ),
    "ovobench": (
        benchmarks.ovobench, "ovo_bench_new.json", [0],
        {"question": NOTHING, "options": NO_OPTIONS, "gt": (*NO_COUNT, 4), "realtime": NO_SECONDS, "id": ("0", -1)},
    ),
    "rvs-ego": (
        benchmarks.rvs, "ego/ego4d_oe.json", [0, "conversations", 0],
        {"question": NOTHING, "answer": NOTHING, "end_time": NO_SECONDS, "start_time": (5.0, -1.0, "0")},
    ),
}  # fmt: skip
CASES = [(task, field) for task, (*_, fields) in FILES.items() for field in fields]


def row_of(content: Any, way: list[Any]) -> Any:
    for step in way:
        content = content[step]
    return content


@pytest.mark.parametrize(("name", "field"), CASES, ids=[f"{task} {field}" for task, field in CASES])
def test_a_wrong_row_is_refused_with_its_file(name: str, field: str, tmp_path: Path) -> None:
    make, file, way, fields = FILES[name]
    path = make(tmp_path) / file
    good = json.loads(path.read_text(encoding="utf-8"))
    task = task_named(name, tmp_path)
    assert task.items()
    for wrong in (*fields[field], "left out"):
        content = copy.deepcopy(good)
        row = row_of(content, way)
        if wrong != "left out":
            row[field] = wrong
        elif field in ("question_id", "start_time", "starting_timestamp_for_subtitles"):  # these may be
            continue
        else:
            del row[field]
        path.write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(pv.ConfigError) as refused:
            task.items()
        said = str(refused.value)
        assert str(path) in said and said.isprintable(), (wrong, said)
        assert any(character.isdigit() for character in said.replace(str(path), "")), said  # which row


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[{"q_uid": "a", "q_uid": "b"}]', "'q_uid' stands twice in an object"),
        ("[" * 100_000, "is not JSON"),
        ("{", "is not JSON"),
    ],
)
def test_a_file_that_is_no_honest_json(text: str, said: str, tmp_path: Path) -> None:
    (benchmarks.egoschema(tmp_path) / "questions.json").write_text(text)
    with pytest.raises(pv.ConfigError, match=said):
        task_named("egoschema", tmp_path).items()


def test_bytes_that_are_no_text_and_a_folder_in_place_of_a_file(tmp_path: Path) -> None:
    path = benchmarks.egoschema(tmp_path) / "questions.json"
    path.write_bytes(b"\xff\xfe[]")
    with pytest.raises(pv.ConfigError, match="is not JSON"):
        task_named("egoschema", tmp_path).items()
    path.unlink()
    path.mkdir()
    with pytest.raises(pv.ConfigError, match="can't be read"):
        task_named("egoschema", tmp_path).items()


@pytest.mark.parametrize("answer", [5, -1, "1", True, None, 1.5])
def test_egoschema_answers_are_numbers_of_options(answer: Any, tmp_path: Path) -> None:
    path = benchmarks.egoschema(tmp_path) / "subset_answers.json"
    uid = next(iter(json.loads(path.read_text())))
    path.write_text(json.dumps({uid: answer}))
    with pytest.raises(pv.ConfigError, match=rf"subset_answers\.json is not in the official form: at {uid}"):
        task_named("egoschema", tmp_path).items()


def test_a_video_that_stands_twice(tmp_path: Path) -> None:
    path = benchmarks.rvs(tmp_path) / "ego" / "ego4d_oe.json"
    path.write_text(json.dumps(json.loads(path.read_text()) * 2))
    with pytest.raises(
        pv.ConfigError, match=r"ego4d_oe\.json has the same entry twice, as its videos 0 and 1 \(from 0\)"
    ):
        task_named("rvs-ego", tmp_path).items()


@pytest.mark.parametrize(
    ("name", "make", "file", "kind"),
    [
        ("mlvu", benchmarks.mlvu, "json/3_ego.json", "rows 0 and 2"),
        ("streamingbench-real", benchmarks.streamingbench, "questions_real.json", "entries 0 and 2"),
        ("streamingbench-sqa", benchmarks.streamingbench, "questions_sqa.json", "entries 0 and 4"),
        ("streamingbench-proactive", benchmarks.streamingbench, "questions_proactive.json", "entries 0 and 2"),
        ("ovobench", benchmarks.ovobench, "ovo_bench_new.json", "entries 0 and 12"),
    ],
)
def test_an_entry_that_stands_twice(name: str, make: Make, file: str, kind: str, tmp_path: Path) -> None:
    path = make(tmp_path) / file
    path.write_text(json.dumps(json.loads(path.read_text()) * 2))
    with pytest.raises(pv.ConfigError, match=rf"{path} has the same entry twice, as its {kind}"):
        task_named(name, tmp_path).items()


def test_a_file_that_is_not_there_is_called_missing_and_nothing_else(tmp_path: Path) -> None:
    with pytest.raises(pv.ConfigError) as missing:
        task_named("egoschema", tmp_path).items()
    assert str(missing.value).startswith(f"there is no {tmp_path}/questions.json; get ")
    assert "JSON" not in str(missing.value).replace("questions.json", "").replace("subset_answers.json", "")


def test_video_mme_rows(tmp_path: Path) -> None:
    data = make_videomme(tmp_path, 2)
    path = data / "videomme/test-00000-of-00001.parquet"
    good = pd.read_parquet(path)
    task = task_named("videomme", data)
    assert len(task.items()) == 6
    for column, wrong, said in [
        ("question_id", "001-1", "has the question '001-1' twice, as its questions 0 and 1"),
        ("question", None, "at 1 > question"),
        ("question", "", "at 1 > question"),
        ("videoID", None, "at 1 > videoID"),
        ("duration", None, "at 1 > duration"),
        ("answer", "E", "at 1 > answer"),
        ("answer", None, "at 1 > answer"),
        ("options", ["A. x"], "at 1 > options"),
        ("options", ["A. x", None, "C. y", "D. z"], "at 1 > options > 1"),
        ("options", ["A. x", "", "C. y", "D. z"], "at 1 > options > 1"),
    ]:
        table = good.copy()
        table[column] = [wrong if number == 1 else value for number, value in enumerate(table[column])]
        table.to_parquet(path)
        with pytest.raises(pv.ConfigError) as refused:
            task.items()
        assert said in str(refused.value)
