"""Writes tiny copies of the benchmarks in their official layouts: same files, names and fields, a handful of questions.

Answers and scores are worked out by hand in the tests that use them. Videos are made only where a model looks at them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import media

from eval.stats.record import Record, Turn, digest
from eval.tasks import Item, Task


def record_of(task: Task, item: Item, response: str, turns: Sequence[Turn] = ()) -> Record:
    """What the runner writes down for a response, as far as tasks look at it."""
    mark = task.mark(item, response, turns)
    return Record(
        key=digest(item.id),
        item=item.id,
        video=item.video,
        task="t",
        config="c",
        category=dict(item.category),
        question=item.question,
        options=list(item.options),
        answer=item.answer,
        response=response,
        official=mark.official,
        strict=mark.strict,
        official_score=mark.official_score,
        score=mark.score,
        details=dict(mark.details),
        turns=list(turns),
    )


def records_of(task: Task, responses: Mapping[str, str]) -> list[Record]:
    """One record for each item that has a response, in the benchmark's order."""
    return [record_of(task, item, responses[item.id]) for item in task.items() if item.id in responses]


def write_json(path: Path, content: Any) -> Path:
    """Write JSON, making folders on the way."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return path


def write_videos(folder: Path, *names: str, seconds: int = 12, rate: int = 4) -> None:
    """Write a small video for each name, folders included."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        media.write_video(path, media.steady(seconds * rate, rate), rate=rate)


def mlvu(data: Path) -> Path:
    """MLVU dev: some questions of each task; the same video name in two folders, and a candidate given twice.

    Also what the released files have: a `question_type` that is not the file's name, an answer that is no candidate,
    candidates without text or with spaces behind it, and a row without any text.
    """

    def row(video: str, kind: str, question: str, candidates: list[str], answer: str) -> dict[str, Any]:
        return {
            "video": video,
            "duration": 12.0,
            "question": question,
            "candidates": candidates,
            "answer": answer,
            "question_type": kind,
        }

    colours = ["Red", "Blue", "Green", "White"]
    write_json(
        data / "json" / "1_plotQA.json",
        [
            row("1.mp4", "plotQA", "What colour is the car?", colours, "Blue"),
            row("1.mp4", "plotQA", "How many men are there?", ["Six", "Three", "Three", "Eight"], "Three"),
            row("1.mp4", "plotQA", "Is there archery?", ["", "There is", "There is none", ""], "There is"),
        ],
    )
    catching = ["Fishing", "Catching the drone", "Launching the drone", "Sunbathing"]
    write_json(
        data / "json" / "2_needle.json",
        [
            row("1.mp4", "findNeedle", "What colour is the hat?", colours, "Red"),
            row("1.mp4", "findNeedle", "What does the man do?", catching, "Catching a flying drone quadcopter"),
        ],
    )
    more = {
        "ego": row("ego.mp4", "ego", "How many jars? ", ["2", "5", "10", ""], ""),
        "topic_reasoning": row("topic_reasoning.mp4", "topic_reasoning", "", [""] * 4, ""),
        "count": row("count.mp4", "count", "Where is it?", ["a", "b", "c", "on the shelve "], "on the shelve "),
    }
    for number, kind in enumerate(["ego", "count", "order", "anomaly_reco", "topic_reasoning"], 3):
        rows = [row(f"{kind}.mp4", kind, f"What colour is {kind}?", colours, "White")]
        write_json(data / "json" / f"{number}_{kind}.json", [*rows, *([more[kind]] if kind in more else [])])
    return data


def mlvu_test(data: Path) -> Path:
    """MLVU's test: six candidates, no answers."""
    rows = [
        {
            "video": f"test_AR_{n}.mp4",
            "duration": 12.0,
            "question": "Is there an anomaly?",
            "candidates": ["Fire", "Fight", "Theft", "Fall", "Crash", "None"],
            "question_type": kind,
            "question_id": name,
        }
        for n, (kind, name) in enumerate([("anomaly_reco", "AR_0"), ("anomaly_reco", "AR_1"), ("sportsQA", "SQA_0")])
    ]
    write_json(data / "test_question.json", rows)
    return data


