"""Runs of one task side by side, on the items that all of them finished: costs, paired tests, categories.

Knows records and statistics. Refuses to know how runs are made and how tables are shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pdrop_video.errors import ConfigError
from pdrop_video.video.decode import counted

from .bounds import paired_interval
from .intervals import clustered_mean, design_effect, holm, mcnemar
from .margins import items_needed, non_inferiority
from .official import categories
from .record import Record, Run
from .summary import whole_tflops


@dataclass(frozen=True, slots=True)
class Matched:
    """Runs cut to the items that all of them finished with a score.

    Attributes
    ----------
    task : str
    names : list of str
        One a run; the first is the reference.
    items, videos : list of str
        The common items in order, and the video of each.
    records : list of list of Record
        For each run its records of these items.
    left_out : dict
        For each run the items that others have and it lacks, each with the reason.
    fronts : list of dict
        For each run its gate and its reducer, "none" where it has none; nothing where no run has any.
    """

    task: str
    names: list[str]
    items: list[str]
    videos: list[str]
    records: list[list[Record]]
    left_out: dict[str, dict[str, str]]
    fronts: list[dict[str, str]]

    def scores(self, run: int) -> list[float]:
        """The scores of a run's items, 0 to 1."""
        return [record.score or 0.0 for record in self.records[run]]


def match(runs: Sequence[Run]) -> Matched:
    """Match the items of several runs by their names.

    Items that ended in an error, or have no score, count as missing; an answer that could not be read counts as wrong.

    Raises
    ------
    ConfigError
        If the runs are of different tasks, disagree about an item's truth, or have no item in common.
    """
    names = run_names(runs)
    tasks = sorted({record.task for run in runs for record in run.records})
    if len(tasks) > 1:
        raise ConfigError(f"the runs are of different tasks ({', '.join(tasks)}); expected runs of one task.")
    judges = [run.header.get("judge") for run in runs]
    if len(set(judges)) > 1:
        said = ", ".join(f"{name} by {judge or 'none'}" for name, judge in zip(names, judges, strict=True))
        raise ConfigError(f"the runs were judged by different models ({said}); let eval.judge ask one for all of them.")
    by_item = [_by_item(name, run.records) for name, run in zip(names, runs, strict=True)]
    everything = list(dict.fromkeys(item for records in by_item for item in records))
    left_out: dict[str, dict[str, str]] = {name: {} for name in names}
    common = []
    for item in everything:
        reasons = {name: _unusable(records.get(item)) for name, records in zip(names, by_item, strict=True)}
        for name, reason in reasons.items():
            if reason:
                left_out[name][item] = reason
        if not any(reasons.values()):
            common.append(item)
            _same_truth(item, names, [records[item] for records in by_item])
    if not common:
        raise ConfigError(
            f"no item was finished with a score by all of {', '.join(names)}; expected runs on the same data. Finish "
            "the runs, or compare fewer."
        )
    first = by_item[0]
    chosen = [[records[item] for item in common] for records in by_item]
    return Matched(tasks[0], names, common, [first[item].video for item in common], chosen, left_out, _fronts(runs))


def _by_item(name: str, records: Sequence[Record]) -> dict[str, Record]:
    """Records by their items' names.

    Raises
    ------
    ConfigError
        If two have the same: the data were changed while the run went on, and one would be taken for the other.
    """
    found: dict[str, Record] = {}
    for record in records:
        if found.setdefault(record.item, record) is not record:
            raise ConfigError(
                f"{name} has two records of item {record.item}, of different questions; expected one. The data changed "
                "while it ran: run it anew into another --out."
            )
    return found


def run_names(runs: Sequence[Run]) -> list[str]:
    """The folders' names, or their paths where names repeat."""
    short = [run.folder.resolve().name for run in runs]
    names = short if len(set(short)) == len(short) else [str(run.folder) for run in runs]
    if len(set(names)) < len(names):
        raise ConfigError(f"a run is named twice among {', '.join(names)}; name each once.")
    return names


def _fronts(runs: Sequence[Run]) -> list[dict[str, str]]:
    """What stands in front of each run's language model, if anything does in one of them."""
    settings = [run.header.get("configuration", {}) for run in runs]
    some = any(slot in each for each in settings for slot in ("gate", "reducer"))
    return [{slot: each.get(slot, "none") for slot in ("gate", "reducer") if some} for each in settings]


def _unusable(record: Record | None) -> str:
    """Why a record can't be compared, or nothing."""
    if record is None:
        return "not finished"
    if record.error is not None:
        return f"error: {record.error}"
    return "no truth to compare with" if record.score is None else ""


def _same_truth(item: str, names: Sequence[str], records: Sequence[Record]) -> None:
    for name, record in zip(names, records, strict=True):
        if (record.answer, record.options) != (records[0].answer, records[0].options):
            raise ConfigError(
                f"item {item} has the answer {records[0].answer!r} in {names[0]} and {record.answer!r} in {name}, or "
                "other options; expected runs on the same version of the data."
            )


def left_out(matched: Matched) -> list[str]:
    """One sentence for each run that lacks items which others have: how many, why, and which come first."""
    said = []
    for name, reasons in matched.left_out.items():
        if reasons:
            which = ", ".join(f"{item} ({reason})" for item, reason in list(reasons.items())[:3])
            more = f" and {len(reasons) - 3} more" if len(reasons) > 3 else ""
            said.append(f"{name} lacks {counted(len(reasons), 'item')}, which no figure here counts: {which}{more}.")
    return said


