"""StreamingBench and RVS: moments, prompts, both readings and official files, by hand."""

from __future__ import annotations

import json
from pathlib import Path

import benchmarks
import pandas as pd
import pytest

import pdrop_video as pv
from eval.stats.record import Turn
from eval.tasks import Ask, Item, Task, task_named
from eval.tasks.options import mended

# -- StreamingBench ---------------------------------------------------------------------------------------------------

ASSISTANT = "You are an advanced video question-answering AI assistant."


def test_streamingbench_sees_a_minute_or_everything_before_the_question(tmp_path: Path) -> None:
    benchmarks.streamingbench(tmp_path)
    minute, full = task_named("streamingbench-real", tmp_path), task_named("streamingbench-real-full", tmp_path)
    # asked at 4 s, 70 s and (of another video) 8 s
    assert [(item.start, item.end) for item in minute.items()] == [(0, 4), (10, 70), (0, 8)]
    assert [(item.start, item.end) for item in full.items()] == [(0, 4), (0, 70), (0, 8)]
    first = minute.items()[0]
    assert (first.id, first.video) == ("real_0_0", "sample_1_real")
    assert first.path == tmp_path / "videos" / "sample_1_real.mp4"


def test_streamingbench_prompt(tmp_path: Path) -> None:
    task = task_named("streamingbench-real", benchmarks.streamingbench(tmp_path))
    lettered, bare, _ = task.items()
    text = (
        f"{ASSISTANT} You have been provided with some frames from the video and a multiple-choice question related to "
        "the video. Your task is to carefully analyze the video and provide the best answer to question, choosing from "
        "the four options provided. Respond with only the letter (A, B, C, or D) of the correct option.\n\n"
        "Question: {}\n\nOptions:\n{}\n\nThe best option is:"
    )
    assert task.ask(lettered, []).text == text.format("What is it now?", "A. DEN.\nB. MIA.\nC. BOS.\nD. GS.")
    assert task.ask(bare, []).text == text.format("How many now?", "A. 2.\nB. 6.\nC. 7.\nD. 4.")
    assert task.ask(lettered, []).choices == ("DEN.", "MIA.", "BOS.", "GS.")


def test_streamingbench_puts_cut_options_together_again(tmp_path: Path) -> None:
    task = task_named("streamingbench-omni", benchmarks.streamingbench(tmp_path))
    twice, cut = task.items()
    assert twice.options == ("A. One waits.", "B. He says, 'Go.'", "C. All run.", "D. None.")
    assert cut.options == ("A. One waits.", "B. He says, 'I pack for my trip.'", "C. All run ", "D. None.")
    text = task.ask(cut, []).text
    assert "from the four options provided. Respond with only the letter (A, B, C, or D) of" in text
    assert text.endswith("B. He says, 'I pack for my trip.'\nC. All run \nD. None.\n\nThe best option is:")
    assert [task.mark(i, said, []).score for i, said in [(twice, "D. None."), (cut, "B"), (cut, "E")]] == [1, 1, 0]
    # as in the released file: empty pieces, a piece that is a full stop, and what is no option at the end
    assert mended(["A. a", "", "B. b", "C. c", "", "D. d"]) == ["A. a", "B. b", "C. c", "D. d"]
    assert mended(["A. a", 'B. He says, "Right now', '. ".', "C. c", "D. d"])[1] == 'B. He says, "Right now. ".'
    assert mended(["A. a", "B. b", "C. c", "D. d", "E. .", "F. Translated"]) == ["A. a", "B. b", "C. c", "D. d"]
    path = tmp_path / "questions_omni.json"
    path.write_text(path.read_text().replace('"C. All run "', '"Z. All run "'))
    with pytest.raises(pv.ConfigError, match=r"questions_omni\.json .*at 1 > questions > 0 expected four options"):
        task.items()


@pytest.mark.parametrize(
    ("response", "official", "strict"),
    [
        ("C", 1, 1),
        ("C. BOS.", 1, 1),
        ("Cannot say", 1, 0),  # officially its first character is C
        ("c", 0, 1),
        ("The best option is: C", 0, 1),
        ("(C)", 0, 1),
        ("B", 0, 0),
        ("", 0, 0),
    ],
)
def test_streamingbench_readings(response: str, official: float, strict: float, tmp_path: Path) -> None:
    task = task_named("streamingbench-real", benchmarks.streamingbench(tmp_path))
    mark = task.mark(task.items()[0], response, [])  # the truth is C. BOS.
    assert (mark.official_score, mark.score) == (official, strict)


