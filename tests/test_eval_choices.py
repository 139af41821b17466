"""MLVU, LongVideoBench, EgoSchema and WorldSense: files, prompts, both readings, figures and submissions, by hand."""

from __future__ import annotations

import json
from pathlib import Path

import benchmarks
import pytest

import pdrop_video as pv
from eval.tasks import TASKS, task_named
from eval.tasks.options import bare, lettered
from eval.tasks.rows import seconds_of
from eval.tasks.subtitles import covering

# -- what several share -----------------------------------------------------------------------------------------------


def test_letters_go_on_and_come_off() -> None:
    assert lettered(["Wang.", "Fan."]) == ["A. Wang.", "B. Fan."]
    assert lettered(["A. Wade", "C. Paul"]) == ["A. A. Wade", "B. C. Paul"]  # names
    assert bare(["A. DEN.", "(B) MIA.", "C) a b"]) == ("DEN.", "MIA.", "a b")
    assert bare(["I. Newton", "a man"]) == ("I. Newton", "a man")  # no lettering: not all begin with one


@pytest.mark.parametrize(
    ("clock", "seconds"),
    [("00:00:36", 36), ("0:02:22", 142), ("01:00:01", 3601), ("02:03", 123), ("00:00:01.250", 1.25)],
)
def test_times_of_day(clock: str, seconds: float) -> None:
    assert seconds_of(clock) == seconds


@pytest.mark.parametrize("name", [name for name in TASKS if name.split("-")[0] != "videomme" or "-v2" in name])
def test_a_missing_file_is_named_with_how_to_get_it(name: str, tmp_path: Path) -> None:
    with pytest.raises(
        pv.ConfigError, match=rf"there is no {tmp_path}/\S+\.(?:jsonl?|txt|parquet); (download|get|put|take) "
    ) as error:
        task_named(name, tmp_path).items()
    assert "http" not in str(error.value)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("lvb_val.json", [{"id": "a", "video_path": "v.mp4"}], r"at 0 > subtitle_path field required"),
        ("lvb_val.json", {"a": 1}, r"at the top input should be a valid list"),
    ],
)
def test_a_file_of_another_form_is_named_with_the_place(file: str, content: object, said: str, tmp_path: Path) -> None:
    benchmarks.write_json(tmp_path / file, content)
    with pytest.raises(pv.ConfigError, match=rf"{file} is not in the official form: {said}"):
        task_named("longvideobench", tmp_path).items()


# -- MLVU -------------------------------------------------------------------------------------------------------------


def test_mlvu_items_and_prompt(tmp_path: Path) -> None:
    task = task_named("mlvu", benchmarks.mlvu(tmp_path))
    items = task.items()
    assert [item.id for item in items][1:4] == ["1_plotQA_1", "1_plotQA_2", "2_needle_0"]
    # 1.mp4 stands in two folders and is two videos
    assert [item.video for item in items][1:4] == ["1_plotQA/1", "1_plotQA/1", "2_needle/1"]
    assert items[3].category == {"question_type": "findNeedle"}
    assert items[3].path == tmp_path / "video" / "2_needle" / "1.mp4"
    ask = task.ask(items[0], [])
    assert ask.text == (
        "Question: What colour is the car?\nOptions:\n(A) Red\n(B) Blue\n(C) Green\n(D) White\n"
        "Only give the best option."
    )
    assert (ask.answer_prefix, ask.choices) == ("Best Option: (", ("Red", "Blue", "Green", "White"))
    assert task.system is not None and task.system.startswith("Carefully watch this video")


