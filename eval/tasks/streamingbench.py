"""StreamingBench (arXiv 2411.03628): questions asked in the middle of a video, about what was seen up to then.

Real-time and omni-source questions stand by themselves; a sequential question comes with the earlier ones and their
right answers; proactive ones are polled every second until the model says that the moment has come.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import AfterValidator, model_validator

from pdrop_video.common.checks import shown

from ..stats.official import OF_ANSWERED
from ..stats.record import Turn
from .base import Ask, Dialogue, Item, Mark, Task
from .letters import letter
from .options import bare, lettered, mended
from .rows import Candidates, Clock, Label, Row, Text, different, has_option, load_rows, seconds_of

_HOW = (
    "take the questions from src/data of the repository THUNLP-MT/StreamingBench, and the videos from the dataset "
    '"mjuicem/StreamingBench" of the hub, renamed into videos/ by its scripts/preprocess.sh'
)
_ASSISTANT = "You are an advanced video question-answering AI assistant."
_CHOOSE = "choosing from the four options provided. Respond with only the letter (A, B, C, or D) of the correct option."
_PROACTIVE = (
    "You are an advanced image question-answering AI assistant. You have been provided with images and a question "
    "related to the images. Your task is to carefully analyze the images and provide the answer to the question. You "
    "need to carefully confirm whether the images content meet the conditions of the question, and then output the "
    "correct content.\n\nQuestion: {}\n\nThe answer is:\n"
)
PATIENCE = 4
"""Seconds after the right moment in which the model is still asked whether it has come."""
TOLERANCE = 2
"""Seconds by which the moment may be missed."""


class Question(Row):
    """A question of ``questions_real.json``, ``questions_omni.json`` or ``questions_sqa.json``."""

    task_type: Text
    question: Text
    time_stamp: Clock
    answer: Text
    options: Annotated[Candidates, AfterValidator(mended)]
    required_ability: Label = ""

    @model_validator(mode="after")
    def _right(self) -> Question:
        if len(self.options) != 4 or not all(option.strip() for option in self.options):
            raise ValueError(f"expected four options, got {shown(self.options)}")
        has_option(self.answer, self.options)
        return self


class Instruction(Row):
    """A question of ``questions_proactive.json``: what to say, and when."""

    task_type: Text
    question: Text
    time_stamp: Clock
    ground_truth_time_stamp: Clock
    ground_truth_output: Text
    required_ability: Label = ""

    @model_validator(mode="after")
    def _forward(self) -> Instruction:
        if seconds_of(self.ground_truth_time_stamp) < seconds_of(self.time_stamp):
            raise ValueError(f"the right moment {self.ground_truth_time_stamp} is before {self.time_stamp}")
        return self


class Entry(Row):
    """Some questions about one video."""

    video_path: Text
    video_categories: Label = ""
    questions: list[Question]


class ProactiveEntry(Row):
    """Some instructions about one video."""

    video_path: Text
    video_categories: Label = ""
    questions: list[Instruction]


def listed(options: Sequence[str]) -> list[str]:
    """Options with letters in front; left as they are if the first one begins with "A."."""
    return list(options) if options[0].startswith("A.") else lettered(options)


def prompt(question: str, options: Sequence[str]) -> str:
    """The official text of a real-time or omni-source question."""
    return (
        f"{_ASSISTANT} You have been provided with some frames from the video and a multiple-choice question related "
        "to the video. Your task is to carefully analyze the video and provide the best answer to question, "
        f"{_CHOOSE}\n\nQuestion: {question}\n\nOptions:\n" + "\n".join(listed(options))
    ) + "\n\nThe best option is:"


def sequential_prompt(context: str, question: str, options: Sequence[str]) -> str:
    """The official text of a sequential question behind what was asked before."""
    return (
        f"{_ASSISTANT} You have been provided with a video and a multiple-choice question related to the video. Your "
        "task is to carefully analyze the video and the provided context to answer the question, "
        f"{_CHOOSE}\n\n{context}\n\nHere is the question. Answer it and don't confuse it with the "
        f"previous conversation.\nQuestion: {question}\n\nOptions:\n" + "\n".join(listed(options))
    ) + "\n\nThe best option is:"


def remembered(context: str, question: Question) -> str:
    """The context of the questions after this one: what was said so far, this question and its right answer."""
    opening = context or (
        "Here are the contextual information related to the video. Please answer the questions based on the contextual "
        "information: "
    )
    return (
        f"{opening}At timestamp {question.time_stamp}, the following question and answer occurred: Question: "
        f"{question.question}; Options: {', '.join(listed(question.options))}; Answer: {question.answer}; "
    )


class StreamingBench(Task):
    """Real-time or omni-source understanding: ``questions_real.json`` or ``questions_omni.json``, and ``videos/``.

    Parameters
    ----------
    data : Path
    part : str
        "real" or "omni".
    context : float or None
        Seconds before the question that are seen: 60 in the published main table; None for everything.
    """

    note: ClassVar[str] = (
        "The official reading is the response's first character. The options of 13 omni questions, which the released "
        "file cuts into five to seven pieces, are put together again; the official prompt shows the first four pieces."
    )

    official: ClassVar[str | None] = OF_ANSWERED

    def __init__(self, data: Path, part: str, context: float | None = 60.0) -> None:
        super().__init__(data)
        self.part, self.context = part, context

    def items(self) -> list[Item]:
        """All questions, in the order of the file."""
        path = self.data / f"questions_{self.part}.json"
        entries = different(load_rows(path, list[Entry], _HOW), path, "entries")
        return [
            self.item(f"{number}_{index}", entry, question)
            for number, entry in enumerate(entries)
            for index, question in enumerate(entry.questions)
        ]

    def item(self, name: str, entry: Entry, question: Question, context: str = "") -> Item:
        """One question, with the part of the video that it may look at."""
        moment, video = seconds_of(question.time_stamp), Path(entry.video_path).name
        return Item(
            id=f"{self.part}_{name}",
            video=Path(video).stem,
            path=self.data / "videos" / video,
            question=question.question,
            options=tuple(question.options),
            answer=question.answer.strip(),
            category={
                "task_type": question.task_type,
                "video_category": entry.video_categories,
                "required_ability": question.required_ability,
            },
            start=0.0 if self.context is None else max(0.0, moment - self.context),
            end=moment,
            extra={"context": context},
        )

    def ask(self, item: Item, seconds: Sequence[float]) -> Ask:
        """The official prompt."""
        return Ask(prompt(item.question, item.options), cloze=item.question, choices=bare(item.options))

    def mark(self, item: Item, response: str, turns: Sequence[Turn]) -> Mark:
        """The first character, and what was meant."""
        official, strict = response[:1] or None, letter(response, item.options)
        return Mark.against(item.answer, official, strict)


class StreamingBenchSQA(StreamingBench):
    """Sequential question answering: ``questions_sqa.json``, a list of entries for each video."""

    def __init__(self, data: Path, context: float | None = 60.0) -> None:
        super().__init__(data, "sqa", context)

    def items(self) -> list[Item]:
        """All questions; each knows the earlier ones of its video."""
        path, items = self.data / "questions_sqa.json", []
        videos = load_rows(path, list[list[Entry]], _HOW)
        different([entry for entries in videos for entry in entries], path, "entries")
        for number, entries in enumerate(videos):
            context, index = "", 0
            for entry in entries:
                for question in entry.questions:
                    items.append(self.item(f"{number}_{index}", entry, question, context))
                    context, index = remembered(context, question), index + 1
        return items

    def ask(self, item: Item, seconds: Sequence[float]) -> Ask:
        """The official prompt; where options' texts are compared, they follow the context too."""
        context = item.extra["context"]
        cloze = f"{context}\n\n{item.question}" if context else item.question
        return Ask(sequential_prompt(context, item.question, item.options), cloze=cloze, choices=bare(item.options))