def test_streamingbench_sequential_questions_know_the_earlier_ones_of_their_video(tmp_path: Path) -> None:
    task = task_named("streamingbench-sqa", benchmarks.streamingbench(tmp_path))
    first, second, third, other = task.items()
    text = (
        f"{ASSISTANT} You have been provided with a video and a multiple-choice question related to the video. Your "
        "task is to carefully analyze the video and the provided context to answer the question, choosing from the "
        "four options provided. Respond with only the letter (A, B, C, or D) of the correct option.\n\n{}\n\nHere is "
        "the question. Answer it and don't confuse it with the previous conversation.\nQuestion: {}\n\nOptions:\n{}\n\n"
        "The best option is:"
    )
    assert task.ask(first, []).text == text.format("", "Who serves?", "A. Wang.\nB. Fan.\nC. Xu.\nD. Ma.")
    context = (
        "Here are the contextual information related to the video. Please answer the questions based on the contextual "
        "information: At timestamp 00:00:03, the following question and answer occurred: Question: Who serves?; "
        "Options: A. Wang., B. Fan., C. Xu., D. Ma.; Answer: A; "
    )
    more = (
        "At timestamp 00:00:07, the following question and answer occurred: Question: What is his score?; Options: "
        "A. 2., B. 6., C. 7., D. 4.; Answer: C; "
    )
    assert task.ask(second, []).text == text.format(context, "What is his score?", "A. 2.\nB. 6.\nC. 7.\nD. 4.")
    assert task.ask(third, []).text == text.format(context + more, "And now?", "A. 2.\nB. 6.\nC. 7.\nD. 4.")
    assert task.ask(other, []).text == text.format("", "Which team attacks?", "A. DEN.\nB. MIA.\nC. BOS.\nD. GS.")
    assert [item.video for item in (first, third, other)] == ["sample_17_sqa", "sample_17_sqa", "sample_32_sqa"]


def talked(task: Task, item: Item, said: dict[float, list[str]]) -> tuple[str, list[Turn], list[Ask]]:
    """Play a dialogue: `said` has the answers at each second, in order; "no" where none is given."""
    dialogue, asks, turns = task.dialogue(item, []), [], []
    try:
        ask = next(dialogue)
        while True:
            asks.append(ask)
            at = item.first if ask.at is None else ask.at
            assert at is not None
            answers = said.get(at, [])
            turns.append(Turn(at, answers.pop(0) if answers else "no"))
            ask = dialogue.send(turns[-1].text)
    except StopIteration as end:
        return end.value, turns, asks


def test_streamingbench_proactive_polls_every_second_until_yes(tmp_path: Path) -> None:
    task = task_named("streamingbench-proactive", benchmarks.streamingbench(tmp_path))
    item = task.items()[0]
    # said at 2 s; right at 5 s, so asked up to 9 s; seen from 2 s on
    assert (item.start, item.first, item.end) == (2, 3, 9)
    response, turns, asks = talked(task, item, {4: ["Yes, it is.", "It is 3 now."]})
    assert (response, [turn.at for turn in turns]) == ("It is 3 now.", [3, 4, 4])
    frame = (
        "You are an advanced image question-answering AI assistant. You have been provided with images and a question "
        "related to the images. Your task is to carefully analyze the images and provide the answer to the question. "
        "You need to carefully confirm whether the images content meet the conditions of the question, and then output "
        "the correct content.\n\nQuestion: {}\n\nThe answer is:\n"
    )
    instruction = 'When the moment comes, output "3".'
    query = f'{instruction} Is it the right time to output "3"? You can only answer yes or no.'
    assert [ask.text for ask in asks] == [frame.format(query), frame.format(query), frame.format(instruction)]
    assert [ask.choices for ask in asks] == [("Yes", "No"), ("Yes", "No"), ()]
    assert [task.choice(item, index) for index in (0, 1)] == ["yes", "no"]
    never, turns, _ = talked(task, item, {})
    assert (never, [turn.at for turn in turns]) == ("", [3, 4, 5, 6, 7, 8, 9])


