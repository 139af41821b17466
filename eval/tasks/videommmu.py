"""Video-MMMU (arXiv 2501.13826): lectures and what was learned from them; perception, comprehension, adaptation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, model_validator

from ..stats.record import Record, Turn
from .base import Ask, Item, Mark, Task
from .files import first_there, read_table
from .letters import letter
from .mmmu import exam_letter, exam_right, open_answer, open_right
from .options import bare, letters_for
from .rows import Row, Text, has_option, parse_rows, unique
from .tally import READINGS, mean

TRACKS = ("Perception", "Comprehension", "Adaptation")
BEFORE = "Question only"
"""Adaptation's questions without the lecture."""
_HOW = 'download the dataset "lmms-lab/VideoMMMU" of the hub and unpack its archives there'
_DOMAINS: Mapping[str, tuple[str, str]] = {  # the name in the official report, the subjects; by folder
    "Art": ("Art and Design", "Art, Art_Theory, Design, Music"),
    "Business": ("Business", "Accounting, Economics, Finance, Manage, Marketing"),
    "Science": ("Science", "Biology, Chemistry, Geography, Math, Physics"),
    "Medicine": (
        "Health and Medicine",
        "Basic_Medical_Science, Clinical_Medicine, Diagnostics_and_Laboratory_Medicine, Pharmacy, Public_Health",
    ),
    "Humanities": ("Humanities and Social Science", "History, Literature, Sociology, Psychology"),
    "Engineering": (
        "Tech and Engineering",
        "Agriculture, Architecture_and_Engineering, Computer_Science, Electronics, Energy_and_Power, Materials, "
        "Mechanical_Engineering",
    ),
}
FOLDERS: Mapping[str, str] = {
    subject: folder for folder, (_, subjects) in _DOMAINS.items() for subject in subjects.split(", ")
}
"""A subject's folder of videos."""
_LEARNED = (
    "You should watch and learn the video content. Then apply what you learned to answer the following {} question. "
    "The image for this question is at the end of the video.\n"
)
_NO_QUIZ = "\nPlease ignore the Quiz question in last frame of the video."


def _plain(value: Any) -> Any:
    """An array of pandas as a list; nothing as an empty one."""
    return value.tolist() if hasattr(value, "tolist") else [] if value is None else value


class Question(Row):
    """A row of a track's file; open questions have no options."""

    id: Text
    question: Text
    options: Annotated[list[Text], BeforeValidator(_plain)]
    answer: Text
    question_type: Text

    @property
    def subject(self) -> str:
        """The subject, which stands between the first and the last underscore of the name."""
        return "_".join(self.id.split("_")[1:-1])

    @model_validator(mode="after")
    def _right(self) -> Question:
        if self.subject not in FOLDERS:
            raise ValueError(f"the name {self.id!r} names no subject; expected one such as 'dev_Biology_3'")
        if self.options or self.question_type == "multiple-choice":
            has_option(self.answer, self.options)
        return self


COLUMNS = tuple(Question.model_fields)


def listed(options: Sequence[str]) -> str:
    """Options one a line, with "A. " and so on in front unless all of them have that."""
    lettered = list(zip(letters_for(options), options, strict=True))
    if all(option.startswith(f"{name}.") for name, option in lettered):
        return "\n".join(options)
    return "\n".join(f"{name}. {option}" for name, option in lettered)


