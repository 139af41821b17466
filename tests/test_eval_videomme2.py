"""Video-MME-v2: its table and word-by-word subtitles, prompts, and groups scored as the official script scores them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import benchmarks
import pandas as pd
import pytest
from scripted import means, one_model, ran, watched

import pdrop_video as pv
from eval.runner.sampling import RULES
from eval.tasks import task_named
from eval.tasks.videomme2 import of_ability, of_thought, official_letter

GROUPS: tuple[tuple[str, str | None, int, str], ...] = (
    # what each video's group is, and its level and head
    ("relevance", None, 1, "Visual Recognition"),
    ("logic", "[1, 2, 3, 4]", 2, "Order"),
    ("logic", "[1, [2, 3], 4]", 3, "Physical World Reasoning"),
    ("logic", "[[1,2],3,4]", 3, "Physical World Reasoning"),
    ("relevance", None, 2, "Action & Motion"),
)
GOLDEN = {  # what the official script prints for the file that the run below writes
    "total": 47.91666666666667,
    "relevance": 40.625,
    "relevance, linear": 62.5,
    "logic": 52.77777777777778,
    "level 1": 56.25,
    "level 2": 25.0,
    "level 3": 66.66666666666667,
    "Physical World Reasoning": 66.66666666666667,
    "Physical World Reasoning of 3": 33.333333333333336,
}
EIGHT = [f"Kind {number}." for number in range(8)]
ANSWERS = "HABC"
"""The truth of each question of a group."""


@pytest.fixture(autouse=True, scope="module")
def _one_model() -> Iterator[None]:
    with one_model():
        yield


def rows_of() -> list[dict[str, Any]]:
    rows = []
    for number, (kind, structure, level, head) in enumerate(GROUPS, 1):
        for question, answer in enumerate(ANSWERS, 1):
            last = question == 4
            rows.append(
                {
                    "video_id": f"{number:03}",
                    "url": "x",
                    "group_type": kind,
                    "group_structure": structure,
                    "question_id": f"{number:03}-{question}",
                    "question": f"What of {number} is seen in {question}?",
                    "options": "\n".join(f"{chr(65 + i)}. {text}" for i, text in enumerate(EIGHT)),
                    "answer": answer,
                    "level": level if last else None,
                    "second_head": head if last else None,
                    "third_head": f"{head} of {number}" if last else None,
                }
            )
    return rows


def write(data: Path, rows: Sequence[dict[str, Any]]) -> Path:
    data.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_parquet(data / "test.parquet")
    return data


def words_of(data: Path) -> None:
    said = [("Hi", 0.5, 0.8), ("guys,", 0.8, 1.1), ("look\u2028here", 9.0, 9.5)]
    (data / "subtitle").mkdir()
    lines = [json.dumps({"text": t, "start_time": a, "end_time": b}, ensure_ascii=False) for t, a, b in said]
    (data / "subtitle" / "001.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


# -- files and prompts ------------------------------------------------------------------------------------------------


def test_items_and_prompts(tmp_path: Path) -> None:
    data = write(tmp_path, rows_of())
    words_of(data)
    task = task_named("videomme-v2", data)
    items = task.items()
    assert len(items) == 20
    assert (items[0].options, items[0].answer, items[0].path) == (tuple(EIGHT), "H", tmp_path / "video" / "001.mp4")
    assert items[0].category == {"group_type": "relevance", "group_structure": ""}
    assert items[7].category == {
        "level": "2", "second_head": "Order", "third_head": "Order of 2",
        "group_type": "logic", "group_structure": "[1, 2, 3, 4]",
    }  # fmt: skip
    assert items[12].category["group_structure"] == "[[1, 2], 3, 4]"
    listed = "\n".join(f"{letter}. {text}" for letter, text in zip("ABCDEFGH", EIGHT, strict=True))
    asked = f"Question: What of 1 is seen in 1?\n{listed}\n"
    instruction = (
        "Select the best answer to the following multiple-choice question based on the video. Respond with only the "
        "letter (A, B, C, D, E, F, G, or H) of the correct option."
    )
    head = "These are the frames of a video."
    assert task.ask(items[0], []).text == f"{head}\n{asked}{instruction}"
    assert task.ask(items[0], []).choices == tuple(EIGHT)
    said = f"{head} This video's subtitles are listed below:\n"
    subtitled = task_named("videomme-v2-subtitles", data)
    assert subtitled.ask(items[0], []).text == f"{said}Hi guys, look\u2028here\n{asked}{instruction}"
    assert subtitled.ask(items[4], []).text.startswith(f"{said}\nQuestion: What of 2")  # a video without a file
    thought = task_named("videomme-v2-reasoning", data).ask(items[0], [])
    assert thought.text.endswith("strictly in the format: 'Final Answer: <letter>.") and thought.max_new_tokens == 4096


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("answer", "I"), ("answer", None), ("options", "A. x"), ("options", "A. x\nC. y"), ("options", None),
        ("question_id", "0012"), ("question_id", "001-1"), ("group_type", "other"), ("question", ""),
        ("video_id", None),
    ],
)  # fmt: skip
def test_a_wrong_row_is_refused(field: str, wrong: object, tmp_path: Path) -> None:
    rows = rows_of()
    rows[5] = {**rows[5], field: wrong}
    write(tmp_path, rows)
    with pytest.raises(pv.ConfigError, match=r"test\.parquet (?:is not in the official form: at 5|has the question)"):
        task_named("videomme-v2", tmp_path).items()
    rows = rows_of()
    rows[7]["group_structure"] = "[1, 2, 3]"
    write(tmp_path, rows)
    with pytest.raises(pv.ConfigError, match=r"at 7 the group_structure is '\[1, 2, 3\]'; expected one of"):
        task_named("videomme-v2", tmp_path).items()


# -- readings and scores ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "letter"),
    [("H", "H"), ("Final Answer: G", "G"), ("The best answer is: (C) Kind", "C"), ("c", None), ("A cat, so D", "A"),
     ("Thinking of it ... Final Answer: B", "B"), ("", None), ("none of them", None)],
)  # fmt: skip
def test_letters(said: str, letter: str | None) -> None:
    assert official_letter(said) == letter


def test_what_groups_are_worth() -> None:
    assert [of_ability([1] * n + [0] * (4 - n)) for n in range(5)] == [0, 1 / 16, 4 / 16, 9 / 16, 1]
    assert (of_ability([1, 1, -1, 0]), of_ability([-1, -1, 1, 0])) == (1 / 16, 0)
    straight, either, first = "[1, 2, 3, 4]", "[1, [2, 3], 4]", "[[1, 2], 3, 4]"
    assert [of_thought(s, straight) for s in ([1, 1, 1, 1], [1, 1, 0, 1], [0, 1, 1, 1])] == [1, 4 / 16, 0]
    assert [of_thought(s, either) for s in ([1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 0], [0, 1, 1, 1])] == [
        4 / 12, 4 / 12, 7 / 12, 0,
    ]  # fmt: skip
    assert [of_thought(s, first) for s in ([0, 1, 1, 1], [1, 0, 1, 1], [1, 1, 1, 0], [0, 0, 1, 1])] == [
        0.1,
        0.1,
        0.5,
        0,
    ]
    assert of_thought([1, -1, 1, 1], straight) == 1  # officially an answer without a letter breaks nothing


def test_the_frames_between_the_ends() -> None:
    assert RULES["interior"](100, 4, 1.0) == [20, 40, 60, 80] and RULES["interior"](2, 4, 1.0) == [0, 1]


# -- through the runner -----------------------------------------------------------------------------------------------


def test_through_the_runner(tmp_path: Path) -> None:
    data = write(tmp_path / "data", rows_of())
    benchmarks.write_videos(data / "video", *(f"{number:03}.mp4" for number in range(1, 6)))
    said = {
        "1": ("H", "A", "B", "D"),  # three of four
        "2": ("H", "A", "D", "C"),  # two steps, then a break
        "3": ("H", "D", "B", "C"),  # one, and the other of two
        "4": ("c", "A", "B", "C"),  # no letter to the official reading, which breaks nothing
        "5": ("none", "A", "B", "C"),  # no letter, which takes one off
    }

    def words(question: str, second: float) -> str:
        _, _, rest = question.partition("What of ")
        return said[rest[0]][int(rest.partition("seen in ")[2][0]) - 1]

    summary, records = ran("videomme-v2", data, tmp_path / "out", words, frames=5)
    assert watched(records)["001-1"] == (5, 10.0)  # 48 frames: every eighth, from the eighth on
    worth = [9 / 16, 4 / 16, 4 / 12, 1, 4 / 16]
    figures = means(summary["figures"])
    official = {name: value for name, value in figures.items() if "strict" not in name}
    assert official == pytest.approx(
        {
            "total": sum(worth) / 5,
            "relevance": (9 + 4) / 32,
            "relevance, linear": (3 + 2) / 8,
            "logic": (4 / 16 + 4 / 12 + 1) / 3,
            "level 1": 9 / 16,
            "level 2": 4 / 16,
            "level 3": (4 / 12 + 1) / 2,
            "Visual Recognition": 9 / 16,
            "Order": 4 / 16,
            "Physical World Reasoning": (4 / 12 + 1) / 2,
            "Action & Motion": 4 / 16,
            "Visual Recognition of 1": 9 / 16,
            "Order of 2": 4 / 16,
            "Physical World Reasoning of 3": 4 / 12,
            "Physical World Reasoning of 4": 1.0,
            "Action & Motion of 5": 4 / 16,
        }
    )
    assert {name: figures[name] * 100 for name in GOLDEN} == pytest.approx(GOLDEN, abs=1e-12)
    # strictly "c" is the wrong C, and the second step may stand for the first; three of four are right
    assert figures["Physical World Reasoning of 4, strict"] == 0.1
    assert figures["Action & Motion of 5, strict"] == 9 / 16
    table = pd.read_csv(tmp_path / "out" / "videomme-v2.tsv", sep="\t")
    assert list(table["prediction"][:4]) == list(said["1"]) and len(table) == 20
    summary, _ = ran("videomme-v2", data, tmp_path / "some", words, frames=5, limit=7)
    assert summary["figures"]["total"]["mean"] == 9 / 16  # a group of three is none
