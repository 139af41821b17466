"""What a judge is asked about a run, what it said, and the scores that records get by it.

Knows records. Refuses to know how a judge is reached, and by which benchmark's rules it judges.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import pdrop_video as pv
from pdrop_video.common.journal import read_journal

from .record import Record, Run, digest, read_run

JUDGED = "judged.json"
"""The figures of the last judge, beside a run's records."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge said of one answer.

    Attributes
    ----------
    key : str
        `verdict_key` of what was judged.
    item : str
    match : str or None
        Whether prediction and truth match, as the judge wrote it; None if its reply could not be read.
    score : int or None
        How well they match, from 0 to 5.
    reply : str
        The judge's words.
    """

    key: str
    item: str
    match: str | None
    score: int | None
    reply: str

    @property
    def read(self) -> bool:
        """Whether the reply could be read."""
        return self.match is not None

    @property
    def right(self) -> bool:
        """Whether the judge took the answer for right: the official script looks for "yes" anywhere."""
        return self.match is not None and "yes" in self.match.lower()

    def to_json(self) -> dict[str, Any]:
        """As a JSON-ready object."""
        return {name: getattr(self, name) for name in Verdict.__slots__}


class Reply(NamedTuple):
    """A judge's reply, read."""

    match: str
    score: int


@dataclass(frozen=True, slots=True)
class Case:
    """One question to a judge.

    Attributes
    ----------
    key, item : str
        Of its verdict.
    system, user : str
        What the judge is told.
    read : callable
        Reads its reply; None for one that can't be read.
    temperature : float
    """

    key: str
    item: str
    system: str
    user: str
    read: Callable[[str], Reply | None]
    temperature: float


@dataclass(frozen=True, slots=True)
class Judging:
    """What there is to judge in a run.

    Attributes
    ----------
    cases : list of Case
    rules : str
        The digest of what judges are told: other rules are another judge.
    figures : callable
        What the verdicts, by their keys, come to, JSON-ready.
    """

    cases: list[Case]
    rules: str
    figures: Callable[[Mapping[str, Verdict]], dict[str, Any]]


def verdict_key(record: Record) -> str:
    """What a verdict is known by: the item, and the answer that was judged."""
    return digest(record.key, record.response)


def read_verdicts(path: Path) -> dict[str, Verdict]:
    """The verdicts of a file by their keys; one that could be read wins over one that could not."""
    found: dict[str, Verdict] = {}
    if not path.exists():
        return found
    for entry in read_journal(path):
        try:
            verdict = Verdict(**entry)
        except TypeError as error:
            raise pv.ConfigError(
                f"{path} has a line that is no verdict ({error}); remove the line and its answer is judged again."
            ) from error
        if verdict.read or verdict.key not in found:
            found[verdict.key] = verdict
    return found


def with_verdicts(records: Sequence[Record], verdicts: Mapping[str, Verdict]) -> list[Record]:
    """The same records, those that were judged with a score: 1 for right, 0 for wrong.

    An item that ended in an error is wrong, except by the official reading, which leaves it out. One whose verdict is
    missing or could not be read keeps no score.
    """
    return [_scored(record, verdicts.get(verdict_key(record))) for record in records]


def _scored(record: Record, verdict: Verdict | None) -> Record:
    if record.error is not None:
        return replace(record, score=0.0, official_score=None, official=None)
    if verdict is None or verdict.score is None:
        return record
    score, details = float(verdict.right), {**record.details, "judge_score": float(verdict.score)}
    return replace(record, score=score, official_score=score, details=details)


def read_judged(folder: Path) -> Run:
    """As `read_run`, with the scores of the last judge where one was asked.

    The header then has its name under "judge": runs can be compared where it is the same.
    """
    run = read_run(folder)
    path = folder / JUDGED
    if not path.is_file():
        return run
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        judge, file, scores = said["judge"], folder / said["verdicts"], said.get("item_scores")
    except (ValueError, TypeError, KeyError) as error:
        raise pv.ConfigError(f"{path} is damaged; remove it and judge the run again.") from error
    if scores is None:
        records = with_verdicts(run.records, read_verdicts(file))
    else:  # of items with several verdicts
        records = [
            replace(r, score=scores[r.item], official_score=scores[r.item]) if r.item in scores else r
            for r in run.records
        ]
    return Run(folder, {**run.header, "judge": judge}, records)
