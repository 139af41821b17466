"""Video-MMMU: files of three tracks, prompts, letters and open answers, accuracies and the gain in knowledge."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import benchmarks
import pandas as pd
import pytest
from scripted import always, one_model, ran, watched

import pdrop_video as pv
from eval.tasks import task_named
from eval.tasks.mmmu import exam_letter, exam_right, open_answer, open_right

ALDOSE = ["aldose", "ketose", "glucose", "fructose"]
OPTIONS = {
    "dev_Biology_3": ("B", ALDOSE),
    "test_Art_Theory_12": ("C", [f"{letter}. {text}" for letter, text in zip("ABCD", ALDOSE, strict=True)]),
}
OPEN = "validation_Accounting_7"
VIDEOS = ("Science/dev_Biology_3.mp4", "Art/test_Art_Theory_12.mp4", f"Business/{OPEN}.mp4")
HEAD = "You should watch and learn the video content. Then apply what you learned to answer the following "
TAIL = " question. The image for this question is at the end of the video.\n"


@pytest.fixture(autouse=True, scope="module")
def _one_model() -> Iterator[None]:
    with one_model():
        yield


def write(data: Path, track: str, rows: list[dict[str, Any]]) -> None:
    (data / track).mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_parquet(data / track / "test-00000-of-00001.parquet")


def rows_of(track: str) -> list[dict[str, Any]]:
    common = {"question": f"What is asked in {track}?", "link_selected": "x"}
    rows: list[dict[str, Any]] = [
        {"id": name, "options": options, "answer": answer, "question_type": "multiple-choice", **common}
        for name, (answer, options) in OPTIONS.items()
    ]
    if track == "Adaptation":
        rows.append({"id": OPEN, "options": [], "answer": "1,250.5", "question_type": "open", **common})
    return rows


def videommmu(data: Path) -> Path:
    for track in ("Perception", "Comprehension", "Adaptation"):
        write(data, track, rows_of(track))
    return data


# -- files and prompts ------------------------------------------------------------------------------------------------


def test_items_and_prompts(tmp_path: Path) -> None:
    task = task_named("videommmu", videommmu(tmp_path))
    items = {item.id: item for item in task.items()}
    assert len(items) == 7
    first = items["perception_dev_Biology_3"]
    assert first.path == tmp_path / "Science" / "dev_Biology_3.mp4"
    assert first.category == {"track": "Perception", "domain": "Science", "subject": "Biology"}
    assert items["adaptation_test_Art_Theory_12"].path == tmp_path / "Art" / "test_Art_Theory_12.mp4"
    listed = "A. aldose\nB. ketose\nC. glucose\nD. fructose"
    quiz = "\nPlease ignore the Quiz question in last frame of the video."
    assert task.ask(first, []).text == f"What is asked in Perception?\n{listed}{quiz}"
    lettered = task.ask(items["comprehension_test_Art_Theory_12"], [])
    assert lettered.text == f"What is asked in Comprehension?\n{listed}{quiz}"
    assert lettered.choices == tuple(ALDOSE)
    multiple = task.ask(items["adaptation_dev_Biology_3"], [])
    assert multiple.text == f"{HEAD}multi-choice{TAIL}What is asked in Adaptation?\n{listed}"
    asked = task.ask(items[f"adaptation_{OPEN}"], [])
    assert (asked.text, asked.choices) == (f"{HEAD}open-ended{TAIL}What is asked in Adaptation?", ())


def test_what_was_known_before(tmp_path: Path) -> None:
    (tmp_path / "videos" / "question_only").mkdir(parents=True)
    (tmp_path / "videos" / "question_only" / "dev_Biology_3_image.mp4").touch()
    task = task_named("videommmu-knowledge", videommmu(tmp_path))
    items = task.items()
    assert [item.category["track"] for item in items] == ["Question only"] * 3 + ["Adaptation"] * 3
    assert items[0].path == tmp_path / "videos" / "question_only" / "dev_Biology_3_image.mp4"
    assert items[2].path == tmp_path / "question_only" / f"{OPEN}_image.mp4"
    assert task.ask(items[0], []).text.startswith("What is asked in Adaptation?\nA. aldose\nB. ")
    assert task.ask(items[2], []).text == "What is asked in Adaptation?\n"


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("id", "dev_Alchemy_3"), ("id", "Biology"), ("question", ""), ("options", ["", "b"]), ("answer", "E"),
        ("answer", None), ("question_type", None), ("options", []),
    ],
)  # fmt: skip
def test_a_wrong_row_is_refused_with_its_place(field: str, wrong: object, tmp_path: Path) -> None:
    rows = rows_of("Perception")
    rows[1] = {**rows[1], field: wrong}
    write(videommmu(tmp_path), "Perception", rows)
    with pytest.raises(pv.ConfigError, match=r"Perception/test-0\S+ is not in the official form: at 1"):
        task_named("videommmu", tmp_path).items()


def test_files_that_are_none_of_it(tmp_path: Path) -> None:
    path = videommmu(tmp_path) / "Adaptation" / "test-00000-of-00001.parquet"
    pd.read_parquet(path).drop(columns=["answer", "question_type"]).to_parquet(path)
    with pytest.raises(pv.ConfigError, match="has no column answer, question_type"):
        task_named("videommmu", tmp_path).items()
    path.write_text("x")
    with pytest.raises(pv.ConfigError, match="is no Parquet file"):
        task_named("videommmu-knowledge", tmp_path).items()


# -- readings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "official"),
    [
        ("B", "B"),
        ("(B) ketose", "B"),
        ("B. ketose", "B"),
        ("The answer is B.", "B"),
        ("A: no. B: yes.", "B"),
        ("Not A. It is B.", "A"),  # the last full stop is taken off, so that only A stands before one
        ("VITAMIN C helps", "C"),  # a letter before a space, if only the end of a word
        ("It must be ketose, as I said before", "B"),
        ("it must be ketose", None),  # of five words at most
        ("b", None),
        ("I can't tell.", None),
    ],
)
def test_letters_as_the_released_scorer_reads_them(said: str, official: str | None) -> None:
    assert exam_letter(said, ALDOSE) == official


@pytest.mark.parametrize(
    ("said", "truth", "official", "strict"),
    [
        ("1250.5", "1,250.5", True, True),
        ("The answer is 1,250.50 dollars.", "1250.5", False, True),  # read as 1,250 and 250.5
        ("12 and 1250.5", "1250.5", True, False),  # one of two numbers
        ("x = 3 + 4 = 7", "7", True, False),
        ("So it is 7.", "7", True, True),
        ("It is 17.", "7", False, False),
        ("3e2", "300", True, True),
        ("Answer: blue whale", "Blue Whale", True, True),
        ("It is blueish", "blue", True, False),
        ("red", "blue", False, False),
        ("It is c", "c", True, True),
        ("", "7", False, False),
    ],
)
def test_open_answers(said: str, truth: str, official: bool, strict: bool) -> None:
    assert exam_right(said, truth) is official
    assert open_right(open_answer(said), truth) is strict


# -- figures ----------------------------------------------------------------------------------------------------------


def figures_of(task: str, data: Path, said: Mapping[str, str]) -> dict[str, float]:
    made = task_named(task, data)
    return made.figures(benchmarks.records_of(made, said))


def test_tracks_leave_out_empty_answers(tmp_path: Path) -> None:
    data = videommmu(tmp_path)
    names = [item.id for item in task_named("videommmu", data).items()]
    said = dict(zip(names, ["B", "A", "B", "", "B", "A", "1250.5"], strict=True))
    figures = figures_of("videommmu", data, said)
    # perception one of two; comprehension the one that was answered; adaptation two of three
    assert {name: figures[name] for name in ("Perception", "Comprehension", "Adaptation")} == {
        "Perception": 0.5, "Comprehension": 1.0, "Adaptation": 2 / 3,
    }  # fmt: skip
    assert figures["Overall"] == pytest.approx((0.5 + 1 + 2 / 3) / 3)
    assert figures["Comprehension, strict"] == 0.5 and "Δknowledge" not in figures
    assert "Overall" not in figures_of("videommmu", data, dict(list(said.items())[:4]))


def test_the_gain_in_knowledge(tmp_path: Path) -> None:
    data = videommmu(tmp_path)
    names = [item.id for item in task_named("videommmu-knowledge", data).items()]
    figures = figures_of("videommmu-knowledge", data, dict(zip(names, ["B", "A", "3", "B", "C", "3"], strict=True)))
    # from one of three to two of three: a half of what there was to gain
    assert (figures["Question only"], figures["Adaptation"]) == (1 / 3, 2 / 3)
    assert figures["Δknowledge"] == pytest.approx(0.5)
    knew = figures_of("videommmu-knowledge", data, dict(zip(names, ["B", "C", "1250.5"] * 2, strict=True)))
    assert "Δknowledge" not in knew  # there was nothing to gain


# -- through the runner -----------------------------------------------------------------------------------------------


def test_through_the_runner(tmp_path: Path) -> None:
    data = videommmu(tmp_path / "data")
    benchmarks.write_videos(data / "videos", *VIDEOS)
    benchmarks.write_videos(data / "question_only", *(f"{Path(v).stem}_image.mp4" for v in VIDEOS), seconds=2)
    summary, records = ran("videommmu", data, tmp_path / "out", always("(B) ketose"))
    assert summary["figures"]["Overall"]["mean"] == pytest.approx((1 / 2 + 1 / 2 + 1 / 3) / 3)
    assert records["perception_dev_Biology_3"].shared == 3  # one pass for three tracks
    official = summary["official"]
    assert official["overall"] == summary["figures"]["Overall"]
    assert official["categories"]["track, domain"]["Adaptation, Art and Design"]["mean"] == 0.0
    learned = lambda question, second: "C" if "learned" in question else "B"  # noqa: E731
    summary, records = ran("videommmu-knowledge", data, tmp_path / "gain", learned)
    assert {seen for name, seen in watched(records).items() if name.startswith("question")} == {(2, 1.0)}
    assert summary["figures"]["Δknowledge"]["mean"] == 0.0  # another one right, no more of them


def test_likelihoods_of_open_questions_are_errors_that_were_announced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = videommmu(tmp_path / "data")
    benchmarks.write_videos(data / "videos", *VIDEOS)
    with pytest.raises(pv.ConfigError, match=f"item adaptation_{OPEN} has no options"):
        ran("videommmu", data, tmp_path / "out", always(""), answer="likelihood")
    assert "1 of 7 questions are open, without options to compare" in capsys.readouterr().err


def test_knowledge_may_be_lost(tmp_path: Path) -> None:
    data = videommmu(tmp_path / "data")
    benchmarks.write_videos(data / "videos", *VIDEOS)
    benchmarks.write_videos(data / "question_only", *(f"{Path(v).stem}_image.mp4" for v in VIDEOS), seconds=2)
    confused = lambda question, second: "" if "Art" in question else "D" if "learned" in question else "B"  # noqa: E731
    summary, _ = ran("videommmu-knowledge", data, tmp_path / "out", confused)
    gain = summary["official"]["overall"]
    assert (summary["official"]["figure"], gain["mean"]) == ("Δknowledge", pytest.approx(-0.5))
    assert gain["low"] < -0.5  # not cut off at 0, as the interval of an accuracy is