class VideoMMMU(Task):
    """Video-MMMU as released: ``{track}/*.parquet``, and its archives unpacked, in the folder or in ``videos/``."""

    official: ClassVar[str | None] = "Overall"
    within: ClassVar[str | None] = "track"
    tracks: ClassVar[tuple[str, ...]] = TRACKS
    note: ClassVar[str] = (
        "Accuracies of the tracks leave out empty answers, and letters are read, as the scorer that was released with "
        "the benchmark does it; lmms-eval reads letters otherwise since April 2026."
    )

    def items(self) -> list[Item]:
        """All questions, track after track."""
        return unique([item for track in self.tracks for item in self._of(track)], self.data)

    def _of(self, track: str) -> Iterator[Item]:
        folder = self.data / ("Adaptation" if track == BEFORE else track)
        path = min(folder.glob("*.parquet"), default=folder / "test-00000-of-00001.parquet")
        for row in parse_rows(read_table(path, COLUMNS, _HOW), list[Question], path):
            yield self._item(track, row)

    def _item(self, track: str, row: Question) -> Item:
        folder = FOLDERS[row.subject]
        name = f"question_only/{row.id}_image" if track == BEFORE else f"{folder}/{row.id}"
        return Item(
            id=f"{track.lower().replace(' ', '_')}_{row.id}",
            video=name,
            path=self._path(f"{name}.mp4"),
            question=row.question,
            options=tuple(row.options),
            answer=row.answer.strip(),
            category={"track": track, "domain": _DOMAINS[folder][0], "subject": row.subject},
        )

    def _path(self, name: str) -> Path:
        return first_there(self.data / name, self.data / "videos" / name)

    def ask(self, item: Item, seconds: Sequence[float]) -> Ask:
        """The official prompt of the track; where options' texts are compared, the question stands alone."""
        track, question = item.category["track"], item.question
        if track != "Adaptation" or item.options:
            question += "\n" + listed(item.options)
        if track == "Adaptation":
            text = _LEARNED.format("multi-choice" if item.options else "open-ended") + question
        else:
            text = question if track == BEFORE else question + _NO_QUIZ
        return Ask(text, max_new_tokens=1024, cloze=item.question, choices=bare(item.options) if item.options else ())

    def mark(self, item: Item, response: str, turns: Sequence[Turn]) -> Mark:
        """Letters of options; for open questions whether the truth is in what was said; officially nothing if empty."""
        truth = str(item.answer)
        if not response:
            return Mark(None, None, None, 0.0)
        if item.options:
            official, strict = exam_letter(response, item.options), letter(response, item.options)
            return Mark.against(truth, official, strict)
        said = open_answer(response)
        right = exam_right(response, truth)
        return Mark(response.strip() or None, said, float(right), float(open_right(said, truth)))

    def figures(self, records: Sequence[Record]) -> dict[str, float]:
        """An accuracy for each track, the mean of the three, and the gain in knowledge where both were asked."""
        found: dict[str, float] = {}
        for suffix, reading in READINGS.items():
            tracks: dict[str, float] = {}
            for track in (*TRACKS, BEFORE):
                counted = [
                    r for r in records if r.category["track"] == track and (suffix or r.official_score is not None)
                ]
                if counted:
                    tracks[track] = mean(getattr(record, reading) or 0.0 for record in counted)
            found |= {f"{track}{suffix}": value for track, value in tracks.items()}
            if all(track in tracks for track in TRACKS):
                found[f"Overall{suffix}"] = mean(tracks[track] for track in TRACKS)
            if "Adaptation" in tracks and tracks.get(BEFORE, 1.0) < 1.0:
                found[f"Δknowledge{suffix}"] = (tracks["Adaptation"] - tracks[BEFORE]) / (1.0 - tracks[BEFORE])
        return found


class VideoMMMUKnowledge(VideoMMMU):
    """What a lecture adds: Adaptation's questions about ``question_only/{id}_image.mp4``, and with the lecture."""

    official: ClassVar[str | None] = "Δknowledge"
    signed: ClassVar[tuple[str, ...]] = ("Δknowledge", "Δknowledge, strict")
    note: ClassVar[str] = (
        "What the lecture adds is the gain in Adaptation by what there was to gain: (after - before) / (1 - before). "
        "Empty answers are left out, as the scorer that was released with the benchmark does it."
    )
    tracks: ClassVar[tuple[str, ...]] = (BEFORE, "Adaptation")
