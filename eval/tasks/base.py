"""What a benchmark has to say: its items, its prompts, how answers are read and scored, and its official files.

A task knows its benchmark's files and rules. It refuses to know models, streams, sampling, journals and machines: the
runner watches the video, keeps the moments and asks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from pdrop_video.video.subtitles import Cue

from ..stats.official import OF_ALL, Formula
from ..stats.record import Record, Turn


@dataclass(frozen=True, slots=True)
class Item:
    """One question about one video.

    Attributes
    ----------
    id : str
        Unique within the task.
    video : str
        The video's name, which work is shared out by and errors are clustered by.
    path : Path
        Its file; it need not exist when items are listed.
    question : str
        As the benchmark writes it.
    options : tuple of str
        As the benchmark writes them; empty for open questions.
    answer : str or int or None
        The truth as the benchmark writes it; None where it is withheld.
    category : mapping of str to str or list of str
        What the tables are by, field to value; a list counts in each of its values.
    start, end : float and float or None
        The part of the video that is seen: frames with ``start <= seconds <= end``; None for the video's end.
        In one pass at a given fps the items of a video that share `start` are asked one after the other at their
        moments; N frames are taken evenly from each item's own part.
    first : float or None
        When the first question is asked, in seconds; None for `end`. Later ones say so themselves (`Ask.at`).
    extra : mapping
        Whatever else the task needs to score the item or to write its files.
    """

    id: str
    video: str
    path: Path
    question: str
    options: tuple[str, ...] = ()
    answer: str | int | None = None
    category: Mapping[str, Any] = field(default_factory=dict)
    start: float = 0.0
    end: float | None = None
    first: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ask:
    """One question to the model.

    Attributes
    ----------
    text : str
        The user's text behind the video, options and instructions included.
    at : float or None
        Watch on up to this second first, its frame included; None asks now.
    max_new_tokens : int
    answer_prefix : str
        How the assistant's turn begins, for example ``"Best Option: ("``; not part of the response.
    cloze : str
        The question alone, after which the options' texts are compared when answers are read by likelihood.
    choices : tuple of str
        Those texts, without letters; empty if the question is open.
    says : tuple of str
        Where the answer has two steps: what it says first, and what is asked behind that, which `choices` answer.
    """

    text: str
    at: float | None = None
    max_new_tokens: int = 16
    answer_prefix: str = ""
    cloze: str = ""
    choices: tuple[str, ...] = ()
    says: tuple[str, ...] = ()


Dialogue: TypeAlias = Generator[Ask, str, str]
"""Yields what to ask, is sent what the model said, returns the item's response."""


@dataclass(frozen=True, slots=True)
class Mark:
    """How a response was read and what it is worth. See `Record` for the fields."""

    official: str | None
    strict: str | None
    official_score: float | None
    score: float | None
    details: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def against(cls, answer: object, official: str | None, strict: str | None) -> Mark:
        """Both readings, each worth 1 where it is the answer, and otherwise 0."""
        return cls(official, strict, float(official == answer), float(strict == answer))


class Task(ABC):
    """A benchmark, or one of its variants. Subclasses are listed in `eval.tasks.TASKS`.

    Parameters
    ----------
    data : Path
        The folder that the user downloaded the benchmark into.

    Attributes
    ----------
    system : str or None
        The system prompt, the same for all items.
    rule : str
        Which frames "N frames" means; a name in `eval.runner.sampling.RULES`.
    pictures : float
        Frames a second of a video that is a folder of numbered pictures, the first of which is at 0 s.
    note : str
        A sentence for the summary: what this variant is, and what its figures can be compared with.
    official : str or None
        What the benchmark calls its result: `OF_ALL` or `OF_ANSWERED`, the mean over all questions or over those that
        the official reading could read, or the name of one of `figures`; None where it has no such figure.
    signed : tuple of str
        Figures that may be below 0.
    tables : bool
        Whether the benchmark's accuracies by category are plain means over the questions that its result counts; where
        they are not, `figures` gives what it prints.
    within : str or None
        A category within whose values the benchmark gives the other categories once more.
    """

    system: ClassVar[str | None] = None
    rule: ClassVar[str] = "linspace"
    pictures: ClassVar[float] = 1.0
    note: ClassVar[str] = ""
    official: ClassVar[str | None] = OF_ALL
    tables: ClassVar[bool] = True
    signed: ClassVar[tuple[str, ...]] = ()
    within: ClassVar[str | None] = None

    def __init__(self, data: Path) -> None:
        self.data = data

    @abstractmethod
    def items(self) -> list[Item]:
        """All items, in the benchmark's order.

        Raises
        ------
        ConfigError
            If a file is missing (its name, and how to get it) or not in the official form.
        """

    @abstractmethod
    def ask(self, item: Item, seconds: Sequence[float]) -> Ask:
        """The question; `seconds` are the times of the frames watched so far (for subtitles in the prompt)."""

    @abstractmethod
    def mark(self, item: Item, response: str, turns: Sequence[Turn]) -> Mark:
        """Read and score a response. `turns` has everything that was asked, for items of several questions."""

    def dialogue(self, item: Item, seconds: Sequence[float]) -> Dialogue:
        """What is asked for one item: by default one question.

        Begun when ``item.first`` has been watched. `seconds` grows while more is watched. An item of several questions
        (StreamingBench's proactive output) yields one `Ask` after the other, with `at` for each, and is sent each
        answer.
        """
        return (yield self.ask(item, seconds))

    def cues(self, item: Item) -> Sequence[Cue]:
        """Subtitles that enter the stream at their moments, interleaved with the frames: by default none.

        Items of one video that share a pass must share their cues: give the video's, not the item's.
        """
        return ()

    def choice(self, item: Item, index: int) -> str:
        """The response that stands for option `index` where the likelihoods chose it: by default its letter."""
        return chr(ord("A") + index)

    def figures(self, records: Sequence[Record]) -> dict[str, float]:
        """The benchmark's own aggregate figures, by name, beside the accuracy and tables that every run reports.

        For instance MLVU's M-Avg. Fractions from 0 to 1; leave out what the records can't give. Called again without
        the records of each video, which is what the errors of these figures come from.
        """
        return {}

    def formula(self) -> Formula:
        """What the benchmark calls its result, for `eval.stats`."""
        return Formula(self.official, self.figures, self.within, self.tables, self.signed)

    def outputs(self, records: Sequence[Record], folder: Path) -> list[Path]:
        """Write result or submission files in the benchmark's official form; returns what was written."""
        return []
