"""OVO-S-Bench: its table, several times for a question, options that are pictures, the official reading and levels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import benchmarks
import pandas as pd
import pytest
from scripted import means, one_model, ran, watched

import pdrop_video as pv
from eval.tasks import task_named
from eval.tasks.ovosbench import official_letter

WAYS = [["A", "Left"], ["B", "Right"], ["C", "Behind"]]
PICTURE = "data:image/png;base64,iVBORw0KGgo="


@pytest.fixture(autouse=True, scope="module")
def _one_model() -> Iterator[None]:
    with one_model():
        yield


def row(name: str, task: str, times: list[float], answers: list[str], **more: Any) -> dict[str, Any]:
    return {
        "id": name, "source_dataset": "RoomTour3D", "video_id": "walk", "video_path": "RoomTour3D/walk.mp4",
        "level": int(task[0]), "task_main_category": task[:3], "task_subcategory": task, "task_type_name": "Relations",
        "question": f"Where is the door ({name})?", "options": WAYS, "query_times": times,
        "evidence_times": [[1.0, 2.0]], "answers": answers, **more,
    }  # fmt: skip


ROWS = [
    row("1.1.1_0", "1.1.1", [3.0, 6.5], ["A", "B"]),
    row("2.1.2_4", "2.1.2", [9.0], ["C"], options=[["B", "Right"], ["A", "Left"], ["C", "Behind"], ["D", "2"]]),
    row("4.1_007", "4.1", [2.0, 4.0], ["B"]),  # one answer for both times
    row("4.3_001", "4.3", [5.0], ["A"], options=[["A", PICTURE], ["B", PICTURE]]),
]


def write(data: Path, rows: list[dict[str, Any]]) -> Path:
    data.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_parquet(data / "ovo_s_bench.parquet")
    return data


def test_items_and_prompt(tmp_path: Path) -> None:
    task = task_named("ovosbench", write(tmp_path, ROWS))
    items = task.items()
    assert [(i.id, i.end, i.answer) for i in items] == [
        ("1.1.1_0_q0", 3.0, "A"), ("1.1.1_0_q1", 6.5, "B"), ("2.1.2_4_q0", 9.0, "C"), ("4.1_007_q0", 2.0, "B"),
        ("4.1_007_q1", 4.0, "B"),
    ]  # fmt: skip
    assert (items[0].video, items[0].path) == ("RoomTour3D/walk", tmp_path / "videos" / "RoomTour3D" / "walk.mp4")
    assert items[0].category == {
        "level": "1", "subcategory": "1.1.1", "task_type": "Relations", "source": "RoomTour3D",
    }  # fmt: skip
    assert task.ask(items[2], []).text == (
        "You are evaluating a video understanding task. Based on the video frames provided, answer the following "
        "multiple choice question.\n\nQuestion: Where is the door (2.1.2_4)?\n\nOptions:\nA. Left\nB. Right\nC. "
        'Behind\nD. 2\n\nInstructions:\n- Respond with ONLY the letter of your answer (e.g., "A" or "B").\n'
        "- Do not include any explanation or additional text.\n\nYour answer:"
    )


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("id", "1.1.1_0"), ("video_path", ""), ("options", [["A", "x"]]), ("options", [["A", "x"], ["C", "y"]]),
        ("options", [["A"], ["B"]]), ("query_times", []), ("query_times", [-1.0]), ("answers", ["D"]),
        ("answers", []), ("question", ""),
    ],
)  # fmt: skip
def test_a_wrong_row_is_refused(field: str, wrong: object, tmp_path: Path) -> None:
    write(tmp_path, [ROWS[0], {**ROWS[0], "id": "1.1.1_1", field: wrong}])
    with pytest.raises(pv.ConfigError, match=r"parquet (?:is not in the official form: at 1|has the question)"):
        task_named("ovosbench", tmp_path).items()


@pytest.mark.parametrize(
    ("said", "official", "strict"),
    [
        ("B", "B", "B"),
        ("The answer is\nFinal answer: B", "B", "B"),
        ("<think>A? C.</think>B", "B", "B"),
        ("I choose (B) here", "B", "B"),
        ("It is on a", "A", None),
        ("Option B it is, not (A)", "B", "B"),
        ("Right", None, "B"),
        ("", None, None),
    ],
)
def test_readings(said: str, official: str | None, strict: str | None, tmp_path: Path) -> None:
    task = task_named("ovosbench", write(tmp_path, ROWS))
    mark = task.mark(task.items()[1], said, [])
    assert (mark.official, mark.strict) == (official, strict) and official_letter(said) == official


def test_through_the_runner(tmp_path: Path) -> None:
    data = write(tmp_path / "data", ROWS)
    benchmarks.write_videos(data / "videos", "RoomTour3D/walk.mp4")
    summary, records = ran("ovosbench", data, tmp_path / "out", lambda question, second: "B" if second > 3 else "A")
    assert {name: at for name, (_, at) in watched(records).items()} == {
        "1.1.1_0_q0": 3, "1.1.1_0_q1": 6, "2.1.2_4_q0": 9, "4.1_007_q0": 2, "4.1_007_q1": 4,
    }  # fmt: skip
    assert {record.shared for record in records.values()} == {5}
    # what the official score.py prints for the file: 3 of 5; 2 of 2, 0 of 1, 1 of 2
    assert means(summary["figures"]) == pytest.approx(
        {f"{name}{suffix}": value for suffix in ("", ", strict") for name, value in GOLDEN.items()}
    )
    written = json.loads((tmp_path / "out" / "ovo_s_bench.json").read_text())["results"]
    assert written[0] == {
        "query_id": "1.1.1_0_q0", "task_subcategory": "1.1.1", "response": "A", "ground_truth": "A",
    }  # fmt: skip


GOLDEN = {"overall without 4.3": 0.6, "level 1": 1.0, "level 2": 0.0, "level 4 without 4.3": 0.5}
