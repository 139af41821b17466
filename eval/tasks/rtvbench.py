"""RTV-Bench (arXiv 2505.02064): the same question at several moments of a stream, behind two simpler ones.

Questions come in groups: 0 and 1 ask what is plain to see, 2 asks what it comes to, each time with another right
answer. The benchmark's score counts an answer to 2 only where 0 and 1 of its group are right.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, model_validator

from ..stats.record import Record, Turn
from .base import Ask, Item, Mark, Task
from .files import first_there, load_json, write_json
from .letters import letter
from .options import lettered, letters_for
from .rows import Label, Row, Seconds, Text, parse_rows, unique
from .tally import READINGS, mean

FILE = "QA.json"
_HOW = (
    'download the dataset "RTVBench/RTV-Bench" of the hub, or put QA.json of the repository LJungang/RTV-Bench beside '
    "its videos/"
)
TARGETS = ("Object", "Action", "Event")
DIMENSIONS: Mapping[str, tuple[str, ...]] = {
    "Perception": ("TP", "VP", "SP"),
    "Understanding": ("IA", "PU", "GU"),
    "Reasoning": ("SR", "FP"),
}
_NAME = re.compile(r"q-group-([a-z0-9]+)-([012])(?:-[^-]+)*", re.IGNORECASE)
_TYPE = re.compile(rf"({'|'.join(TARGETS)})-({'|'.join(name for names in DIMENSIONS.values() for name in names)})")
_SAID = re.compile(r"(?:OPTION|ANSWER)\s*[:\-]?\s*([A-Z])")


def _in_order(options: dict[str, str]) -> dict[str, str]:
    if sorted(options) != letters_for(list(options)):
        raise ValueError(f"expected the letters A, B, ..., not {', '.join(options)}")
    return options


class Question(Row):
    """A row of ``QA.json``; one has a single option."""

    video: Text
    questionID: Text
    type: Text
    field: Text
    start_time: Seconds
    end_time: Annotated[Seconds, Field(gt=0)]
    question: Text
    options: Annotated[dict[str, Label], Field(min_length=1, max_length=26), AfterValidator(_in_order)]
    answer: Text

    @model_validator(mode="after")
    def _right(self) -> Question:
        if self.answer not in self.options:
            raise ValueError(f"the answer is {self.answer!r}; expected one of {', '.join(sorted(self.options))}")
        if _NAME.fullmatch(self.questionID) is None:
            raise ValueError(f"the questionID is {self.questionID!r}; expected q-group-NAME-0, -1 or -2")
        if _TYPE.fullmatch(self.type) is None:
            raise ValueError(f"the type is {self.type!r}; expected one such as 'Event-SP'")
        return self


def official_letter(response: str, options: Sequence[str]) -> str | None:
    """Read as RTV-Bench does: the first letter that is a word, else the one behind "answer", else the first character.

    Examples
    --------
    >>> options = ["Yes", "No", "I don't know"]
    >>> [official_letter(said, options) for said in ("b", "It is a B", "I say no: answer:B", "Clearly", "x")]
    ['B', 'A', 'B', 'C', None]
    """
    text, letters = response.strip().upper(), letters_for(options)
    found = [match[1] for match in (re.search(r"\b([A-Z])\b", text), _SAID.search(text)) if match]
    return next((name for name in (*found, text[:1]) if name in letters), None)


def group_of(record: Record) -> str:
    """The group of a question, in its name."""
    named = _NAME.fullmatch(record.item)
    assert named is not None
    return named[1]


def passed(records: Iterable[Record], reading: str) -> list[tuple[Record, float]]:
    """Questions 2 and what they count: nothing where a question 0 or 1 of the group is not right."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[group_of(record)].append(record)
    found = []
    for group in groups.values():
        plain = [record for record in group if record.category["question"] != "2"]
        open_ = all(getattr(record, reading) for record in plain)
        last = [record for record in group if record.category["question"] == "2"]
        found += [(record, (getattr(record, reading) or 0.0) if open_ else 0.0) for record in last]
    return found


