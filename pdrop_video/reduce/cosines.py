"""Cosines as whole numbers: 1 - cosine in steps of what a type can tell apart, so that no last bit decides.

Knows rows of numbers. Refuses to know what they are compared for. The grid is absolute, unlike that of `common.ties`:
two rows that are nearly one are as good as one.
"""

from __future__ import annotations

import torch
from torch import Tensor

_BITS = {torch.float64: 23, torch.float32: 17, torch.float16: 11}
_COARSE = 8
"""Bits of bfloat16: a step is an angle of five degrees from nothing, and a third of a degree at 60 degrees."""


def steps(dtype: torch.dtype) -> int:
    """Steps from a cosine of 1 to one of 0."""
    return 1 << _BITS.get(dtype, _COARSE)


def level(cosine: float, dtype: torch.dtype) -> int:
    """A threshold in steps."""
    return round((1 - cosine) * steps(dtype))


def levels(cosines: Tensor, dtype: torch.dtype) -> Tensor:
    """1 - cosines in steps, int32; of features of a type."""
    return cosines.mul(-steps(dtype)).add_(steps(dtype)).round_().int()


def inverse(rows: Tensor) -> Tensor:
    """One over the length of each row [...]; rows of zeros have a cosine of 0 to everything."""
    return 1 / rows.norm(dim=-1).clamp(min=1e-12)
