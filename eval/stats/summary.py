"""A run in figures: accuracy with its error bar, by category, what it cost, and how sure one can be of all that.

Knows records. Refuses to know models and how records came about.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

from .intervals import clustered_mean
from .record import Record

Figures = dict[str, Any]


def summarise(header: Figures, records: Sequence[Record], figures: dict[str, float], total: int) -> Figures:
    """Everything that is reported of a run, JSON-ready.

    Parameters
    ----------
    header : dict
        Of the run.
    records : sequence of Record
    figures : dict
        The task's own aggregate figures.
    total : int
        Items that the run should have.
    """
    scored = [r for r in records if r.score is not None]
    return {
        "header": header,
        "items": {
            "expected": total,
            "finished": len(records),
            "errors": sum(r.error is not None for r in records),
            "unanswered": sum(not r.answered for r in records),
            "unanswered_official": sum(r.official is None for r in records),
            "videos": len({r.video for r in records}),
        },
        "accuracy": {
            "strict_all": accuracy(scored),
            "strict_answered": accuracy([r for r in scored if r.answered]),
            "official_all": accuracy(scored, official=True),
            "official_answered": accuracy([r for r in scored if r.official is not None], official=True),
        },
        "figures": figures,
        "details": _details(records),
        "categories": {name: by_category(scored, name) for name in _category_names(scored)},
        "cost": _cost(records),
        "time": _time(records),
        "answers_read_by": header["configuration"]["answer"],
    }


def accuracy(records: Sequence[Record], official: bool = False) -> Figures | None:
    """Mean score, its standard error clustered by video, and how many items; None of none."""
    if not records:
        return None
    scores = [(r.official_score if official else r.score) or 0.0 for r in records]
    mean = clustered_mean(scores, [r.video for r in records])
    error = None if math.isnan(mean.standard_error) else mean.standard_error
    return {"mean": mean.value, "standard_error": error, "items": mean.items, "videos": mean.clusters}


def by_category(records: Sequence[Record], name: str) -> dict[str, Figures]:
    """Accuracy in each value of a category field; an item with several values counts in each of them."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        if name in record.category:
            values = record.category[name]
            for value in values if isinstance(values, list) else [values]:
                groups.setdefault(str(value), []).append(record)
    means = {value: accuracy(group) for value, group in sorted(groups.items())}
    return {value: mean for value, mean in means.items() if mean is not None}


def _category_names(records: Iterable[Record]) -> list[str]:
    return list(dict.fromkeys(name for record in records for name in record.category))


def _details(records: Sequence[Record]) -> dict[str, float]:
    names = dict.fromkeys(name for record in records for name in record.details)
    return {name: fmean(r.details[name] for r in records if name in r.details) for name in names}


def _cost(records: Sequence[Record]) -> Figures:
    """Means an item, over those that were answered."""
    done = [r for r in records if r.error is None]
    if not done:
        return {}
    parts = list(dict.fromkeys(name for r in done for name in r.seconds))
    stages = max(len(r.kept) for r in done)
    return {
        "frames": fmean(r.frames for r in done),
        "visual_tokens": fmean(r.visual_tokens for r in done),
        "kept_by_stage": [fmean(r.kept[s] for r in done if s < len(r.kept)) for s in range(stages)],
        "cache_bytes_mean": fmean(r.cache_bytes for r in done),
        "cache_bytes_max": max(r.cache_bytes for r in done),
        "archive_bytes_max": max(r.archive_bytes for r in done),
        "tflops": fmean(r.flops for r in done) / 1e12,
        "whole_tflops": whole_tflops(done),
        "seconds": {name: fmean(r.seconds.get(name, 0.0) for r in done) for name in parts},
    }


def whole_tflops(records: Sequence[Record]) -> float | None:
    """Mean TFLOPs of the whole way from frames to answers; None where the vision tower was not counted."""
    towers = [r.tower_flops for r in records if r.tower_flops is not None]
    if not records or len(towers) < len(records):
        return None
    return fmean(r.flops + r.front_flops + tower for r, tower in zip(records, towers, strict=True)) / 1e12


def _time(records: Sequence[Record]) -> Figures:
    """Where the time of all processes went, and the runner's share of it."""
    spent = {part: sum(r.spent.get(part, 0.0) for r in records) for part in ("decode", "model", "runner")}
    total = sum(spent.values())
    return {**spent, "total": total, "runner_share": spent["runner"] / total if total else 0.0}
