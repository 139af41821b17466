"""Confidence intervals that hold with few videos: of a mean, of a paired difference, and of any figure of the records.

Knows numbers and which video each belongs to. Refuses to know records, tasks and models.

Student's t with one degree of freedom less than videos, on errors clustered by video. Where few videos show no spread
at all that would say more than is known, so for answers that are right or wrong an interval is never narrower than the
score interval of as many independent items: Wilson's for one run, Tango's for a pair.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from pdrop_video.errors import ConfigError

from .intervals import Values, clustered_mean, mcnemar, paired


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval.

    Attributes
    ----------
    low, high : float
        nan at both ends where nothing is known of the spread.
    confidence : float
        Its two-sided level.
    """

    low: float
    high: float
    confidence: float

    def around(self, low: float, high: float) -> Interval:
        """The same interval, made so wide that it holds another one; unknown stays unknown."""
        return Interval(min(self.low, low), max(self.high, high), self.confidence)


def t_interval(value: float, error: float, clusters: int, confidence: float = 0.95) -> Interval:
    """Student's interval of a figure with an error from so many videos, with one degree of freedom less than those.

    Examples
    --------
    >>> t_interval(0.5, 0.1, 5)  # 2.776 errors to each side, where many videos would have 1.960
    Interval(low=0.22235548948843636, high=0.7776445105115636, confidence=0.95)
    """
    if clusters < 2:
        return Interval(math.nan, math.nan, confidence)
    reach = float(stats.t.ppf((1 + confidence) / 2, clusters - 1)) * error
    return Interval(value - reach, value + reach, confidence)


def mean_interval(values: Values, clusters: Sequence[Hashable], confidence: float = 0.95) -> Interval:
    """Interval of a mean of scores from 0 to 1, by videos; no narrower than Wilson's where all are 0 or 1."""
    mean = clustered_mean(values, clusters)
    found = t_interval(mean.value, mean.standard_error, mean.clusters, confidence)
    if math.isnan(found.low):
        return found
    if set(np.unique(values).tolist()) <= {0.0, 1.0}:
        found = found.around(*wilson(mean.value, mean.items, confidence))
    return Interval(max(found.low, 0.0), min(found.high, 1.0), confidence)


def paired_interval(first: Values, second: Values, clusters: Sequence[Hashable], confidence: float = 0.95) -> Interval:
    """Interval of mean(second) - mean(first), by videos; no narrower than Tango's where answers are right or wrong.

    Parameters
    ----------
    first, second : sequence of float
        Scores of the same items.
    clusters : sequence of hashable
        The video of each item.
    confidence : float
        Two-sided level.

    Returns
    -------
    Interval
        nan at both ends with fewer than two videos.
    """
    a, b = paired(first, second)
    mean = clustered_mean(b - a, clusters)
    found = t_interval(mean.value, mean.standard_error, mean.clusters, confidence)
    if math.isnan(found.low):
        return found
    if set(np.unique(b - a).tolist()) <= {-1.0, 0.0, 1.0}:
        test, side = mcnemar(a, b), (1 + confidence) / 2
        low = tango_bound(test.only_first, test.only_second, mean.items, side)
        found = found.around(low, -tango_bound(test.only_second, test.only_first, mean.items, side))
    return Interval(max(found.low, -1.0), min(found.high, 1.0), confidence)


def wilson(share: float, items: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share of independent items.

    Examples
    --------
    >>> [round(end, 4) for end in wilson(1.0, 3)]  # three right of three are no proof of all
    [0.4385, 1.0]
    """
    z = float(stats.norm.ppf((1 + confidence) / 2))
    middle, reach = share + z**2 / (2 * items), z * math.sqrt((share * (1 - share) + z**2 / (4 * items)) / items)
    return (middle - reach) / (1 + z**2 / items), (middle + reach) / (1 + z**2 / items)


def tango_bound(only_first: int, only_second: int, items: int, confidence: float = 0.95) -> float:
    """Tango's lower score bound of second minus first accuracy on paired, independent items.

    Unlike an interval by videos it stays honest where the two runs hardly differ: with no discordant item out of n it
    is ``-z^2 / (n + z^2)``, not 0.

    Parameters
    ----------
    only_first, only_second, items : int
        Items that one run alone got right; all items.
    confidence : float
        One-sided level.

    References
    ----------
    Tango, Statistics in Medicine 17 (1998), 891-908, equations 4 to 6.
    """
    if items < 1:
        raise ConfigError("there are no items to compare; expected one or more that both runs have.")
    z = float(stats.norm.ppf(confidence))

    def excess(delta: float) -> float:
        # `share` is the most likely share that the first alone gets right, were the difference `delta`
        half = (2 * items - only_second + only_first) * delta - only_second - only_first
        share = (math.sqrt(max(half**2 + 8 * items * only_first * delta * (1 - delta), 0)) - half) / (4 * items)
        spread = math.sqrt(max(items * (2 * share + delta * (1 - delta)), 0))
        return only_second - only_first - items * delta - z * spread

    # where nothing is discordant the observed difference itself is a second root that means nothing: stay below it
    below = (only_second - only_first) / items - 1e-9
    return float(optimize.brentq(excess, -1.0, below)) if below > -1 else -1.0
