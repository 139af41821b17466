"""How sure a search is of its winner: whole videos drawn anew, since questions about one are not independent.

Knows a table of numbers, a row a candidate and a column a video; smaller is better.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import ConfigError

RESAMPLES = 2_000


@dataclass(frozen=True, slots=True)
class Uncertainty:
    """What drawing the videos anew says of each candidate.

    Attributes
    ----------
    best : int
        The candidate of the smallest mean; of equals the first.
    mean, standard_error : tuple of float
        Over videos. nan where there is one video.
    behind, behind_error : tuple of float
        How far the mean is above that of the best, and the standard error of this difference, paired by video.
    wins : tuple of float
        In which share of the resamples it is the best; equals share it. Sums to 1.
    elsewhere : float
        The mean, on the videos that a resample left out, of the candidate that won in it: what choosing so comes to on
        new videos. The best one's own mean flatters it, since it was chosen by it. nan where there is one video.
    resamples : int
    """

    best: int
    mean: tuple[float, ...]
    standard_error: tuple[float, ...]
    behind: tuple[float, ...]
    behind_error: tuple[float, ...]
    wins: tuple[float, ...]
    elsewhere: float
    resamples: int


def uncertainty(values: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0) -> Uncertainty:
    """Bootstrap of the choice of a candidate: videos are drawn with replacement, and the choice is made again.

    Parameters
    ----------
    values : array [candidates, videos]
        Each video's mean over its questions.
    resamples, seed : int

    Raises
    ------
    ConfigError
        If there is no candidate or no video, or a value is not finite.

    Examples
    --------
    The first is better on every video; the third is the first again:

    >>> found = uncertainty([[1.0, 2.0, 3.0], [2.0, 3.0, 5.0], [1.0, 2.0, 3.0]])
    >>> found.best, found.wins
    (0, (0.5, 0.0, 0.5))
    >>> round(found.behind[1], 4), round(found.behind_error[1], 4)  # differences 1, 1, 2
    (1.3333, 0.3333)
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or not table.size or not np.isfinite(table).all():
        raise ConfigError(f"values are {table.shape}; expected finite numbers [candidates, videos], one each or more.")
    candidates, videos = table.shape
    means = table.mean(1)
    best = int(means.argmin())
    wins, elsewhere, tried = np.zeros(candidates), 0.0, 0
    for draw in np.random.default_rng(seed).integers(videos, size=(resamples, videos)):
        drawn = table[:, draw].sum(1)
        winners = drawn == drawn.min()
        wins += winners / winners.sum()
        left = np.setdiff1d(np.arange(videos), draw)
        if len(left):
            elsewhere += float(table[np.ix_(winners, left)].mean())
            tried += 1
    behind = table - table[best]
    return Uncertainty(
        best,
        tuple(means.tolist()),
        _errors(table),
        tuple(behind.mean(1).tolist()),
        _errors(behind),
        tuple((wins / resamples).tolist()),
        elsewhere / tried if tried else math.nan,
        resamples,
    )


def _errors(table: NDArray[np.float64]) -> tuple[float, ...]:
    """The standard error of each row's mean."""
    videos = table.shape[1]
    if videos < 2:
        return (math.nan,) * len(table)
    return tuple((table.std(1, ddof=1) / math.sqrt(videos)).tolist())
