"""Open answers and a judge's verdicts: what it is told, how its replies are read, and the figures that they come to.

The rules are those of the script that VStream-QA was released with (arXiv 2406.08085). Knows records. Refuses to know
how a judge is asked.
"""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import Any

import pdrop_video as pv

from .record import Record, Run, digest
from .summary import accuracy
from .verdicts import Case, Judging, Reply, Verdict, verdict_key, with_verdicts

# Word for word those of the benchmark's own script: another wording is another judge.
SYSTEM = (
    "You are an intelligent chatbot designed for evaluating the correctness of generative outputs for question-answer "
    "pairs. Your task is to compare the predicted answer with the correct answer and determine if they match "
    "meaningfully. Here's how you can accomplish the task:------##INSTRUCTIONS: "
    "- Focus on the meaningful match between the predicted answer and the correct answer.\n"
    "- Consider synonyms or paraphrases as valid matches.\n"
    "- Evaluate the correctness of the prediction compared to the answer."
)
USER = (
    "Please evaluate the following video-based question-answer pair:\n\n"
    "Question: {question}\nCorrect Answer: {answer}\nPredicted Answer: {prediction}\n\n"
    "Provide your evaluation only as a yes/no and score where the score is an integer value between 0 and 5, with 5 "
    "indicating the highest meaningful match. Please generate the response in the form of a Python dictionary string "
    "with keys 'pred' and 'score', where value of 'pred' is  a string of 'yes' or 'no' and value of 'score' is in "
    "INTEGER, not STRING.DO NOT PROVIDE ANY OTHER OUTPUT TEXT OR EXPLANATION. Only provide the Python dictionary "
    "string. For example, your response should look like this: {{'pred': 'yes', 'score': 4.8}}."
)
TEMPERATURE = 0.002


def judging_answers(run: Run) -> Judging:
    """The open answers of a run, by the rules of VStream-QA."""
    records = open_items(run)
    cases = [
        Case(
            verdict_key(record),
            record.item,
            SYSTEM,
            USER.format(question=record.question, answer=record.answer, prediction=record.response),
            read_reply,
            TEMPERATURE,
        )
        for record in records
        if record.response is not None
    ]
    return Judging(cases, digest(SYSTEM, USER, TEMPERATURE), partial(judged_figures, records))


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
        for name, of in (
            ("yes", [v for v in read if v.right]),
            ("no", [v for v in read if not v.right and "no" in (v.match or "").lower()]),
        )
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
