"""`evo_oracle` over a question set: how far scorers are from the best sets found, with errors by video.

Knows clips and files. What is done is in a journal, so that what was stopped goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from ..common.journal import Journal, read_journal
from ..errors import ConfigError
from ..stream.lm import VideoLM
from .judge import Clip, Objective
from .oracle import Oracle, evo_oracle

JOURNAL = "oracle.jsonl"
BEST, RANDOM_BEST, RANDOM = "best set found", "best of as many random sets", "random sets"


@dataclass(frozen=True, slots=True)
class Distance:
    """How far sets of one kind are, over a question set.

    Attributes
    ----------
    name : str
        A scorer, or what stands beside them.
    mean, standard_error : float
        KL in nats, over videos.
    behind, behind_error : float
        Above the best sets found, paired by video.
    """

    name: str
    mean: float
    standard_error: float
    behind: float
    behind_error: float


def oracles(
    lm: VideoLM,
    clips: Sequence[Clip],
    folder: Path,
    *,
    objective: Objective,
    notes: dict[str, Any],
    watch: Callable[[str], None] = lambda line: None,
    **settings: Any,
) -> list[Distance]:
    """Search the best set for each question of each clip, and say how far scorers are from it.

    Parameters
    ----------
    lm : VideoLM
    clips : sequence of Clip
    folder : path
        Where the journal is.
    objective : Objective
    notes : dict
        What else the values depend on.
    watch : callable
        Is given a line for each question.
    **settings
        As for `evo_oracle`; JSON-ready.

    Raises
    ------
    ConfigError
        If the journal is one of other settings, or an argument is wrong.
    """
    path = Path(folder) / JOURNAL
    said = {"model": lm.name, "objective": asdict(objective), **notes, **settings}
    said = json.loads(json.dumps(said))
    entries = list(read_journal(path)) if path.is_file() else []
    if entries and entries[0].get("settings") != said:
        raise ConfigError(f"{path} is of another search; give another folder, or the same settings.")
    done = {(entry["clip"], entry["question"]): entry["found"] for entry in entries[1:]}
    with Journal(path) as journal:
        if not entries:
            journal.append({"settings": said})
        for clip in clips:
            for question in clip.questions:
                if (clip.name, question) in done:
                    continue
                found = asdict(evo_oracle(lm, clip, question, objective=objective, **settings))
                journal.append({"clip": clip.name, "question": question, "found": found})
                done[clip.name, question] = json.loads(json.dumps(found))
                watch(
                    f"{clip.name}: {found['count']} of {found['tokens']} tokens, best set {found['best']:.4f} nats, "
                    f"best of {found['tries']} random {found['random_best']:.4f}"
                )
    return distances([[Oracle(**done[clip.name, question]) for question in clip.questions] for clip in clips])


def distances(found: Sequence[Sequence[Oracle]]) -> list[Distance]:
    """What was found for the questions of each clip, by scorer; the mean of a clip's questions counts once.

    Parameters
    ----------
    found : sequence of sequences of Oracle
        One sequence a clip.
    """
    tables: dict[str, list[float]] = {}
    for one in found:
        each = [
            {BEST: oracle.best, **oracle.scorers, RANDOM_BEST: oracle.random_best, RANDOM: oracle.random_mean}
            for oracle in one
        ]
        for name in each[0]:
            tables.setdefault(name, []).append(fmean(row[name] for row in each))
    made = []
    for name, values in tables.items():
        behind = [value - best for value, best in zip(values, tables[BEST], strict=True)]
        made.append(Distance(name, fmean(values), _error(values), fmean(behind), _error(behind)))
    return made


def _error(values: Sequence[float]) -> float:
    return stdev(values) / sqrt(len(values)) if len(values) > 1 else float("nan")
