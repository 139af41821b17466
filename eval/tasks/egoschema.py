"""EgoSchema (arXiv 2308.09126): five options about three minutes of first-person video; public subset and full set."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

import pdrop_video as pv
from pdrop_video.common.checks import shown

from ..stats.record import Record, Turn
from .base import Ask, Item, Mark, Task
from .files import video_file
from .letters import letter
from .options import letter_at, lettered
from .rows import Count, Row, Text, load_rows, unique

_HOW = "get questions.json, subset_answers.json and videos/ as the repository egoschema/EgoSchema says"
_INSTRUCTION = "Answer with the option's letter from the given choices directly."


Answer = Annotated[Count, Field(le=4)]
"""The number of the right option."""


class Question(Row):
    """A row of ``questions.json``."""

    q_uid: Text
    question: Text
    option_0: Text = Field(alias="option 0")
    option_1: Text = Field(alias="option 1")
    option_2: Text = Field(alias="option 2")
    option_3: Text = Field(alias="option 3")
    option_4: Text = Field(alias="option 4")

    @property
    def options(self) -> tuple[str, ...]:
        """All five, in order."""
        return self.option_0, self.option_1, self.option_2, self.option_3, self.option_4


class EgoSchema(Task):
    """EgoSchema as released: ``questions.json``, ``subset_answers.json``, ``videos/{q_uid}.mp4``.

    Parameters
    ----------
    data : Path
    full : bool
        Ask all 5,031 questions and write the server's file; otherwise the 500 whose answers are public.
    """

    note: ClassVar[str] = (
        "EgoSchema's server takes numbers and has no rule for reading text: the official reading is the strict one. In "
        "the submission an answer that could not be read stands as option 0."
    )

    def __init__(self, data: Path, full: bool = False) -> None:
        super().__init__(data)
        self.full = full

    def items(self) -> list[Item]:
        """The questions, in the order of the file."""
        path, subset = self.data / "questions.json", self.data / "subset_answers.json"
        rows: list[Question] = load_rows(path, list[Question], _HOW)
        answers: dict[str, int] = {} if self.full else load_rows(subset, dict[str, Answer], _HOW)
        if missing := answers.keys() - {row.q_uid for row in rows}:
            raise pv.ConfigError(
                f"{subset} answers {shown(min(missing))}, which {path} does not ask; use both as they were released."
            )
        asked = [row for row in rows if self.full or row.q_uid in answers]
        return unique([self._item(row, answers.get(row.q_uid)) for row in asked], path)

    def _item(self, row: Question, answer: int | None) -> Item:
        return Item(
            id=row.q_uid,
            video=row.q_uid,
            path=video_file(self.data / "videos", row.q_uid),
            question=row.question,
            options=row.options,
            answer=answer,
        )

    def ask(self, item: Item, seconds: Sequence[float]) -> Ask:
        """The question, lettered options and the instruction that the common harness uses."""
        lines = [item.question, *lettered(item.options), _INSTRUCTION]
        return Ask("\n".join(lines), cloze=item.question, choices=item.options)

    def mark(self, item: Item, response: str, turns: Sequence[Turn]) -> Mark:
        """One reading against the number of the right option."""
        read = letter(response, item.options)
        if item.answer is None:
            return Mark(read, read, None, None)
        assert isinstance(item.answer, int)
        score = float(read == letter_at(item.answer))
        return Mark(read, read, score, score)

    def outputs(self, records: Sequence[Record], folder: Path) -> list[Path]:
        """For the full set ``egoschema.json``: the option's number by q_uid, as the server takes it."""
        if not self.full:
            return []
        path = folder / "egoschema.json"
        answers = {r.item: ord(r.strict or "A") - ord("A") for r in records if r.response is not None}
        path.write_text(json.dumps(answers, indent=1) + "\n", encoding="utf-8")
        return [path]
