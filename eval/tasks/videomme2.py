"""Video-MME-v2 (arXiv 2604.05015): groups of four questions of eight options each, scored as groups.

A group asks one ability four times (relevance), or the steps of one line of thought (logic). What a group is worth
grows faster than the number of right answers, and a line of thought counts up to its first break.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pandas as pd
from pydantic import BeforeValidator, model_validator

from ..stats.record import Record, Turn
from .base import Ask, Item, Mark, Task
from .files import read_lines, read_table, required, video_file
from .letters import letter
from .options import bare, letters_for
from .rows import Label, Row, Seconds, Text, has_option, parse_rows, unique
from .tally import READINGS, means_of

_HOW = 'download the dataset "MME-Benchmarks/Video-MME-v2" of the hub and unpack the archives of videos/ into video/'
_INSTRUCTION = (
    "Select the best answer to the following multiple-choice question based on the video. Respond with only the letter "
    "(A, B, C, D, E, F, G, or H) of the correct option."
)
_REASONING = (
    "Please perform a detailed reasoning based on the provided video frames to answer the following multiple-choice "
    "question selecting the best option from A through H and providing your final response strictly in the format: "
    "'Final Answer: <letter>."
)
_PREFIXES = (
    "Final Answer:",
    "The best answer is",
    "The correct answer is",
    "The answer is",
    "The answer",
    "The best option is",
    "The correct option is",
    "Best answer:",
    "Best option:",
    "Answer:",
    "Option:",
)
_OPTION = re.compile(r"(?:^|\n)[ \t]*([A-Z])\. ?")
_SQUARES = (0.0, 1 / 16, 4 / 16, 9 / 16, 1.0)
_CHAINS: Mapping[str, tuple[tuple[float, ...], int | None]] = {
    "[1, 2, 3, 4]": (_SQUARES, None),
    "[1, [2, 3], 4]": ((0.0, 1 / 12, 4 / 12, 7 / 12, 1.0), 1),
    "[[1, 2], 3, 4]": ((0.0, 1 / 10, 2 / 10, 5 / 10, 1.0), 0),
}
"""What a line of thought is worth by the number of its steps, and the step that the next one may stand for."""


def _plain(value: Any) -> Any:
    """What a table writes for nothing as an empty text, and a whole number without a fraction."""
    if value is None or value != value or str(value) == "None":
        return ""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Name = Annotated[Label, BeforeValidator(_plain)]


class Question(Row):
    """A row of ``test.parquet``; `options` is one text, an option a line."""

    video_id: Text
    question_id: Text
    question: Text
    options: Text
    answer: Literal["A", "B", "C", "D", "E", "F", "G", "H"]
    group_type: Literal["relevance", "logic"]
    group_structure: Name
    level: Name
    second_head: Name
    third_head: Name

    @property
    def choices(self) -> list[str]:
        """The options without letters."""
        return [text.strip() for text in _OPTION.split(self.options)[2::2]]

    @property
    def chain(self) -> str:
        """How a line of thought goes, written in one way."""
        try:
            return str(ast.literal_eval(self.group_structure))
        except (ValueError, SyntaxError):
            return self.group_structure

    @model_validator(mode="after")
    def _right(self) -> Question:
        if re.fullmatch(r".*-\d+", self.question_id) is None:
            raise ValueError(f"the question_id is {self.question_id!r}; expected one such as '001-1'")
        if _OPTION.findall(self.options) != letters_for(self.choices) or len(self.choices) < 2:
            raise ValueError("expected options A., B., ... on lines of their own")
        has_option(self.answer, self.choices)
        if self.group_type == "logic" and self.chain not in _CHAINS:
            raise ValueError(f"the group_structure is {self.group_structure!r}; expected one of {', '.join(_CHAINS)}")
        return self


COLUMNS = tuple(Question.model_fields)
HEADS = ("level", "second_head", "third_head")
"""What the official report is by, where a row says it."""


class Word(Row):
    """A line of a subtitle file."""

    text: Label
    start_time: Seconds = 0.0
    end_time: Seconds = 0.0


def official_letter(response: str) -> str | None:
    """Read as the official script does: the first of A to H behind known prefixes."""
    for prefix in _PREFIXES:
        response = response.replace(prefix, "")
    found = re.search("[A-H]", response)
    return found[0] if found else None


def of_ability(scores: Sequence[float]) -> float:
    """What a group about one ability is worth: the square of the part that is right; 0 below none, as officially."""
    return _SQUARES[int(sum(scores))] if sum(scores) >= 0 else 0.0


def of_thought(scores: Sequence[float], chain: str) -> float:
    """What a line of thought is worth: its steps up to the first that is wrong, of two alternatives either will do."""
    worth, either = _CHAINS[chain]
    right = next((number for number, score in enumerate(scores) if not score), len(scores))
    if either is not None and right == either and scores[either + 1]:
        right += 1
    return worth[right]


class VideoMME2(Task):
    """Video-MME-v2 as released: ``test.parquet``, ``video/{video_id}.mp4``, ``subtitle/{video_id}.jsonl``.

    Parameters
    ----------
    data : Path
    subtitles : bool
        Put all words that are said in the video into the prompt.
    reasoning : bool
        Ask for reasoning and "Final Answer:".
    """

    rule: ClassVar[str] = "interior"
    official: ClassVar[str | None] = "total"
    tables: ClassVar[bool] = False
    signed: ClassVar[tuple[str, ...]] = ("relevance, linear",)
    note: ClassVar[str] = (
        "The official figure is the total over groups. In the official reading an answer without a letter counts as "
        "-1: it takes one from its group of an ability, and breaks no line of thought. In the strict one it is wrong."
    )

    def __init__(self, data: Path, subtitles: bool = False, reasoning: bool = False) -> None:
        super().__init__(data)
        self.subtitles, self.reasoning = subtitles, reasoning
        self._said: dict[str, str] = {}

    def items(self) -> list[Item]:
        """All questions, in the order of the file."""
        path = self.data / "test.parquet"
        table = read_table(path, COLUMNS, _HOW)
        if self.subtitles:
            required(self.data / "subtitle", "unpack the subtitles of MME-Benchmarks/Video-MME-v2 there")
        rows: list[Question] = parse_rows(table, list[Question], path)
        return unique([self._item(row) for row in rows], path)

    def _item(self, row: Question) -> Item:
        return Item(
            id=row.question_id,
            video=row.video_id,
            path=video_file(self.data / "video", row.video_id),
            question=row.question,
            options=tuple(row.choices),
            answer=row.answer,
            category={name: value for name in HEADS if (value := getattr(row, name))}
            | {"group_type": row.group_type, "group_structure": row.chain},
            extra={"options": row.options},
        )

    def ask(self, item: Item, seconds: Sequence[float]) -> Ask:
        """The official prompt."""
        said = self._of_video(item.video) if self.subtitles else None
        head = "These are the frames of a video."
        if said is not None:
            head += f" This video's subtitles are listed below:\n{said}"
        asked = f"Question: {item.question}\n{item.extra['options']}\n{_REASONING if self.reasoning else _INSTRUCTION}"
        longest = 4096 if self.reasoning else 16
        return Ask(f"{head}\n{asked}", max_new_tokens=longest, cloze=item.question, choices=bare(item.options))

    def _of_video(self, video: str) -> str:
        if video not in self._said:
            path = self.data / "subtitle" / f"{video}.jsonl"
            words = parse_rows(read_lines(path, _HOW), list[Word], path) if path.exists() else []
            self._said = {video: " ".join(word.text for word in words)}  # one video at a time is worked on
        return self._said[video]

    def mark(self, item: Item, response: str, turns: Sequence[Turn]) -> Mark:
        """The official reading and the strict one, each against the letter."""
        official, strict = official_letter(response), letter(response, item.options)
        return Mark.against(item.answer, official, strict)

    def figures(self, records: Sequence[Record]) -> dict[str, float]:
        """Means over groups of which all four questions have records; a group belongs to its last question's level."""
        groups: dict[str, list[Record]] = defaultdict(list)
        for record in records:
            groups[record.video].append(record)
        found: dict[str, float] = {}
        for suffix, reading in READINGS.items():
            worth: list[tuple[str, float]] = []
            for group in (group for group in groups.values() if len(group) == 4):
                scores = [_score(record, reading) for record in sorted(group, key=_number)]
                last = max(group, key=_number).category
                kind = last["group_type"]
                value = of_ability(scores) if kind == "relevance" else of_thought(scores, last["group_structure"])
                heads = [f"level {last[name]}" if name == "level" else last[name] for name in HEADS if name in last]
                worth += [(name, value) for name in dict.fromkeys(["total", kind, *heads])]
                if kind == "relevance":
                    worth.append(("relevance, linear", sum(scores) / 4))
            found |= {f"{name}{suffix}": value for name, value in means_of(worth).items()}
        return found

    def outputs(self, records: Sequence[Record], folder: Path) -> list[Path]:
        """``videomme-v2.tsv`` for `evaluate` of the official script: its columns and `prediction`."""
        path, items = folder / "videomme-v2.tsv", {item.id: item for item in self.items()}
        rows = [
            {
                "index": number,
                "video_id": record.video,
                "question_id": record.item,
                "question": record.question,
                "options": items[record.item].extra["options"],
                "answer": record.answer,
                **{name: record.category[name] for name in ("group_type", "group_structure")},
                **{name: record.category.get(name, "None") for name in HEADS},
                "prediction": record.response or "",
            }
            for number, record in enumerate(records)
        ]
        pd.DataFrame(rows).to_csv(path, sep="\t", index=False)
        return [path]


def _number(record: Record) -> int:
    return int(record.item.rpartition("-")[2])


def _score(record: Record, reading: str) -> float:
    """A question's part in its group's score."""
    if reading == "official_score" and record.official is None:
        return -1.0
    return getattr(record, reading) or 0.0