@pytest.mark.parametrize(
    ("response", "official", "strict"),
    [
        ("B", 1, 1),
        ("B) Blue", 1, 1),  # the turn began with "("
        ("B) Blue. (C) is not.", 1, 1),  # before the first bracket
        ("(B) Blue", 1, 1),
        ("The answer is (B).", 1, 1),
        ("B ) Blue", 0, 1),  # officially the character before the bracket is a space
        (") B", 0, 1),
        ("b", 0, 1),
        ("Blue", 0, 1),
        ("The answer is B", 0, 1),
        ("C) Green", 0, 0),
        ("", 0, 0),
    ],
)
def test_mlvu_readings(response: str, official: float, strict: float, tmp_path: Path) -> None:
    task = task_named("mlvu", benchmarks.mlvu(tmp_path))
    mark = task.mark(task.items()[0], response, [])  # the truth is (B) Blue
    assert (mark.official_score, mark.score) == (official, strict)


def test_mlvu_takes_either_of_two_candidates_of_the_same_text_and_officially_the_last(tmp_path: Path) -> None:
    task = task_named("mlvu", benchmarks.mlvu(tmp_path))
    twice = task.items()[1]
    assert twice.options == ("Six", "Three", "Three", "Eight")
    scores = {said: (m.official_score, m.score) for said in "ABCD" for m in [task.mark(twice, said, [])]}
    assert scores == {"A": (0, 0), "B": (0, 1), "C": (1, 1), "D": (0, 0)}


def test_mlvu_m_avg(tmp_path: Path) -> None:
    task = task_named("mlvu", benchmarks.mlvu(tmp_path))
    said = dict.fromkeys((item.id for item in task.items()), "D") | {
        "1_plotQA_0": "B) Blue",  # right
        "1_plotQA_1": "B",  # right for the strict reading only
        "1_plotQA_2": "B",  # right
        "2_needle_0": "A",  # right; the other has no right answer; of the five other tasks all are right
    }
    figures = task.figures(benchmarks.records_of(task, said))
    # official: plotQA 2/3, needle 1/2, five times 1; strict: plotQA 3/3, needle 1/2, five times 1; unweighted
    assert figures == pytest.approx({"M-Avg": (2 / 3 + 1 / 2 + 5) / 7, "M-Avg, strict": 6.5 / 7})
    said = {name: response for name, response in said.items() if not name.startswith("7")}
    assert task.figures(benchmarks.records_of(task, said)) == {}  # a mean of six tasks is no M-Avg


def test_mlvu_keeps_rows_without_a_right_candidate_or_without_text(tmp_path: Path) -> None:
    task = task_named("mlvu", benchmarks.mlvu(tmp_path))
    items = {item.id: item for item in task.items()}
    needle = items["2_needle_1"]  # "Catching a flying drone quadcopter" is none of the four
    marks = [task.mark(needle, said, []) for said in ("A", "B", "C", "D", "Catching the drone", "@")]
    assert {(mark.official_score, mark.score) for mark in marks} == {(0, 0)}
    assert [mark.strict for mark in marks[:5]] == ["A", "B", "C", "D", "B"]  # read all the same
    jars, nothing = items["3_ego_1"], items["7_topic_reasoning_1"]
    assert [task.mark(jars, said, []).official_score for said in "ABCD"] == [0, 0, 0, 1]  # the one without text
    # all four are the empty answer: officially the last of them is right
    assert [task.mark(nothing, said, []).official_score for said in "ABCD"] == [0, 0, 0, 1]
    assert [task.mark(nothing, said, []).score for said in "ABCD"] == [1, 1, 1, 1]


def test_mlvu_s_list_of_options_ends_without_spaces(tmp_path: Path) -> None:
    task = task_named("mlvu", benchmarks.mlvu(tmp_path))
    texts = {item.id: task.ask(item, []).text for item in task.items()}
    assert texts["4_count_1"].endswith("(C) c\n(D) on the shelve\nOnly give the best option.")
    assert texts["3_ego_1"] == (
        "Question: How many jars? \nOptions:\n(A) 2\n(B) 5\n(C) 10\n(D)\nOnly give the best option."
    )
    assert texts["7_topic_reasoning_1"] == ("Question: \nOptions:\n(A) \n(B) \n(C) \n(D)\nOnly give the best option.")