def longvideobench(data: Path) -> Path:
    """LongVideoBench: three to five candidates, both forms of subtitles, and a clip out of a longer recording."""

    def row(name: str, video: str, truth: int, candidates: list[str], group: int, offset: float = 0) -> dict[str, Any]:
        return {
            "video_id": video,
            "question": f"When the man says hello, what is seen in {name}?",
            "question_wo_referring_query": "what is seen?",
            "candidates": candidates,
            "correct_choice": truth,
            "position": [3],
            "topic_category": "NP-News-Programs",
            "question_category": "TOS",
            "level": "IntraMoment",
            "id": name,
            "video_path": f"{video}.mp4",
            "subtitle_path": f"{video}_en.json",
            "duration_group": group,
            "starting_timestamp_for_subtitles": offset,
            "duration": 12.0,
            "view_count": 5,
        }

    five = ["A tree", "A car", "A house", "A dog", "A cat"]
    val = [
        row("va_0", "va", 1, five, 15),
        row("va_1", "va", 4, five, 15),
        row("vb_0", "vb", 2, five[:3], 600, offset=100),
    ]
    write_json(data / "lvb_val.json", val)
    hidden = [{k: v for k, v in entry.items() if k != "correct_choice"} for entry in val]
    write_json(data / "lvb_test_wo_gt.json", hidden)
    write_json(
        data / "subtitles" / "va_en.json",
        [
            {"timestamp": [1.5, 3.5], "text": "hello there"},
            {"timestamp": [5.0, 6.0], "text": "between two frames"},
            {"timestamp": [9.0, None], "text": "to the end"},
        ],
    )
    write_json(
        data / "subtitles" / "vb_en.json",
        [
            {"start": "00:01:43.900", "end": "00:01:44.000", "line": "very short"},
            {"start": "00:01:30.000", "end": "00:01:35.000", "line": "before the video"},
        ],
    )
    return data


def egoschema(data: Path) -> Path:
    """EgoSchema: three questions, two of them with public answers."""
    uids = ["0074f737-11cb-497d-8d07-77c3a8127391", "00aa7247-9a4b-4667-8588-37df29d40fe8", "00b9a0de-c59e"]
    rows = [
        {
            "q_uid": uid,
            "google_drive_id": "x",
            "question": "What is c doing?",
            **{
                f"option {n}": f"C is {verb}."
                for n, verb in enumerate(["cooking", "cleaning", "eating", "reading", "walking"])
            },
        }
        for uid in uids
    ]
    write_json(data / "questions.json", rows)
    write_json(data / "subset_answers.json", {uids[0]: 3, uids[1]: 0})
    return data


def worldsense(data: Path) -> Path:
    """WorldSense: two videos, three questions, one video of two audio classes, one with subtitles."""

    def task(domain: str, kind: str, answer: str) -> dict[str, Any]:
        return {
            "task_domain": domain,
            "task_type": kind,
            "question": "What is heard?",
            "candidates": ["A. Rain.", "B. A drum.", "C. A dog.", "D. Wind."],
            "answer": answer,
        }

    common = {"video_duration": "12s", "duration": "<1min", "video_caption": "Someone plays."}
    write_json(
        data / "worldsense_qa.json",
        {
            "dvOkwKAs": {
                "video_id": "dvOkwKAs",
                **common,
                "domain": "Music",
                "sub_category": "Covers",
                "audio_class": ["Music", "Speech"],
                "task0": task("Understanding", "Spatial Relation", "B"),
                "task1": task("Recognition", "Audio Recognition", "C"),
            },
            "aaaaaaaa": {
                "video_id": "aaaaaaaa",
                **common,
                "domain": "Games",
                "sub_category": "FPS Game",
                "audio_class": ["Event"],
                "task0": task("Recognition", "Audio Recognition", "A"),
            },
        },
    )
    folder = data / "subtitles"
    folder.mkdir(parents=True, exist_ok=True)
    said = (
        '1\n00:00:01,000 --> 00:00:03,000\n<font color="white">la la</font>\n\n2\n00:00:08,000 --> 00:00:09,000\nend\n'
    )
    (folder / "dvOkwKAs.srt").write_text(said, encoding="utf-8")
    return data


def _entry(video: str, *questions: dict[str, Any]) -> dict[str, Any]:
    return {
        "time": "[0:00:00 - 0:01:00]",
        "questions": list(questions),
        "video_categories": "cooking",
        "video_path": f"./videos/{video}",
    }


def _asked(kind: str, question: str, stamp: str, answer: str, options: list[str]) -> dict[str, Any]:
    return {
        "task_type": kind,
        "question": question,
        "time_stamp": stamp,
        "answer": answer,
        "options": options,
        "required_ability": "working memory",
    }


