"""ProactiveVideoQA (arXiv 2507.09313): a question at the beginning, and answers whenever something of it is seen.

How a system decides when to speak is its own affair. Here it is asked once a second what is to be said now, and an
empty answer is silence. What it says is scored by a judge: `eval.judge`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from pdrop_video.video.subtitles import Cue

from ..stats.pauc import SPOKEN
from ..stats.record import Record, Turn
from .base import Ask, Dialogue, Item, Mark, Task
from .files import write_json
from .rows import Label, Row, Seconds, Text, load_rows, unique

PARTS = ("ego", "tv", "vad", "web")
_HOW = "put the benchmark's folders EGO, TV, VAD and WEB there, each with anno.json and videos/"
_PROMPT = (
    'The user asked at the beginning of this video: "{question}"\n\nYou have answered so far:\n{said}\n\nIf what is '
    "seen right now answers the question with something that you have not said yet, say it in one short sentence. "
    "Otherwise output nothing."
)
Span = Annotated[list[Seconds], Field(min_length=2, max_length=2)]


class Said(Row):
    """A line of the conversation: the question, then subtitles."""

    content: Text
    time: Seconds = 0.0


class Due(Row):
    """An answer, and when it is to be given."""

    content: Text
    related_timespan: Span | None = None
    reply_timespan: Span

    @model_validator(mode="after")
    def _forward(self) -> Due:
        begin, end = self.reply_timespan
        if end < begin:
            raise ValueError(f"the reply ends at {end:g} s, before it begins at {begin:g} s")
        return self


class Sample(Row):
    """A question about a video."""

    video: Text
    question_id: Text
    duration: Seconds
    conversation: list[Said] = Field(min_length=1)
    answer: list[Due] = Field(min_length=1)
    type: Label = ""


class ProactiveVideoQA(Task):
    """One of its four parts: ``EGO/anno.json`` and ``EGO/videos/``.

    Parameters
    ----------
    data : Path
    part : str
        A name in `PARTS`.
    """

    note: ClassVar[str] = (
        "Nothing is scored here: a judge scores what was said, python -m eval.judge. How the benchmark's own systems "
        "decide when to speak differs from one to the other; here an empty answer is silence."
    )
    official: ClassVar[str | None] = None

    def __init__(self, data: Path, part: str) -> None:
        super().__init__(data)
        self.part = part
        self._subtitles: dict[str, tuple[Cue, ...]] = {}

    @property
    def _folder(self) -> Path:
        return self.data / self.part.upper()

    def items(self) -> list[Item]:
        """All questions, in the order of the file."""
        path = self._folder / "anno.json"
        rows = load_rows(path, list[Sample], _HOW)
        self._subtitles = {}
        for row in rows:
            cues = [Cue(line.time, line.time, line.content) for line in row.conversation[1:]]
            self._subtitles.setdefault(row.video, tuple(sorted(cues, key=lambda cue: cue.middle)))
        return unique([self._item(row) for row in rows], path)

    def _item(self, row: Sample) -> Item:
        rounds = max(1, min(int(row.duration), math.ceil(min(row.duration, row.answer[-1].reply_timespan[1]))))
        return Item(
            id=row.question_id,
            video=row.video,
            path=self._folder / "videos" / row.video,
            question=row.conversation[0].content,
            answer="; ".join(f"{due.reply_timespan[0]:g} s: {due.content}" for due in row.answer),
            category={"part": self.part.upper()},
            end=float(rounds),
            first=1.0,
        )

    def cues(self, item: Item) -> Sequence[Cue]:
        """The subtitles of its video, which enter at their moments."""
        if not self._subtitles:
            self.items()
        return self._subtitles[item.video]

    def ask(self, item: Item, seconds: Sequence[float]) -> Ask:
        """What is asked in the first second."""
        return Ask(_PROMPT.format(question=item.question, said="(nothing)"), at=1.0, max_new_tokens=64)

    def dialogue(self, item: Item, seconds: Sequence[float]) -> Dialogue:
        """Once a second, from the first to the last answer's end."""
        assert item.end is not None
        said: list[str] = []
        for second in range(1, int(item.end) + 1):
            told = "\n".join(f"- {one}" for one in said) or "(nothing)"
            prompt = _PROMPT.format(question=item.question, said=told)
            text = yield Ask(prompt, at=float(second), max_new_tokens=64)
            if text.strip():
                said.append(text.strip())
        return "\n".join(said)

    def mark(self, item: Item, response: str, turns: Sequence[Turn]) -> Mark:
        """Nothing but how often it spoke."""
        spoken = float(sum(bool(turn.text.strip()) for turn in turns))
        return Mark(response or None, response or None, None, None, {"said": spoken})

    def outputs(self, records: Sequence[Record], folder: Path) -> list[Path]:
        """``proactivevideoqa.json``, which `eval.judge` reads: the benchmark's rows, and what was said when."""
        rows = {row["question_id"]: row for row in load_rows(self._folder / "anno.json", list[dict[str, Any]], _HOW)}
        entries = [
            {
                **{name: rows[record.item].get(name) for name in ("question_id", "video", "conversation", "answer")},
                "predictions": [[turn.at, turn.text.strip()] for turn in record.turns if turn.text.strip()],
            }
            for record in records
        ]
        path = folder / SPOKEN
        return write_json(path, entries)
