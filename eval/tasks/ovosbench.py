"""OVO-S-Bench (arXiv 2606.03890): where things are and how to get there, asked while a walk or a drive goes on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

from annotated_types import MinLen
from pydantic import BeforeValidator, model_validator

from ..stats.record import Record, Turn
from .base import Ask, Item, Mark, Task
from .files import read_table, write_json
from .letters import letter
from .options import lettered, letters_for
from .rows import Count, Label, Row, Seconds, Text, parse_rows, unique
from .tally import READINGS, means_of

FILE = "ovo_s_bench.parquet"
_HOW = f'download the dataset "JoeLeelyf/OVO-S-Bench" of ModelScope, {FILE} and videos/'
_PICTURE = re.compile(r"data:image/[a-z0-9.+\-]+;base64,", re.IGNORECASE)
# What the official scorer looks for, one after the other: where, and how. No letter behind E is ever found.
_TAIL, _WHOLE = 300, 0
_FORMS = tuple(
    (length, re.compile(form, re.IGNORECASE))
    for length, form in (
        (_TAIL, r"(?:answer|final)[:\s]+([A-E])\b"),
        (_TAIL, r"<answer>\s*([A-E])\b"),
        (_TAIL, r"\b([A-E])\b\s*\.?\s*$"),
        (_TAIL, r"<\|begin_of_box\|>\s*([A-E])"),
        (_WHOLE, r"\A([A-E])\b"),
        (_WHOLE, r"(?:answer|choice|option)s?[:\s]+([A-E])\b"),
        (_WHOLE, r"[\(\[]\s*([A-E])\s*[\)\]]"),
    )
)


def _plain(value: Any) -> Any:
    """An array of pandas as a list, through and through; nothing as an empty one."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else [] if value is None else value


def _options(value: Any) -> Any:
    """Options by their letters, from pairs or from a table's map."""
    value = _plain(value)
    if isinstance(value, list):
        pairs = [(one.get("key"), one.get("value")) if isinstance(one, Mapping) else one for one in value]
        if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
            raise ValueError("expected pairs of a letter and a text")
        return dict(pairs)
    return value


class Question(Row):
    """A row of the file, asked at each of its times; the options of some are pictures."""

    id: Text
    source_dataset: Label = ""
    video_id: Text
    video_path: Text
    level: Count
    task_subcategory: Text
    task_type_name: Label = ""
    question: Text
    options: Annotated[dict[str, Text], BeforeValidator(_options), MinLen(2)]
    query_times: Annotated[list[Seconds], BeforeValidator(_plain), MinLen(1)]
    answers: Annotated[list[Text], BeforeValidator(_plain), MinLen(1)]

    @model_validator(mode="after")
    def _right(self) -> Question:
        if sorted(self.options) != letters_for(list(self.options)):
            raise ValueError(f"expected options A, B, ..., not {', '.join(self.options)}")
        if wrong := [answer for answer in self.answers if answer.strip() not in self.options]:
            raise ValueError(f"the answer is {wrong[0]!r}; expected the letter of an option")
        return self

    @property
    def shows_pictures(self) -> bool:
        """Whether an option is a picture."""
        return any(_PICTURE.match(text) for text in self.options.values())


COLUMNS = tuple(Question.model_fields)


def official_letter(response: str) -> str | None:
    """Read as the official scorer does: behind "answer" or at the end of the last 300 characters, else anywhere.

    Examples
    --------
    >>> [official_letter(said) for said in ("B", "Answer: c", "I think (B) is it", "It was on a", "left")]
    ['B', 'C', 'B', 'A', None]
    """
    said = response.split("</think>")[-1].strip()
    found = (form.search(said[-length:] if length else said) for length, form in _FORMS)
    return next((match[1].upper() for match in found if match), None)


class OVOSBench(Task):
    """OVO-S-Bench as released: ``ovo_s_bench.parquet`` and ``videos/``. A question sees its video up to its time.

    Questions whose options are pictures (family 4.3) are left out: pictures can't be shown beside a question here.
    """

    official: ClassVar[str | None] = None
    note: ClassVar[str] = (
        "Questions whose options are pictures (4.3, trajectories on maps) are left out, so that level 4 and the total "
        "are not the official ones; levels 1 to 3 are. The official scorer leaves out errors and reads A to E only."
    )

    def items(self) -> list[Item]:
        """All questions with options in words, at each of their times, in the order of the file."""
        path = self.data / FILE
        rows: list[Question] = parse_rows(read_table(path, COLUMNS, _HOW), list[Question], path)
        items = [
            self._item(row, number, second)
            for row in rows
            if not row.shows_pictures
            for number, second in enumerate(row.query_times)
        ]
        return unique(items, path)

    def _item(self, row: Question, number: int, second: float) -> Item:
        return Item(
            id=f"{row.id}_q{number}",
            video=Path(row.video_path).with_suffix("").as_posix(),
            path=self.data / "videos" / row.video_path,
            question=row.question,
            options=tuple(row.options[name] for name in sorted(row.options)),
            answer=row.answers[min(number, len(row.answers) - 1)].strip(),
            category={
                "level": str(row.level),
                "subcategory": row.task_subcategory,
                "task_type": row.task_type_name,
                "source": row.source_dataset,
            },
            end=second,
        )

    def ask(self, item: Item, seconds: Sequence[float]) -> Ask:
        """The official prompt."""
        lines = [
            "You are evaluating a video understanding task. Based on the video frames provided, answer the following "
            "multiple choice question.",
            "",
            f"Question: {item.question}",
            "",
            "Options:",
            *lettered(item.options),
            "",
            "Instructions:",
            '- Respond with ONLY the letter of your answer (e.g., "A" or "B").',
            "- Do not include any explanation or additional text.",
            "",
            "Your answer:",
        ]
        return Ask("\n".join(lines), max_new_tokens=64, cloze=item.question, choices=item.options)

    def mark(self, item: Item, response: str, turns: Sequence[Turn]) -> Mark:
        """The official reading and the strict one, each against the letter."""
        official, strict = official_letter(response), letter(response, item.options)
        return Mark.against(item.answer, official, strict)

    def figures(self, records: Sequence[Record]) -> dict[str, float]:
        """Accuracy at each level and over all questions that are asked."""
        found: dict[str, float] = {}
        for suffix, reading in READINGS.items():
            named: list[tuple[str, float]] = []
            for record in (record for record in records if suffix or record.response is not None):
                level, score = record.category["subcategory"].split(".")[0], getattr(record, reading) or 0.0
                of_level = f"level {level}" + (" without 4.3" if level == "4" else "")
                named += [("overall without 4.3", score), (of_level, score)]
            found |= {f"{name}{suffix}": value for name, value in sorted(means_of(named).items())}
        return found

    def outputs(self, records: Sequence[Record], folder: Path) -> list[Path]:
        """``ovo_s_bench.json`` for the official score.py."""
        path = folder / "ovo_s_bench.json"
        results = [
            {
                "query_id": record.item,
                "task_subcategory": record.category["subcategory"],
                "response": record.response,
                "ground_truth": record.answer,
                **({} if record.error is None else {"error": record.error}),
            }
            for record in records
        ]
        return write_json(path, {"results": results})
