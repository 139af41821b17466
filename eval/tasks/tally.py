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


def means_of(named: Iterable[tuple[str, float]]) -> dict[str, float]:
    """The mean of the values that go by each name."""
    values: dict[str, list[float]] = defaultdict(list)
    for name, value in named:
        values[name].append(value)
    return {name: mean(given) for name, given in values.items()}


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
    counted = (record for record in records if record.answer is not None)
    return means_of((record.category[field], getattr(record, reading) or 0.0) for record in counted)


def macro(means: Mapping[str, float], over: Sequence[str]) -> float | None:
    """Unweighted mean over the values named; None if one is missing, since its figure would not be the benchmark's."""
    return mean(means[value] for value in over) if over and all(value in means for value in over) else None