def test_mlvu_test_submission(tmp_path: Path) -> None:
    task = task_named("mlvu-test", benchmarks.mlvu_test(tmp_path))
    records = benchmarks.records_of(task, {"AR_0": "F) None", "AR_1": "e", "SQA_0": "I can't say."})
    assert [(r.official_score, r.score) for r in records] == [(None, None)] * 3
    assert task.figures(records) == {}
    (path,) = task.outputs(records, tmp_path)
    assert path.name == "mlvu_test.json"
    assert json.loads(path.read_text()) == [
        {"question_id": "AR_0", "question_type": "anomaly_reco", "option": "F"},
        {"question_id": "AR_1", "question_type": "anomaly_reco", "option": "E"},
        {"question_id": "SQA_0", "question_type": "sportsQA", "option": "I can't say."},
    ]


# -- LongVideoBench ---------------------------------------------------------------------------------------------------


def test_longvideobench_items_and_prompt(tmp_path: Path) -> None:
    task = task_named("longvideobench-subtitles", benchmarks.longvideobench(tmp_path))
    first, second, third = task.items()
    assert (first.answer, second.answer, third.answer) == ("B", "E", "C")
    assert (first.end, first.path) == (12.0, tmp_path / "videos" / "va.mp4")
    assert third.category == {"duration_group": "600", "question_category": "TOS", "level": "IntraMoment"}
    assert task.rule == "longvideobench"
    assert task.ask(third, []).text == (
        "Question: When the man says hello, what is seen in vb_0?\nA. A tree\nB. A car\nC. A house\n"
        "Answer with the option's letter from the given choices directly."
    )


def test_longvideobench_subtitles_stand_in_the_middle_of_their_time(tmp_path: Path) -> None:
    task = task_named("longvideobench-subtitles", benchmarks.longvideobench(tmp_path))
    first, _, third = task.items()
    cues = task.cues(first)
    # [1.5, 3.5], [5, 6], and [9, null], which lasts until the video's end at 12
    assert [(cue.text, cue.middle) for cue in cues] == [
        ("hello there", 2.5),
        ("between two frames", 5.5),
        ("to the end", 10.5),
    ]
    # frames at 0, 3, 6, 9: 6 is the end of the second and 9 the beginning of the third, which officially is outside
    assert [cue.text for cue in covering(cues, [0, 3, 6, 9], 1.0)] == ["hello there"]
    assert [cue.text for cue in covering(cues, [5.5, 9.1], 1.0)] == ["between two frames", "to the end"]
    # 103.9 to 104.0 of the recording whose 100th second is the video's first; 0.1 s long, taken as 1 s
    before, short = task.cues(third)
    assert (short.text, round(short.middle, 6), round(before.middle, 6)) == ("very short", 3.95, -7.5)
    assert covering([short], [3.5], 1.0) == [short]
    assert covering([short], [3.4], 1.0) == []
    assert task_named("longvideobench", tmp_path).cues(first) == ()


@pytest.mark.parametrize(
    ("response", "official", "strict"),
    [
        ("B", 1, 1),
        ("The answer is B.", 1, 1),
        ("Best answer: B", 1, 1),
        ("A car", 0, 1),  # officially the A is taken
        ("b", 0.2, 1),  # officially no letter: one of five by lot
        ("", 0.2, 0),
        ("C", 0, 0),
    ],
)
def test_longvideobench_readings(response: str, official: float, strict: float, tmp_path: Path) -> None:
    task = task_named("longvideobench", benchmarks.longvideobench(tmp_path))
    mark = task.mark(task.items()[0], response, [])  # the truth is B. A car
    assert (mark.official_score, mark.score) == (official, strict)


def test_longvideobench_submission(tmp_path: Path) -> None:
    task = task_named("longvideobench-test", benchmarks.longvideobench(tmp_path))
    assert {item.answer for item in task.items()} == {None}
    records = benchmarks.records_of(task, {"va_0": "The answer is D", "va_1": "e", "vb_0": "no idea"})
    assert {r.score for r in records} == {None}
    (path,) = task.outputs(records, tmp_path)
    assert path.name == "longvideobench_test.json"
    assert json.loads(path.read_text()) == {"va_0": "D", "va_1": "E", "vb_0": "no idea"}
    assert task_named("longvideobench", tmp_path).outputs(records, tmp_path) == []


