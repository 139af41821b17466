"""How alike tokens are, and how near to a question's words, exactly enough for both to be compared.

Knows rows of numbers. Refuses to know who stays.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..common.ties import exactly, settled, unlike


def precisely(features: Tensor) -> Tensor:
    """Features in which products are exact enough to be compared: float32 for those of sixteen bits, else float64.

    A product of two sixteen-bit numbers is a number of float32; the error of a sum is far below what such features can
    tell apart, and the cost is half.
    """
    return features.float() if features.dtype in (torch.bfloat16, torch.float16) else exactly(features)


def unit(rows: Tensor) -> Tensor:
    """Rows of length 1 [rows, hidden], as `precisely` has them; zeros stay zeros."""
    return F.normalize(precisely(rows), dim=-1)


def apart(cosine: Tensor, dtype: torch.dtype) -> Tensor:
    """1 - cosine as what states of a type can tell apart, so that equal ones are equal on every machine."""
    return settled(unlike(cosine, dtype), dtype)


def line_at(cosine: float, dtype: torch.dtype) -> Tensor:
    """A threshold as `apart` has cosines: one that is equal to it is neither above nor below."""
    return settled(torch.tensor(1 - cosine, dtype=torch.float64), dtype)


def nearest_word(features: Tensor, question: Tensor) -> Tensor:
    """Each token's largest cosine to a word of the question [tokens].

    Parameters
    ----------
    features : Tensor [tokens, hidden]
    question : Tensor [words, hidden]
        One word or more.
    """
    return (unit(features) @ unit(question.to(features)).mT).amax(-1)


def ranged(values: Tensor, group: Tensor, groups: int, dtype: torch.dtype, alike: float = 0.0) -> Tensor:
    """Values moved to [0, 1] by the smallest and the largest of their group, settled [values].

    Parameters
    ----------
    values : Tensor [values]
    group : Tensor [values], int64
        From 0 below `groups`.
    dtype : torch.dtype
        Of what the values were made of: a range that is no larger than its roundings, as a share of the group's largest
        value, is none.
    alike : float
        What all of a group without a range get.
    """
    values = exactly(values)
    low = values.new_full((groups,), torch.inf).scatter_reduce(0, group, values, "amin")
    high = values.new_full((groups,), -torch.inf).scatter_reduce(0, group, values, "amax")
    least = torch.maximum(high.abs(), low.abs()) * torch.finfo(dtype).eps
    span = (high - low)[group]
    told = span > least[group]
    moved = (values - low[group]) / span.masked_fill(~told, 1)
    return settled(moved, dtype).masked_fill(~told, alike)
