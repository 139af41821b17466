"""ODV-Bench: its file, questions that see their video up to their own end, the authors' reading, and means."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import benchmarks
import pytest
from scripted import means, one_model, ran, watched

import pdrop_video as pv
from eval.runner.sampling import RULES
from eval.tasks import task_named
from eval.tasks.odvbench import official_letter

WAYS = ["Turning left", "Turning right", "Going straight", "Stopping"]
STATIC, EVENT = "Targeting single static objects", "Targeting multi-object interaction scenarios or events"


@pytest.fixture(autouse=True, scope="module")
def _one_model() -> Iterator[None]:
    with one_model():
        yield


def row(video: str, end: float, task: str, subtask: str, question: str, answer: int, count: int = 4) -> dict[str, Any]:
    return {
        "video": video, "start": 0, "end": end, "question": question, "candidates": WAYS[:count],
        "answer": WAYS[answer], "task": task, "subtask": subtask, "fps": 10,
    }  # fmt: skip


def odvbench(data: Path) -> Path:
    sign, crash = "TS_Retrieval/test_video/x.mp4", "TR_Analysis/CAP-DATA/10/009806.mp4"
    rows = [
        row(sign, 3.2, STATIC, "Sign", "What does the sign allow?", 0),
        row(sign, 9.0, STATIC, "Sign", "And this one?", 1),
        row(crash, 2.0, EVENT, "Risk", "What will the car do?", 2, count=3),
        row(crash, 50.0, EVENT, "Accident", "What did it do?", 1, count=2),
    ]
    benchmarks.write_json(data / "ODVbench.json", rows)
    return data


def test_items_and_prompt(tmp_path: Path) -> None:
    task = task_named("odvbench", odvbench(tmp_path))
    items = task.items()
    assert [(i.id, i.video, i.end, i.answer) for i in items] == [
        ("0", "TS_Retrieval/test_video/x", 3.2, "A"), ("1", "TS_Retrieval/test_video/x", 9.0, "B"),
        ("2", "TR_Analysis/CAP-DATA/10/009806", 2.0, "C"), ("3", "TR_Analysis/CAP-DATA/10/009806", 50.0, "B"),
    ]  # fmt: skip
    assert items[0].path == tmp_path / "TS_Retrieval" / "test_video" / "x.mp4"
    assert items[2].category == {"task": EVENT, "subtask": "Risk"}
    assert task.ask(items[2], []).text == (
        "What will the car do?\nA. Turning left\nB. Turning right\nC. Going straight\n"
        "Answer with the option's letter from the given choices directly."
    )


@pytest.mark.parametrize(
    ("field", "wrong"),
    [("video", ""), ("end", -1), ("end", "3"), ("candidates", ["one"]), ("answer", "Flying"), ("task", None),
     ("question", "  "), ("start", 4.0)],
)  # fmt: skip
def test_a_wrong_row_is_refused(field: str, wrong: object, tmp_path: Path) -> None:
    good = row("v.mp4", 3.2, STATIC, "Sign", "What?", 0)
    benchmarks.write_json(tmp_path / "ODVbench.json", [good, {**good, field: wrong}])
    with pytest.raises(pv.ConfigError, match=r"ODVbench\.json is not in the official form: at 1"):
        task_named("odvbench", tmp_path).items()


@pytest.mark.parametrize(
    ("said", "official", "strict"),
    [
        ("B", "B", "B"),
        ("B. Turning right", "B", "B"),
        ("b) right", "B", "B"),
        ("The answer is (B).", "B", "B"),
        ("It makes a turn: B", "A", None),  # the article
        ("Turning right", None, "B"),
        ("F", None, None),
        ("", None, None),
    ],
)
def test_readings(said: str, official: str | None, strict: str | None, tmp_path: Path) -> None:
    task = task_named("odvbench", odvbench(tmp_path))
    mark = task.mark(task.items()[1], said, [])
    assert (mark.official, mark.strict) == (official, strict) and official_letter(said) == official
    assert mark.official_score == (float(official == "B") if said else None)  # nothing is left out of the means
    assert mark.score == float(strict == "B")


def test_frames_of_parts_of_a_second() -> None:
    assert RULES["a_second"](40, 64, 4.0) == [3, 11, 19, 27, 35]  # five parts of four seconds, and the fifth
    assert RULES["a_second"](40, 2, 4.0) == [9, 29]
    assert RULES["a_second"](10, 64, 0.5) == [0, 3, 5, 8]  # four at least


def test_through_the_runner(tmp_path: Path) -> None:
    data = odvbench(tmp_path / "data")
    benchmarks.write_videos(data, "TS_Retrieval/test_video/x.mp4", "TR_Analysis/CAP-DATA/10/009806.mp4")
    said = {"allow": "A", "this one": "", "will the car": "The answer is C", "did it": "A"}

    def words(question: str, second: float) -> str:
        return next(text for part, text in said.items() if part in question)

    summary, records = ran("odvbench", data, tmp_path / "out", words)
    assert watched(records) == {"0": (4, 3), "1": (10, 9), "2": (3, 2), "3": (12, 11)}
    assert {record.shared for record in records.values()} == {2}
    # what the authors' scorer prints of these: the empty answer is left out
    assert means(summary["figures"]) == pytest.approx(
        {
            "Overall": 2 / 3, STATIC: 1.0, "Sign": 1.0, EVENT: 0.5, "Risk": 1.0, "Accident": 0.0,
            "Overall, strict": 2 / 4, f"{STATIC}, strict": 0.5, "Sign, strict": 0.5, f"{EVENT}, strict": 0.5,
            "Risk, strict": 1.0, "Accident, strict": 0.0,
        }
    )  # fmt: skip
    _, records = ran("odvbench", data, tmp_path / "few", words, frames=4)
    # of 13 frames up to 3.2 s the middle ones of four parts; of 48 in all
    assert (watched(records)["0"], watched(records)["3"]) == ((4, 2.5), (4, 10.25))
