"""MVBench and TVBench: files, parts of videos, folders of pictures, the official match and the averages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import benchmarks
import media
import numpy as np
import pytest
from PIL import Image
from scripted import always, means, one_model, ran, watched

import pdrop_video as pv
from eval.runner.frames import Frames, Viewing
from eval.runner.sampling import RULES
from eval.tasks import task_named
from eval.tasks.mvbench import MVBENCH, TVBENCH, Source, official_letters

MEALS = ["Ate the medicine.", "Tidied up the blanket.", "Put down the cup/glass/bottle.", "Took the box."]


@pytest.fixture(autouse=True, scope="module")
def _one_model() -> Iterator[None]:
    with one_model():
        yield


def pictures(folder: Path, count: int, first: int = 1, digits: int = 5) -> Path:
    folder.mkdir(parents=True)
    for number in range(first, first + count):
        Image.fromarray(media.numbered(number)).save(folder / f"{number:0{digits}}.jpg", quality=95)
    return folder


def made(data: Path, sources: Mapping[str, Source], videos: bool = False) -> Path:
    """One question of each task; where videos are made, folders of pictures too."""
    for number, (kind, source) in enumerate(sources.items()):
        name = kind.lower().replace(" ", "_").replace("-", "_")
        row: dict[str, Any] = {
            "video": f"v{number}" + ("" if source.pictures else ".mp4"),
            "question": "What happened after the person took the food?",
            "candidates": MEALS[: 3 if number == 5 else 4],
            "answer": MEALS[number % 3],
        }
        if source.part:
            row |= {"start": 2.2, "end": 6.9, "accurate_start": 2.3}
        benchmarks.write_json(data / "json" / f"{name}.json", [row])
        if videos and source.pictures:
            pictures(data / "video" / source.folder / row["video"], 40)
        elif videos:
            benchmarks.write_videos(data / "video" / source.folder, row["video"], seconds=8)
    return data


# -- files ------------------------------------------------------------------------------------------------------------


def test_items_and_prompt(tmp_path: Path) -> None:
    items = task_named("mvbench", made(tmp_path, MVBENCH)).items()
    assert len(items) == 20 and len({item.id for item in items}) == 20
    first, *_ = items
    assert (first.id, first.start, first.end, first.answer) == ("action_sequence_0", 2.2, 6.9, "Ate the medicine.")
    assert first.path == tmp_path / "video" / "star" / "Charades_v1_480" / "v0.mp4"
    assert {item.category["task_type"] for item in items if item.end is not None} == {
        "Action Sequence", "Action Prediction", "Object Interaction", "Action Localization", "Episodic Reasoning",
    }  # fmt: skip
    ask = task_named("mvbench", tmp_path).ask(first, [])
    system = (
        "Carefully watch the video and pay attention to the cause and sequence of events, the detail and movement of "
        "objects, and the action and pose of persons. Based on your observations, select the best option that "
        "accurately addresses the question."
    )
    assert ask.text == (
        f"{system}\nQuestion: What happened after the person took the food?\nOptions:\n(A) Ate the medicine.\n(B) "
        "Tidied up the blanket.\n(C) Put down the cup/glass/bottle.\n(D) Took the box.\nOnly give the best option."
    )
    assert (ask.answer_prefix, ask.choices) == ("Best option:(", tuple(MEALS))
    assert task_named("mvbench", tmp_path).system == system


def test_videos_in_the_folder_of_a_later_archive(tmp_path: Path) -> None:
    later = tmp_path / "video" / "data0613" / "clevrer" / "video_validation" / "v5.mp4"
    later.parent.mkdir(parents=True)
    later.touch()
    items = {item.category["task_type"]: item for item in task_named("mvbench", made(tmp_path, MVBENCH)).items()}
    assert items["Object Existence"].path == later
    assert items["Moving Count"].path == tmp_path / "video" / "clevrer" / "video_validation" / "v12.mp4"


@pytest.mark.parametrize(
    ("task", "file", "field", "wrong"),
    [
        ("mvbench", "action_count", "answer", "Pink"),
        ("mvbench", "action_count", "candidates", ["one"]),
        ("mvbench", "action_count", "question", ""),
        ("mvbench", "action_sequence", "start", None),
        ("mvbench", "action_sequence", "end", 1.0),
        ("tvbench", "action_localization", "end", -1),
        ("tvbench", "object_count", "video", None),
    ],
)
def test_rows_of_another_form(task: str, file: str, field: str, wrong: object, tmp_path: Path) -> None:
    path = made(tmp_path, MVBENCH if task == "mvbench" else TVBENCH) / "json" / f"{file}.json"
    good: dict[str, Any] = {"video": "v.mp4", "question": "?", "candidates": MEALS, "answer": MEALS[0], "start": 2.0}
    benchmarks.write_json(path, [{**good, "end": 3.0}, {**good, "end": 3.0, field: wrong}])
    with pytest.raises(pv.ConfigError, match=rf"{file}\.json is not in the official form: at 1"):
        task_named(task, tmp_path).items()


# -- readings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "official", "strict"),
    [
        ("B", "B", "B"),
        ("B) Tidied up the blanket.", "B", "B"),
        ("(B) Tidied up the blanket.", "B", "B"),
        ("B.", "B", "B"),
        ("b) yes", "B", "B"),
        ("B), because (A) is wrong", "B", "B"),
        ("B:", "", "B"),  # no letter's "(b)" has "(b:" in it
        ("Tidied up the blanket.", "", "B"),
        ("The answer is (B)", "", "B"),
        ("C)\nB)", "C", None),
        ("", "ABCD", None),  # the bracket alone is in every "(a)"
    ],
)
def test_readings(said: str, official: str, strict: str | None, tmp_path: Path) -> None:
    task = task_named("mvbench", made(tmp_path, MVBENCH))
    item = task.items()[1]  # the truth is B
    assert official_letters(said, item.options) == set(official)
    mark = task.mark(item, said, [])
    assert (mark.official_score, mark.strict) == (float("B" in official), strict)
    assert mark.official == (official if len(official) == 1 else None)


def test_two_candidates_of_the_same_text(tmp_path: Path) -> None:
    path = made(tmp_path, TVBENCH) / "json" / "action_count.json"
    benchmarks.write_json(path, [{"video": "v", "question": "?", "candidates": ["3", "4", "4"], "answer": "4"}])
    task = task_named("tvbench", tmp_path)
    marks = [task.mark(task.items()[0], said, []) for said in "ABC"]
    assert [(mark.official_score, mark.score) for mark in marks] == [(0, 0), (0, 1), (1, 1)]


# -- frames -----------------------------------------------------------------------------------------------------------


def test_the_frames_of_n_segments() -> None:
    # 100 frames in 16 steps of 6.1875: half a step behind each, the step's beginning rounded
    assert RULES["segments"](100, 16, 1.0) == [3, 9, 15, 22, 28, 34, 40, 46, 53, 59, 65, 71, 77, 83, 90, 96]
    assert RULES["segments"](1, 8, 1.0) == [0] and RULES["segments"](3, 8, 1.0) == [0, 1, 2]


def test_a_folder_of_pictures_is_watched(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "100% clip", 30)

    def seen(**more: Any) -> list[tuple[int, float]]:
        viewing = {"start": 0.0, "end": None, "fps": None, "frames": None, "rule": "linspace", "pictures": 3.0, **more}
        chunks = Frames()(Viewing(path=folder, chunk=4, **viewing))
        return [(media.number_of(np.asarray(f)), s) for c in chunks for f, s in zip(c.frames, c.seconds, strict=True)]

    assert seen(fps=1.0) == [(1 + 3 * n, n) for n in range(10)]
    assert [number for number, _ in seen(frames=3, start=1.0, end=3.0)] == [4, 7, 10]
    assert [number for number, _ in seen(fps=3.0, start=9.0)] == [28, 29, 30]
    (tmp_path / "none").mkdir()
    folder = tmp_path / "none"
    with pytest.raises(pv.VideoError, match=r"holds no numbered pictures, such as 00001\.jpg"):
        seen(fps=1.0)


def test_pictures_on_disk_are_another_viewing_at_another_rate(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "clip", 6, first=7, digits=3)
    common = {"path": folder, "start": 0.0, "end": None, "fps": 1.0, "frames": None, "rule": "linspace", "chunk": 4}
    frames = Frames(tmp_path / "kept")
    for rate, numbers in ((3.0, [7, 10]), (1.0, [7, 8, 9, 10, 11, 12]), (3.0, [7, 10])):
        chunks = list(frames(Viewing(**common, pictures=rate)))  # type: ignore[arg-type]
        assert [media.number_of(np.asarray(frame)) for chunk in chunks for frame in chunk.frames] == numbers


# -- through the runner -----------------------------------------------------------------------------------------------


def test_mvbench_through_the_runner(tmp_path: Path) -> None:
    data = made(tmp_path / "data", MVBENCH, videos=True)
    summary, records = ran("mvbench", data, tmp_path / "out", always("B) Tidied up the blanket."), frames=4)
    # truths go A, B, C, A, ...: of 20 every third from the second on is B
    assert means(summary["figures"]) == pytest.approx({"Avg": 7 / 20, "Avg, strict": 7 / 20})
    assert summary["categories"]["task_type"]["Action Prediction"]["mean"] == 1.0
    # 19 frames from 2.25 to 6.75 s: steps of 4.5 from the third on; the whole 32: of 7.75
    assert watched(records)["action_sequence_0"] == (4, 2.25 + 16 / 4)
    assert watched(records)["action_antonym_0"] == (4, (3 + 23) / 4)
    # 2.2 to 6.9 s of three pictures a second: the 7th to the 21st, of which 8, 12, 15 and 18; the first is at 0 s
    assert watched(records)["episodic_reasoning_0"] == (4, pytest.approx(17 / 3))


def test_tvbench_through_the_runner(tmp_path: Path) -> None:
    data = made(tmp_path / "data", TVBENCH, videos=True)
    summary, records = ran("tvbench", data, tmp_path / "out", always("A"))
    assert means(summary["figures"]) == pytest.approx({"Avg": 4 / 10, "Avg, strict": 4 / 10})
    assert watched(records)["action_sequence_0"] == (4, 6.0)  # of a second each: 3, 4, 5 and 6
    assert watched(records)["action_count_0"] == (8, 7.0)
    summary, _ = ran("tvbench", data, tmp_path / "some", always("A"), limit=9)
    assert means(summary["figures"]) == {}  # a mean of nine tasks is none of TVBench's
