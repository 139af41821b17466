"""The statistics of every table: error bars clustered by video, and paired tests.

Knows numbers and which video each belongs to. Refuses to know records, tasks and models; intervals are in
`eval.stats.bounds`, what a margin allows to claim is in `eval.stats.margins`.

All functions take plain sequences, one entry an item; `clusters` names each item's video. Questions about one video are
not independent, so everything but the exact test of McNemar counts videos, not questions.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pdrop_video.errors import ConfigError

Values: TypeAlias = Sequence[float] | NDArray[np.float64]
"""One number an item: a score, 0 or 1 for wrong and right, or a difference of two."""

RESAMPLES = 10_000
"""Most rearrangements of a permutation test."""


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean with its standard error.

    Attributes
    ----------
    value, standard_error : float
    items, clusters : int
    """

    value: float
    standard_error: float
    items: int
    clusters: int


@dataclass(frozen=True, slots=True)
class McNemar:
    """Which of two runs was right where the other was wrong.

    Attributes
    ----------
    only_first, only_second : int
        Items that one run alone got right.
    p_value : float
        Exact, two-sided. Takes items as independent.
    """

    only_first: int
    only_second: int
    p_value: float

    @property
    def corrected(self) -> float:
        """McNemar's statistic with continuity correction, (|a - b| - 1)^2 / (a + b); 0 where nothing differs."""
        apart, together = abs(self.only_first - self.only_second), self.only_first + self.only_second
        return max(apart - 1, 0) ** 2 / together if together else 0.0


def clustered_mean(values: Values, clusters: Sequence[Hashable]) -> Mean:
    """Mean and its standard error, robust to any dependence within a cluster.

    The variance is ``G / (G - 1) * sum over clusters of (sum of residuals)^2 / n^2``; with one item a cluster that is
    the usual ``s^2 / n``. With a single cluster nothing is known of the spread: the standard error is nan.

    Parameters
    ----------
    values : sequence of float
        For accuracy 0 and 1; for a paired difference -1, 0 and 1.
    clusters : sequence of hashable
        The video of each item.

    Raises
    ------
    ConfigError
        If there are no values, or the lengths differ.

    Examples
    --------
    >>> mean = clustered_mean([1, 1, 0, 1], ["a", "a", "b", "b"])  # residual sums +.5 and -.5; 2 * .5 / 16
    >>> mean.value, mean.standard_error
    (0.75, 0.25)
    """
    sums, sizes = by_cluster(values, clusters)
    mean = sums.sum() / sizes.sum()
    groups = len(sums)
    if groups < 2:
        return Mean(float(mean), math.nan, int(sizes.sum()), groups)
    variance = groups / (groups - 1) * ((sums - mean * sizes) ** 2).sum() / sizes.sum() ** 2
    return Mean(float(mean), float(np.sqrt(variance)), int(sizes.sum()), groups)


def design_effect(values: Values, clusters: Sequence[Hashable]) -> float:
    """How many times larger the clustered variance of the mean is than that of independent items; nan if unknown."""
    clustered = clustered_mean(values, clusters).standard_error
    independent = clustered_mean(values, range(len(values))).standard_error
    return (clustered / independent) ** 2 if independent else math.nan


def mcnemar(first: Values, second: Values) -> McNemar:
    """McNemar's exact test: of the items that one run alone got right, half should be the first's.

    Parameters
    ----------
    first, second : sequence of float
        1 where a run was right, else 0. With graded scores it is the sign test of which run scored more.

    Examples
    --------
    >>> mcnemar([True] * 8 + [False], [False] * 7 + [True] * 2).p_value  # 7 : 1; 2 * (1 + 8) / 2**8
    0.0703125
    """
    a, b = paired(first, second)
    only_first, only_second = int((a > b).sum()), int((b > a).sum())
    if only_first + only_second == 0:
        return McNemar(0, 0, 1.0)
    return McNemar(only_first, only_second, float(stats.binomtest(only_first, only_first + only_second).pvalue))


def permutation_test(
    measured: Values, noise: Sequence[Values], clusters: Sequence[Hashable], *, seed: int = 0
) -> float:
    """One-sided p-value that `measured` is larger than `noise` by chance alone.

    Were they alike, any column of a video's sums could have been the measured one. All rearrangements are tried where
    they are few, else `RESAMPLES` random ones. Whole videos are rearranged, so items of one may depend on each other.

    Parameters
    ----------
    measured : sequence of float
        One value an item.
    noise : sequence of sequences of float
        One or more columns of the same items.
    clusters : sequence of hashable
        The video of each item.
    seed : int

    Returns
    -------
    float
        1 with fewer than two videos, which show nothing.
    """
    if not noise:
        raise ConfigError("there is no column of noise; expected one or more.")
    columns = [by_cluster(column, clusters)[0] for column in (measured, *noise)]
    if len(columns[0]) < 2:
        return 1.0
    found = stats.permutation_test(
        columns,
        lambda first, *others, axis: first.sum(axis) - sum(other.sum(axis) for other in others) / len(others),
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=500,
        alternative="greater",
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def holm(p_values: Values) -> list[float]:
    """p-values adjusted for their number by Holm's step-down rule."""
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = running
    return adjusted


def paired(first: Values, second: Values) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two runs' scores of the same items, checked to be as many."""
    if len(first) != len(second):
        raise ConfigError(
            f"{len(first)} scores stand against {len(second)}; expected the same items in the same order."
        )
    if not len(first):
        raise ConfigError("there are no items to compare; expected one or more that both runs have.")
    return np.asarray(first, float), np.asarray(second, float)


def by_cluster(values: Values, clusters: Sequence[Hashable]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum of the values and number of the items of each cluster."""
    if len(values) != len(clusters):
        raise ConfigError(f"{len(values)} values have {len(clusters)} clusters; expected one for each.")
    if not len(values):
        raise ConfigError("there are no values; expected one or more.")
    number: dict[Hashable, int] = {}
    index = [number.setdefault(cluster, len(number)) for cluster in clusters]
    sums = np.bincount(index, np.asarray(values, float)).astype(np.float64)
    return sums, np.bincount(index).astype(np.float64)
