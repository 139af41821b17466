"""A run in figures: accuracy with its error bar, by category, what it cost, and how sure one can be of all that.

Knows records. Refuses to know models and how records came about.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from .bounds import mean_interval
from .intervals import clustered_mean
from .official import OF_ANSWERED, Figure, Formula, categories, jackknifed
from .record import Record

Figures = dict[str, Any]


CONFIDENCE = 0.95
"""Of every interval here."""


def summarise(header: Figures, records: Sequence[Record], formula: Formula, total: int) -> Figures:
    """Everything that is reported of a run, JSON-ready.

    Parameters
    ----------
    header : dict
        Of the run.
    records : sequence of Record
    formula : Formula
        What the task's benchmark calls its result.
    total : int
        Items that the run should have.
    """
    scored = [r for r in records if r.score is not None]
    means = {
        "strict_all": accuracy(scored),
        "strict_answered": accuracy([r for r in scored if r.answered]),
        "official_all": accuracy(scored, official=True),
        "official_answered": accuracy([r for r in scored if r.official is not None], official=True),
    }
    own = {name: _of(figure, name in formula.signed) for name, figure in jackknifed(formula.figures, records).items()}
    as_published = header["configuration"]["answer"] == "generate" and not header.get("paraphrase")
    return {
        "header": header,
        "items": {
            "expected": total,
            "finished": len(records),
            "errors": sum(r.error is not None for r in records),
            "unanswered": sum(not r.answered for r in records),
            "unanswered_official": sum(r.official is None for r in records),
            "damaged": sum(bool(r.warnings) for r in records),
            "videos": len({r.video for r in records}),
        },
        "accuracy": means,
        "official": _official(records, formula, {**means, **own}) if as_published else None,
        "figures": own,
        "details": _details(records),
        "categories": by_category(scored),
        "cost": _cost(records),
        "time": _time(records),
        "answers_read_by": header["configuration"]["answer"],
    }


def accuracy(records: Sequence[Record], official: bool = False) -> Figures | None:
    """Mean score with its standard error and interval, clustered by video, and how many items; None of none."""
    if not records:
        return None
    return _mean([(r.official_score if official else r.score) or 0.0 for r in records], [r.video for r in records])


def _mean(scores: Sequence[float], videos: Sequence[str]) -> Figures:
    mean, interval = clustered_mean(scores, videos), mean_interval(scores, videos, CONFIDENCE)
    return {
        "mean": mean.value,
        "standard_error": _known(mean.standard_error),
        "low": _known(interval.low),
        "high": _known(interval.high),
        "items": mean.items,
        "videos": mean.clusters,
    }


def _of(figure: Figure, signed: bool) -> Figures:
    """One of the benchmark's own figures, in the same form."""
    interval = figure.interval(CONFIDENCE)
    return {
        "mean": figure.value,
        "standard_error": _known(figure.error),
        "low": _known(interval.low if signed else max(interval.low, 0.0)),
        "high": _known(min(interval.high, 1.0)),
        "items": figure.items,
        "videos": figure.videos,
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def by_category(records: Sequence[Record], official: bool = False, within: str | None = None) -> Figures:
    """Accuracy in each value of each category; an item with several values counts in each of them."""
    found: Figures = {}
    for field, value, chosen in categories(records, within):
        found.setdefault(field, {})[value] = accuracy([records[i] for i in chosen], official)
    return found


def _official(records: Sequence[Record], formula: Formula, known: Figures) -> Figures | None:
    """What the benchmark itself would print; None where it has no official figure."""
    if formula.figure is None:
        return None
    counted = [r for r in records if formula.counts(r)] if formula.tables else []
    return {
        "figure": formula.figure,
        "counts": "answered questions" if formula.figure == OF_ANSWERED else "all questions",
        "overall": known.get(formula.figure),
        "categories": by_category(counted, official=True, within=formula.within),
    }


def _details(records: Sequence[Record]) -> Figures:
    names = dict.fromkeys(name for record in records for name in record.details)
    having = {name: [r for r in records if name in r.details] for name in names}
    return {name: _mean([r.details[name] for r in of], [r.video for r in of]) for name, of in having.items()}


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