class StreamingBenchProactive(Task):
    """Proactive output: ``questions_proactive.json`` and ``videos/``.

    From the second after the instruction on the model is asked every second whether it is time; when it says yes it is
    asked for the output. It sees the video from the instruction on.
    """

    note: ClassVar[str] = (
        f"The time is right within {TOLERANCE} s; the answer if the time is and the output is in it: as its letters "
        "(official), or as words of its own (strict)."
    )

    def items(self) -> list[Item]:
        """All instructions, in the order of the file."""
        path = self.data / "questions_proactive.json"
        entries = different(load_rows(path, list[ProactiveEntry], _HOW), path, "entries")
        return [
            self._item(f"proactive_{number}_{index}", entry, instruction)
            for number, entry in enumerate(entries)
            for index, instruction in enumerate(entry.questions)
        ]

    def _item(self, name: str, entry: ProactiveEntry, row: Instruction) -> Item:
        start, moment = seconds_of(row.time_stamp), seconds_of(row.ground_truth_time_stamp)
        video = Path(entry.video_path).name
        return Item(
            id=name,
            video=Path(video).stem,
            path=self.data / "videos" / video,
            question=row.question,
            answer=row.ground_truth_output,
            category={"task_type": row.task_type, "video_category": entry.video_categories},
            start=start,
            end=moment + PATIENCE,
            first=start + 1,
            extra={"moment": moment},
        )

    def ask(self, item: Item, seconds: Sequence[float]) -> Ask:
        """The question whether it is time."""
        query = f'{item.question} Is it the right time to output "{item.answer}"? You can only answer yes or no.'
        return Ask(_PROACTIVE.format(query), cloze=query, choices=("Yes", "No"))

    def dialogue(self, item: Item, seconds: Sequence[float]) -> Dialogue:
        """Poll every second; on yes, ask for the output."""
        assert item.end is not None
        query = self.ask(item, seconds)
        for second in range(1, int(item.end - item.start) + 1):
            said = yield Ask(query.text, item.start + second, cloze=query.cloze, choices=query.choices)
            if "yes" in said.lower():
                return (yield Ask(_PROACTIVE.format(item.question), item.start + second))
        return ""

    def choice(self, item: Item, index: int) -> str:
        """Yes or no: only the polls have options."""
        return ("yes", "no")[index]

    def mark(self, item: Item, response: str, turns: Sequence[Turn]) -> Mark:
        """Whether it was said at the right time, and whether the right thing was said."""
        said = next((number for number, turn in enumerate(turns, 1) if "yes" in turn.text.lower()), None)
        if said is None:
            return Mark(None, None, 0.0, 0.0, {"time accuracy": 0.0})
        timely = abs(item.start + said - item.extra["moment"]) <= TOLERANCE
        output = str(item.answer)
        whole = re.search(rf"(?<!\w){re.escape(output)}(?!\w)", response, re.IGNORECASE) is not None
        official_score, score = float(timely and output in response), float(timely and whole)
        return Mark(response or None, response or None, official_score, score, {"time accuracy": float(timely)})
