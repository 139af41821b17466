"""RTV-Bench: an excerpt of its file, questions at their moments, and the two official reports."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import benchmarks
import pytest
from scripted import means, one_model, ran, watched

import pdrop_video as pv
from eval.tasks import task_named
from eval.tasks.rtvbench import official_letter

REASON = {
    "A": "Indicates the attacking player is offside when receiving the ball",
    "B": "Indicates the defending player committed a foul",
    "C": "Indicates the attacking player is taking a free kick",
    "D": "The referee made no decision",
}


def row(name: str, kind: str, end: float, question: str, options: dict[str, str], answer: str) -> dict[str, Any]:
    return {
        "video": "SportsCam_010.mp4", "questionID": f"q-group-{name}", "type": kind, "field": "sports_cam",
        "start_time": 0, "end_time": end, "question": question, "options": options, "answer": answer,
    }  # fmt: skip


ROWS = [  # of the released file; times are a fortieth of its own
    row("77wizqc9s-0-option1", "Event-IA", 5.7, "Does this shot show the referee?",
        {"A": "Yes", "B": "No", "C": "I don't know"}, "B"),
    row("77wizqc9s-1-option2", "Event-IA", 7.55, "How many referees are there in this shot?",
        {"A": "0", "B": "1", "C": "2", "D": "3"}, "C"),
    row("77wizqc9s-2-option0", "Event-IA", 7.1, "What is the reason for the referee's decision here?", REASON, "A"),
    row("77wizqc9s-2-option2", "Event-IA", 11.9, "What is the reason for the referee's decision here?", REASON, "C"),
    row("9eq4fqfqg-1-option1", "Object-SP", 1.5, "In which tournament did this match take place?",
        {"A": "2014 Brazil World Cup", "B": "2018 Russia World Cup", "C": "2022 Qatar World Cup",
         "D": "2022 Qatar World Cup"}, "B"),
    row("9eq4fqfqg-2-option0", "Object-SP", 3.0, "Which one?", {"A": "the only one"}, "A"),
]  # fmt: skip


GOLDEN = {  # what the official compute_acc.py and compute_score.py make of the file that the run below writes
    "accuracy": 0.8333333333333334,
    "accuracy, mean over questions": 0.8888888888888887,
    "accuracy, mean over targets": 0.875,
    "accuracy, mean over dimensions": 0.875,
    "score": 0.6666666666666666,
    "score, mean over targets": 0.75,
    "score, mean over dimensions": 0.75,
}


@pytest.fixture(autouse=True, scope="module")
def _one_model() -> Iterator[None]:
    with one_model():
        yield


def rtvbench(data: Path) -> Path:
    benchmarks.write_json(data / "QA.json", ROWS)
    return data


def test_items_and_prompt(tmp_path: Path) -> None:
    task = task_named("rtvbench", rtvbench(tmp_path))
    first, *_, last = task.items()
    assert (first.id, first.video, first.start, first.end) == (
        "q-group-77wizqc9s-0-option1", "sports_cam/SportsCam_010", 0.0, 5.7,
    )  # fmt: skip
    assert first.path == tmp_path / "videos" / "sports_cam" / "SportsCam_010.mp4"
    assert first.category == {
        "question": "0", "target": "Event", "dimension": "Understanding", "ability": "IA", "type": "Event-IA",
        "field": "sports_cam",
    }  # fmt: skip
    assert last.options == ("the only one",)
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "SportsCam_010.mp4").touch()  # as archives without folders leave it
    assert task.items()[0].path == tmp_path / "videos" / "SportsCam_010.mp4"
    assert task.ask(first, []).text == (
        "Question: Does this shot show the referee?\nOptions:\nA. Yes\nB. No\nC. I don't know\n"
        "Answer with the option's letter from the given choices directly and only give the best option."
    )


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("questionID", "q-group-a-3"), ("questionID", "q-group-77wizqc9s-1-option2"), ("type", "Event"),
        ("type", "Thing-IA"), ("end_time", 0), ("end_time", "3"), ("answer", "D"), ("options", {}), ("question", ""),
        ("options", {"A": "x", "C": "y"}), ("options", ["x", "y"]), ("field", None), ("video", ""),
    ],
)  # fmt: skip
def test_a_wrong_row_is_refused(field: str, wrong: object, tmp_path: Path) -> None:
    benchmarks.write_json(tmp_path / "QA.json", [{**ROWS[0], field: wrong}, *ROWS[1:]])
    with pytest.raises(pv.ConfigError, match=r"QA\.json (?:is not in the official form: at 0|has the question)"):
        task_named("rtvbench", tmp_path).items()


@pytest.mark.parametrize(
    ("said", "official", "strict"),
    [
        ("B", "B", "B"),
        ("b.", "B", "B"),
        ("B. No", "B", "B"),
        ("A car, so B", "A", "B"),
        ("I say it is option-B", "B", None),
        ("I'd go for No", None, "B"),  # I is the first word of one letter, and no option's
        ("Clearly no", "C", "B"),
        ("", None, None),
    ],
)
def test_readings(said: str, official: str | None, strict: str | None, tmp_path: Path) -> None:
    task = task_named("rtvbench", rtvbench(tmp_path))
    mark = task.mark(task.items()[0], said, [])
    assert (mark.official, mark.strict) == (official, strict) and official_letter(said, ["a", "b", "c"]) == official


def test_through_the_runner(tmp_path: Path) -> None:
    data = rtvbench(tmp_path / "data")
    benchmarks.write_videos(data / "videos" / "sports_cam", "SportsCam_010.mp4")

    def words(question: str, second: float) -> str:
        if "decision" in question:
            return "A" if second < 10 else "B"
        return (
            "B" if "tournament" in question or "this shot show" in question else "C" if "How many" in question else "A"
        )

    summary, records = ran("rtvbench", data, tmp_path / "out", words)
    assert [at for _, (_, at) in sorted(watched(records).items())] == [5, 7, 7, 11, 1, 3]
    assert {record.shared for record in records.values()} == {6}  # one pass, in which each question has its moment
    figures = means(summary["figures"])
    # all but the last answer of the first group are right; both groups' first questions are
    assert {name: figures[name] for name in GOLDEN} == pytest.approx(GOLDEN, abs=1e-12)
    assert (figures["score, Event"], figures["score, Object"], figures["score, IA"]) == (0.5, 1.0, 0.5)
    written = json.loads((tmp_path / "out" / "rtvbench.json").read_text())
    assert [(r["pred"], r["correct"]) for r in written] == [
        ("B", True), ("C", True), ("A", True), ("B", False), ("B", True), ("A", True),
    ]  # fmt: skip
    # without the first question of a group its last ones count nothing
    task = task_named("rtvbench", data)
    wrong = {item.id: "A" if item.id.endswith("9s-0-option1") else str(item.answer) for item in task.items()}
    figures = task.figures(benchmarks.records_of(task, wrong))
    assert (figures["accuracy"], figures["score"]) == pytest.approx((5 / 6, 1 / 3))
