"""Video-MME as released: items, prompts with and without subtitles, and results that the official scorer accepts."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from stub import Stub
from videomme import DOMAINS, SUB_CATEGORIES, TASK_TYPES, make_videomme

import pdrop_video as pv
from eval.drivers.jobs import blank, failed
from eval.runner.config import RunConfig
from eval.runner.execute import execute
from eval.stats.record import Record
from eval.tasks import Item, task_named
from eval.tasks.videomme import official_results
from pdrop_video.video.subtitles import Cue, load_srt


def scored_officially(path: Path, durations: tuple[str, ...] = ("short", "medium", "long")) -> dict[str, Any]:
    """What the official scorer makes of a result file, failing where it fails; its rules written out plainly.

    It prints each category once over all videos and once within each duration.
    """
    results = json.loads(path.read_text(encoding="utf-8"))
    names = (*DOMAINS, *SUB_CATEGORIES, *TASK_TYPES)
    answered = {name: 0 for name in (*durations, *names, *(f"{d}, {name}" for d in durations for name in names))}
    right = dict(answered)
    for duration in durations:
        videos = [video for video in results if video["duration"] == duration]
        assert len(videos) == 300, f"{len(videos)} videos of duration {duration}"
        for video in videos:
            for question in video["questions"]:
                said = question["response"].strip()  # KeyError where it is missing, AttributeError where it is null
                for prefix in ("The best answer is", "The correct answer is", "The answer is", "The answer"):
                    said = said.replace(prefix, "")
                for prefix in ("The best option isThe correct option is", "Best answer:Best option:"):
                    said = said.replace(prefix, "")
                said = said.replace("Answer:", "").replace("Option:", "")
                letters = re.findall("[ABCD]", said)
                names = (video["domain"], video["sub_category"], question["task_type"])
                if letters:
                    for name in (duration, *names, *(f"{duration}, {name}" for name in names)):
                        answered[name] += 1  # KeyError for an unknown name
                        right[name] += letters[0] == question["answer"]
    return {
        "overall": sum(right[d] for d in durations) / sum(answered[d] for d in durations),
        "answered": sum(answered[d] for d in durations),
        **{name: right[name] / answered[name] for name in answered if answered[name]},
    }


def test_the_official_scorer_accepts_a_full_sized_run_and_agrees(tmp_path: Path) -> None:
    data = make_videomme(tmp_path / "data", 900)
    settings = RunConfig(task="videomme", data=data, out=tmp_path / "out", fps=1)
    summary = execute(settings, make=partial(Stub, settings))
    official = scored_officially(tmp_path / "out" / "videomme.json")
    accuracy = summary["accuracy"]["official_answered"]
    assert official["answered"] == accuracy["items"] == 2700 - summary["items"]["unanswered_official"] < 2700
    assert official["overall"] == pytest.approx(accuracy["mean"], abs=1e-12)
    assert summary["items"]["errors"] > 100  # these have an empty response, which is what the scorer can take
    printed = summary["official"]
    assert (printed["figure"], printed["counts"]) == ("official_answered", "answered questions")
    assert printed["overall"] == accuracy
    found = {name: of["mean"] for values in printed["categories"].values() for name, of in values.items()}
    assert found == pytest.approx({name: of for name, of in official.items() if name not in ("overall", "answered")})
    assert len(found) == 3 + 4 * (6 + 6 + 6)  # each domain, kind and task, and each within the three durations
    said = (tmp_path / "out" / "summary.md").read_text()
    assert said.count("(the official figure)") == 1
    assert "| official reading, answered ones (the official figure) |" in said
    assert "## By duration, official reading, answered questions" in said


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_videomme(tmp_path / "videomme", 2)


def item_of(data: Path, name: str = "videomme") -> tuple[Any, Item]:
    task = task_named(name, data)
    return task, task.items()[0]


def test_items_are_the_table_s_rows(data: Path) -> None:
    rows = pd.read_parquet(data / "videomme" / "test-00000-of-00001.parquet").to_dict("records")
    items = task_named("videomme", data).items()
    assert len(items) == len(rows) == 6
    for row, item in zip(rows, items, strict=True):
        assert (item.id, item.video, item.question) == (row["question_id"], row["videoID"], row["question"])
        assert item.options == tuple(row["options"]) and item.answer == row["answer"]
        assert item.path == data / "data" / f"{row['videoID']}.mp4"
        assert dict(item.category) == {n: row[n] for n in ("duration", "domain", "sub_category", "task_type")}


@pytest.mark.parametrize("suffix", [".MP4", ".mkv"])
def test_videos_in_other_formats(data: Path, suffix: str) -> None:
    path = data / "data" / "video0000.mp4"
    path.rename(path.with_suffix(suffix))
    assert item_of(data)[1].path == path.with_suffix(suffix)


INSTRUCTION = (
    "Select the best answer to the following multiple-choice question based on the video. Respond with only the letter "
    "(A, B, C, or D) of the correct option."
)


def test_the_prompt(data: Path) -> None:
    task, item = item_of(data)
    ask = task.ask(item, (0.0, 1.0))
    assert ask.text == "\n".join([INSTRUCTION, item.question, *item.options, "The best answer is:"])
    assert ask.choices == tuple(option[3:] for option in item.options) and ask.cloze == item.question


def test_the_prompt_with_subtitles_of_watched_frames(data: Path) -> None:
    said = [("00:00:00,500", "00:00:01,500", "<font color='#fff'>one</font>"), ("00:00:02,200", "00:00:02,800", "two")]
    said += [("00:00:02,900", "00:00:04,100", "<i>three</i>\n and more")]
    srt = "".join(f"{i}\n{a} --> {b}\n{text}\n\n" for i, (a, b, text) in enumerate(said, 1))
    (data / "subtitle" / "video0000.srt").write_text("\ufeff" + srt, encoding="utf-8")
    task, item = item_of(data, "videomme-subtitles")
    expected = ["This video's subtitles are listed below:", "one", "three and more", INSTRUCTION, item.question]
    assert task.ask(item, (0.0, 1.0, 2.0, 3.0, 4.0)).text.split("\n") == [
        *expected,
        *item.options,
        "The best answer is:",
    ]
    assert "three" not in task.ask(item, (0.0, 1.0, 2.0)).text  # not watched yet
    other = task.items()[3]  # of a video without an srt file
    assert task.ask(other, (0.0, 1.0)).text.startswith(INSTRUCTION)


def test_what_is_missing_is_named_with_how_to_get_it(data: Path, tmp_path: Path) -> None:
    with pytest.raises(pv.ConfigError, match=r"test-00000-of-00001\.parquet; download .*Video-MME"):
        task_named("videomme", tmp_path / "nowhere").items()
    (data / "subtitle" / "video0000.srt").unlink()
    (data / "subtitle").rmdir()
    with pytest.raises(pv.ConfigError, match=r"subtitle; unpack subtitle\.zip"):
        task_named("videomme-subtitles", data).items()
    assert task_named("videomme", data).items()
    table = pd.read_parquet(data / "videomme" / "test-00000-of-00001.parquet").drop(columns=["task_type", "answer"])
    table.to_parquet(data / "videomme" / "test-00000-of-00001.parquet")
    with pytest.raises(pv.ConfigError, match="has no column task_type, answer"):
        task_named("videomme", data).items()


def test_the_official_file_has_a_response_for_every_item(data: Path) -> None:
    items = task_named("videomme", data).items()
    records = [failed(items[0], "videomme", "c", "broken"), said(items[1], "C"), said(items[4], "Ä")]
    assert official_results(items, records) == [
        {
            "video_id": video,
            "duration": of[0].category["duration"],
            "domain": of[0].category["domain"],
            "sub_category": of[0].category["sub_category"],
            "questions": [
                {
                    "question_id": item.id,
                    "task_type": item.category["task_type"],
                    "question": item.question,
                    "options": list(item.options),
                    "answer": item.answer,
                    "response": response,
                }
                for item, response in zip(of, responses, strict=True)
            ],
        }
        for video, of, responses in (("001", items[:2], ["", "C"]), ("002", [items[4]], ["Ä"]))
    ]


def said(item: Item, response: str) -> Record:
    return replace(blank(item, "videomme", "c"), response=response)


def test_srt_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.srt").write_text("no times here")
    with pytest.raises(pv.ConfigError, match=r"a\.srt holds no subtitle"):
        load_srt(tmp_path / "a.srt")
    (tmp_path / "b.srt").write_bytes("1\n00:00:01,000 --> 00:00:02,000\nçà\n".encode("latin-1"))
    with pytest.raises(pv.ConfigError, match="is not UTF-8"):
        load_srt(tmp_path / "b.srt")
    (tmp_path / "c.srt").write_text(
        "2\n00:00:03,000 --> 00:00:04,500\n<b>x</b> 3 < 4\n\n1\n00:00:01,0 --> 00:00:02,5\ny\n"
    )
    assert load_srt(tmp_path / "c.srt")[-1] == Cue(3.0, 4.5, "x 3 < 4")
