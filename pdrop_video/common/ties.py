"""Ties are broken by a rule, never by rounding: what counts as equal, and who goes first among equals.

Scores that are equal in exact arithmetic come out of a processor a last bit apart, and which way depends on its make,
its threads and where memory lies. So scores are compared after rounding to a grid that is coarser than the arithmetic's
error and finer than anything that matters, and equals go in an order that is spread evenly over time and space and
follows from a token's own place alone. Knows numbers and places; refuses to know what is scored. All of it is ours.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Bits of a score that are compared. Half a percent is noise in bfloat16, after a few layers in any case; in float64 a
# millionth is far above what any order of summation changes.
_BITS = {torch.float64: 20, torch.float32: 14, torch.float16: 8, torch.bfloat16: 6}
_SMALLEST, _LARGEST = -40, 100
"""Exponents of 2 beyond which the grid that scores are compared on grows no finer, and no coarser."""

# Fractions of 2 ** 32 that no small whole numbers make meet: the golden ratio over time, and over rows and columns the
# two numbers that generalise it to a plane (the powers of the plastic number's inverse).
_TIME, _ROW, _COLUMN = 2654435769, 3242174889, 2447445414
_CYCLE = 2**32


def exactly(states: Tensor) -> Tensor:
    """The same numbers in float64, in which sums are exact enough to be compared; in float32 on devices without it."""
    return states.to(torch.float32 if states.device.type == "mps" else torch.float64)


def working(states: Tensor) -> Tensor:
    """The same numbers in the type in which products are made of them: float32, or float64 where they are."""
    return states.to(torch.promote_types(states.dtype, torch.float32))


def grain(dtype: torch.dtype) -> float:
    """By what share of themselves scores of states of a type differ at least, if they can be told apart."""
    return 2.0 ** -_BITS.get(dtype, _BITS[torch.float32])


def settled(scores: Tensor, dtype: torch.dtype) -> Tensor:
    """Scores rounded to what states of a type can tell apart, so that ties are equal; float64 where there is such.

    Parameters
    ----------
    scores : Tensor
        Of any shape; infinities stay.
    dtype : torch.dtype
        Of the hidden states or keys that were scored: 20 binary digits count in float64, 14 in float32, 8 in float16
        and 6 in bfloat16.

    Notes
    -----
    All are multiples of powers of two, and so are their sums: those do not depend on the order of summation.
    """
    scores = exactly(scores)
    exponent = torch.frexp(scores).exponent.clamp(_SMALLEST, _LARGEST)  # of infinities it is any number
    step = torch.ldexp(torch.ones_like(scores), exponent - _BITS.get(dtype, _BITS[torch.float32]))
    return (scores / step).round_().mul_(step)


def comparable(scores: Tensor, among: Tensor, dtype: torch.dtype) -> Tensor:
    """Scores as shares of the largest among those that compete, settled: where all tie, all are 1.

    Parameters
    ----------
    scores, among : Tensor [..., rows]
        `among` is False where a row does not compete; its score does not matter.
    dtype : torch.dtype
        As for `settled`.
    """
    scores = exactly(scores).masked_fill(~among, 0)
    largest = scores.abs().amax(-1, keepdim=True)
    return settled(scores / largest.masked_fill(largest == 0, 1), dtype)


def even_grid(sums: Tensor, among: Tensor, most: Tensor, dtype: torch.dtype) -> Tensor:
    """Sums whose terms may cancel, rounded to even steps from their mean: where all tie, all are equal; float64.

    What is left where terms cancel is as noisy as they are, and `settled`, whose steps are as small as a number is,
    would tell such noise apart.

    Parameters
    ----------
    sums, among : Tensor [..., rows]
        `among` is False where a row does not compete; the mean is that of the others.
    most : Tensor [..., 1]
        What terms come to that don't cancel.
    dtype : torch.dtype
        As for `settled`, whose digits are counted from `most` here.
    """
    sums, most = exactly(sums), exactly(most)
    step = most.masked_fill(most == 0, 1) * grain(dtype)
    mean = sums.masked_fill(~among, 0).sum(-1, keepdim=True) / among.sum(-1, keepdim=True).clamp(min=1)
    return mean + ((sums - mean) / step).round() * step


def unlike(cosine: Tensor, dtype: torch.dtype) -> Tensor:
    """1 - cosine, and 0 where states of a type can't tell it from 0.

    Two roundings of one state are up to `eps` of the type apart, and 1 - cosine goes by the square of it.
    """
    change = 1 - cosine
    least = max(16 * torch.finfo(dtype).eps ** 2, 64 * torch.finfo(change.dtype).eps)
    return change.masked_fill(change < least, 0)


def spread(step: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Who goes first among equals, the smallest number first: the first n of any stretch of video are spread evenly.

    Parameters
    ----------
    step, row, column : Tensor [...], int64
        A token's step in the stream and its place in the picture. What does not depend on them, such as chunks, padding
        and the rows beside it, does not matter.

    Returns
    -------
    Tensor [...], int64
        From 0 up to 2 ** 32.
    """
    return (step * _TIME + row * _ROW + column * _COLUMN) % _CYCLE
