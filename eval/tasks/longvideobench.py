"""LongVideoBench (arXiv 2407.15754): referring questions about videos of up to an hour, subtitles among the frames."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

import pdrop_video as pv
from pdrop_video.video.subtitles import Cue

from ..stats.record import Record, Turn
from .base import Ask, Item, Mark, Task
from .files import required, write_json
from .letters import letter
from .options import first_letter, letter_at, lettered
from .rows import Clock, Count, Label, Options, Row, Seconds, Text, load_rows, seconds_of, unique

_HOW = 'download the dataset "longvideobench/LongVideoBench" of the hub and unpack videos.tar and subtitles.tar in it'
_INSTRUCTION = "Answer with the option's letter from the given choices directly."
# What the authors' scorer removes before it looks for a letter.
_PREFIXES = (
    "The best answer is",
    "The correct answer is",
    "The answer is",
    "The answer",
    "The best option is",
    "The correct option is",
    "Best answer:",
    "Best option:",
)


class Question(Row):
    """A row of ``lvb_val.json`` or ``lvb_test_wo_gt.json``; test withholds `correct_choice`."""

    id: Text
    video_path: Text
    subtitle_path: Text
    duration: Annotated[Seconds, Field(gt=0)]
    starting_timestamp_for_subtitles: Seconds = 0.0
    question: Text
    candidates: Options
    correct_choice: Count | None = None
    duration_group: Label = ""
    question_category: Label = ""
    level: Label = ""

    @model_validator(mode="after")
    def _right(self) -> Question:
        if self.correct_choice is not None and self.correct_choice >= len(self.candidates):
            raise ValueError(f"correct_choice is {self.correct_choice}; expected 0 to {len(self.candidates) - 1}")
        return self


class Spoken(Row):
    """One form of a subtitle: seconds; an end that is no number stands for the video's end."""

    timestamp: tuple[Seconds, Any]
    text: Label

    @model_validator(mode="after")
    def _forward(self) -> Spoken:
        begin, end = self.timestamp
        if isinstance(end, int | float) and not begin <= end:
            raise ValueError(f"ends at {end} s, before it begins at {begin:g} s")
        return self

    def times(self, duration: float) -> tuple[float, float, str]:
        """Begin, end and text."""
        begin, end = self.timestamp
        timed = isinstance(end, int | float) and not isinstance(end, bool)
        return begin, end if timed else duration, self.text


class Written(Row):
    """The other form: times of day."""

    start: Clock
    end: Clock
    line: str

    def times(self, duration: float) -> tuple[float, float, str]:
        """Begin, end and text."""
        return seconds_of(self.start), seconds_of(self.end), self.line


def cue_of(subtitle: Spoken | Written, offset: float, duration: float) -> Cue:
    """A subtitle on the video's own clock."""
    begin, end, text = subtitle.times(duration)
    return Cue(begin - offset, end - offset, text)


class LongVideoBench(Task):
    """LongVideoBench as released: ``lvb_val.json`` or ``lvb_test_wo_gt.json``, ``videos/``, ``subtitles/*.json``.

    Parameters
    ----------
    data : Path
    subtitles : bool
        Let the subtitles that cover a watched frame enter the stream in the middle of their time.
    test : bool
        Ask the test's questions, whose answers only the server knows, and write the submission.
    """

    rule: ClassVar[str] = "longvideobench"

    def __init__(self, data: Path, subtitles: bool = True, test: bool = False) -> None:
        super().__init__(data)
        self.subtitles, self.test = subtitles, test

    def items(self) -> list[Item]:
        """All questions, in the order of the file."""
        path = self.data / ("lvb_test_wo_gt.json" if self.test else "lvb_val.json")
        rows: list[Question] = load_rows(path, list[Question], _HOW)
        unanswered = [number for number, row in enumerate(rows) if row.correct_choice is None]
        if unanswered and not self.test:
            raise pv.ConfigError(
                f"{path} has no correct_choice at {unanswered[0]}; expected one in every row of the validation set."
            )
        if self.subtitles:
            required(self.data / "subtitles", _HOW)
        return unique([self._item(row) for row in rows], path)

    def _item(self, row: Question) -> Item:
        return Item(
            id=row.id,
            video=Path(row.video_path).stem,
            path=self.data / "videos" / row.video_path,
            question=row.question,
            options=tuple(row.candidates),
            answer=None if self.test or row.correct_choice is None else letter_at(row.correct_choice),
            category={
                "duration_group": row.duration_group,
                "question_category": row.question_category,
                "level": row.level,
            },
            end=row.duration,
            first=math.inf,  # after the last subtitle, whose middle may lie behind the last frame
            extra={"subtitle_path": row.subtitle_path, "offset": row.starting_timestamp_for_subtitles},
        )

    def ask(self, item: Item, seconds: Sequence[float]) -> Ask:
        """The official text behind frames and subtitles."""
        lines = [f"Question: {item.question}", *lettered(item.options), _INSTRUCTION]
        return Ask("\n".join(lines), cloze=item.question, choices=item.options)

    def cues(self, item: Item) -> Sequence[Cue]:
        """The video's subtitles in the order of their middles."""
        if not self.subtitles:
            return ()
        path = self.data / "subtitles" / item.extra["subtitle_path"]
        spoken = load_rows(path, list[Spoken | Written], _HOW)
        assert item.end is not None
        cues = [cue_of(subtitle, item.extra["offset"], item.end) for subtitle in spoken]
        return sorted(cues, key=lambda cue: cue.middle)

    def mark(self, item: Item, response: str, turns: Sequence[Turn]) -> Mark:
        """The authors' scorer draws an option by lot where it reads no letter: here that counts as the chance of it."""
        official, strict = first_letter(response, "ABCDE", _PREFIXES), letter(response, item.options)
        if item.answer is None:
            return Mark(official, strict, None, None)
        by_lot = 1 / len(item.options)
        official_score = by_lot if official is None else float(official == item.answer)
        return Mark(official, strict, official_score, float(strict == item.answer))

    def outputs(self, records: Sequence[Record], folder: Path) -> list[Path]:
        """For the test ``longvideobench_test.json``: the letter, or what was said if none was read, by question."""
        if not self.test:
            return []
        path = folder / "longvideobench_test.json"
        answers = {record.item: record.strict or record.response for record in records if record.response is not None}
        return write_json(path, answers)