class RTVBench(Task):
    """RTV-Bench as released: ``QA.json`` and ``videos/{field}/{video}``. A question sees the video up to its time."""

    official: ClassVar[str | None] = "accuracy"
    note: ClassVar[str] = (
        "The score counts the last questions of groups, and those only where the first ones are right; accuracies are "
        "over all questions."
    )

    def items(self) -> list[Item]:
        """All questions, in the order of the file."""
        path = self.data / FILE
        rows: list[Question] = parse_rows(load_json(path, _HOW), list[Question], path)
        return unique([self._item(row) for row in rows], path)

    def _item(self, row: Question) -> Item:
        target, ability = row.type.split("-")
        level = _NAME.fullmatch(row.questionID)
        assert level is not None
        return Item(
            id=row.questionID,
            video=f"{row.field}/{Path(row.video).stem}",
            path=self._path(row.field, row.video),
            question=row.question,
            options=tuple(row.options[name] for name in sorted(row.options)),
            answer=row.answer,
            category={
                "question": level[2],
                "target": target,
                "dimension": next(name for name, abilities in DIMENSIONS.items() if ability in abilities),
                "ability": ability,
                "type": row.type,
                "field": row.field,
            },
            start=row.start_time,
            end=row.end_time,
        )

    def _path(self, field: str, video: str) -> Path:
        return first_there(self.data / "videos" / field / video, self.data / "videos" / video)  # names are unique

    def ask(self, item: Item, seconds: Sequence[float]) -> Ask:
        """The official prompt."""
        lines = [
            f"Question: {item.question}",
            "Options:",
            *lettered(item.options),
            "Answer with the option's letter from the given choices directly and only give the best option.",
        ]
        return Ask("\n".join(lines), max_new_tokens=64, cloze=item.question, choices=item.options)

    def mark(self, item: Item, response: str, turns: Sequence[Turn]) -> Mark:
        """The official reading and the strict one, each against the letter."""
        official, strict = official_letter(response, item.options), letter(response, item.options)
        return Mark.against(item.answer, official, strict)

    def figures(self, records: Sequence[Record]) -> dict[str, float]:
        """Accuracies and scores: over all, by target, dimension and ability, and the means of these means."""
        found: dict[str, float] = {}
        for suffix, reading in READINGS.items():
            every = [(record, getattr(record, reading) or 0.0) for record in records]
            found |= {f"{name}{suffix}": value for name, value in _report("accuracy", every).items()}
            found |= {f"{name}{suffix}": value for name, value in _report("score", passed(records, reading)).items()}
        return found

    def outputs(self, records: Sequence[Record], folder: Path) -> list[Path]:
        """``rtvbench.json`` for the official compute_acc.py and compute_score.py."""
        path, answered = folder / "rtvbench.json", {record.item: record for record in records}
        rows = [
            {
                **row,
                "pred": "ERROR" if record.response is None else record.official or "Unknown",
                "correct": bool(record.official_score),
            }
            for row in load_json(self.data / FILE, _HOW)
            if (record := answered.get(row["questionID"])) is not None
        ]
        return write_json(path, rows)


def _report(what: str, scored: Sequence[tuple[Record, float]]) -> dict[str, float]:
    """One of the two official reports; a mean of means leaves out what there is nothing of."""
    if not scored:
        return {}
    found = {what: mean(score for _, score in scored)}
    fields = ["target", "dimension", "ability"] if what == "score" else ["question", "target", "dimension"]
    for field in fields:
        by: dict[str, list[float]] = defaultdict(list)
        for record, score in scored:
            by[record.category[field]].append(score)
        means = {name: mean(scores) for name, scores in sorted(by.items())}
        if what == "score":
            found |= {f"{what}, {name}": value for name, value in means.items()}
        if field != "ability":
            found[f"{what}, mean over {field}s"] = mean(means.values())
    return found
