"""Means of means: the aggregates that benchmarks publish, from finished records.

Knows records. An item without an answer counts as wrong; one without a truth is left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from ..stats.record import Record

READINGS: Mapping[str, str] = {"": "official_score", ", strict": "score"}
"""What a figure's name ends with, and the field of a record that it is made of."""


def mean(values: Iterable[float]) -> float:
    """Mean of at least one value."""
    given = list(values)
    return sum(given) / len(given)


def means_by(records: Iterable[Record], field: str, reading: str) -> dict[str, float]:
    """Mean score for each value of a category.

    Parameters
    ----------
    records : iterable of Record
    field : str
        A field of `Record.category`.
    reading : str
        ``"official_score"`` or ``"score"``.
    """
    scores: dict[str, list[float]] = defaultdict(list)
    for record in records:
        if record.answer is not None:
            scores[record.category[field]].append(getattr(record, reading) or 0.0)
    return {value: mean(given) for value, given in scores.items()}


def macro(means: Mapping[str, float], over: Sequence[str]) -> float | None:
    """Unweighted mean over the values named; None if one is missing, since its figure would not be the benchmark's."""
    return mean(means[value] for value in over) if over and all(value in means for value in over) else None
