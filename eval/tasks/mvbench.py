"""MVBench (arXiv 2311.17005) and TVBench (arXiv 2410.07752): short clips whose order in time matters, task by task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

from pydantic import model_validator

from ..stats.record import Record, Turn
from .base import Ask, Item, Mark, Task
from .files import first_there
from .letters import letter
from .options import letter_at, letters_for
from .rows import Options, Row, Seconds, Text, load_rows
from .tally import READINGS, mean

_SYSTEM = (
    "Carefully watch the video and pay attention to the cause and sequence of events, the detail and movement of "
    "objects, and the action and pose of persons. Based on your observations, select the best option that accurately "
    "addresses the question."
)
ANSWER_PREFIX = "Best option:("


class Source(NamedTuple):
    """Where a task's videos lie, whether its rows name a part of them, and whether they are folders of pictures."""

    folder: str
    part: bool = False
    pictures: bool = False


_STAR, _CLEVRER, _PERCEPTION = "star/Charades_v1_480", "clevrer/video_validation", "perception/videos"
MVBENCH: Mapping[str, Source] = {
    "Action Sequence": Source(_STAR, part=True),
    "Action Prediction": Source(_STAR, part=True),
    "Action Antonym": Source("ssv2_video"),
    "Fine-grained Action": Source("Moments_in_Time_Raw/videos"),
    "Unexpected Action": Source("FunQA_test/test"),
    "Object Existence": Source(_CLEVRER),
    "Object Interaction": Source(_STAR, part=True),
    "Object Shuffle": Source(_PERCEPTION),
    "Moving Direction": Source(_CLEVRER),
    "Action Localization": Source("sta/sta_video", part=True),
    "Scene Transition": Source("scene_qa/video"),
    "Action Count": Source(_PERCEPTION),
    "Moving Count": Source(_CLEVRER),
    "Moving Attribute": Source(_CLEVRER),
    "State Change": Source(_PERCEPTION),
    "Fine-grained Pose": Source("nturgbd"),
    "Character Order": Source(_PERCEPTION),
    "Egocentric Navigation": Source("vlnqa"),
    "Episodic Reasoning": Source("tvqa/frames_fps3_hq", part=True, pictures=True),
    "Counterfactual Inference": Source(_CLEVRER),
}
TVBENCH: Mapping[str, Source] = {
    name: Source(name.lower().replace(" ", "_"), part=name in ("Action Sequence", "Action Localization"))
    for name in (
        "Action Count",
        "Object Count",
        "Action Sequence",
        "Object Shuffle",
        "Scene Transition",
        "Action Localization",
        "Action Antonym",
        "Unexpected Action",
        "Egocentric Sequence",
        "Moving Direction",
    )
}


class Question(Row):
    """A row of a task's file; `answer` is the text of the right candidate."""

    video: Text
    question: Text
    candidates: Options
    answer: Text
    start: Seconds | None = None
    end: Seconds | None = None

    @model_validator(mode="after")
    def _right(self) -> Question:
        if self.answer not in self.candidates:
            raise ValueError(f"the answer {self.answer!r} is none of the candidates")
        if self.start is not None and self.end is not None and self.end < self.start:
            raise ValueError(f"ends at {self.end:g} s, before it begins at {self.start:g} s")
        return self


class Bounded(Question):
    """A row of a task about parts of videos."""

    start: Seconds
    end: Seconds


def official_letters(response: str, options: Sequence[str]) -> set[str]:
    """The letters that the official script takes a response for: its first word is in "(a)", or "(a)" is in it.

    The response stands behind an open bracket, as the turn was begun; of an empty one the bracket fits all letters.
    """
    head = f"({response.strip()}".split("\n")[0].lower().split(" ")[0]
    marks = {name: f"({name.lower()})" for name in letters_for(options)}
    return {name for name, mark in marks.items() if head.replace(".", "") in mark or mark in head}