def streamingbench(data: Path) -> Path:
    """StreamingBench: bare and lettered options, four cut into five to seven, lists of lists, and times as 0:00:08."""
    plain, lettered = ["2.", "6.", "7.", "4."], ["A. DEN.", "B. MIA.", "C. BOS.", "D. GS."]
    write_json(
        data / "questions_real.json",
        [
            _entry(
                "sample_1_real.mp4",
                _asked("Object Perception", "What is it now?", "00:00:04", "C", lettered),
                _asked("Counting", "How many now?", "00:01:10", "B", plain),
            ),
            _entry("sample_2_real.mp4", _asked("Counting", "And here?", "0:00:08", "A", plain)),
        ],
    )
    twice = ["A. One waits.", "B. He says, 'Go.'", "C. All run.", "D. None.A. One waits.", "B. He.", "C. x", "D. y"]
    cut = ["A. One waits.", "B. He says, 'I pack", "for my trip.'", "C. All run ", "D. None."]
    write_json(
        data / "questions_omni.json",
        [
            _entry("sample_1_omni.mp4", _asked("Source Discrimination", "Who speaks?", "00:00:06", "D", twice)),
            _entry("sample_2_omni.mp4", _asked("Scene Understanding", "Where?", "00:00:06", "B", cut)),
        ],
    )
    kind = "Related Context Understanding"
    write_json(
        data / "questions_sqa.json",
        [
            [
                _entry(
                    "sample_17_sqa.mp4", _asked(kind, "Who serves?", "00:00:03", "A", ["Wang.", "Fan.", "Xu.", "Ma."])
                ),
                _entry("sample_17_sqa.mp4", _asked(kind, "What is his score?", "00:00:07", "C", plain)),
                _entry("sample_17_sqa.mp4", _asked(kind, "And now?", "00:00:09", "D", plain)),
            ],
            [_entry("sample_32_sqa.mp4", _asked(kind, "Which team attacks?", "00:00:05", "C", lettered))],
        ],
    )
    rows = [("00:00:02", "00:00:05", "3"), ("0:00:02", "00:00:04", "Goal by red team")]
    write_json(
        data / "questions_proactive.json",
        [
            _entry(
                "sample_17_proactive.mp4",
                {
                    "task_type": "Active Output",
                    "question": f'When the moment comes, output "{output}".',
                    "time_stamp": asked,
                    "ground_truth_time_stamp": right,
                    "ground_truth_output": output,
                    "required_ability": "working memory",
                },
            )
            for asked, right, output in rows
        ],
    )
    return data


def ovobench(data: Path) -> Path:
    """OVO-Bench: one entry of each of the twelve tasks over two videos, probes with counts, steps and clues.

    One first option begins with "A." and is a name.
    """

    def choice(number: int, task: str, video: str, realtime: float, truth: int, count: int = 4) -> dict[str, Any]:
        options = ["A. Wade" if task == "OJR" else "a red car", "a bus", "a man", "a bicycle", "unable to answer"][
            :count
        ]
        return {
            "id": number,
            "task": task,
            "video": video,
            "realtime": realtime,
            "question": f"What is seen ({task})?",
            "answer": options[truth],
            "options": options,
            "gt": truth,
        }

    ego, film = "Ego4D/clips/one.mp4", "MovieNet/tt01.mp4"
    entries = [
        choice(0, "EPM", ego, 9, 2),
        choice(1, "ASI", ego, 4.2, 1),
        choice(2, "HLD", ego, 6, 4, count=5),
        choice(3, "OCR", film, 3, 0),
        choice(4, "ACR", film, 4, 0),
        choice(5, "ATR", film, 5, 0),
        choice(6, "STU", film, 5, 1),
        choice(7, "FPD", film, 8, 1, count=2),
        choice(8, "OJR", film, 10, 3),
        {
            "id": 9,
            "task": "REC",
            "video": ego,
            "activity": "clap",
            "test_info": [{"realtime": 3, "count": 0}, {"realtime": 7, "count": 2}, {"realtime": 11, "count": 12}],
        },
        {
            "id": 10,
            "task": "SSR",
            "video": film,
            "tutorial": "tea",
            "test_info": [
                {"realtime": 2, "type": 0, "step": "boil water"},
                {"realtime": 6, "type": 1, "step": "pour tea"},
            ],
        },
        {
            "id": 11,
            "task": "CRR",
            "video": film,
            "question": "What does he do with the paper?",
            "answer": "He gives it away.",
            "ask_time": 4,
            "clue_time": 7,
            "test_info": [{"realtime": 4, "type": 0}, {"realtime": 9, "type": 1}],
        },
    ]
    write_json(data / "ovo_bench_new.json", entries)
    return data


