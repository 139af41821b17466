"""ProactiveVideoQA: when it is asked, what a judge is asked of what was said, and areas worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from benchmarks import proactivevideoqa, record_of, write_videos
from servers import answering
from test_eval_judge import says
from typer.testing import CliRunner

from eval.judge import Judge, judged, main
from eval.runner.config import configured
from eval.runner.execute import execute
from eval.stats.pauc import SPOKEN, area, kept, read_score, read_spoken
from eval.stats.record import Turn, read_run
from eval.stats.verdicts import read_judged
from eval.tasks import task_named
from pdrop_video import ConfigError
from pdrop_video.common.journal import Journal

app = typer.Typer()
app.command()(main)


def make_run(folder: Path, said: dict[int, str]) -> Path:
    """A run of the web part in which this was said at these seconds."""
    task = task_named("proactivevideoqa-web", proactivevideoqa(folder / "data"))
    (item,) = task.items()
    turns, dialogue = [], task.dialogue(item, ())
    try:
        ask = next(dialogue)
        while True:
            assert ask.at is not None
            turns.append(Turn(ask.at, said.get(int(ask.at), "")))
            ask = dialogue.send(turns[-1].text)
    except StopIteration as end:
        record = record_of(task, item, end.value, turns)
    with Journal(folder / "records.jsonl") as journal:
        journal.append(record.to_json())
    (folder / "run.json").write_text(json.dumps({"task": "proactivevideoqa-web", "config_digest": "c"}))
    task.outputs([record], folder)
    return folder


def test_it_is_asked_once_a_second_until_the_last_answer_s_end(tmp_path: Path) -> None:
    run = make_run(tmp_path, {3: " A cup. ", 7: "A man."})
    (record,) = read_run(run).records
    assert [turn.at for turn in record.turns] == [float(second) for second in range(1, 10)]  # 8.5 s, rounded up
    assert (record.score, record.response, record.details) == (None, "A cup.\nA man.", {"said": 2})
    task = task_named("proactivevideoqa-web", tmp_path / "data")
    dialogue = task.dialogue(task.items()[0], ())
    assert "You have answered so far:\n(nothing)\n" in next(dialogue).text
    assert "You have answered so far:\n- A cup.\n" in dialogue.send("A cup.").text


def test_areas_by_hand() -> None:
    assert area({}, 2, 6, 0) == 0.25  # silence
    assert area({2.0: 2.0}, 2, 6, 0) == 1
    assert area({4.0: 2.0}, 2, 6, 0) == pytest.approx((2 * 0.5 + 2 * 2) / 8)
    assert area({4.0: 2.0}, 2, 6, 0.5) == pytest.approx((1 * 0.5 + 3 * 2) / 8)
    assert area({4.0: 2.0}, 2, 6, 1) == 1  # the moment does not count
    assert area({3.0: 1.0, 5.0: 0.0}, 2, 6, 0) == pytest.approx((1 * 0.5 + 2 * 1 + 1 * 0) / 8)
    assert area({2.0: 2.0}, 2, 2, 0) == 0
    assert kept({3.0: 2.0, 5.5: 1.0, 5.6: 2.0}, 5.0) == {3.0: 2.0, 5.6: 2.0}  # late and worse
    assert kept({5.5: 0.0}, 5.0) == {5.5: 0.0}
    assert kept({5.2: 0.0, 5.5: 1.0}, 5.0) == {5.2: 0.0, 5.5: 1.0}
    assert [read_score(text) for text in ("Score: 3.", "12", "4", "1, no, 2")] == [("3", 2), None, None, ("2", 1)]


def test_a_judge_scores_what_was_said_in_time(tmp_path: Path) -> None:
    """Two sentences in time, the second judged with the first; one said again; one too early; silence for the rest."""
    run = make_run(tmp_path, {1: "Too early.", 3: "A thing moves.", 4: "A cup falls.", 5: "A thing moves."})
    replies = {"A thing moves.": "1", "A thing moves. A cup falls.": "3"}

    def answer(body: Any) -> tuple[int, dict[str, str], Any]:
        system, user = (message["content"] for message in body["messages"])
        question, truth, said = user.split("\n")
        assert system.endswith("Output the score only, do not add more explanations.") and body["temperature"] == 0
        assert (question, truth) == ("Question: What is happening?", "Ground Truth Answer: A cup falls.")
        return says(replies[said.removeprefix("Predicted Answer: ")])

    with answering(answer) as server:
        done = CliRunner().invoke(app, [str(run), "--judge", server.address, "--judge-model", "m"])
        assert done.exit_code == 0, done.output
        assert len(server.asked) == 2
        said = judged(run, Judge(server.address, "m"))
        assert len(server.asked) == 2
    # 0 from 3 s, 2 from 4 s on: (.5 + 0 + 2 * 2) / 8 of four seconds; silence, .25, for the second answer
    assert said["pauc"]["0"] == pytest.approx(((0.5 + 0 + 4) / 8 + 0.25) / 2)
    assert said["pauc"]["0.5"] == pytest.approx(((0.25 + 0 + 3 * 2) / 8 + 0.25) / 2)
    assert said["items"] == {"open": 2, "judged": 2, "unreadable": 0, "turns": 2, "items": 1}
    (record,) = read_judged(run).records
    assert record.score == pytest.approx(said["pauc"]["0.5"])
    assert "2 of 2 utterances judged" in " ".join(done.output.split())


def test_a_verdict_that_can_not_be_read(tmp_path: Path) -> None:
    run = make_run(tmp_path, {3: "A thing moves.", 4: "A cup falls."})
    with answering(lambda body: says("2" if "cup" in body["messages"][1]["content"][-20:] else "good")) as server:
        said = judged(run, Judge(server.address, "m"))
    assert (said["items"]["judged"], said["items"]["unreadable"]) == (1, 1)
    assert said["pauc"]["0"] == pytest.approx(((2 * 0.5 + 2 * 1) / 8 + 0.25) / 2)
    (run / SPOKEN).write_text("[{}]")
    with pytest.raises(ConfigError, match="is damaged"):
        read_spoken(run / SPOKEN)


def test_through_the_runner_with_subtitles(tmp_path: Path) -> None:
    """Both questions share a pass and its subtitles, which are told once each at their moments."""
    data = proactivevideoqa(tmp_path / "data")
    write_videos(data / "TV" / "videos", "house=1.mp4")
    settings = {"task": "proactivevideoqa-tv", "data": data, "out": tmp_path / "run", "fps": 1, "max_new_tokens": 2}
    execute(configured(None, settings))
    first, second = read_run(tmp_path / "run").records
    assert (first.error, second.error) == (None, None) and first.shared == 2
    assert [turn.at for turn in first.turns] == [1, 2, 3, 4, 5]
    entries = json.loads((tmp_path / "run" / SPOKEN).read_text())
    assert [entry["question_id"] for entry in entries] == ["house=1.mp4%Q1", "house=1.mp4%Q2"]
    assert [when for when, _ in entries[0]["predictions"]] == [t.at for t in first.turns if t.text.strip()]
    task = task_named("proactivevideoqa-tv", data)
    cues = task.cues(task.items()[1])
    assert [(cue.middle, cue.text) for cue in cues] == [(2.2, "Subtitle: (Kutner:)Too bad."), (5.1, "Subtitle: No.")]
    assert all(any(cue.covers(float(second), 1.0) for second in range(12)) for cue in cues)


def test_files_that_are_wrong(tmp_path: Path) -> None:
    path = proactivevideoqa(tmp_path) / "WEB" / "anno.json"
    rows = json.loads(path.read_text())
    for change, said in (
        ({"answer": []}, "at least 1"),
        ({"answer": [{"content": "x", "reply_timespan": [4, 2]}]}, "before it begins"),
        ({"conversation": []}, "at least 1"),
    ):
        path.write_text(json.dumps([{**rows[0], **change}]))
        with pytest.raises(ConfigError, match=said):
            task_named("proactivevideoqa-web", tmp_path).items()
