"""OVO-Bench (arXiv 2501.05510): twelve tasks asked online, about the past, the present, and what is to come.

Each question is asked when its moment has been watched; a question of the third category is asked again and again
while more is seen, each time as an item of its own.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import MinLen
from pydantic import Field, model_validator

from ..stats.record import Record, Turn
from .base import Ask, Item, Mark, Task
from .files import load_json, write_json
from .letters import letter
from .options import letter_at, lettered
from .ovo_prompts import CHOICE, FORWARD
from .rows import Count, Options, Row, Seconds, Text, different, load_rows, unique
from .tally import READINGS, macro, means_by
from .words import count_in, yes_or_no

CATEGORIES: Mapping[str, tuple[str, ...]] = {
    "backward": ("EPM", "ASI", "HLD"),
    "realtime": ("OCR", "ACR", "ATR", "STU", "FPD", "OJR"),
    "forward": ("REC", "SSR", "CRR"),
}
FILE = "ovo_bench_new.json"
_HOW = (
    'download the dataset "JoeLeelyf/OVO-Bench" of the hub, unpack its source videos into src_videos/, and put '
    "ovo_bench_new.json of the repository of the same name beside it"
)


@dataclass(frozen=True, slots=True)
class Probe:
    """One thing that is asked at one moment: `text` is the official prompt, `name` the item's."""

    name: str
    realtime: float
    question: str
    text: str
    answer: str
    options: tuple[str, ...] = ()


class Choice(Row):
    """An entry about the past or the present."""

    id: Count
    task: Literal["EPM", "ASI", "HLD", "OCR", "ACR", "ATR", "STU", "FPD", "OJR"]
    video: Text
    realtime: Seconds
    question: Text
    options: Options
    gt: Count

    @model_validator(mode="after")
    def _right(self) -> Choice:
        if self.gt >= len(self.options):
            raise ValueError(f"gt is {self.gt}; expected 0 to {len(self.options) - 1}")
        return self

    def probes(self, name: str) -> list[Probe]:
        """The question itself."""
        listed = "; ".join(lettered(self.options)) + ";"
        text = f"\nQuestion: {self.question}\nOptions:\n{listed}\n\n{CHOICE}"
        truth = letter_at(self.gt)
        return [Probe(name, self.realtime, self.question, text, truth, tuple(self.options))]


class Counted(Row):
    """How often it was done by a moment."""

    realtime: Seconds
    count: Count


class Repetition(Row):
    """REC: how often was it done by now."""

    id: Count
    task: Literal["REC"]
    video: Text
    activity: Text
    test_info: Annotated[list[Counted], MinLen(1)]

    def probes(self, name: str) -> list[Probe]:
        """The same question at every moment."""
        question = f"How many times did they {self.activity}?"
        text = FORWARD["REC"].format(question)
        return [
            Probe(f"{name}_{number}", probe.realtime, question, text, str(probe.count))
            for number, probe in enumerate(self.test_info)
        ]


class YesNo(Row):
    """Whether it is so at a moment."""

    realtime: Seconds
    type: Literal[0, 1]

    @property
    def answer(self) -> str:
        """Yes or No."""
        return "Yes" if self.type else "No"


class StepNow(YesNo):
    """Whether a step is being done at a moment."""

    step: Text


class Tutorial(Row):
    """SSR: is this step being done now."""

    id: Count
    task: Literal["SSR"]
    video: Text
    test_info: Annotated[list[StepNow], MinLen(1)]

    def probes(self, name: str) -> list[Probe]:
        """A step at every moment."""
        return [
            Probe(f"{name}_{number}", p.realtime, p.step, FORWARD["SSR"].format(p.step), p.answer)
            for number, p in enumerate(self.test_info)
        ]


class Clue(Row):
    """CRR: was enough seen by now to answer."""

    id: Count
    task: Literal["CRR"]
    video: Text
    question: Text
    test_info: Annotated[list[YesNo], MinLen(1)]

    def probes(self, name: str) -> list[Probe]:
        """The same question at every moment."""
        text = FORWARD["CRR"].format(self.question)
        return [
            Probe(f"{name}_{number}", p.realtime, self.question, text, p.answer)
            for number, p in enumerate(self.test_info)
        ]


Entry = Annotated[Choice | Repetition | Tutorial | Clue, Field(discriminator="task")]


def names_of(ids: Sequence[int]) -> list[str]:
    """Each id as a name; where different entries share one, as three do in an older release, the later ones are marked.

    Examples
    --------
    >>> names_of([7, 192, 192])
    ['7', '192', '192-again1']
    """
    seen: Counter[int] = Counter()
    names = []
    for each in ids:
        names.append(f"{each}-again{seen[each]}" if seen[each] else str(each))
        seen[each] += 1
    return names