@pytest.mark.parametrize(
    ("second", "output", "timely", "official", "strict"),
    [
        (3, "3", 1, 1, 1),  # 2 s early
        (7, "3", 1, 1, 1),  # 2 s late
        (8, "3", 0, 0, 0),  # 3 s late
        (5, "13", 1, 1, 0),  # officially 3 is in 13
        (5, "4", 1, 0, 0),
        (None, "", 0, 0, 0),
    ],
)
def test_streamingbench_proactive_scores(
    second: int | None, output: str, timely: float, official: float, strict: float, tmp_path: Path
) -> None:
    task = task_named("streamingbench-proactive", benchmarks.streamingbench(tmp_path))
    item = task.items()[0]
    response, turns, _ = talked(task, item, {} if second is None else {second: ["yes", output]})
    mark = task.mark(item, response, turns)
    assert (mark.details, mark.official_score, mark.score) == ({"time accuracy": timely}, official, strict)


def test_streamingbench_proactive_takes_the_output_in_other_letters_only_strictly(tmp_path: Path) -> None:
    task = task_named("streamingbench-proactive", benchmarks.streamingbench(tmp_path))
    item = task.items()[1]  # right at 4 s: "Goal by red team"
    response, turns, _ = talked(task, item, {5: ["yes", "goal by red team!"]})
    mark = task.mark(item, response, turns)
    assert (mark.details, mark.official_score, mark.score) == ({"time accuracy": 1}, 0, 1)


def test_streamingbench_refuses_a_time_that_is_none(tmp_path: Path) -> None:
    path = benchmarks.streamingbench(tmp_path) / "questions_real.json"
    path.write_text(path.read_text().replace("00:01:10", "soon"))
    with pytest.raises(
        pv.ConfigError, match=r"questions_real\.json .* at 0 > questions > 1 > time_stamp .* got 'soon'"
    ):
        task_named("streamingbench-real", tmp_path).items()


# -- RVS --------------------------------------------------------------------------------------------------------------


def test_rvs_predictions_for_a_judge(tmp_path: Path) -> None:
    task = task_named("rvs-ego", benchmarks.rvs(tmp_path))
    first, second = task.items()
    assert (first.id, first.end, second.end) == ("e1_0", 4, 10)
    assert first.path == tmp_path / "ego" / "videos" / "e1.mp4"
    assert (task.ask(first, []).text, task.ask(first, []).max_new_tokens) == ("What did I pick up?", 256)
    records = benchmarks.records_of(task, {"e1_0": "A mug,\nI think.", "e1_1": ""})
    assert [(r.score, r.official_score, r.answered) for r in records] == [(None, None, True), (None, None, False)]
    lines, table = task.outputs(records, tmp_path)
    # Flash-VStream's judge opens pred.json, a line a prediction, and numbers those of a video: e1_0, e1_1
    assert lines.name == "pred.json"
    assert [json.loads(line) for line in lines.read_text().splitlines()] == [
        {
            "id": "e1",
            "question": "What did I pick up?",
            "answer": "A cup.",
            "answer_type": "action",
            "pred": "A mug,\nI think.",
        },
        {"id": "e1", "question": "Where am I?", "answer": "In a kitchen.", "answer_type": "action", "pred": ""},
    ]
    # ReKV's judge opens a CSV file with pandas, and numbers them in the same way
    assert table.name == "results.csv"
    assert pd.read_csv(table, keep_default_na=False).to_dict("records") == [
        {"video_id": "e1", "question": "What did I pick up?", "answer": "A cup.", "pred_answer": "A mug,\nI think."},
        {"video_id": "e1", "question": "Where am I?", "answer": "In a kitchen.", "pred_answer": ""},
    ]
    (movie,) = task_named("rvs-movie", tmp_path).items()
    assert movie.path == tmp_path / "movie" / "videos" / "tt01_0000_0010.mp4"


def test_rvs_numbers_the_questions_of_a_video_wherever_they_stand(tmp_path: Path) -> None:
    path = benchmarks.rvs(tmp_path) / "ego" / "ego4d_oe.json"
    (video,) = json.loads(path.read_text())
    later = {**video, "conversations": [{**video["conversations"][0], "question": "And now?", "end_time": 11.0}]}
    path.write_text(json.dumps([video, later]))
    assert [item.id for item in task_named("rvs-ego", tmp_path).items()] == ["e1_0", "e1_1", "e1_2"]
