"""MLVU (arXiv 2406.04264): multiple-choice tasks about videos of 3 minutes to 2 hours; dev, and the test's file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pdrop_video as pv

from ..stats.record import Record, Turn
from .base import Ask, Item, Mark, Task
from .files import write_json
from .letters import letter
from .options import letter_at, letters_for
from .rows import Candidates, Label, Row, Text, different, load_rows, unique
from .tally import READINGS, macro, means_by

DEV_FILES = {
    "1_plotQA": "plotQA",
    "2_needle": "findNeedle",
    "3_ego": "ego",
    "4_count": "count",
    "5_order": "order",
    "6_anomaly_reco": "anomaly_reco",
    "7_topic_reasoning": "topic_reasoning",
}
"""Dev's files, which are its tasks, and the `question_type` of their rows."""
ANSWER_PREFIX = "Best Option: ("


class Question(Row):
    """A row of dev's files; `answer` is the text of the right candidate, which test withholds.

    As released, two rows have an answer that is no candidate, four have candidates without text, and one has no text
    at all. They are asked and count like the others.
    """

    video: Text
    question: Label
    question_type: Text
    candidates: Candidates
    answer: Label | None = None
    question_id: Text | None = None


def official_option(response: str) -> str:
    """What the official script compares: the character before the first ")", or the whole response."""
    before, bracket, _ = response.partition(")")
    return before[-1:] if bracket else response.strip()


def option_letter(response: str, options: Sequence[str]) -> str | None:
    """The letter that was meant, given that the turn began with an open bracket."""
    said = response.lstrip()
    return letter(said if said.startswith("(") else f"({said}", options)


def prompt(question: str, options: Sequence[str]) -> str:
    """The official user text, which ends the list of options with the last character that is no space."""
    listed = [f"({name}) {option}" for name, option in zip(letters_for(options), options, strict=True)]
    return "\n".join([f"Question: {question}", "Options:", *listed]).rstrip() + "\nOnly give the best option."


class MLVU(Task):
    """MLVU dev as released: ``json/1_plotQA.json`` to ``json/7_topic_reasoning.json`` and ``video/1_plotQA/*.mp4`` etc.

    The same video name occurs in several folders, so a video is named with its folder.
    """

    system: ClassVar[str | None] = (
        "Carefully watch this video and pay attention to every detail. Based on your observations, select the best "
        "option that accurately addresses the question."
    )
    note: ClassVar[str] = (
        "M-Avg is the unweighted mean of the seven tasks. Where two candidates have the right text, the official "
        "script takes the last of them; the strict reading takes either. A question whose answer is no candidate is "
        "always wrong, by both."
    )

    official: ClassVar[str | None] = "M-Avg"

    def items(self) -> list[Item]:
        """All multiple-choice questions of dev, file after file."""
        how = 'download the dataset "MLVU/MVLU" of the hub and give its folder MLVU, which holds json/ and video/'
        items = []
        for name, kind in DEV_FILES.items():
            path = self.data / "json" / f"{name}.json"
            for number, row in enumerate(different(load_rows(path, list[Question], how), path, "rows")):
                if row.answer is None:
                    raise pv.ConfigError(f"{path}, row {number} has no answer; use the file as it was released.")
                items.append(
                    Item(
                        id=f"{name}_{number}",
                        video=f"{name}/{Path(row.video).stem}",
                        path=self.data / "video" / name / row.video,
                        question=row.question,
                        options=tuple(row.candidates),
                        answer=row.answer,
                        category={"question_type": kind},
                    )
                )
        return items

    def ask(self, item: Item, seconds: Sequence[float]) -> Ask:
        """The official prompt; the assistant's turn is begun with an open bracket."""
        return Ask(
            prompt(item.question, item.options),
            answer_prefix=ANSWER_PREFIX,
            cloze=item.question,
            choices=item.options,
        )

    def mark(self, item: Item, response: str, turns: Sequence[Turn]) -> Mark:
        """Both readings against the letters whose text is the answer's."""
        official, strict = official_option(response), option_letter(response, item.options)
        if item.answer is None:
            return Mark(official or None, strict, None, None)
        right = [letter_at(i) for i, option in enumerate(item.options) if option == item.answer]
        return Mark(official or None, strict, float(official in right[-1:]), float(strict in right))

    def figures(self, records: Sequence[Record]) -> dict[str, float]:
        """M-Avg, once all seven tasks have answers."""
        averages = {
            f"M-Avg{suffix}": macro(means_by(records, "question_type", reading), list(DEV_FILES.values()))
            for suffix, reading in READINGS.items()
        }
        return {name: value for name, value in averages.items() if value is not None}


class MLVUTest(MLVU):
    """MLVU's test: ``test_question.json`` and ``video/``; writes the file for its server.

    Rows that have an answer, as in the ground truth that was released later, are scored as well.
    """

    note: ClassVar[str] = (
        "Submit mlvu_test.json to MLVU's server; an option that could not be read stands as it was said."
    )

    def items(self) -> list[Item]:
        """All multiple-choice questions of the test."""
        how = 'download the dataset "MLVU/MLVU_Test" of the hub and put its question file and video/ into one folder'
        path = self.data / "test_question.json"
        rows: list[Question] = load_rows(path, list[Question], how)
        items = [
            Item(
                id=row.question_id or f"{row.question_type}_{number}",
                video=Path(row.video).stem,
                path=self.data / "video" / row.video,
                question=row.question,
                options=tuple(row.candidates),
                answer=row.answer if row.answer in row.candidates else None,
                category={"question_type": row.question_type},
            )
            for number, row in enumerate(rows)
        ]
        return unique(items, path)

    def figures(self, records: Sequence[Record]) -> dict[str, float]:
        """M-Avg over whatever tasks the test's ground truth has."""
        types = sorted({record.category["question_type"] for record in records if record.answer is not None})
        averages = {
            f"M-Avg{suffix}": macro(means_by(records, "question_type", reading), types)
            for suffix, reading in READINGS.items()
        }
        return {name: value for name, value in averages.items() if value is not None}

    def outputs(self, records: Sequence[Record], folder: Path) -> list[Path]:
        """``mlvu_test.json``: question_id, question_type and option of every answered question."""
        path = folder / "mlvu_test.json"
        answers = [
            {
                "question_id": record.item,
                "question_type": record.category["question_type"],
                "option": record.strict or record.official or "",
            }
            for record in records
            if record.response is not None
        ]
        return write_json(path, answers, indent=4)