def rvs(data: Path) -> Path:
    """RVS: one video of two questions for Ego, one of one for Movie."""

    def video(folder: str, name: str, *asked: tuple[str, str, float]) -> dict[str, Any]:
        return {
            "video_id": name,
            "video_path": f"data/rvs/{folder}/videos/{name}.mp4",
            "duration": 12,
            "conversations": [
                {"question": question, "answer": answer, "start_time": 0.0, "end_time": end, "answer_type": "action"}
                for question, answer, end in asked
            ],
        }

    ego = video("ego", "e1", ("What did I pick up?", "A cup.", 4.0), ("Where am I?", "In a kitchen.", 10.0))
    write_json(data / "ego" / "ego4d_oe.json", [ego])
    write_json(data / "movie" / "movienet_oe.json", [video("movie", "tt01_0000_0010", ("Who enters?", "A man.", 6.0))])
    return data


def omnipro(data: Path) -> Path:
    """OmniPro: an alert, a count that grows, a place, states and a narration over two videos of twelve seconds."""

    def sample(number: int, task: str, video: str, begun: str, *due: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": f"{task}_{number}",
            "task": task,
            "video_id": video,
            "video_path": f"data/raw_videos/{video}.mp4",
            "duration": 12.0,
            "question": f'Tell me "now" ({task}).',
            "question_time": begun,
            "audio_dependency": "none",
            "ground_truth": list(due),
        }

    def at(second: int, **more: Any) -> dict[str, Any]:
        return {"trigger_time": f"00:{second:02d}", "response": "It happens.", **more}

    write_json(
        data / "benchmark.json",
        [
            sample(0, "instant_event_alert", "one", "00:00", at(4), at(10)),
            sample(1, "cumulative_counting", "one", "00:02", at(5, count=1), at(9, count=2)),
            sample(2, "explicit_target_grounding", "two", "00:00", at(6, position="top-left")),
            sample(3, "realtime_state_monitor", "two", "00:00", at(3, state_from="Off", state_to="On")),
            sample(4, "event_narration", "two", "00:00", at(3), at(8)),
        ],
    )
    return data


def ipibench(data: Path) -> Path:
    """IPIBench's tasks of one answer: one sample or two of each, ten seconds from the third second of a video."""

    def sample(name: int, moment: int, text: str = "", **more: Any) -> dict[str, Any]:
        return {
            "id": name,
            "video_st": 3,
            "video_ed": 13,
            "question": [{"text": f"Answer <attention> once it happens ({name})."}],
            "answer": [{"trigger_time": moment, "text": text}],
            **more,
        }

    files = {
        "IRP/RAP": [sample(0, 8), sample(1, 4)],
        "IRP/RTP": [sample(0, 12)],
        "PM/PT": [
            sample(0, 8, "to the left", ego_spatial=True),
            sample(1, 8, exo_spatial=True, preposition="on", answer_list=["tables", "desk"]),
        ],
        "PM/PU": [sample(0, 8, number="3", answer_list=["3", "three"]), sample(1, 8, color="red")],
        "PM/RP": [sample(0, 8, "open")],
    }
    for name, rows in files.items():
        write_json(data / "Benchmark" / f"{name}.json", rows)
    return data


def proactivevideoqa(data: Path) -> Path:
    """ProactiveVideoQA: a web video of two answers, and a TV clip with subtitles and two questions."""

    def due(content: str, begin: float, end: float) -> dict[str, Any]:
        return {
            "role": "assistant",
            "content": content,
            "related_timespan": [begin, end - 1],
            "reply_timespan": [begin, end],
        }

    def line(content: str, time: float) -> dict[str, Any]:
        return {"role": "user", "content": content, "time": time}

    web = {
        "video": "a.1.mp4",
        "question_id": "a.1.mp4",
        "conversation": [line("What is happening?", 0)],
        "answer": [due("A cup falls.", 2.0, 6.0), due("A man comes.", 6.5, 8.5)],
        "duration": 12.3,
    }
    subtitles = [line("Subtitle: (Kutner:)Too bad.", 2.2), line("Subtitle: No.", 5.1)]
    tv = [
        {
            "video": "house=1.mp4",
            "question_id": f"house=1.mp4%Q{number}",
            "conversation": [line(f"Who speaks ({number})?", 0), *subtitles],
            "answer": [due("Kutner.", 2.0, 5.0)],
            "duration": 12.0,
        }
        for number in (1, 2)
    ]
    write_json(data / "WEB" / "anno.json", [web])
    write_json(data / "TV" / "anno.json", tv)
    return data
