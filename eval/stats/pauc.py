"""PAUC (arXiv 2507.09313): how good what was said about a moment was, and how soon, as an area below a line.

The rules are those of ProactiveVideoQA's own scripts. Knows what was due and said, as a task wrote it down, and
verdicts. Refuses to know how a judge is asked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import pdrop_video as pv

from .record import digest
from .verdicts import Case, Judging, Reply, Verdict

SPOKEN = "proactivevideoqa.json"
"""What was due and what was said, beside a run's records."""
OMEGAS = (0.0, 0.5, 1.0)
"""How little the moment counts: with 1 it does not, with 0 as much as the words."""
MOST, BEGIN = 2.0, 0.5
"""The best score, and what silence is worth."""

# Word for word the benchmark's own.
SYSTEM = (
    "You are an evaluator for a video question answering system. Your task is to rate whether the predicted answer "
    "covers the key points of the ground truth answer. Use the following scale to assign a score:\n"
    "- 3: Mostly covered; the predicted answer covers all key information in the ground truth answer, though it may "
    "have minor inaccuracies or rephrases.\n"
    "- 2: Partially covered; the predicted answer has some correct information, but also contains significant "
    "inaccuracies or missing key points.\n"
    "- 1: Incorrect; the predicted answer may be related to the ground truth answer, but most of the information is "
    "missing, or the predicted answer is not relevant to the question or in very poor quality.\n\n"
    "Output the score only, do not add more explanations."
)
USER = "Question: {question}\nGround Truth Answer: {truth}\nPredicted Answer: {said}"


@dataclass(frozen=True, slots=True)
class Turn:
    """Something that is due: between which seconds, and the words that were said then, each time with all before.

    Attributes
    ----------
    item, question, truth : str
    begin, end : float
        Of its reply.
    related : float
        Until when what it is about can be seen.
    said : tuple of (float, str)
    """

    item: str
    question: str
    truth: str
    begin: float
    end: float
    related: float
    said: tuple[tuple[float, str], ...]


def read_spoken(path: Path) -> list[Turn]:
    """What is due, and what was said of it, in order; a sentence that was said before is left out.

    Raises
    ------
    ConfigError
        If the file is damaged.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return [turn for entry in entries for turn in _turns(entry)]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise pv.ConfigError(f"{path} is damaged; run the same command of eval.run again.") from error


def _turns(entry: Mapping[str, Any]) -> list[Turn]:
    found = []
    for due in entry["answer"]:
        begin, end = due["reply_timespan"]
        said: list[str] = []
        spoken = []
        for when, words in entry["predictions"]:
            if begin <= when <= end and words not in said:
                said.append(words)
                spoken.append((float(when), " ".join(said)))
        question = entry["conversation"][0]["content"]
        related = due.get("related_timespan", due["reply_timespan"])[1]
        found.append(Turn(entry["question_id"], question, due["content"], begin, end, related, tuple(spoken)))
    return found


def read_score(text: str) -> Reply | None:
    """The last 1, 2 or 3 that stands alone, as 0 to 2.

    Examples
    --------
    >>> read_score("Between 1 and 2: 2")
    Reply(match='2', score=1)
    >>> read_score("23") is None
    True
    """
    found = re.findall(r"(?<![0-9])([123])(?![0-9])", text)
    return Reply(found[-1], int(found[-1]) - 1) if found else None


def judging_spoken(path: Path) -> Judging:
    """What was said in a run of ProactiveVideoQA.

    Raises
    ------
    ConfigError
        If nothing was due.
    """
    turns = read_spoken(path)
    if not turns:
        raise pv.ConfigError(f"{path} has nothing that was due; was the run finished?")
    cases = [
        Case(
            _key(turn, number, when),
            turn.item,
            SYSTEM,
            USER.format(question=turn.question, truth=turn.truth, said=words),
            read_score,
            0.0,
        )
        for number, turn in enumerate(turns)
        for when, words in turn.said
    ]
    return Judging(cases, digest(SYSTEM, USER), partial(spoken_figures, turns))


def _key(turn: Turn, number: int, when: float) -> str:
    return digest(turn.item, number, when, turn.question, turn.truth, turn.said)


def spoken_figures(turns: Sequence[Turn], verdicts: Mapping[str, Verdict]) -> dict[str, Any]:
    """PAUC over all turns for each omega, and of each item with the middle one."""
    areas: dict[float, list[float]] = {omega: [] for omega in OMEGAS}
    items: dict[str, list[float]] = {}
    read = unreadable = 0
    for number, turn in enumerate(turns):
        said = [verdicts[key] for when, _ in turn.said if (key := _key(turn, number, when)) in verdicts]
        read += sum(verdict.read for verdict in said)
        unreadable += sum(not verdict.read for verdict in said)
        scores = {
            when: float(verdict.score)
            for when, _ in turn.said
            if (verdict := verdicts.get(_key(turn, number, when))) is not None and verdict.score is not None
        }
        for omega in OMEGAS:
            areas[omega].append(area(kept(scores, turn.related), turn.begin, turn.end, omega))
        items.setdefault(turn.item, []).append(areas[0.5][-1])
    return {
        "items": {
            "open": sum(len(turn.said) for turn in turns),
            "judged": read,
            "unreadable": unreadable,
            "turns": len(turns),
            "items": len(items),
        },
        "pauc": {f"{omega:g}": fmean(values) for omega, values in areas.items()},
        "item_scores": {item: fmean(values) for item, values in items.items()},
    }


def kept(scores: Mapping[float, float], related: float) -> dict[float, float]:
    """Without what was said behind the moment and is worse than the last words within it."""
    within = [score for when, score in sorted(scores.items()) if when <= related]
    last = within[-1] if within else 0.0
    return dict(scores) if len(scores) < 2 else {t: s for t, s in scores.items() if t <= related or s >= last}


def area(scores: Mapping[float, float], begin: float, end: float, omega: float) -> float:
    """The area below the steps of the scores over a reply's time, as a share of the whole; times shrink with omega.

    Examples
    --------
    >>> area({15.0: 2.0}, 10, 20, 0)  # half of the time at .5, half at 2, of 2
    0.625
    >>> area({}, 10, 20, 0.5)
    0.25
    """
    if not scores:
        return BEGIN / MOST
    if end <= begin:
        return 0.0
    before, level, total = 0.0, BEGIN, 0.0
    for when, score in sorted(scores.items()):
        at = (when - begin) * (1 - omega)
        total += (at - before) * level
        before, level = at, score
    total += (end - begin - before) * level
    return total / ((end - begin) * MOST)
