"""ODV-Bench (from StreamForest, arXiv 2509.24871): driving, asked at moments; most questions are about what comes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import model_validator

from ..stats.record import Record, Turn
from .base import Ask, Item, Mark, Task
from .letters import letter
from .options import letter_at, lettered
from .rows import Label, Options, Row, Seconds, Text, load_rows
from .tally import READINGS, means_of

_HOW = (
    'download the dataset "MCG-NJU/ODV-Bench" of the hub and unpack TS_Retrieval.zip, TOI_Recognition.zip and '
    "TR_Analysis.zip into folders of their names"
)
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'


class Question(Row):
    """A row of ``ODVbench.json``; `answer` is the text of the right candidate."""

    video: Text
    start: Seconds = 0.0
    end: Seconds | None = None
    question: Text
    candidates: Options
    answer: Text
    task: Text
    subtask: Text
    subsubtask: Label = ""

    @model_validator(mode="after")
    def _right(self) -> Question:
        if self.answer not in self.candidates:
            raise ValueError(f"the answer {self.answer!r} is none of the candidates")
        if self.end is not None and self.end < self.start:
            raise ValueError(f"ends at {self.end:g} s, before it begins at {self.start:g} s")
        return self


def official_letter(response: str) -> str | None:
    """Read as the authors' scorer does: the letter of "B. text", else the first word that is one of A to E, or "a".

    Punctuation is taken out where a space stands beside it, and otherwise parts words.

    Examples
    --------
    >>> [official_letter(said) for said in ("B. left", "(b)", "The answer is C", "It is a car: C", "Left")]
    ['B', 'B', 'C', 'A', None]
    """
    said = response.strip()
    if lettered := re.match(r"([A-E])\.\s*.+$", said, re.IGNORECASE):
        return lettered[1].upper()
    said = said.replace("\n", " ").replace("\t", " ").strip()
    out, grouped = said, re.search(r"\d,\d", said) is not None
    for mark in _PUNCTUATION:
        out = out.replace(mark, "" if grouped or f"{mark} " in said or f" {mark}" in said else " ")
    out = re.sub(r"\.(?!\d)", "", out, count=32)  # a flag stands where their count should
    found = re.search(r"\b[A-E]\b", out.strip("'").strip('"').strip(), re.IGNORECASE)
    return found[0].upper() if found else None


class ODVBench(Task):
    """ODV-Bench as released: ``ODVbench.json`` and its videos. A question sees its video up to its own end."""

    rule: ClassVar[str] = "a_second"
    official: ClassVar[str | None] = "Overall"
    tables: ClassVar[bool] = False
    note: ClassVar[str] = (
        "Officially empty answers are left out of every mean. Published figures come from 1 frame a second."
    )

    def items(self) -> list[Item]:
        """All questions, in the order of the file; their numbers are their names."""
        rows: list[Question] = load_rows(self.data / "ODVbench.json", list[Question], _HOW)
        return [self._item(str(number), row) for number, row in enumerate(rows)]

    def _item(self, name: str, row: Question) -> Item:
        more = {"subsubtask": row.subsubtask} if row.subsubtask else {}
        return Item(
            id=name,
            video=Path(row.video).with_suffix("").as_posix(),
            path=self.data / row.video,
            question=row.question,
            options=tuple(row.candidates),
            answer=letter_at(row.candidates.index(row.answer)),
            category={"task": row.task, "subtask": row.subtask, **more},
            start=row.start,
            end=row.end,
        )

    def ask(self, item: Item, seconds: Sequence[float]) -> Ask:
        """The authors' prompt."""
        asked = "Answer with the option's letter from the given choices directly."
        lines = [item.question, *lettered(item.options), asked]
        return Ask("\n".join(lines), cloze=item.question, choices=item.options)

    def mark(self, item: Item, response: str, turns: Sequence[Turn]) -> Mark:
        """The authors' reading, which leaves an empty answer out, and the strict one, each against the letter."""
        if not response:
            return Mark(None, None, None, 0.0)
        official, strict = official_letter(response), letter(response, item.options)
        return Mark.against(item.answer, official, strict)

    def figures(self, records: Sequence[Record]) -> dict[str, float]:
        """Accuracy over all questions, and in each task and subtask."""
        found: dict[str, float] = {}
        for suffix, reading in READINGS.items():
            named = (
                (f"{name}{suffix}", getattr(record, reading) or 0.0)
                for record in records
                if suffix or record.official_score is not None
                for name in ("Overall", record.category["task"], record.category["subtask"])
            )
            found |= means_of(named)
        return found
