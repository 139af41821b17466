"""How many tokens of a segment go on, step by step. Knows whole numbers, never tokens."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise


def parts(total: int, sizes: Sequence[int]) -> list[int]:
    """A whole number in whole parts, as even shares of the sizes as can be."""
    ends = [total * end // max(sum(sizes), 1) for end in accumulate(sizes, initial=0)]
    return [end - begin for begin, end in pairwise(ends)]


def flowing(sizes: Sequence[int], left: int, quantile: float, times: int = 1) -> tuple[list[int], list[int]]:
    """Anchors of each step, and how many of them go on, where those of later steps flow into the first one's.

    Parameters
    ----------
    sizes : sequence of int
        Tokens of each step, one or more.
    left : int
        How many of all go on.
    quantile : float
        Of a later step's anchors those below it go on.
    times : int
        How often the first step's anchors go on.

    Returns
    -------
    anchors, going : list of int
        As many anchors as that quantile lets fit into `left`, the same share of each step; what then is left over goes
        to the later steps.

    Examples
    --------
    >>> flowing([25, 25, 25, 25], 18, quantile=0.3)
    ([9, 9, 9, 9], [9, 3, 3, 3])
    """
    first, *later = sizes

    def match(anchors: int) -> list[int]:
        return [min(size, -(-anchors * size // first)) for size in later]

    def need(anchors: int) -> int:
        # a quantile of n numbers stands at place (n - 1) * quantile among them, from 0
        return times * anchors + sum(math.ceil((n - 1) * quantile - 1e-9) for n in match(anchors))

    anchors = max(bisect_right(range(1, first + 1), left, key=need), 1)
    going = parts(min(max(left - times * anchors, 0), sum(later)), later)
    return [anchors, *map(max, match(anchors), going)], [anchors, *going]