# -- EgoSchema --------------------------------------------------------------------------------------------------------


def test_egoschema_subset(tmp_path: Path) -> None:
    task = task_named("egoschema", benchmarks.egoschema(tmp_path))
    items = task.items()
    assert [item.answer for item in items] == [3, 0]  # the third question has no public answer
    assert task.ask(items[0], []).text == (
        "What is c doing?\nA. C is cooking.\nB. C is cleaning.\nC. C is eating.\nD. C is reading.\nE. C is walking.\n"
        "Answer with the option's letter from the given choices directly."
    )
    said = {items[0].id: "D. C is reading.", items[1].id: "E"}
    assert [r.score for r in benchmarks.records_of(task, said)] == [1, 0]
    assert task.outputs(benchmarks.records_of(task, said), tmp_path) == []


def test_egoschema_submission(tmp_path: Path) -> None:
    task = task_named("egoschema-full", benchmarks.egoschema(tmp_path))
    names = [item.id for item in task.items()]
    assert len(names) == 3
    records = benchmarks.records_of(task, dict(zip(names, ["D", "C is walking.", "no idea"], strict=True)))
    (path,) = task.outputs(records, tmp_path)
    assert path.name == "egoschema.json"
    assert json.loads(path.read_text()) == {names[0]: 3, names[1]: 4, names[2]: 0}  # unread: 0, which the server takes


# -- WorldSense -------------------------------------------------------------------------------------------------------


def test_worldsense_items_and_prompt(tmp_path: Path) -> None:
    task = task_named("worldsense", benchmarks.worldsense(tmp_path))
    items = task.items()
    assert [item.id for item in items] == ["dvOkwKAs_task0", "dvOkwKAs_task1", "aaaaaaaa_task0"]
    assert items[0].category == {
        "duration": "<1min",
        "domain": "Music",
        "sub_category": "Covers",
        "task_domain": "Understanding",
        "task_type": "Spatial Relation",
        "audio_class": ["Music", "Speech"],
    }
    instruction = (
        "Select the best answer to the following multiple-choice question based on the video. "
        "Respond with only the letter (A, B, C, or D) of the correct option.\n"
    )
    question = f"{instruction}Question: What is heard?\nA. Rain.\nB. A drum.\nC. A dog.\nD. Wind.\nAnswer: "
    assert task.ask(items[0], [0.0]).text == f"\nThese are the frames of a video. {question}"
    assert task.ask(items[0], []).choices == ("Rain.", "A drum.", "A dog.", "Wind.")

    spoken = task_named("worldsense-subtitles", tmp_path)
    subtitled = "\nThese are the frames of a video. This video's subtitles are listed below:\n{}\n" + question
    # the second one covers no watched frame, and the first one two: it stands there twice
    assert spoken.ask(items[0], [0.0, 2.0, 4.0]).text == subtitled.format("la la")
    assert spoken.ask(items[0], [1.5, 2.0, 8.5]).text == subtitled.format("la la\nla la\nend")
    assert spoken.ask(items[2], [0.0, 2.0]).text == subtitled.format("")  # this video has none


@pytest.mark.parametrize(
    ("response", "official", "strict"),
    [("B", 1, 1), ("A drum", 0, 1), ("The answer is B", 1, 1), ("b", 0, 1), ("Best answer: C", 1, 0), ("", 0, 0)],
)
def test_worldsense_readings(response: str, official: float, strict: float, tmp_path: Path) -> None:
    task = task_named("worldsense", benchmarks.worldsense(tmp_path))
    mark = task.mark(task.items()[0], response, [])  # the truth is B. A drum.
    assert (mark.official_score, mark.score) == (official, strict)
