"""Makes a small Video-MME in the official layout: questions about synthetic clips that the built-in model can see."""

from __future__ import annotations

from pathlib import Path
from shutil import copyfile
from typing import Any

import pandas as pd

from eval.synthetic.quiz import Question, questions
from eval.synthetic.render import write_clip
from eval.synthetic.world import sample_clip

DOMAINS = (
    "Knowledge",
    "Film & Television",
    "Sports Competition",
    "Artistic Performance",
    "Life Record",
    "Multilingual",
)
SUB_CATEGORIES = ("Humanity & History", "Literature & Art", "Animation", "Basketball", "Magic Show", "Travel")
TASK_TYPES = (
    "Temporal Perception",
    "Spatial Perception",
    "Attribute Perception",
    "Action Recognition",
    "Object Recognition",
    "OCR Problems",
    "Counting Problem",
    "Temporal Reasoning",
    "Spatial Reasoning",
    "Action Reasoning",
    "Object Reasoning",
    "Information Synopsis",
)
SRT = '1\n00:00:00,000 --> 00:00:01,200\n<font color="white" size=".72c">hello there</font>\n\n'


def make_videomme(folder: Path, videos: int, clips: int = 0, seconds: int = 4) -> Path:
    """Write `videos` videos of three questions each, which share `clips` rendered clips of so many seconds.

    With no clips the videos are empty files, for workers that look at nothing. Every second video has subtitles.
    """
    for name in ("data", "videomme", "subtitle"):
        (folder / name).mkdir(parents=True)
    shown = [sample_clip("dev", 7, index, seconds=seconds) for index in range(clips or 4)]
    for index in range(clips):
        write_clip(shown[index], folder / f"clip-{index}.mp4")
    rows = []
    for video in range(videos):
        name, index = f"video{video:04d}", video % len(shown)
        if clips:
            copyfile(folder / f"clip-{index}.mp4", folder / "data" / f"{name}.mp4")
        else:
            (folder / "data" / f"{name}.mp4").touch()
        if video % 2 == 0:
            (folder / "subtitle" / f"{name}.srt").write_text(SRT, encoding="utf-8")
        asked = [q for q in questions(shown[index]) if len(q.options) == 4]
        rows += [_row(video, name, number, asked[number % len(asked)]) for number in range(3)]
    pd.DataFrame(rows).to_parquet(folder / "videomme" / "test-00000-of-00001.parquet")
    return folder


def _row(video: int, name: str, number: int, question: Question) -> dict[str, Any]:
    return {
        "video_id": f"{video + 1:03d}",
        "duration": ("short", "medium", "long")[video % 3],
        "domain": DOMAINS[video % 6],
        "sub_category": SUB_CATEGORIES[video % 6],
        "url": f"https://www.youtube.com/watch?v={name}",
        "videoID": name,
        "question_id": f"{video + 1:03d}-{number + 1}",
        "task_type": TASK_TYPES[(3 * video + number) % 12],
        "question": question.text,
        "options": [f"{letter}. {word}" for letter, word in zip("ABCD", question.options, strict=True)],
        "answer": "ABCD"[question.options.index(question.answer)],
    }
