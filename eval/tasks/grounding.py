"""Temporal grounding: when does what a sentence says happen. Charades-STA (arXiv 1705.02101), TimeLens (2512.14698).

An answer is two times in text; its score is the intersection over union with the true stretch of time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import model_validator

import pdrop_video as pv
from pdrop_video.common.checks import shown

from ..stats.record import Record, Turn
from .base import Ask, Item, Mark, Task
from .files import read_text, video_file, write_json
from .rows import Label, Row, Seconds, Text, load_rows, unique
from .spans import Reader, Span, harness_span, overlap, span_in, timelens_span
from .tally import READINGS, mean

THRESHOLDS = (0.3, 0.5, 0.7)
SETS = ("charades", "activitynet", "qvhighlights")
"""The three parts of TimeLens-Bench."""


def recalls(records: Sequence[Record]) -> dict[str, float]:
    """R@1 at three thresholds and the mean IoU, by both readings; what was not read or not answered counts as 0."""
    found: dict[str, float] = {}
    for suffix, reading in READINGS.items():
        scores = [getattr(record, reading) or 0.0 for record in records]
        if scores:
            found |= {f"R@1, IoU {least}{suffix}": mean(score >= least for score in scores) for least in THRESHOLDS}
            found[f"mIoU{suffix}"] = mean(scores)
    return found


def _said(span: Span | None) -> str | None:
    return None if span is None else f"{span[0]:g} - {span[1]:g}"


class Grounding(Task):
    """What Charades-STA and TimeLens share: open answers, read as two times and scored by overlap."""

    reader: ClassVar[Reader]
    official: ClassVar[str | None] = "mIoU"

    def _row(self, name: str, video: str, path: Path, query: str, span: Span, **extra: Any) -> Item:
        begin, end = span
        return Item(
            id=name,
            video=video,
            path=path,
            question=query,
            answer=f"{begin:g} - {end:g}",
            extra={"span": span, **extra},
        )

    def mark(self, item: Item, response: str, turns: Sequence[Turn]) -> Mark:
        """The overlap with the truth, as the harness reads the answer and as it was meant."""
        official, strict, truth = type(self).reader(response), span_in(response), item.extra["span"]
        return Mark(_said(official), _said(strict), overlap(official, truth), overlap(strict, truth))

    def figures(self, records: Sequence[Record]) -> dict[str, float]:
        """R@1 and mIoU."""
        return recalls(records)


class CharadesSTA(Grounding):
    """Charades-STA's test as released: ``charades_sta_test.txt`` and ``Charades_v1_480/*.mp4``."""

    reader: ClassVar[Reader] = staticmethod(harness_span)
    note: ClassVar[str] = (
        "Scores are the overlap (IoU) with the true stretch of time: the accuracy is the mIoU. Charades-STA has no "
        "prompt of its own: prompt and official reading are those of lmms-eval."
    )

    def items(self) -> list[Item]:
        """All sentences, in the order of the file."""
        how = "take charades_sta_test.txt from the repository jiyanggao/TALL and unpack Charades_v1_480.zip beside it"
        path = self.data / "charades_sta_test.txt"
        lines = [line.strip() for line in read_text(path, how).split("\n")]
        return [self._line(path, number, line) for number, line in enumerate(lines) if line]

    def _line(self, path: Path, number: int, line: str) -> Item:
        """A line "VIDEO BEGIN END##sentence"."""
        found = re.fullmatch(r"(\S+) (\d+(?:\.\d+)?) (\d+(?:\.\d+)?)##(.*\S.*)", line)
        if found is None:
            raise pv.ConfigError(
                f"{path} is not in the official form: line {number + 1} is {shown(line)}, expected VIDEO BEGIN "
                "END##sentence. Use the file as it was released."
            )
        video, begin, end, sentence = found.groups()
        file = video_file(self.data / "Charades_v1_480", video)
        return self._row(f"{video}_{number}", video, file, sentence, (float(begin), float(end)))

    def ask(self, item: Item, seconds: Sequence[float]) -> Ask:
        """The prompt of lmms-eval, its spelling included."""
        return Ask(
            "Please find the visual event described by a sentence in the video, determining its starting and ending "
            "times. The format should be: 'The event happens in the start time - end time'. For example, The event "
            "'person turn a light on' happens in the 24.3 - 30.4 seonds. Now I will give you the textual sentence: "
            f"{item.question}. Please return its start time and end time.",
            max_new_tokens=50,
        )

    def outputs(self, records: Sequence[Record], folder: Path) -> list[Path]:
        """``charades_sta.json`` for lmms-eval's eval_tvg.py: what was said, by video, sentence and truth."""
        items = {item.id: item for item in self.items()}
        said = {
            f"{record.video}.mp4>>>{record.question}>>>{list(items[record.item].extra['span'])}": record.response or ""
            for record in records
        }
        return write_json(folder / "charades_sta.json", said)


class Annotated(Row):
    """What TimeLens says of a video: a sentence for each stretch of time."""

    duration: Seconds
    spans: list[tuple[Seconds, Seconds]]
    queries: list[Text]
    source: Label = ""

    @model_validator(mode="after")
    def _paired(self) -> Annotated:
        if len(self.spans) != len(self.queries):
            raise ValueError(f"{len(self.spans)} spans and {len(self.queries)} queries; expected one for each")
        return self


class TimeLens(Grounding):
    """One of the sets of TimeLens-Bench as released: ``{part}-timelens.json`` and ``videos/{part}/*.mp4``.

    Parameters
    ----------
    data : Path
    part : str
        "charades", "activitynet" or "qvhighlights".
    """

    reader: ClassVar[Reader] = staticmethod(timelens_span)
    note: ClassVar[str] = (
        "Scores are the overlap (IoU) with the true stretch of time: the accuracy is the mIoU. The official "
        "reading rounds times to whole seconds; published figures come from 2 frames a second."
    )

    def __init__(self, data: Path, part: str) -> None:
        super().__init__(data)
        self.part = part

    def items(self) -> list[Item]:
        """All sentences, in the order of the file."""
        how = 'download the dataset "TencentARC/TimeLens-Bench" of the hub and unpack video_shards/ into videos/'
        path = self.data / f"{self.part}-timelens.json"
        annotated: dict[str, Annotated] = load_rows(path, dict[str, Annotated], how)
        items = [
            self._row(
                f"{video}_{number}",
                video,
                video_file(self.data / "videos" / self.part, video),
                re.sub(r"\s+", " ", query).strip().strip(".").strip(),
                span,
            )
            for video, row in annotated.items()
            for number, (span, query) in enumerate(zip(row.spans, row.queries, strict=True))
        ]
        return unique(items, path)

    def ask(self, item: Item, seconds: Sequence[float]) -> Ask:
        """The official prompt for models without times among the frames."""
        return Ask(
            f"Please find the visual event described by the sentence '{item.question}', determining its starting and "
            "ending times. The format should be: 'The event happens in <start time> - <end time> seconds'.",
            max_new_tokens=512,
        )

    def outputs(self, records: Sequence[Record], folder: Path) -> list[Path]:
        """``{part}-timelens.json`` for the official compute_metrics.py."""
        items = {item.id: item for item in self.items()}
        said = {}
        for record in records:
            span = timelens_span(record.response or "")
            key = f"{record.video}.mp4>>>{record.question}>>>{list(items[record.item].extra['span'])}"
            said[key] = {"timestamps": [] if span is None else [list(span)], "answers": record.response or ""}
        return write_json(folder / f"{self.part}-timelens.json", said)
