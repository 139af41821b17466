"""RVS-Ego and RVS-Movie (from VStream-QA, arXiv 2406.08085): open questions asked while a long video goes on.

Their answers are compared with the truth by a judge model: predictions are written in the forms that the two released
judging scripts read, Flash-VStream's and ReKV's.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pandas as pd
from pydantic import model_validator

from ..stats.record import Record, Turn
from .base import Ask, Item, Mark, Task
from .rows import Label, Row, Seconds, Text, different, load_rows, unique

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
        "Nothing is scored here: let eval.judge ask a model, or give pred.json to Flash-VStream's judge, results.csv "
        "to ReKV's. Published figures come from GPT-3.5 as the judge and 0.5 frames a second."
    )

    official: ClassVar[str | None] = None

    def __init__(self, data: Path, part: str) -> None:
        super().__init__(data)
        self.part = part

    def items(self) -> list[Item]:
        """All questions, in the order of the file."""
        how = 'download the dataset "Becomebright/RVS" of the hub, with ego/, movie/ and their videos'
        path = self.data / FILES[self.part]
        asked: Counter[str] = Counter()
        items = []
        for video in different(load_rows(path, list[Video], how), path, "videos"):
            for row in video.conversations:
                # numbered within the video, wherever in the file they stand, as the judges number them
                name = f"{video.video_id}_{asked[video.video_id]}"
                asked[video.video_id] += 1
                items.append(
                    Item(
                        id=name,
                        video=video.video_id,
                        path=path.parent / "videos" / Path(video.video_path).name,
                        question=row.question,
                        answer=row.answer,
                        category={"answer_type": row.answer_type} if row.answer_type else {},
                        end=row.end_time,
                    )
                )
        return unique(items, path)

    def ask(self, item: Item, seconds: Sequence[float]) -> Ask:
        """The question as it is; the answer may be long."""
        return Ask(item.question, max_new_tokens=256)

    def mark(self, item: Item, response: str, turns: Sequence[Turn]) -> Mark:
        """Nothing but whether there is an answer."""
        return Mark(response or None, response or None, None, None)

    def outputs(self, records: Sequence[Record], folder: Path) -> list[Path]:
        """``pred.json`` for Flash-VStream's judge, ``results.csv`` for ReKV's; without an answer the text is empty.

        Both judges number the questions of a video in the order of the file, so that the name of each is the item's.
        """
        lines, rows = folder / "pred.json", folder / "results.csv"
        told = [
            {
                "id": record.video,
                "question": record.question,
                "answer": record.answer,
                "answer_type": record.category.get("answer_type"),
                "pred": record.response or "",
            }
            for record in records
        ]
        lines.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in told), encoding="utf-8")
        names = {"id": "video_id", "question": "question", "answer": "answer", "pred": "pred_answer"}
        pd.DataFrame(told, columns=list(names)).rename(columns=names).to_csv(rows, index=False)
        return [lines, rows]
