"""What a benchmark itself would print of a run: its overall figure, its own aggregates, and accuracies by category.

Knows records and which of them a benchmark counts. Refuses to know tasks by name, and how figures are shown.

Each figure carries what every video contributes to its error, so that the same figure of two runs can be subtracted
with an error of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .bounds import Interval, t_interval
from .intervals import Values, by_cluster
from .record import Record

Figures: TypeAlias = Callable[[Sequence[Record]], dict[str, float]]
"""A benchmark's own aggregates of records, by name."""

OF_ALL, OF_ANSWERED = "official_all", "official_answered"
"""Official figures that are means: over all questions, and over those that the official reading could read."""

GROUPS = 200
"""Most parts that videos are dealt into for a jackknife: it takes each figure so many times."""


@dataclass(frozen=True, slots=True)
class Formula:
    """What a benchmark calls its result.

    Attributes
    ----------
    figure : str or None
        `OF_ALL`, `OF_ANSWERED` or the name of one of `figures`; None where there is no official figure.
    figures : callable
        The benchmark's own aggregates.
    within : str or None
        A category within each of whose values the other categories are official figures too.
    tables : bool
        Whether plain means by category are official figures.
    signed : collection of str
        Figures that may be below 0.
    """

    figure: str | None
    figures: Figures
    within: str | None = None
    tables: bool = True
    signed: Collection[str] = ()

    def counts(self, record: Record) -> bool:
        """Whether a record is in the denominators."""
        return record.official_score is not None and (self.figure != OF_ANSWERED or record.official is not None)


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure, and the part that each video (or group of videos) has in its error.

    Attributes
    ----------
    value : float
    parts : array
        Their squares add up to the variance, but for ``G / (G - 1)`` of G parts; nan where they can't be known.
    items, videos : int
    """

    value: float
    parts: NDArray[np.float64]
    items: int
    videos: int

    @property
    def error(self) -> float:
        """Standard error; nan where there are fewer than two parts, or they can't be known."""
        groups = len(self.parts)
        return math.nan if groups < 2 else math.sqrt(groups / (groups - 1) * float((self.parts**2).sum()))

    def interval(self, confidence: float = 0.95) -> Interval:
        """Student's interval; unknown where no video differs from another, which few videos may do by chance."""
        error = self.error
        return t_interval(self.value, error or math.nan, len(self.parts), confidence)

    def minus(self, other: Figure) -> Figure:
        """The difference from the same figure of another run on the same items."""
        return Figure(self.value - other.value, self.parts - other.parts, self.items, self.videos)


def mean_figure(values: Values, counted: Sequence[bool], clusters: Sequence[Hashable]) -> Figure | None:
    """The mean of the values that count; None where none does."""
    weights = np.asarray(counted, float)
    if not weights.any():
        return None
    sums, sizes = by_cluster(np.asarray(values, float) * weights, clusters)[0], by_cluster(weights, clusters)[0]
    mean = sums.sum() / sizes.sum()
    parts = (sums - mean * sizes) / sizes.sum()
    return Figure(float(mean), parts, int(sizes.sum()), int((sizes > 0).sum()))


def jackknifed(figures: Figures, records: Sequence[Record]) -> dict[str, Figure]:
    """Any figures of records, with their errors from leaving out one video (or group of videos) after the other."""
    whole = figures(records)
    if not whole:
        return {}
    number: dict[str, int] = {}
    group = [number.setdefault(record.video, len(number)) % GROUPS for record in records]
    groups = min(len(number), GROUPS)
    left = [figures([r for r, of in zip(records, group, strict=True) if of != one]) for one in range(groups)]
    found = {}
    for name, value in whole.items():
        values = np.array([without.get(name, math.nan) for without in left])
        found[name] = Figure(value, (values.mean() - values) * (groups - 1) / groups, len(records), len(number))
    return found


def categories(records: Sequence[Record], within: str | None) -> Iterator[tuple[str, str, list[int]]]:
    """Each category, each of its values, and which records have it; then those within the values of `within`.

    A record with several values counts in each of them.
    """
    fields = list(dict.fromkeys(name for record in records for name in record.category))
    pairs = [(within, field) for field in fields if within in fields and field != within]
    for names in [*((field,) for field in fields), *pairs]:
        found: dict[str, list[int]] = {}
        for index, record in enumerate(records):
            for value in _values(record, *(str(name) for name in names)):
                found.setdefault(value, []).append(index)
        for value in sorted(found):
            yield ", ".join(str(name) for name in names), value, found[value]


def _values(record: Record, *fields: str) -> Iterator[str]:
    first, *others = fields
    value = record.category.get(first)
    for one in value if isinstance(value, (list, tuple)) else (value,):
        if one is not None and not others:
            yield str(one)
        elif one is not None:
            yield from (f"{one}, {more}" for more in _values(record, *others))


def official_figures(records: Sequence[Record], formula: Formula) -> dict[tuple[str, str], Figure | None]:
    """Every official figure of a run's records, by category and value."""
    scores = [record.official_score or 0.0 for record in records]
    counted = [formula.counts(record) for record in records]
    own = jackknifed(formula.figures, records)
    found: dict[tuple[str, str], Figure | None] = {}
    if formula.figure in (OF_ALL, OF_ANSWERED):
        found["overall", formula.figure] = mean_figure(scores, counted, [record.video for record in records])
    found |= {("figure", name): figure for name, figure in own.items()}
    for field, value, chosen in categories(records, formula.within) if formula.tables else ():
        of = [records[i].video for i in chosen]
        found[field, value] = mean_figure([scores[i] for i in chosen], [counted[i] for i in chosen], of)
    return found


def official_table(
    names: Sequence[str], runs: Sequence[Sequence[Record]], formula: Formula, confidence: float = 0.95
) -> pd.DataFrame:
    """One row for each official figure and run: its value and error, and the difference from the first run.

    Parameters
    ----------
    names : sequence of str
        One a run; the first is the reference.
    runs : sequence of sequence of Record
        The same items in the same order.
    formula : Formula
    confidence : float
        Of the interval of the difference.
    """
    found = [official_figures(records, formula) for records in runs]
    rows: list[dict[str, Any]] = []
    for category, value in found[0]:
        first = found[0][category, value]
        for name, figures in zip(names, found, strict=True):
            figure = figures.get((category, value))
            if figure is None or first is None:
                continue
            difference = figure.minus(first)
            interval = difference.interval(confidence)
            rows.append(
                {
                    "category": category,
                    "value": value,
                    "is_official": value == formula.figure,
                    "items": figure.items,
                    "videos": figure.videos,
                    "run": name,
                    "figure": figure.value,
                    "standard_error": figure.error,
                    "difference": difference.value,
                    "difference_error": difference.error,
                    "low": interval.low,
                    "high": interval.high,
                }
            )
    return pd.DataFrame(rows)
