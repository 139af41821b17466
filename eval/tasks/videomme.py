"""Video-MME (arXiv 2405.21075): 2,700 questions of four options about 900 videos, with and without subtitles."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, model_validator

from pdrop_video.video.subtitles import Cue, load_srt

from ..stats.official import OF_ANSWERED
from ..stats.record import Record, Turn
from .base import Ask, Item, Mark, Task
from .files import read_table, required, video_file, write_json
from .letters import letter
from .rows import Options, Row, Text, has_option, parse_rows, unique
from .subtitles import covering

QUESTIONS = "videomme/test-00000-of-00001.parquet"
_INSTRUCTION = (
    "Select the best answer to the following multiple-choice question based on the video. "
    "Respond with only the letter (A, B, C, or D) of the correct option."
)
_LETTER = re.compile(r"^[A-D]\.\s*")
# What the official scorer removes before it looks for a letter. Two of its strings run together, so that "Best answer:"
# stays and its B is read.
_OFFICIAL_PREFIXES = (
    "The best answer is",
    "The correct answer is",
    "The answer is",
    "The answer",
    "The best option isThe correct option is",
    "Best answer:Best option:",
    "Answer:",
    "Option:",
)


def _plain(value: Any) -> Any:
    """An array of pandas as a list."""
    return value.tolist() if hasattr(value, "tolist") else value


class Question(Row):
    """A row of the released file."""

    video_id: Text
    duration: Text
    domain: Text
    sub_category: Text
    videoID: Text
    question_id: Text
    task_type: Text
    question: Text
    options: Annotated[Options, BeforeValidator(_plain)]
    answer: Literal["A", "B", "C", "D"]

    @model_validator(mode="after")
    def _right(self) -> Question:
        has_option(self.answer, self.options)
        return self


COLUMNS = tuple(Question.model_fields)


def official_letter(response: str) -> str | None:
    """Read a response as the official scorer does: the first of A, B, C and D anywhere behind known prefixes."""
    text = response.strip()
    for prefix in _OFFICIAL_PREFIXES:
        text = text.replace(prefix, "")
    found = re.search("[ABCD]", text)
    return found[0] if found else None


class VideoMME(Task):
    """Video-MME as released: ``videomme/test-00000-of-00001.parquet``, ``data/*.mp4``, ``subtitle/*.srt``.

    Parameters
    ----------
    data : Path
    subtitles : bool
        Put the subtitles that cover watched frames into the prompt; videos without an srt file are asked without.
    """

    note: ClassVar[str] = (
        "The official scorer leaves unanswered questions out of the denominator and reads the first of A, B, C and D "
        "anywhere; the strict figures count all questions and read what was meant."
    )

    official: ClassVar[str | None] = OF_ANSWERED
    within: ClassVar[str | None] = "duration"

    def __init__(self, data: Path, subtitles: bool = False) -> None:
        super().__init__(data)
        self.subtitles = subtitles
        self._cues: dict[str, list[Cue]] = {}

    def items(self) -> list[Item]:
        """All questions, in the order of the file."""
        path = self.data / QUESTIONS
        table = read_table(path, COLUMNS, "download the dataset lmms-lab/Video-MME with its folder layout")
        if self.subtitles:
            required(self.data / "subtitle", "unpack subtitle.zip of lmms-lab/Video-MME there")
        rows = parse_rows(table, list[Question], path)
        return unique([self._item(row) for row in rows], path)

    def _item(self, row: Question) -> Item:
        return Item(
            id=row.question_id,
            video=row.videoID,
            path=video_file(self.data / "data", row.videoID),
            question=row.question,
            options=tuple(row.options),
            answer=row.answer,
            category={name: getattr(row, name) for name in ("duration", "domain", "sub_category", "task_type")},
            extra={"video_id": row.video_id},
        )

    def ask(self, item: Item, seconds: Sequence[float]) -> Ask:
        """The official prompt; subtitles are those that cover a watched frame."""
        lines = [_INSTRUCTION, item.question, *item.options, "The best answer is:"]
        said = covering(self._of_video(item.video), seconds) if self.subtitles else []
        if said:
            lines = ["This video's subtitles are listed below:", *(cue.text for cue in said), *lines]
        texts = tuple(_LETTER.sub("", option) for option in item.options)
        return Ask("\n".join(lines), cloze=item.question, choices=texts)

    def _of_video(self, video: str) -> list[Cue]:
        if video not in self._cues:
            path = self.data / "subtitle" / f"{video}.srt"
            self._cues = {video: load_srt(path) if path.exists() else []}  # one video at a time is worked on
        return self._cues[video]

    def mark(self, item: Item, response: str, turns: Sequence[Turn]) -> Mark:
        """The official reading and the strict one, each against the letter."""
        official, strict = official_letter(response), letter(response, item.options)
        return Mark.against(item.answer, official, strict)

    def outputs(self, records: Sequence[Record], folder: Path) -> list[Path]:
        """``videomme.json`` for the official scorer."""
        path = folder / "videomme.json"
        return write_json(path, official_results(self.items(), records))


def official_results(items: Sequence[Item], records: Sequence[Record]) -> list[dict[str, Any]]:
    """Answers in the form that the official scorer reads: one object a video, questions inside.

    The scorer fails on a question without a response, so items that an error left without one have an empty response.
    """
    responses = {record.item: record.response or "" for record in records}
    videos: dict[str, dict[str, Any]] = {}
    for item in items:
        if item.id not in responses:
            continue
        entry = videos.setdefault(
            item.extra["video_id"],
            {
                "video_id": item.extra["video_id"],
                **{name: item.category[name] for name in ("duration", "domain", "sub_category")},
                "questions": [],
            },
        )
        entry["questions"].append(
            {
                "question_id": item.id,
                "task_type": item.category["task_type"],
                "question": item.question,
                "options": list(item.options),
                "answer": item.answer,
                "response": responses[item.id],
            }
        )
    return list(videos.values())
