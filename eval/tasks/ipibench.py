"""IPIBench, its tasks of one answer: a model watches and says once that something has happened, some tasks also what.

From four seconds before the moment on it is asked once a second; what begins with ``<attention>`` is an answer. The
tasks of several turns (RUP, MTM, TC, TM) are not here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, model_validator

from ..stats.record import Record, Turn
from .base import Ask, Dialogue, Item, Mark, Task
from .files import write_json
from .rows import Label, Row, Seconds, Text, load_rows, unique

GROUPS = {"rap": "IRP", "rtp": "IRP", "pt": "PM", "pu": "PM", "rp": "PM"}
"""The tasks, and the folder of each."""
AROUND = 4
"""Seconds before and behind the moment at which the model is asked."""
TOLERANCE = 1.0
_CALL = "<attention>"
_TIME_ONLY = ("rap", "rtp")
_HOW = "put the benchmark's folders Benchmark/ and Image/1fps/ there, as its authors hand them out"


class Prompt(Row):
    """What the model is told, the form of its answers included."""

    text: Text


class Due(Row):
    """When it is to answer, and what."""

    trigger_time: Seconds
    text: Label = ""


class Sample(Row):
    """A video, its instruction and the moment."""

    id: Text
    video_st: Seconds
    video_ed: Seconds
    question: list[Prompt] = Field(min_length=1)
    answer: list[Due] = Field(min_length=1)
    answer_list: list[Text] = Field(default_factory=list)
    preposition: Label = ""
    ego_spatial: Any = None
    exo_spatial: Any = None
    number: Label = ""
    color: Label = ""
    material: Label = ""

    @model_validator(mode="after")
    def _inside(self) -> Sample:
        if not int(self.video_st) <= int(self.answer[0].trigger_time) + AROUND or self.video_ed < self.video_st:
            raise ValueError(
                f"the moment {self.answer[0].trigger_time:g} s is not between {self.video_st:g} and {self.video_ed:g} s"
            )
        return self

    @property
    def asked(self) -> range:
        """Seconds of the video at which the model is asked."""
        moment = int(self.answer[0].trigger_time)
        return range(max(int(self.video_st), moment - AROUND), min(int(self.video_ed), moment + AROUND) + 1)


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of the questions: the second of the first answer and its words, or -1 and nothing."""

    at: int = -1
    text: str = ""


class IPIBench(Task):
    """One task: ``Benchmark/PM/PT.json`` and ``Image/1fps/PM/PT/{id}/``, a picture a second, named by its second.

    Parameters
    ----------
    data : Path
    part : str
        A name in `GROUPS`.
    """

    note: ClassVar[str] = (
        f"Right within {TOLERANCE:g} s of the moment, and with the right words where there are some. Published figures "
        "see the last 16 seconds only: --fps 1 --last-frames 16."
    )

    def __init__(self, data: Path, part: str) -> None:
        super().__init__(data)
        self.part, self.place = part, f"{GROUPS[part]}/{part.upper()}"

    @property
    def _file(self) -> Path:
        return self.data / "Benchmark" / f"{self.place}.json"

    def items(self) -> list[Item]:
        """All samples, in the order of the file."""
        rows = load_rows(self._file, list[Sample], _HOW)
        return unique([self._item(row) for row in rows], self._file)

    def _item(self, row: Sample) -> Item:
        begun, moment = int(row.video_st), row.answer[0]
        first = row.asked.start - begun
        return Item(
            id=row.id,
            video=row.id,
            path=self.data / "Image" / "1fps" / self.place / row.id,
            question=row.question[0].text,
            answer=f"{moment.trigger_time:g} s {moment.text}".strip(),
            category={"task": self.part.upper()},
            end=float(max(row.asked.stop - 1 - begun, first)),  # pictures are counted from the first
            first=float(first),
            extra={"row": row},
        )

    def ask(self, item: Item, seconds: Sequence[float]) -> Ask:
        """The instruction, which says how to answer."""
        return Ask(item.question, at=item.first, max_new_tokens=500)

    def dialogue(self, item: Item, seconds: Sequence[float]) -> Dialogue:
        """Once a second until there is an answer."""
        row: Sample = item.extra["row"]
        for second in row.asked:
            said = yield Ask(item.question, at=float(second - int(row.video_st)), max_new_tokens=500)
            if _CALL in said.lower():
                return said
        return ""

    def mark(self, item: Item, response: str, turns: Sequence[Turn]) -> Mark:
        """Whether the time was right, and the words."""
        row: Sample = item.extra["row"]
        found = answered(row, turns)
        timely = abs(found.at - row.answer[0].trigger_time) <= TOLERANCE  # -1 is near 0: the official script's way
        spoke = found.at >= 0
        official = timely and (self.part in _TIME_ONLY or _official(self.part, row, found.text))
        meant = spoke and timely and (self.part in _TIME_ONLY or _meant(self.part, row, found.text))
        read = found.text or _CALL if spoke else None
        return Mark(read, read, float(official), float(meant), {"time accuracy": float(timely)})

    def outputs(self, records: Sequence[Record], folder: Path) -> list[Path]:
        """``ipibench/PM/PT.json``, which the benchmark's own script scores once all samples are there."""
        rows = {str(row["id"]): row for row in load_rows(self._file, list[dict[str, Any]], _HOW)}
        entries = []
        for record in records:
            if record.error is None:
                found = answered(Sample.model_validate(rows[record.item]), record.turns)
                entries.append({**rows[record.item], "result_time": found.at, "result_text": found.text})
        path = folder / "ipibench" / f"{self.place}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        return write_json(path, entries)