class MVBench(Task):
    """MVBench as released: ``json/action_sequence.json`` etc., and its videos unpacked in ``video/``.

    Episodic Reasoning's videos are folders of pictures, three a second, of which picture k stands for second k / 3.
    """

    system: ClassVar[str | None] = _SYSTEM
    rule: ClassVar[str] = "segments"
    official: ClassVar[str | None] = "Avg"
    pictures: ClassVar[float] = 3.0
    note: ClassVar[str] = (
        "The official reading compares the first word; an empty answer counts as right in it. Where two candidates "
        "have the right text, it takes the last of them; the strict reading takes either."
    )
    how: ClassVar[str] = 'download the dataset "OpenGVLab/MVBench" of the hub and unpack the archives in video/ there'
    sources: ClassVar[Mapping[str, Source]] = MVBENCH
    others: ClassVar[tuple[str, ...]] = ("data0613",)
    """Folders in which an archive may have put a task's folder."""

    def items(self) -> list[Item]:
        """All questions, task after task."""
        return [item for kind, source in self.sources.items() for item in self._of(kind, source)]

    def _of(self, kind: str, source: Source) -> list[Item]:
        name = kind.lower().replace(" ", "_").replace("-", "_")
        path = self.data / "json" / f"{name}.json"
        rows: Sequence[Question]
        rows = load_rows(path, list[Bounded], self.how) if source.part else load_rows(path, list[Question], self.how)
        return [self._item(f"{name}_{number}", kind, source, row) for number, row in enumerate(rows)]

    def _item(self, name: str, kind: str, source: Source, row: Question) -> Item:
        start, end = (row.start or 0.0, row.end) if source.part else (0.0, None)
        if source.pictures and end is not None:  # the first picture has the number 1, and is at 0 s
            start, end = (max(round(second * self.pictures), 1) - 1 for second in (start, end))
            start, end = start / self.pictures, end / self.pictures
        return Item(
            id=name,
            video=f"{source.folder}/{row.video}",
            path=self._path(f"{source.folder}/{row.video}"),
            question=row.question,
            options=tuple(row.candidates),
            answer=row.answer,
            category={"task_type": kind},
            start=start,
            end=end,
        )

    def _path(self, video: str) -> Path:
        folder = self.data / "video"
        return first_there(folder / video, *(folder / other / video for other in self.others))

    def ask(self, item: Item, seconds: Sequence[float]) -> Ask:
        """The official prompt, which says the system prompt once more; the turn is begun with an open bracket."""
        listed = [f"({name}) {text}" for name, text in zip(letters_for(item.options), item.options, strict=True)]
        lines = [_SYSTEM, f"Question: {item.question}", "Options:", *listed, "Only give the best option."]
        return Ask(
            "\n".join(lines),
            max_new_tokens=100,
            answer_prefix=ANSWER_PREFIX,
            cloze=item.question,
            choices=item.options,
        )

    def mark(self, item: Item, response: str, turns: Sequence[Turn]) -> Mark:
        """The official match, and what was meant."""
        taken = official_letters(response, item.options)
        said = response.lstrip()
        strict = letter(said if said.startswith("(") else f"({said}", item.options)
        right = [letter_at(i) for i, option in enumerate(item.options) if option == item.answer]
        return Mark(min(taken) if len(taken) == 1 else None, strict, float(right[-1] in taken), float(strict in right))

    def figures(self, records: Sequence[Record]) -> dict[str, float]:
        """The mean over all questions, once every task has answers."""
        if {record.category["task_type"] for record in records} != set(self.sources):
            return {}
        return {
            f"Avg{suffix}": mean(getattr(record, reading) or 0.0 for record in records)
            for suffix, reading in READINGS.items()
        }


class TVBench(MVBench):
    """TVBench as released: ``json/action_count.json`` etc. and ``video/action_count/`` etc.; asked as MVBench is."""

    how: ClassVar[str] = 'download the dataset "FunAILab/TVBench" of the hub with its folder layout'
    sources: ClassVar[Mapping[str, Source]] = TVBENCH
    others: ClassVar[tuple[str, ...]] = ()