def run_table(matched: Matched) -> pd.DataFrame:
    """One row a run: accuracy with its clustered standard error, and what it cost on average.

    FLOPs are those of an item asked alone; `cache_mib` is the largest of any item.
    """
    rows = []
    for i, name in enumerate(matched.names):
        records = matched.records[i]
        accuracy = clustered_mean(matched.scores(i), matched.videos)
        answered = [record.score or 0.0 for record in records if record.answered]
        official = [record.official_score for record in records if record.official_score is not None]
        parts = sorted({part for record in records for part in record.seconds})
        rows.append(
            {
                "run": name,
                **matched.fronts[i],
                "items": accuracy.items,
                "videos": accuracy.clusters,
                "accuracy": accuracy.value,
                "standard_error": accuracy.standard_error,
                "unanswered": len(records) - len(answered),
                "accuracy_of_answered": float(np.mean(answered)) if answered else None,
                "official_reading": float(np.mean(official)) if official else None,
                "frames": _mean([record.frames for record in records]),
                "visual_tokens": _mean([record.visual_tokens for record in records]),
                "tokens_kept": " ".join(f"{n:.0f}" for n in _mean_by_stage(records)),
                "cache_mib": max(record.cache_bytes for record in records) / 2**20,
                "tflops": _mean([record.flops for record in records]) / 1e12,
                **({} if (whole := whole_tflops(records)) is None else {"whole_tflops": whole}),
                **{f"{part}_seconds": _mean([record.seconds.get(part, 0.0) for record in records]) for part in parts},
            }
        )
    return pd.DataFrame(rows)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _mean_by_stage(records: Sequence[Record]) -> list[float]:
    kept = [record.kept for record in records if record.kept]
    return np.mean(kept, axis=0).tolist() if kept and len({len(k) for k in kept}) == 1 else []


def pair_table(matched: Matched, margin: float | None, confidence: float = 0.95) -> pd.DataFrame:
    """One row for each run but the first, against the first: difference, interval, exact test, non-inferiority.

    Parameters
    ----------
    matched : Matched
    margin : float or None
        See `eval.stats.margins.non_inferiority`; None claims nothing.
    confidence : float
        Two-sided for the interval of the difference, one-sided for the bound of non-inferiority.
    """
    rows: list[dict[str, Any]] = []
    first, videos = matched.scores(0), matched.videos
    for i, name in enumerate(matched.names[1:], 1):
        second = matched.scores(i)
        difference = np.subtract(second, first)
        mean = clustered_mean(difference, videos)
        interval = paired_interval(first, second, videos, confidence)
        test = mcnemar(first, second)
        row = {
            "run": name,
            "against": matched.names[0],
            "items": mean.items,
            "videos": mean.clusters,
            "difference": mean.value,
            "standard_error": mean.standard_error,
            "low": interval.low,
            "high": interval.high,
            "only_reference": test.only_first,
            "only_run": test.only_second,
            "p_mcnemar": test.p_value,
            "discordance": (test.only_first + test.only_second) / mean.items,
            "design_effect": design_effect(difference, videos),
        }
        if margin is not None:
            claim = non_inferiority(first, second, videos, margin, confidence=confidence)
            row |= {"margin": margin, "bound": claim.bound, "non_inferior": claim.shown}
        rows.append(row)
    for row, p in zip(rows, holm([row["p_mcnemar"] for row in rows]), strict=True):
        row["p_holm"] = p
    return pd.DataFrame(rows)


def category_table(matched: Matched) -> pd.DataFrame:
    """One row for each value of each category and each run: accuracy, and the difference from the first run.

    There are no tests here: with dozens of rows some differences are large by chance.
    """
    rows = []
    for field, value, chosen in categories(matched.records[0], None):
        videos = [matched.videos[i] for i in chosen]
        first = np.array(matched.scores(0))[chosen]
        for run, name in enumerate(matched.names):
            scores = np.array(matched.scores(run))[chosen]
            accuracy, difference = clustered_mean(scores, videos), clustered_mean(scores - first, videos)
            rows.append(
                {
                    "category": field,
                    "value": value,
                    "items": accuracy.items,
                    "videos": accuracy.clusters,
                    "run": name,
                    "accuracy": accuracy.value,
                    "standard_error": accuracy.standard_error,
                    "difference": difference.value,
                    "difference_error": difference.standard_error,
                }
            )
    return pd.DataFrame(rows)


def power_table(pairs: pd.DataFrame, differences: Sequence[float]) -> pd.DataFrame:
    """Items that would show each difference with a chance of 80 %, at each pair's own discordance and clustering."""
    rows = []
    for pair in pairs.itertuples():
        effect = pair.design_effect if np.isfinite(pair.design_effect) else 1.0
        for difference in differences:
            # runs that differ by so much would disagree on at least as many items
            discordance = max(pair.discordance, difference)
            needed = items_needed(difference, discordance, design_effect=effect)
            rows.append({"run": pair.run, "difference": difference, "items_needed": needed, "items": pair.items})
    return pd.DataFrame(rows)
