"""LVBench (arXiv 2406.08035): four options about videos of half an hour to two hours, six abilities."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar

from annotated_types import MinLen
from pydantic import model_validator

from ..stats.record import Record, Turn
from .base import Ask, Item, Mark, Task
from .files import first_there, read_lines, video_file, write_json
from .letters import letter
from .options import letters_for
from .rows import Label, Row, Text, has_option, parse_rows, seconds_of, unique
from .tally import READINGS, mean

FILE = "video_info.meta.jsonl"
_HOW = f'download the dataset "zai-org/LVBench" of the hub, {FILE} and its videos, into one folder'
ABILITIES: Mapping[str, str] = {
    "key information retrieval": "KIR",
    "event understanding": "EU",
    "summarization": "Sum",
    "entity recognition": "ER",
    "reasoning": "Rea",
    "temporal grounding": "TG",
}
"""Question types and their names in the official report."""

_OPTION = re.compile(r"\n[ \t]*\(([A-Z])\)")
_CLOCK = re.compile(r"\d+(?::\d{2}){1,2}")


class Question(Row):
    """A question with its options in its text, and where in the video its answer is."""

    uid: Text
    question: Text
    answer: Text
    question_type: Annotated[list[Text], MinLen(1)]
    time_reference: Label = ""

    @property
    def parts(self) -> tuple[str, list[str]]:
        """What is asked, and the options without letters."""
        asked, *rest = _OPTION.split(self.question)
        return asked.strip(), [text.strip() for text in rest[1::2]]

    @model_validator(mode="after")
    def _right(self) -> Question:
        options = self.parts[1]
        if len(options) < 2 or _OPTION.findall(self.question) != letters_for(options):
            raise ValueError("expected options (A), (B), ... on lines of their own in the question")
        has_option(self.answer, options)
        return self


class Video(Row):
    """A line: a video and what is asked about it."""

    key: Text
    type: Label = ""
    qa: list[Question]


def official_letter(response: str) -> str | None:
    """Read as LVBench's own `polish_answer`: the first character behind "(", of what stands before ")"."""
    said = response.strip().split(")")[0].strip()
    if "(" in said:
        said = said.split("(")[1].strip()
    return said[:1].strip() or None


def referred(reference: str) -> tuple[float, float] | None:
    """The part of a video from the first to the last time that a reference names, its last second included.

    Examples
    --------
    >>> referred("00:15-00:19"), referred("01:02:03"), referred("00:10-00:12, 00:40-00:41"), referred("")
    ((15.0, 20.0), (3723.0, 3724.0), (10.0, 42.0), None)
    """
    times = [seconds_of(clock) for clock in _CLOCK.findall(reference)]
    return (min(times), max(times) + 1.0) if times else None


class LVBench(Task):
    """LVBench as released: ``video_info.meta.jsonl`` and ``all_videos/{key}.mp4`` (or ``videos/``)."""

    official: ClassVar[str | None] = "Overall"
    note: ClassVar[str] = "The prompt is lmms-eval's; the official reading is LVBench's own."
    reference: ClassVar[bool] = False
    """Whether only the part of a video is seen that the annotators name for the question."""

    def items(self) -> list[Item]:
        """All questions, in the order of the file."""
        path = self.data / FILE
        videos: list[Video] = parse_rows(read_lines(path, _HOW), list[Video], path)
        return unique([self._item(video, row) for video in videos for row in video.qa], path)

    def _item(self, video: Video, row: Question) -> Item:
        _, options = row.parts
        part = referred(row.time_reference) if self.reference else None
        return Item(
            id=row.uid,
            video=video.key,
            path=self._path(video.key),
            question=row.question,
            options=tuple(options),
            answer=row.answer.strip(),
            category={"question_type": list(row.question_type), "video_type": video.type},
            start=part[0] if part else 0.0,
            end=part[1] if part else None,
            extra={"reference": row.time_reference, "asked": row.parts[0]},
        )

    def _path(self, key: str) -> Path:
        return first_there(*(video_file(self.data / folder, key) for folder in ("all_videos", "videos")))

    def ask(self, item: Item, seconds: Sequence[float]) -> Ask:
        """The question as it is written, options included, and the instruction of lmms-eval."""
        text = f"{item.question}\nAnswer the question with the option letter"
        return Ask(text, cloze=item.extra["asked"], choices=item.options)

    def mark(self, item: Item, response: str, turns: Sequence[Turn]) -> Mark:
        """The official reading and the strict one, each against the letter."""
        official, strict = official_letter(response), letter(response, item.options)
        return Mark.against(item.answer, official, strict)

    def figures(self, records: Sequence[Record]) -> dict[str, float]:
        """The official report: an accuracy for each ability, and over all questions."""
        found: dict[str, float] = {}
        for suffix, reading in READINGS.items():
            for ability, name in ABILITIES.items():
                scores = [getattr(r, reading) or 0.0 for r in records if ability in r.category["question_type"]]
                if scores:
                    found[f"{name}{suffix}"] = mean(scores)
            if records:
                found[f"Overall{suffix}"] = mean(getattr(record, reading) or 0.0 for record in records)
        return found

    def outputs(self, records: Sequence[Record], folder: Path) -> list[Path]:
        """``lvbench.json`` for the official test_acc.py: the letter by uid, nothing where none was read."""
        path = folder / "lvbench.json"
        said = {record.item: record.official or "" for record in records}
        return write_json(path, said)


class LVBenchReference(LVBench):
    """The same, but only the part of a video that holds the answer is seen, where the annotators name one."""

    official: ClassVar[str | None] = None
    note: ClassVar[str] = (
        "Only the part of a video that holds the answer is seen: no published figure is like this one, it bounds what "
        "a memory can give."
    )
    reference: ClassVar[bool] = True
