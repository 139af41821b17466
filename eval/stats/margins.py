"""What a margin allows to claim: non-inferiority of one run to another, and how many items a comparison needs.

"Not significant" never means "equal". A claim that dropping tokens costs little needs a margin that was chosen before
the results were seen, and enough items. Knows paired answers and their videos; refuses to know records and models.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from scipy import stats

from pdrop_video.errors import ConfigError

from .bounds import paired_interval
from .intervals import Values


@dataclass(frozen=True, slots=True)
class NonInferiority:
    """Whether the second run is worse than the first by less than a margin that was chosen beforehand.

    Attributes
    ----------
    margin : float
        The largest loss that is accepted.
    bound : float
        The lower confidence bound of second minus first, one-sided.
    confidence : float
        Its one-sided level.
    shown : bool
        Whether the bound lies above ``-margin``.
    """

    margin: float
    bound: float
    confidence: float
    shown: bool


def non_inferiority(
    first: Values,
    second: Values,
    clusters: Sequence[Hashable],
    margin: float,
    *,
    confidence: float = 0.95,
) -> NonInferiority:
    """Whether `second` loses less than `margin` against `first`.

    The bound is the lower end of `paired_interval`: Student's, which counts videos, or Tango's, which does not vanish
    where the runs hardly differ. Neither alone would do: five items with five equal answers show nothing.

    Parameters
    ----------
    first, second : sequence of float
        1 where a run was right, else 0, or graded scores between; `first` is the reference.
    clusters : sequence of hashable
        The video of each item.
    margin : float
        In (0, 1), decided before the results were seen.
    confidence : float
        One-sided level.

    Raises
    ------
    ConfigError
        If the margin is out of range.
    """
    if not 0 < margin < 1:
        raise ConfigError(f"the margin is {margin}; expected a share between 0 and 1, as 0.03 for 3 points.")
    bound = paired_interval(first, second, clusters, 2 * confidence - 1).low
    return NonInferiority(margin, bound, confidence, bound > -margin)


def items_needed(
    difference: float, discordance: float, *, power: float = 0.8, alpha: float = 0.05, design_effect: float = 1.0
) -> int:
    """Items that McNemar's test needs to see a difference.

    ``(z_{1-alpha/2} sqrt(psi) + z_power sqrt(psi - delta^2))^2 / delta^2`` times the design effect, for a difference
    delta and a share psi of items on which the runs disagree.

    Parameters
    ----------
    difference : float
        Accuracy to be told apart, as 0.03.
    discordance : float
        Share of items that one run alone gets right; at least `difference`.
    power, alpha : float
        Chance to see the difference; two-sided level of the test.
    design_effect : float
        See `design_effect`.

    References
    ----------
    Connor, Biometrics 43 (1987), 207-211.

    Examples
    --------
    >>> items_needed(0.03, 0.10)
    870
    """
    if not 0 < difference <= discordance <= 1:
        raise ConfigError(
            f"a difference of {difference} with a discordance of {discordance} can't be; expected "
            "0 < difference <= discordance <= 1, since only items on which the runs disagree can make a difference."
        )
    z_alpha, z_power = stats.norm.ppf(1 - alpha / 2), stats.norm.ppf(power)
    root = z_alpha * math.sqrt(discordance) + z_power * math.sqrt(discordance - difference**2)
    return math.ceil(root**2 / difference**2 * design_effect)
