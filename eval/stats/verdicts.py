"""What a judge said of open answers, how its replies are read, and the figures that they come to.

The rules are those of the script that VStream-QA was released with (arXiv 2406.08085). Knows records. Refuses to know
how a judge is asked.
"""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import pdrop_video as pv
from pdrop_video.common.journal import read_journal

from .record import Record, Run, digest, read_run
from .summary import accuracy

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


def read_reply(text: str) -> Reply | None:
    """The dictionary in a judge's reply, wherever it stands; None where there is no such dictionary.

    As in the official script it is Python (JSON is read as well), the score is cut to a whole number, and both keys
    must be there. A score that is not from 0 to 5 is none.

    Examples
    --------
    >>> read_reply("{'pred': 'yes', 'score': 4.8}")
    Reply(match='yes', score=4)
    >>> read_reply("I cannot say.") is None
    True
    """
    found = re.search(r"\{[^{}]*\}", text)
    if found is None:
        return None
    try:
        entry = ast.literal_eval(found.group())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        try:
            entry = json.loads(found.group())
        except ValueError:
            return None
    try:
        match, score = entry["pred"], int(entry["score"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return Reply(match, score) if isinstance(match, str) and 0 <= score <= 5 else None


def open_items(run: Run) -> list[Record]:
    """The records that only a judge can score: open questions whose truth is known.

    Raises
    ------
    ConfigError
        If there are none.
    """
    found = [record for record in run.records if not record.options and isinstance(record.answer, str)]
    found = [record for record in found if record.score is None or record.error is not None]
    if not any(record.response is not None for record in found):
        raise pv.ConfigError(
            f"{run.folder} has no open answer to judge: the {len(run.records)} records of {run.header.get('task')} are "
            "scored by the benchmark's own rule or have no answer; expected a run of rvs-ego or rvs-movie."
        )
    return found


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


def judged_figures(records: Sequence[Record], verdicts: Mapping[str, Verdict]) -> dict[str, Any]:
    """What the verdicts come to, JSON-ready.

    Parameters
    ----------
    records : sequence of Record
        As `open_items` gave them.
    verdicts : mapping
        By `verdict_key`.
    """
    scored = with_verdicts(records, verdicts)
    said = [verdicts[key] for record in records if (key := verdict_key(record)) in verdicts]
    read = [verdict for verdict in said if verdict.read]
    official = [record for record in scored if record.official_score is not None]
    spread = {
        name: {str(score): count for score, count in sorted(Counter(v.score for v in of).items())}
        for name, of in (("yes", [v for v in read if v.right]), ("no", [v for v in read if not v.right]))
    }
    names = dict.fromkeys(name for record in official for name in record.category)
    return {
        "items": {
            "open": len(records),
            "errors": sum(record.error is not None for record in records),
            "judged": len(read),
            "unreadable": len(said) - len(read),
            "neither_yes_nor_no": sum(not v.right and "no" not in (v.match or "").lower() for v in read),
        },
        "accuracy": accuracy(official, official=True),
        "accuracy_errors_wrong": accuracy([record for record in scored if record.score is not None]),
        "score": fmean(float(v.score or 0) for v in read) if read else None,
        "scores": spread,
        "categories": {name: _by_category(official, name) for name in names},
    }


def _by_category(records: Sequence[Record], name: str) -> dict[str, dict[str, Any]]:
    """Accuracy and mean score in each value of a category."""
    found = {}
    for value in sorted({str(record.category[name]) for record in records if name in record.category}):
        of = [record for record in records if str(record.category.get(name)) == value]
        found[value] = {**(accuracy(of, official=True) or {}), "score": fmean(r.details["judge_score"] for r in of)}
    return found


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
        judge, file = said["judge"], folder / said["verdicts"]
    except (ValueError, TypeError, KeyError) as error:
        raise pv.ConfigError(f"{path} is damaged; remove it and judge the run again.") from error
    records = with_verdicts(run.records, read_verdicts(file))
    return Run(folder, {**run.header, "judge": judge}, records)
