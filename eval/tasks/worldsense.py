"""WorldSense (arXiv 2502.04326): four options about everyday videos, meant for sight and sound; here sight and text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import model_validator

from pdrop_video.video.subtitles import Cue, load_srt

from ..stats.record import Turn
from .base import Ask, Item, Mark, Task
from .files import load_json, required, video_file
from .letters import letter
from .options import bare
from .rows import Options, Row, Text, has_option, parse_rows, unique
from .subtitles import spoken
from .videomme import official_letter

_HOW = 'download the dataset "honglyhly/WorldSense" of the hub and unpack its videos into videos/'
_INSTRUCTION = (
    "Select the best answer to the following multiple-choice question based on the video. "
    "Respond with only the letter (A, B, C, or D) of the correct option."
)
FIELDS = ("duration", "domain", "sub_category", "task_domain", "task_type", "audio_class")
"""What the official tables are by."""


class Video(Row):
    """What ``worldsense_qa.json`` says of a video; its questions stand beside it as task0, task1, ..."""

    duration: Text
    domain: Text
    sub_category: Text
    audio_class: list[Text]


class Question(Row):
    """One of a video's questions."""

    task_domain: Text
    task_type: Text
    question: Text
    candidates: Options
    answer: Text

    @model_validator(mode="after")
    def _right(self) -> Question:
        has_option(self.answer, self.candidates)
        return self


class WorldSense(Task):
    """WorldSense as released: ``worldsense_qa.json``, ``videos/*.mp4``, ``subtitles/*.srt``.

    Parameters
    ----------
    data : Path
    subtitles : bool
        Put the subtitles that cover watched frames into the prompt; videos without an srt file are asked without.
    """

    system: ClassVar[str | None] = (
        "Carefully watch this video and pay attention to every detail. Based on your observations, select the best "
        "option that accurately addresses the question."
    )
    note: ClassVar[str] = (
        "The model does not hear the sound that most of these questions are about: compare with published figures for "
        "frames, or frames and subtitles. The official reading is the one without a judge model."
    )

    within: ClassVar[str | None] = "duration"

    def __init__(self, data: Path, subtitles: bool = False) -> None:
        super().__init__(data)
        self.subtitles = subtitles

    def items(self) -> list[Item]:
        """All questions, in the order of the file."""
        path = self.data / "worldsense_qa.json"
        entries: dict[str, dict[str, Any]] = parse_rows(load_json(path, _HOW), dict[str, dict[str, Any]], path)
        if self.subtitles:
            required(self.data / "subtitles", 'unpack worldsense_subtitles.zip of "honglyhly/WorldSense" there')
        items = []
        for name, entry in entries.items():
            asked = {key: task for key, task in entry.items() if "task" in key}
            video = parse_rows({name: entry}, dict[str, Video], path)[name]
            tasks = parse_rows({name: asked}, dict[str, dict[str, Question]], path)[name]
            items += [self._item(name, video, task, question) for task, question in tasks.items()]
        return unique(items, path)

    def _item(self, name: str, video: Video, task: str, question: Question) -> Item:
        return Item(
            id=f"{name}_{task}",
            video=name,
            path=video_file(self.data / "videos", name),
            question=question.question,
            options=tuple(question.candidates),
            answer=question.answer.strip(),
            category={field: getattr(question if field.startswith("task") else video, field) for field in FIELDS},
        )

    def ask(self, item: Item, seconds: Sequence[float]) -> Ask:
        """The official prompt; what it puts before the frames is the system prompt here.

        Its line break in front and its space at the end are kept. With subtitles, each watched frame that one covers
        gives a line, and a video without any has an empty one.
        """
        opening = "\nThese are the frames of a video. "
        if self.subtitles:
            lines = spoken(self._of_video(item.video), seconds)
            opening += "This video's subtitles are listed below:\n" + "\n".join(lines) + "\n"
        asked = "\n".join([item.question, *item.options])
        text = f"{opening}{_INSTRUCTION}\nQuestion: {asked}\nAnswer: "
        return Ask(text, cloze=item.question, choices=bare(item.options))

    def _of_video(self, video: str) -> list[Cue]:
        path = self.data / "subtitles" / f"{video}.srt"
        return load_srt(path) if path.exists() else []

    def mark(self, item: Item, response: str, turns: Sequence[Turn]) -> Mark:
        """The official reading, which is Video-MME's, and the strict one."""
        official, strict = official_letter(response), letter(response, item.options)
        return Mark.against(item.answer, official, strict)
