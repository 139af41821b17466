"""RVS-Ego and RVS-Movie (from VStream-QA, arXiv 2406.08085): open questions asked while a long video goes on.

Their answers are compared with the truth by a judge model, which is not part of this project: predictions are written
in the form that the released judging script reads.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import model_validator

from ..stats.record import Record, Turn
from .base import Ask, Item, Mark, Task
from .rows import Label, Row, Seconds, Text, load_rows, unique

FILES = {"ego": "ego/ego4d_oe.json", "movie": "movie/movienet_oe.json"}


class Question(Row):
    """A question, its answer, and the seconds of the video that it is about; it is asked at the end of them."""

    question: Text
    answer: Text
    start_time: Seconds = 0.0
    end_time: Seconds
    answer_type: Label = ""

    @model_validator(mode="after")
    def _forward(self) -> Question:
        if self.end_time < self.start_time:
            raise ValueError(f"ends at {self.end_time:g} s, before it begins at {self.start_time:g} s")
        return self


class Video(Row):
    """A video and what is asked about it."""

    video_id: Text
    video_path: Text
    conversations: list[Question]


class RVS(Task):
    """RVS as released for streaming: ``ego/ego4d_oe.json``, ``movie/movienet_oe.json``, and ``videos/`` beside each.

    Parameters
    ----------
    data : Path
    part : str
        "ego" or "movie".
    """

    note: ClassVar[str] = (
        "Nothing is scored here: give predictions.jsonl to the benchmark's judge. Published figures come from GPT-3.5 "
        "as the judge and 0.5 frames a second."
    )

    official: ClassVar[str | None] = None

    def __init__(self, data: Path, part: str) -> None:
        super().__init__(data)
        self.part = part

    def items(self) -> list[Item]:
        """All questions, in the order of the file."""
        how = 'download the dataset "Becomebright/RVS" of the hub, with ego/, movie/ and their videos'
        path = self.data / FILES[self.part]
        items = [
            Item(
                id=f"{video.video_id}_{number}",
                video=video.video_id,
                path=path.parent / "videos" / Path(video.video_path).name,
                question=row.question,
                answer=row.answer,
                category={"answer_type": row.answer_type} if row.answer_type else {},
                end=row.end_time,
            )
            for video in load_rows(path, list[Video], how)
            for number, row in enumerate(video.conversations)
        ]
        return unique(items, path)

    def ask(self, item: Item, seconds: Sequence[float]) -> Ask:
        """The question as it is; the answer may be long."""
        return Ask(item.question, max_new_tokens=256)

    def mark(self, item: Item, response: str, turns: Sequence[Turn]) -> Mark:
        """Nothing but whether there is an answer."""
        return Mark(response or None, response or None, None, None)

    def outputs(self, records: Sequence[Record], folder: Path) -> list[Path]:
        """``predictions.jsonl``: id, question, answer, answer_type and pred, as the judging script reads."""
        path = folder / "predictions.jsonl"
        lines = [
            {
                "id": record.item,
                "question": record.question,
                "answer": record.answer,
                "answer_type": record.category.get("answer_type"),
                "pred": record.response,
            }
            for record in records
            if record.response is not None
        ]
        path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
        return [path]
