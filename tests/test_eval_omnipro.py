"""OmniPro: one prompt a second, what was said when, and scores worked out by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from benchmarks import omnipro, record_of, write_videos

from eval.runner.config import configured
from eval.runner.execute import execute
from eval.stats.record import Record, Turn, read_run
from eval.tasks import Ask, Item, task_named
from eval.tasks.omnipro import OmniPro
from eval.tasks.spoken import Said, joined, matched
from pdrop_video import ConfigError

ALERT, COUNT, PLACE, STATE, NARRATION = (
    "instant_event_alert_0",
    "cumulative_counting_1",
    "explicit_target_grounding_2",
    "realtime_state_monitor_3",
    "event_narration_4",
)


@pytest.fixture
def task(tmp_path: Path) -> OmniPro:
    made = task_named("omnipro", omnipro(tmp_path))
    assert isinstance(made, OmniPro)
    return made


def item(task: OmniPro, name: str) -> Item:
    return next(item for item in task.items() if item.id == name)


def talked(task: OmniPro, one: Item, says: Mapping[int, str]) -> tuple[list[Ask], Record]:
    """The prompts of a dialogue in which the model says this at these seconds, and its record."""
    asks, turns = [], []
    dialogue = task.dialogue(one, ())
    try:
        ask = next(dialogue)
        while True:
            assert ask.at is not None
            asks.append(ask)
            turns.append(Turn(ask.at, says.get(int(ask.at), "")))
            ask = dialogue.send(turns[-1].text)
    except StopIteration as end:
        return asks, record_of(task, one, end.value, turns)


def test_one_prompt_a_second_from_the_question_to_the_end(task: OmniPro) -> None:
    asks, record = talked(task, item(task, COUNT), {5: "1", 9: " 2 "})
    assert [ask.at for ask in asks] == [float(second) for second in range(2, 13)]
    first, after = asks[0].text, asks[-1].text
    assert first.startswith(
        'Watch this live video stream. The user asked:\n  "Tell me "now" (cumulative_counting)."\n\n'
    )
    assert first.endswith(
        "\n\nYour previous responses so far:\n(none)\n\nCurrent clock: 00:02. What is your output at this moment? "
        "(Remember: empty = stay silent.)"
    )
    assert "responses so far:\n[00:05] 1\n[00:09] 2\n\nCurrent clock: 00:12." in after
    assert record.response == "[00:05] 1\n[00:09] 2"
    assert "Possible states:\n  - Off\n  - On\n\nRules:" in task.ask(item(task, STATE), ()).text
    assert (item(task, COUNT).start, item(task, COUNT).end) == (2.0, 12.0)


def test_scores_by_hand(task: OmniPro) -> None:
    """Two said of two due in time; one of three; a wrong place; a state; a narration that only a judge can tell."""
    said = {
        ALERT: {4: "It fell.", 9: "Again."},
        COUNT: {1: "never asked", 3: "7", 6: "At 00:06 it is 1", 12: "3"},
        PLACE: {6: "A cup. Position: top-right"},
        STATE: {2: "'on'"},
        NARRATION: {3: "It begins."},
    }
    records = [talked(task, one, said[one.id])[1] for one in task.items()]
    found = {record.item: record for record in records}
    assert found[ALERT].score == 1 and found[ALERT].details["right"] == 2
    # count: said at 3, 6 and 12; due at 5 and 9: (6, 5) is nearest, then (12, 9); 1 is right, 3 is not
    assert found[COUNT].details == {"said": 3, "due": 2, "in time": 2, "right": 1}
    assert found[COUNT].score == pytest.approx(2 * 2 / (3 + 2))
    assert found[PLACE].details["right"] == 0 and found[PLACE].score == 1
    assert found[STATE].details["right"] == 1
    assert "right" not in found[NARRATION].details and found[NARRATION].score == pytest.approx(2 / 3)
    figures = task.figures(records)
    assert figures["overall time F1"] == pytest.approx(2 * 7 / (8 + 8))
    assert figures["cumulative_counting joint F1"] == pytest.approx(2 * 1 / 5)
    assert "event_narration joint F1" not in figures and "overall joint F1" not in figures
    assert task.figures(records[:4])["overall joint F1"] == pytest.approx(2 * 4 / (7 + 6))


def test_silence_is_no_answer(task: OmniPro) -> None:
    _, record = talked(task, item(task, ALERT), {3: "  ", 5: "\n"})
    assert (record.response, record.official, record.score) == ("", None, 0)
    assert record.details["said"] == 0


def test_what_goes_on_is_one_utterance() -> None:
    said = [Said(1, "a"), Said(3, "b"), Said(5, "c"), Said(8, "d")]
    assert joined(said, 2) == [Said(1, "a b c"), Said(8, "d")]
    assert joined([], 2) == []
    assert matched([5, 6], [7], 3) == [(1, 0)]
    assert matched([4, 10], [7], 3) == [(0, 0)]  # as near: the earlier one
    assert matched([1], [4.5], 3) == []


def test_files_for_the_official_scripts(task: OmniPro, tmp_path: Path) -> None:
    records = [talked(task, one, {4: "It fell.", 5: "Down."})[1] for one in task.items()[:2]]
    paths = task.outputs(records, tmp_path)
    assert [path.name for path in paths] == ["instant_event_alert.jsonl", "cumulative_counting.jsonl"]
    (entry,) = [json.loads(line) for line in paths[0].read_text().splitlines()]
    assert entry["predictions"] == [{"t_sec": 4.0, "raw": "It fell. Down."}]
    assert entry["ground_truth"][0]["response"] == "It happens." and entry["video_id"] == "one"


def test_files_that_are_wrong(tmp_path: Path) -> None:
    rows = json.loads((omnipro(tmp_path) / "benchmark.json").read_text())
    for change, said in (
        ({"task": "juggling"}, "no task 'juggling'"),
        ({"question_time": "00:13"}, "behind its video's end"),
        ({"ground_truth": [{"count": 1}]}, "expected trigger_time"),
    ):
        (tmp_path / "benchmark.json").write_text(json.dumps([{**rows[0], **change}]))
        with pytest.raises(ConfigError, match=said):
            task_named("omnipro", tmp_path).items()


def test_through_the_runner(tmp_path: Path) -> None:
    """The real path asks at every second, on frames up to it, and writes the official files."""
    data = omnipro(tmp_path / "data")
    write_videos(data / "raw_videos", "one.mp4", "two.mp4")
    settings = {"task": "omnipro", "data": data, "out": tmp_path / "run", "fps": 1, "max_new_tokens": 2, "limit": 2}
    execute(configured(None, settings))
    records = {record.item: record for record in read_run(tmp_path / "run").records}
    assert [turn.at for turn in records[COUNT].turns] == [float(second) for second in range(2, 13)]
    assert all(record.error is None for record in records.values())
    said = sum(bool(turn.text.strip()) for turn in records[ALERT].turns)
    assert said and records[ALERT].details["said"] == 1  # one a second is one long utterance
    assert (tmp_path / "run" / "omnipro" / "instant_event_alert.jsonl").exists()