def official_right(task: str, response: str, answer: str) -> bool:
    """The official match: the answer is somewhere in the response; a count equals all digits of it joined."""
    if task == "REC":
        return "".join(re.findall(r"\d+", response)) == answer
    if task in CATEGORIES["forward"] and response in ("Y", "N"):
        return response == answer[0]
    return answer in response


class OVOBench(Task):
    """OVO-Bench as released: ``ovo_bench_new.json`` and ``src_videos/``.

    A question sees the video up to its moment, rounded up to a whole second.
    """

    note: ClassVar[str] = (
        "The total is the mean over the three categories of the mean over their tasks; many papers give the mean of "
        "backward and realtime only; the released scorer prints the mean over the twelve tasks."
    )

    official: ClassVar[str | None] = "total"

    def items(self) -> list[Item]:
        """All questions and all probes of the forward tasks, in the order of the file."""
        entries: list[Choice | Repetition | Tutorial | Clue] = load_rows(self.data / FILE, list[Entry], _HOW)
        different(entries, self.data / FILE, "entries")
        names = names_of([entry.id for entry in entries])
        items = [
            self._item(entry.video, entry.task, probe)
            for name, entry in zip(names, entries, strict=True)
            for probe in entry.probes(name)
        ]
        return unique(items, self.data / FILE)

    def _item(self, video: str, task: str, probe: Probe) -> Item:
        return Item(
            id=probe.name,
            video=Path(video).with_suffix("").as_posix(),
            path=self.data / "src_videos" / video,
            question=probe.question,
            options=probe.options,
            answer=probe.answer,
            category={"category": _category(task), "task": task},
            end=math.ceil(probe.realtime),
            extra={"text": probe.text},
        )

    def ask(self, item: Item, seconds: Sequence[float]) -> Ask:
        """The official prompt; Yes and No are compared behind all of it, since a step alone is no question."""
        task = item.category["task"]
        if task in CATEGORIES["forward"]:
            return Ask(item.extra["text"], choices=() if task == "REC" else ("Yes", "No"))
        return Ask(item.extra["text"], cloze=item.question, choices=item.options)

    def choice(self, item: Item, index: int) -> str:
        """The letter, or Yes and No."""
        return letter_at(index) if item.options else ("Yes", "No")[index]

    def mark(self, item: Item, response: str, turns: Sequence[Turn]) -> Mark:
        """The official match, and what was meant."""
        task, answer = item.category["task"], str(item.answer)
        if item.options:
            strict = letter(response, item.options)
        else:
            strict = count_in(response) if task == "REC" else yes_or_no(response)
        right = official_right(task, response, answer)
        return Mark(answer if right else strict, strict, float(right), float(strict == answer))

    def figures(self, records: Sequence[Record]) -> dict[str, float]:
        """Means of the categories, and three totals; what not all of its tasks have records for is left out."""
        found: dict[str, float | None] = {}
        for suffix, reading in READINGS.items():
            tasks = means_by(records, "task", reading)
            means = {name: macro(tasks, members) for name, members in CATEGORIES.items()}
            known = {name: value for name, value in means.items() if value is not None}
            found |= {f"{name}{suffix}": value for name, value in means.items()}
            found[f"total{suffix}"] = macro(known, tuple(CATEGORIES))
            found[f"backward and realtime{suffix}"] = macro(known, ("backward", "realtime"))
            found[f"mean over tasks{suffix}"] = macro(tasks, [task for tasks in CATEGORIES.values() for task in tasks])
        return {name: value for name, value in found.items() if value is not None}

    def outputs(self, records: Sequence[Record], folder: Path) -> list[Path]:
        """``ovo_bench_results.json`` for the released scorer; an error's response is null."""
        path = folder / "ovo_bench_results.json"
        entries = load_json(self.data / FILE, _HOW)
        results = official_results(entries, {record.item: record.response for record in records})
        return write_json(path, results)


def _category(task: str) -> str:
    return next(name for name, members in CATEGORIES.items() if task in members)


def official_results(
    entries: Sequence[dict[str, Any]], said: Mapping[str, str | None]
) -> dict[str, list[dict[str, Any]]]:
    """Answers in the form that the released scorer reads: one list a category, probes within their entries.

    Entries of which not everything was asked are left out.
    """
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in CATEGORIES}
    for name, entry in zip(names_of([entry["id"] for entry in entries]), entries, strict=True):
        category = _category(entry["task"])
        if category == "forward":
            names = [f"{name}_{number}" for number in range(len(entry["test_info"]))]
            if all(probe in said for probe in names):
                probes = [
                    {**probe, "response": said[key]} for probe, key in zip(entry["test_info"], names, strict=True)
                ]
                results[category].append({**entry, "test_info": probes})
        elif name in said:
            kept = {key: entry[key] for key in ("id", "video", "task", "question")}
            results[category].append({**kept, "response": said[name], "ground_truth": letter_at(entry["gt"])})
    return results