def answered(row: Sample, turns: Sequence[Turn]) -> Answered:
    """The first turn that calls for attention, and what stands behind the call."""
    for turn in turns:
        place = turn.text.lower().find(_CALL)
        if place >= 0:
            return Answered(int(row.video_st) + round(turn.at), turn.text[place + len(_CALL) :].strip())
    return Answered()


def _truths(part: str, row: Sample) -> list[str]:
    """Words that are right: of an attribute the list, or else the attribute itself."""
    if part != "pu":
        return row.answer_list
    attribute = next((value for value in (row.number, row.color, row.material) if value), "")
    return (row.answer_list or [attribute]) if attribute else []


def _official(part: str, row: Sample, said: str) -> bool:
    """By the benchmark's own rules, which take parts of words, and of an attribute nothing at all, for an answer."""
    due = row.answer[0].text
    if part == "rp":
        return said.strip().lower() == due.strip().lower()
    if part == "pu":
        text = said.strip().lower()
        truths = [truth.strip().lower() for truth in _truths(part, row)]
        return any(text in truth or truth in text for truth in truths if truth)
    if "ego_spatial" in row.model_fields_set:
        return _plain(said) == _plain(due)
    if "exo_spatial" not in row.model_fields_set:
        return False
    place = _place(said, row.preposition)
    return bool(place) and any(
        (a := _stem(place)) == (b := _stem(truth)) or a in b or b in a for truth in row.answer_list
    )


def _meant(part: str, row: Sample, said: str) -> bool:
    """The same with whole words: those of a truth stand in what was said, one behind the other."""
    truths = [row.answer[0].text] if part == "rp" or "ego_spatial" in row.model_fields_set else _truths(part, row)
    spoken = f" {' '.join(_words(said))} "
    return any(f" {' '.join(_words(truth))} " in spoken for truth in truths if _words(truth))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text.lower()).strip()


def _stem(text: str) -> str:
    return re.sub(r"('s|es|s)\b", "", _plain(text).removesuffix("'s"))


def _place(said: str, preposition: str) -> str:
    """What stands behind the first article, or else behind the preposition, or else everything."""
    text = _plain(said)
    patterns = [r"\b(?:the|a|an)\b\s+(.*)", rf"\b{re.escape(_plain(preposition))}\b\s+(.*)" if preposition else ""]
    for pattern in filter(None, patterns):
        if found := re.search(pattern, text):
            return found.group(1).strip()
    return text
